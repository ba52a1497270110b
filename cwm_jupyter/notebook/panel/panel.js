// The panel: draws what the kernel's Panel widget holds, and sends it what is clicked.
// All text from outside goes through textContent; nothing is ever parsed as HTML.

const LABELS = {
  clone: ["Clone as", "Clone"],
  rename: ["New name", "Rename"],
  tag: ["Tags, with spaces between", "Tag"],
  export: ["File", "Export"],
};

/** Make an element: attributes by name, `on…` as listeners, strings as text. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (typeof value === "boolean") element.toggleAttribute(key, value);
    else if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function button(label, onclick, attributes = {}) {
  return make("button", { type: "button", onclick, ...attributes }, label);
}

const count = (n) => (n === null || n === undefined ? "unavailable" : n.toLocaleString("en"));

function size(bytes) {
  if (bytes === null || bytes === undefined) return "unavailable";
  const power = bytes < 1e3 ? 0 : bytes < 1e6 ? 1 : bytes < 1e9 ? 2 : 3;
  const figure = bytes / 1000 ** power;
  return `${figure >= 100 || !power ? figure.toFixed(0) : figure.toFixed(1)} ${["B", "kB", "MB", "GB"][power]}`;
}

function age(time) {
  if (!time) return "never";
  const s = Math.max(0, (Date.now() - Date.parse(time)) / 1000);
  for (const [unit, name] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (s >= unit) return `${Math.floor(s / unit)} ${name} ago`;
  }
  return "just now";
}

/** A bar of parts, each `[class, share, label]`. */
function bar(label, parts) {
  return make(
    "span",
    { class: "cwm-bar", role: "img", "aria-label": label, title: label },
    ...parts.map(([kind, share]) =>
      make("span", { class: `cwm-part cwm-${kind}`, style: `width:${Math.max(0, share) * 100}%` }),
    ),
  );
}

function render({ model, el }) {
  const view = `${Date.now()}-${Math.random()}`;
  const ask = { text: "", sort: "-created", state: "", tag: "", offset: 0, window: "" };
  let open = null; // the row whose menu or form is open: {window, kind, value}
  let turnForm = null; // the turn to be frozen: {turn, value}
  let tab = "windows";

  const send = (message) => model.send(message);
  const look = (change) => {
    Object.assign(ask, { offset: 0 }, change);
    send({ do: "look", ...ask });
  };
  const act = (message) => {
    open = turnForm = null;
    send(message);
    draw();
  };

  // The frame, made once; what changes is drawn into its parts.
  const parts = Object.fromEntries(
    ["stack", "job", "notice", "session", "rows", "pages", "family", "turns"].map((name) => [
      name,
      make("div", { class: `cwm-${name}` }),
    ]),
  );
  parts.notice.setAttribute("role", "status");
  const searched = later((event) => look({ text: event.target.value }));
  const search = make("input", {
    type: "search",
    placeholder: "Search names, notes, tags",
    "aria-label": "Search windows",
    oninput: searched,
  });
  const states = make(
    "select",
    { "aria-label": "State", onchange: (event) => look({ state: event.target.value }) },
    ...[["", "all states"], ["intact", "intact"], ["damaged", "damaged"], ["deleted", "deleted"]].map(
      ([value, label]) => make("option", { value }, label),
    ),
  );
  const panes = {
    windows: make("div", { role: "tabpanel", id: `${view}-windows`, "aria-label": "Windows" },
      parts.session, make("div", { class: "cwm-tools" }, search, states), parts.rows, parts.pages),
    family: make("div", { role: "tabpanel", id: `${view}-family`, "aria-label": "Family and turns" },
      make("h4", {}, "Family"), parts.family, make("h4", {}, "Turns of the session"), parts.turns),
  };
  const tabs = Object.fromEntries(
    [["windows", "Windows"], ["family", "Family and turns"]].map(([name, label]) => [
      name,
      button(label, () => choose(name), { role: "tab", "aria-controls": `${view}-${name}` }),
    ]),
  );
  const tablist = make(
    "div",
    {
      role: "tablist",
      class: "cwm-tabs",
      "aria-label": "Panel",
      onkeydown: (event) => {
        if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
        choose(tab === "windows" ? "family" : "windows");
        tabs[tab].focus();
      },
    },
    ...Object.values(tabs),
  );
  const root = make("section", { class: "cwm-panel", "aria-label": "Context windows" },
    make("div", { class: "cwm-head" }, tablist, parts.stack), parts.job, parts.notice,
    panes.windows, panes.family);
  el.append(root);
  // Keys belong to the panel, not to the notebook's command mode.
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && (open || turnForm)) {
      open = turnForm = null;
      draw();
    }
    event.stopPropagation();
  });

  function choose(name) {
    tab = name;
    for (const each of Object.keys(tabs)) {
      const chosen = each === name;
      tabs[each].setAttribute("aria-selected", String(chosen));
      tabs[each].tabIndex = chosen ? 0 : -1;
      panes[each].hidden = !chosen;
    }
  }

  /** Replace a part's content; what had the focus keeps it, by its key. */
  function fill(part, ...children) {
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const key = focused?.dataset.key;
    const range = focused?.matches("input[type=text]") ? [focused.value, focused.selectionStart] : null;
    part.replaceChildren(...children.filter(Boolean));
    const again = key && part.querySelector(`[data-key="${CSS.escape(key)}"]`);
    if (again) {
      again.focus();
      if (range) {
        again.value = range[0];
        again.setSelectionRange(range[1], range[1]);
      }
    }
  }

  function drawStack() {
    const { phase = "down", model: served } = model.get("stack") ?? {};
    const said = phase === "down" ? "no stack: %cwm up" : `${served ?? "stack"}, ${phase}`;
    fill(parts.stack, make("span", { class: `cwm-dot cwm-is-${phase}` }), said);
  }

  function drawJob() {
    const job = model.get("job");
    if (!job) return fill(parts.job);
    const known = job.total ? { max: job.total, value: Math.min(job.done, job.total) } : {};
    const amount = job.total && job.unit === "bytes" ? `${size(job.done)} of ${size(job.total)}`
      : job.total ? `${count(job.done)} of ${count(job.total)} ${job.unit}` : "";
    const said = [job.what, job.stage, amount].filter(Boolean).join(" · ");
    fill(parts.job,
      make("progress", { ...known, "aria-label": said }), make("span", {}, said),
      button("Cancel", () => send({ do: "cancel" }), { "data-key": "cancel" }));
  }

  function drawNotice() {
    const notice = model.get("notice");
    if (!notice) return fill(parts.notice);
    parts.notice.dataset.kind = notice.kind;
    fill(parts.notice,
      make("span", {}, notice.text),
      notice.undo ? button("Undo", () => act({ do: "undo", window: notice.undo })) : null,
      button("×", () => { fill(parts.notice); }, { "aria-label": "Dismiss" }));
  }

  function drawSession() {
    const session = model.get("session");
    const { sessions = [] } = model.get("listing") ?? {};
    const chooser = make(
      "select",
      {
        "aria-label": "Session",
        "data-key": "session",
        onchange: (event) => act({ do: "use", session: event.target.value }),
      },
      ...[...new Set([...(session ? [session.name] : []), ...sessions])].map((name) =>
        make("option", { value: name, selected: name === session?.name }, name)),
    );
    if (!session) {
      return fill(parts.session, sessions.length ? chooser : null,
        make("span", {}, "Nothing was said in this notebook yet: begin a cell with %%cwm."));
    }
    if (session.problem) return fill(parts.session, chooser, make("span", {}, session.problem));
    const limit = session.max_context_tokens;
    const used = limit ? session.tokens / limit : 0;
    const said = limit
      ? `${count(session.tokens)} of ${count(limit)} tokens (${Math.round(used * 100)} %)`
      : `${count(session.tokens)} tokens`;
    const last = session.turns.at(-1);
    const hit = last && last.cached_tokens !== null
      ? `; last prompt: ${count(last.cached_tokens)} of ${count(last.prompt_tokens)} from cache` : "";
    const name = make("input", {
      type: "text", placeholder: "name of the window", "aria-label": "Name of the window",
      "data-key": "freeze-name", maxlength: 128, required: true,
    });
    fill(parts.session,
      chooser, make("span", { class: "cwm-state" }, session.state),
      make("meter", {
        min: 0, max: 1, low: 0.7, high: 0.9, optimum: 0.2, value: used,
        "aria-label": `Context used: ${said}`,
      }),
      make("span", {}, said + hit),
      make("form", {
        onsubmit: (event) => {
          event.preventDefault();
          const wanted = name.value;
          name.value = "";
          act({ do: "freeze", name: wanted, session: session.name });
        },
      }, name, make("button", { type: "submit", disabled: !session.turns.length }, "Freeze")));
  }

  const COLUMNS = [["name", "Window"], ["tokens", "Tokens"], ["bytes", "Size"], ["created", "Frozen"],
    [null, "Tags"], [null, "Note"], [null, "Actions"]];

  function drawRows() {
    const { windows = [], total = 0, offset = 0 } = model.get("listing") ?? {};
    const head = make("tr", {}, ...COLUMNS.map(([key, label]) => {
      if (!key) return make("th", { scope: "col" }, label);
      const down = ask.sort === `-${key}`, up = ask.sort === key;
      return make("th", { scope: "col", "aria-sort": down ? "descending" : up ? "ascending" : "none" },
        button(`${label}${down ? " ▾" : up ? " ▴" : ""}`,
          () => look({ sort: down ? key : `-${key}` }), { "data-key": `sort-${key}` }));
    }));
    const rows = windows.flatMap((window) => {
      const row = drawRow(window);
      return open?.window === window.name && open.kind ? [row, drawForm(window)] : [row];
    });
    const asked = ask.text || ask.state || ask.tag;
    fill(parts.rows, total
      ? make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))
      : make("p", { class: "cwm-empty" }, asked ? "No window is like that."
        : "No windows yet. Talk with %%cwm, then give this state a name and freeze it."));
    const more = offset + windows.length < total;
    fill(parts.pages,
      ask.tag ? button(`tag: ${ask.tag} ×`, () => look({ tag: "" })) : null,
      total > windows.length ? make("span", {}, `${count(offset + 1)} to ${count(offset + windows.length)} of ${count(total)}`) : null,
      offset ? button("Earlier", () => look({ offset: Math.max(0, offset - windows.length) })) : null,
      more ? button("Later", () => look({ offset: offset + windows.length })) : null);
  }

  function drawRow(window) {
    const { name } = window;
    const key = (what) => ({ "data-key": `${what}-${name}` });
    const gone = window.state === "deleted";
    const actions = gone
      ? [button("Undo", () => act({ do: "undo", window: name }), key("undo"))]
      : [
        button("Thaw", () => act({ do: "thaw", window: name }), { class: "cwm-main", ...key("thaw") }),
        button("⋯", () => show(open?.window === name ? null : { window: name, kind: "menu" }), {
          "aria-label": `More for ${name}`, "aria-expanded": String(open?.window === name), ...key("more"),
        }),
      ];
    return make("tr", { class: `cwm-row cwm-${window.state}` },
      make("th", { scope: "row" },
        button(name, () => { look({ window: name }); choose("family"); },
          { class: "cwm-link", title: "Show its family", ...key("name") }),
        window.pinned ? make("span", { title: "pinned" }, " 📌") : null,
        window.state === "intact" ? null : make("span", { class: "cwm-state" }, ` ${window.state}`)),
      make("td", { class: "cwm-figure" }, count(window.tokens)),
      make("td", { class: "cwm-figure" }, size(window.size_bytes)),
      make("td", { title: window.created_at }, age(window.created_at)),
      make("td", {}, ...window.tags.map((tag) =>
        button(tag, () => look({ tag }), { class: "cwm-tag", title: `Only those with ${tag}` }))),
      make("td", { class: "cwm-note", title: window.note }, window.note),
      make("td", { class: "cwm-actions" }, ...actions));
  }

  /** Open a row's menu or form, or close it. */
  function show(what) {
    open = what;
    drawRows();
    parts.rows.querySelector(".cwm-form :is(input, button)")?.focus();
  }

  function drawForm(window) {
    const { name, tags } = window;
    const cell = (...children) =>
      make("tr", { class: "cwm-form" }, make("td", { colspan: COLUMNS.length }, ...children));
    const leave = button("Cancel", () => show(null));
    if (open.kind === "menu") {
      const begins = { clone: "", rename: name, tag: tags.join(" "), export: `${name}.cwm`, delete: "" };
      return cell(...Object.entries(begins).map(([kind, value]) =>
        button(kind[0].toUpperCase() + kind.slice(1), () => show({ window: name, kind, value }), { "data-key": kind })));
    }
    if (open.kind === "delete") {
      return cell(make("span", {}, `Delete ${name}? It can be brought back until it is purged. `),
        button("Delete", () => act({ do: "delete", window: name }), { class: "cwm-main", "data-key": "sure" }),
        leave);
    }
    const [label, verb] = LABELS[open.kind];
    const input = make("input", {
      type: "text", value: open.value, "aria-label": `${label}, for ${name}`, placeholder: label,
      "data-key": "form", oninput: (event) => { open.value = event.target.value; },
    });
    const submit = (event) => {
      event.preventDefault();
      const value = input.value.trim();
      if (open.kind === "tag") {
        const wanted = value.split(/[\s,]+/).filter(Boolean);
        act({ do: "tag", window: name, add: wanted.filter((t) => !tags.includes(t)),
          remove: tags.filter((t) => !wanted.includes(t)) });
      } else {
        act({ do: open.kind, window: name, [open.kind === "export" ? "file" : "name"]: value });
      }
    };
    return cell(make("form", { onsubmit: submit }, make("label", {}, `${label}: `, input),
      make("button", { type: "submit", class: "cwm-main" }, verb), leave));
  }

  function drawFamily() {
    const { nodes = [], total = 0, offset = 0 } = model.get("family") ?? {};
    if (!nodes.length) return fill(parts.family, make("p", { class: "cwm-empty" }, "No windows yet."));
    fill(parts.family, make("ul", { class: "cwm-tree" }, ...nodes.map((node) =>
      make("li", { style: `--level:${node.level}`, class: node.name === ask.window ? "cwm-chosen" : null },
        node.name === null ? make("span", { class: "cwm-empty" }, "purged")
          : button(node.name, () => look({ window: node.name }), { class: "cwm-link", "data-key": `node-${node.window_id}` }),
        make("span", {}, node.name === null ? "" : ` ${count(node.turns)} ${node.turns === 1 ? "turn" : "turns"}, ${count(node.tokens)} tokens, ${size(node.own_bytes)} own, ${size(node.shared_bytes)} shared`),
        node.state === "intact" || node.state === "gone" ? null : make("span", { class: "cwm-state" }, ` ${node.state}`)))),
    total > nodes.length
      ? make("p", { class: "cwm-empty" }, `${count(offset + 1)} to ${count(offset + nodes.length)} of ${count(total)}; choose a window to see those around it.`)
      : null);
    const list = parts.family.querySelector(".cwm-tree"), chosen = list.querySelector(".cwm-chosen");
    if (chosen) list.scrollTop = chosen.offsetTop - list.offsetTop - list.clientHeight / 2;
  }

  function drawTurns() {
    const session = model.get("session");
    if (!session?.turns?.length) return fill(parts.turns, make("p", { class: "cwm-empty" }, "Nothing was said yet."));
    const longest = Math.max(...session.turns.map((turn) => turn.end_tokens));
    fill(parts.turns, make("ol", { class: "cwm-turn-list" }, ...session.turns.flatMap((turn) => {
      const cached = turn.cached_tokens, told = cached === null ? "cache not told" : `${count(cached)} from cache, ${count(turn.prompt_tokens - cached)} computed`;
      const said = `Turn ${turn.number}: ${told}, ${count(turn.end_tokens - turn.prompt_tokens)} answered`;
      const item = make("li", {},
        bar(said, [["hit", (cached ?? 0) / longest], [cached === null ? "untold" : "computed", (turn.prompt_tokens - (cached ?? 0)) / longest],
          ["answered", (turn.end_tokens - turn.prompt_tokens) / longest]]),
        make("span", { class: "cwm-said" }, make("b", {}, turn.question), ` ${turn.answer}`),
        make("span", { class: "cwm-empty" }, `${told}; ends at token ${count(turn.end_tokens)}`),
        make("span", { class: "cwm-actions" },
          button("Go back here", () => act({ do: "rewind", session: session.name, turn: turn.number }), { "data-key": `back-${turn.number}` }),
          button("Freeze here", () => {
            turnForm = turnForm?.turn === turn.number ? null : { turn: turn.number };
            drawTurns();
            parts.turns.querySelector(".cwm-form input")?.focus();
          }, { "data-key": `here-${turn.number}` })));
      if (turnForm?.turn !== turn.number) return [item];
      const input = make("input", { type: "text", placeholder: "name of the window", "aria-label": `Name of the window at turn ${turn.number}`, "data-key": "turn-name", required: true });
      const last = turn.number === session.turns.length;
      return [item, make("li", { class: "cwm-form" }, make("form", {
        onsubmit: (event) => {
          event.preventDefault();
          act(last ? { do: "freeze", session: session.name, name: input.value }
            : { do: "freeze-turn", session: session.name, turn: turn.number, name: input.value });
        },
      }, input, make("button", { type: "submit", class: "cwm-main" }, "Freeze")))];
    })));
  }

  function draw() {
    drawStack(); drawJob(); drawNotice(); drawSession(); drawRows(); drawFamily(); drawTurns();
  }

  const listeners = {
    "change:stack": drawStack,
    "change:job": drawJob,
    "change:notice": drawNotice,
    "change:listing": () => { drawSession(); drawRows(); },
    "change:session": () => { drawSession(); drawTurns(); },
    "change:family": drawFamily,
  };
  for (const [event, listener] of Object.entries(listeners)) model.on(event, listener);

  // The kernel looks for changes only while somebody sees the panel.
  let seen = null;
  const tell = (visible) => {
    if (visible === seen) return;
    seen = visible;
    send({ do: visible ? "open" : "hide", view });
  };
  let onScreen = false;
  const watcher = new IntersectionObserver((entries) => {
    onScreen = entries.at(-1).isIntersecting;
    tell(onScreen && !document.hidden);
  });
  watcher.observe(root);
  const hidden = () => tell(onScreen && !document.hidden);
  document.addEventListener("visibilitychange", hidden);

  choose("windows");
  draw();
  return () => {
    searched.stop();
    watcher.disconnect();
    document.removeEventListener("visibilitychange", hidden);
    for (const [event, listener] of Object.entries(listeners)) model.off(event, listener);
    try { tell(false); } catch { /* the kernel is gone */ }
    // What shows widgets keeps an element for longer than it is seen: let it be an empty one.
    for (const part of Object.values(parts)) part.replaceChildren();
    root.remove();
  };
}

/** Call a function once it was not called for a moment: typing asks once, not at each letter. */
function later(call, delay = 250) {
  let timer;
  const wait = (event) => {
    wait.stop();
    timer = setTimeout(() => call(event), delay);
  };
  wait.stop = () => clearTimeout(timer);
  return wait;
}

export default { render };

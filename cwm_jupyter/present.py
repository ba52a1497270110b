"""How every value looks: `text` for terminals and static notebooks, `html` for live ones.

Both draw the same `blocks`, so they say the same. A value of another package part can bring a form
of its own: ``text.register(Kind)``.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Sequence
from html import escape
from typing import Any

from cwm_jupyter.core.models import (
    Fingerprint,
    FreezePlan,
    FreezeReport,
    Message,
    Page,
    ProbeResult,
    Reply,
    Session,
    SessionStatus,
    ThawReport,
    Turn,
    Value,
    Window,
    WindowStatus,
)
from cwm_jupyter.errors import CWMError
from cwm_jupyter.layout import Block, Facts, Line, Prose, Table, draw_html, draw_text
from cwm_jupyter.present_upkeep import FORMS
from cwm_jupyter.stack.state import StackState, StackStatus
from cwm_jupyter.units import age, count, megabytes, nats, seconds

__all__ = ["LogLines", "blocks", "footer", "has_form", "html", "megabytes", "seconds", "text"]

_EXCERPT = 88
_DIGEST = 12


class LogLines(Value, frozen=True, kw_only=True):
    """The last lines of a server's log."""

    part: str
    lines: list[str]


@functools.singledispatch
def text(value: Any) -> str:
    """Return a value as plain text, without a newline at the end."""
    return draw_text(blocks(value))


@functools.singledispatch
def html(value: Any) -> str:
    """Return a value as an HTML fragment; everything that a user or the model wrote is escaped."""
    own = text.dispatch(type(value))
    if own is not text.dispatch(object):
        return f'<pre style="background:transparent">{escape(own(value))}</pre>'
    return draw_html(blocks(value))


@functools.singledispatch
def blocks(value: Any) -> list[Block]:
    """Return what a value looks like, see `cwm_jupyter.layout`."""
    return [Prose(value if isinstance(value, str) else repr(value))]


def has_form(value: object) -> bool:
    """Return whether a value has a form of its own, and not just its repr."""
    return any(form.dispatch(type(value)) is not form.dispatch(object) for form in (blocks, text))


def footer(reply: Reply) -> str:
    """Return the line under an answer: what it cost."""
    parts = [
        f"tokens in {count(reply.prompt_tokens)}",
        f"from cache {count(reply.cached_tokens)}",
        f"first token {seconds(reply.ttft_s)}",
        f"{count(reply.generated_tokens)} tokens out",
    ]
    if reply.finish_reason == "length":
        parts.append("cut at its longest")
    return " · ".join(parts)


# --- reports --------------------------------------------------------------------------------------


@blocks.register
def _reply(reply: Reply) -> list[Block]:
    return [Prose(reply.text), Line(footer(reply), faint=True)]


@blocks.register
def _freeze_plan(plan: FreezePlan) -> list[Block]:
    stored = ""
    if plan.already_stored_bytes:
        stored = f", {megabytes(plan.already_stored_bytes)} of it stored already"
    size = "size unavailable" if plan.size_bytes is None else megabytes(plan.size_bytes)
    return [
        Line(
            f"Freezing {plan.session}: {count(plan.tokens)} tokens, {_chunks(plan.chunks)} "
            f"({size}{stored}){_tail(plan.tail_tokens)}"
        )
    ]


@blocks.register
def _freeze_report(report: FreezeReport) -> list[Block]:
    window = report.window
    return [
        Line(
            f"Froze {report.session} as {window.name}: {count(window.tokens)} tokens, "
            f"{_chunks(window.chunks)} ({megabytes(window.size_bytes)}: "
            f"{megabytes(report.newly_stored_bytes)} new, "
            f"{megabytes(report.already_stored_bytes)} stored already)"
            f"{_tail(report.tail_tokens)}; {_proof(window)}; "
            f"{seconds(report.commit_s)}, probe {seconds(report.probe_s)}"
        )
    ]


@blocks.register
def _thaw_report(report: ThawReport) -> list[Block]:
    lines: list[Block] = [Line(_thawed(report), loud=not (report.complete or report.recompute))]
    if not (report.complete or report.recompute):
        lines.append(
            Line(
                f"{_chunk_trouble(report)}. The session {report.session} is right to use: what was "
                "missing was computed anew, which is not bit-equal to what was frozen."
            )
        )
    elif report.chunks_recomputed:
        lines.append(
            Line(
                f"{_chunks(report.chunks_recomputed)} had been computed anew since the freeze: "
                "right, but not bit-equal to what was frozen."
            )
        )
    lines += [Line(f"Accepted: {difference}.") for difference in report.accepted_differences]
    return lines


def _thawed(report: ThawReport) -> str:
    end = f"{_probe(report.probe)}; {seconds(report.restore_s)}"
    into = f"{report.window} into session {report.session}"
    cached, expected = count(report.cached_tokens), count(report.expected_cached_tokens)
    if report.recompute:
        return f"Recomputed {into}: {count(report.tokens)} tokens computed anew; {end}"
    if not report.complete and report.cached_tokens is None:
        return f"RESTORED, BUT NOT MEASURED: tokens from cache unavailable. Thawed {into}; {end}"
    if not report.complete:
        return f"RESTORED ONLY {cached} of {expected} tokens from cache. Thawed {into}; {end}"
    intact = "all intact" if not report.chunks_recomputed else "all there"
    return (
        f"Thawed {into}: {cached} of {count(report.tokens)} tokens from cache "
        f"({_chunks(report.chunks_expected)}, {megabytes(report.size_bytes)}, {intact}), "
        f"tail of {count(report.tokens - report.expected_cached_tokens)} computed; {end}"
    )


def _chunk_trouble(report: ThawReport) -> str:
    found = [
        f"{number} {what}"
        for number, what in ((report.chunks_missing, "missing"), (report.chunks_corrupt, "corrupt"))
        if number
    ]
    if not found and report.cached_tokens is None:
        return f"All {_chunks(report.chunks_expected)} were found, but the engine did not tell more"
    if not found:
        return f"All {_chunks(report.chunks_expected)} were found, but the engine did not take them"
    return f"Of {_chunks(report.chunks_expected)}, {' and '.join(found)}"


def _probe(probe: ProbeResult) -> str:
    again = ", asked twice" if probe.repeated else ""
    difference = nats(probe.max_abs_logprob_diff)
    if not probe.passed:
        return f"PROBE DIFFERS by {difference} ({nats(probe.tolerance)} allowed){again}"
    if probe.max_abs_logprob_diff == 0:
        return f"probe equal to the bit{again}"
    return f"probe within {difference} ({nats(probe.tolerance)} allowed){again}"


def _proof(window: Window) -> str:
    if window.proof.level == "verified":
        return "all verified on disk"
    return "all present in the remote store, whose files cannot be read from here"


def _tail(tokens: int) -> str:
    return f", tail of {count(tokens)} kept as tokens" if tokens else ""


def _chunks(number: int) -> str:
    return f"{count(number)} chunk{'' if number == 1 else 's'}"


def _turns(number: int) -> str:
    return f"{count(number)} turn{'' if number == 1 else 's'}"


# --- sessions and windows -------------------------------------------------------------------------


@blocks.register
def _session(session: Session) -> list[Block]:
    return [
        Line(
            f"Session {session.name}, {session.state}: {_turns(session.turns)}, "
            f"{count(session.tokens)} tokens{_of_context(session)}, {session.model}; "
            f"last used {age(session.updated_at)}"
        )
    ]


@blocks.register
def _window(window: Window) -> list[Block]:
    lines: list[Block] = [
        Line(
            f"Window {window.name}, {window.state}: {_turns(window.turns)}, "
            f"{count(window.tokens)} tokens, {_chunks(window.chunks)} "
            f"({megabytes(window.size_bytes)}), {window.model}; frozen {age(window.created_at)}"
        )
    ]
    if window.state == "deleted":
        lines.append(
            Line(f"Bring it back with: cwm rm --undo {shlex.quote(window.name)}", faint=True)
        )
    return lines


@blocks.register
def _page(page: Page) -> list[Block]:
    if not page.items:
        return [
            Line("There are none." if not page.total else f"None of {page.total} on this page.")
        ]
    table = (_window_table if isinstance(page.items[0], Window) else _session_table)(page.items)
    if len(page.items) == page.total:
        return [table]
    last = page.offset + len(page.items)
    return [table, Line(f"{page.offset + 1} to {last} of {page.total}", faint=True)]


def _window_table(windows: Sequence[Window]) -> Table:
    return Table(
        ("WINDOW", "STATE", "TOKENS", "SIZE", "FROZEN", "TAGS", "NOTE"),
        [
            (
                w.name,
                w.state,
                count(w.tokens),
                megabytes(w.size_bytes),
                age(w.created_at),
                " ".join(w.tags),
                _excerpt(w.note, 40),
            )
            for w in windows
        ],
        frozenset({2, 3}),
    )


def _session_table(sessions: Sequence[Session]) -> Table:
    return Table(
        ("SESSION", "STATE", "TURNS", "TOKENS", "USED", "MODEL"),
        [
            (s.name, s.state, count(s.turns), count(s.tokens), age(s.updated_at), s.model)
            for s in sessions
        ],
        frozenset({2, 3}),
    )


@blocks.register
def _session_status(status: SessionStatus) -> list[Block]:
    session = status.session
    pairs = [
        ("session", f"{session.name}, {session.state}"),
        ("model", session.model),
        ("tokens", f"{count(session.tokens)}{_of_context(session)}"),
        ("begun", age(session.created_at)),
        ("last used", age(session.updated_at)),
        ("tags", " ".join(session.tags)),
    ]
    return [_facts(pairs), *_conversation(status.turns, status.messages)]


@blocks.register
def _window_status(status: WindowStatus) -> list[Block]:
    window = status.window
    present = count(status.chunks_present)
    pairs = [
        ("window", f"{window.name}, {window.state}"),
        ("note", window.note),
        ("tags", " ".join(window.tags)),
        ("model", window.model),
        ("frozen", age(window.created_at)),
        ("last thawed", age(window.used_at) if window.used_at else "never"),
        ("tokens", count(window.tokens)),
        ("chunks", f"{count(window.chunks)} of {window.chunk_tokens} tokens, {present} present"),
        ("size", megabytes(window.size_bytes)),
        ("proof", f"{_proof(window)}, {age(window.proof.checked_at)}"),
        ("probe", f"{len(status.probe.token_ids)} likeliest tokens noted"),
        ("parent", status.parent or ""),
        ("children", ", ".join(status.children)),
        *_engine(status.fingerprint),
    ]
    return [_facts(pairs), *_conversation(status.turns, status.messages)]


def _of_context(session: Session) -> str:
    if session.max_context_tokens is None:
        return ""
    return f" of {count(session.max_context_tokens)}"


def _engine(fingerprint: Fingerprint) -> list[tuple[str, str]]:
    pairs = []
    for label, fields in (("layout", fingerprint.layout), ("numeric", fingerprint.numeric)):
        known = [f"{name} {_short(v)}" for name, v in fields.items() if v is not None]
        unknown = [name for name, value in fields.items() if value is None]
        pairs.append((label, ", ".join(known)))
        pairs.append((f"{label}, unknown", ", ".join(unknown)))
    return pairs


def _short(value: object) -> str:
    """Return a fingerprint's field; digests by their beginning."""
    shown = str(value)
    return shown if len(shown) < 32 else f"{shown[:_DIGEST]}…"


def _conversation(turns: Sequence[Turn], messages: Sequence[Message]) -> list[Block]:
    shown: list[Block] = []
    if turns:
        rows = [
            (
                str(turn.number),
                count(turn.prompt_end),
                count(turn.cached_tokens),
                seconds(turn.ttft_s),
                count(turn.end - turn.prompt_end),
                turn.finish_reason,
            )
            for turn in turns
        ]
        header = ("TURN", "TOKENS IN", "FROM CACHE", "FIRST TOKEN", "TOKENS OUT", "ENDED BY")
        shown += [Line(""), Table(header, rows, frozenset({0, 1, 2, 3, 4}))]
    if messages:
        said = [(m.role, _excerpt(m.content, _EXCERPT)) for m in messages]
        shown += [Line(""), Facts(said)]
    return shown


def _facts(pairs: Sequence[tuple[str, str]]) -> Facts:
    return Facts([pair for pair in pairs if pair[1]])


def _excerpt(content: str, length: int) -> str:
    line = " ".join(content.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


# --- the stack ------------------------------------------------------------------------------------


@blocks.register
def _stack_state(state: StackState) -> list[Block]:
    if state.kind == "remote":
        keeper = state.lmcache_url or "none, so nothing can be frozen"
        said = f"Connected to {state.engine_url}: {state.served_model}; LMCache: {keeper}"
    elif state.already_running:
        said = f"The stack is running already: {state.served_model} at {state.engine_url}"
    else:
        took = seconds(sum(state.stages_s.values()) or None)
        said = f"The stack is ready: {state.served_model} at {state.engine_url}; {took}"
    return [Line(said)]


@blocks.register
def _stack_status(status: StackStatus) -> list[Block]:
    if status.phase == "down":
        return [Line("No stack is running. Start it with: cwm up")]
    model = status.model or "model unavailable"
    size = (
        f"chunks of {status.chunk_tokens} tokens" if status.chunk_tokens else "chunk size unknown"
    )
    loud = status.phase == "degraded"
    phase = "DEGRADED: a server is dead or does not answer" if loud else status.phase
    rows = [
        (
            part.name,
            part.phase,
            age(part.since) if part.since else "",
            megabytes(part.memory_bytes),
            "" if part.pid is None else str(part.pid),
            part.url or "",
        )
        for part in status.parts
    ]
    shown: list[Block] = [
        Line(f"The {status.kind} stack is {phase}; {model}, {size}", loud=loud),
    ]
    if rows:
        header = ("SERVER", "IS", "SINCE", "MEMORY", "PID", "URL")
        shown.append(Table(header, rows, frozenset({3, 4})))
    if status.store_dir:
        shown.append(Line(f"Chunks are kept in {status.store_dir}", faint=True))
    return shown


@blocks.register
def _log_lines(log: LogLines) -> list[Block]:
    return [Prose("\n".join(log.lines))]


@blocks.register
def _findings(findings: list) -> list[Block]:  # type: ignore[type-arg]  # of Finding: see singledispatch
    pairs: list[tuple[str, str]] = []
    for finding in findings:
        level = "ERROR" if finding.level == "error" else finding.level
        pairs.append((level, finding.what))
        if finding.level != "ok" and finding.hint:
            pairs.append(("", finding.hint))
    errors, warnings = (sum(f.level == level for f in findings) for level in ("error", "warn"))
    if not errors + warnings:
        return [Facts(pairs), Line("All is well.")]
    said = f"{errors} error{'' if errors == 1 else 's'}, "
    return [Facts(pairs), Line(f"{said}{warnings} warning{'' if warnings == 1 else 's'}")]


# --- errors ---------------------------------------------------------------------------------------


@blocks.register
def _error(error: CWMError) -> list[Block]:
    said = " ".join(error.message.split())
    lines: list[Block] = [Line(f"{said} [{error.code}]", loud=True)]
    return [*lines, Line(error.hint)] if error.hint else lines


for _kind, _form in FORMS.items():
    blocks.register(_kind, _form)

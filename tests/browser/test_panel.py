"""The panel in a real browser, in JupyterLab and Notebook 7, on the real stack."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import pytest
from browser.lab import Lab, shoot
from entries import make_session, make_window
from playwright.sync_api import Page, expect

from cwm_jupyter.config import Settings
from cwm_jupyter.core.library import Library
from cwm_jupyter.stack.state import StackState

pytestmark = pytest.mark.stack

_PATIENCE_MS = 90_000


def talk(session: str) -> str:
    """A cell that says something in a session, and shows the panel for it."""
    return (
        "import argparse\n"
        "from pathlib import Path\n"
        "import cwm_jupyter as cwm\n"
        "from cwm_jupyter.current import shared\n"
        f"shared.use({session!r})\n"
        "text = Path(argparse.__file__).read_text()[:2500]\n"
        f"said = cwm.session({session!r}).say(text + ' What is this?', max_tokens=16)\n"
        "cwm.panel()"
    )


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"clicks-{uuid.uuid4().hex[:8]}"


def told(page: Page, words: str) -> None:
    expect(page.locator(".cwm-notice").first).to_contain_text(words, timeout=_PATIENCE_MS)


def test_freeze_thaw_clone_and_delete_by_clicks(
    stack: StackState, stack_settings: Settings, lab: Lab, page: Page, name: str
) -> None:
    index = Library(stack_settings.home).index
    lab.notebook(f"{name}.ipynb", talk(name))
    lab.open(page, f"{name}.ipynb")
    lab.command(page, "notebook:run-all-cells")
    panel = page.locator(".cwm-panel")
    panel.get_by_label("Name of the window", exact=True).fill(name)
    panel.get_by_label("Name of the window", exact=True).press("Enter")
    told(page, f"Froze {name} as {name}")
    assert index.require_window(name).proof.level == "verified"

    panel.get_by_label("Search windows").fill(name)
    row = panel.get_by_role("row").filter(has_text=name)
    expect(row).to_have_count(1)
    shoot(page, "panel-light")
    row.get_by_role("button", name="Thaw").click()
    told(page, f"Thawed {name} into session")
    assert index.require_window(name).last_thaws[0].complete

    row.get_by_label(f"More for {name}").click()
    panel.get_by_role("button", name="Clone", exact=True).click()
    panel.get_by_label(f"Clone as, for {name}").fill(f"{name}-twin")
    panel.get_by_label(f"Clone as, for {name}").press("Enter")
    told(page, f"Cloned as {name}-twin")
    expect(row).to_have_count(2)

    panel.get_by_label(f"More for {name}-twin").click()
    panel.get_by_role("button", name="Delete", exact=True).click()
    expect(panel).to_contain_text(f"Delete {name}-twin?")
    panel.locator("[data-key=sure]").click()
    told(page, f"Deleted {name}-twin")
    expect(row).to_have_count(1)
    assert index.find_window(f"{name}-twin") is None
    panel.get_by_role("button", name="Undo").click()
    told(page, f"{name}-twin is back")

    page.evaluate(
        "() => void window.jupyterapp.commands.execute("
        "'apputils:change-theme', {theme: 'JupyterLab Dark'})"
    )
    panel.get_by_role("tab", name="Family and turns").click()
    expect(panel.locator(".cwm-tree")).to_contain_text(f"{name}-twin")
    expect(panel.locator(".cwm-turn-list > li")).to_have_count(1)
    page.wait_for_timeout(1000)  # the theme fades in
    shoot(page, "panel-dark")


def test_the_keyboard_alone_and_what_others_do(
    stack: StackState, stack_settings: Settings, lab: Lab, page: Page, name: str
) -> None:
    lab.notebook(f"{name}.ipynb", talk(name))
    lab.open(page, f"{name}.ipynb")
    lab.command(page, "notebook:run-all-cells")
    panel = page.locator(".cwm-panel")
    first = panel.get_by_role("tab", name="Windows")
    first.focus()
    page.keyboard.press("ArrowRight")
    second = panel.get_by_role("tab", name="Family and turns")
    expect(second).to_be_focused()
    expect(second).to_have_attribute("aria-selected", "true")
    panel.get_by_role("button", name="Freeze here").focus()
    page.keyboard.press("Enter")
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    told(page, f"Froze {name} as {name}")
    # Another program renames it: the panel follows.
    index = Library(stack_settings.home).index
    window = index.require_window(name)
    index.update_window(window.id, lambda w: w.replace(name=f"{name}-moved"))
    expect(panel.locator(".cwm-tree")).to_contain_text(f"{name}-moved", timeout=_PATIENCE_MS)


def test_notebook_7_has_the_same_panel(stack: StackState, lab: Lab, page: Page, name: str) -> None:
    lab.notebook(f"{name}.ipynb", talk(name))
    lab.open(page, f"{name}.ipynb", place="notebooks")
    lab.command(page, "notebook:run-all-cells")
    panel = page.locator(".cwm-panel")
    expect(panel.get_by_label("Session", exact=True)).to_have_value(name, timeout=_PATIENCE_MS)
    expect(panel.get_by_role("meter")).to_be_visible()
    page.set_viewport_size({"width": 420, "height": 900})
    page.wait_for_timeout(500)
    shoot(page, "panel-notebook-narrow")


def test_a_closed_panel_leaves_nothing_in_the_page(lab: Lab, page: Page, name: str) -> None:
    page.add_init_script(
        """
        window.hearing = 0;
        for (const [name, step] of [["addEventListener", 1], ["removeEventListener", -1]]) {
            const original = document[name].bind(document);
            document[name] = (event, ...others) => {
                if (event === "visibilitychange") window.hearing += step;
                return original(event, ...others);
            };
        }
        """
    )
    opens = "import cwm_jupyter as cwm\npanels = [cwm.panel() for _ in range(5)]\ndisplay(*panels)"
    lab.notebook(f"{name}.ipynb", opens, "for panel in panels: panel.close()")
    lab.open(page, f"{name}.ipynb")
    before = page.evaluate("window.hearing")
    lab.command(page, "notebook:run-cell-and-select-next")
    panels = page.locator(".cwm-panel")
    expect(panels).to_have_count(5, timeout=_PATIENCE_MS)
    assert page.evaluate("window.hearing") == before + 5
    # What shows widgets keeps the element in which a panel was.
    page.evaluate(
        "() => { window.kept = [...document.querySelectorAll('.cwm-panel')]"
        ".flatMap((panel) => [panel, panel.parentElement]); }"
    )
    lab.command(page, "notebook:run-cell-and-select-next")
    expect(panels).to_have_count(0, timeout=_PATIENCE_MS)
    assert page.evaluate("window.hearing") == before
    assert page.evaluate("window.kept.every((one) => !one.querySelector('.cwm-rows *'))")


def test_a_click_does_not_wait_for_a_cell(
    stack_settings: Settings, lab: Lab, page: Page, name: str
) -> None:
    index = Library(stack_settings.home).index
    session = index.add_session(make_session(name, name))
    window = index.add_window(make_window(name, name, session_id=session.id))
    lab.notebook(
        f"{name}.ipynb",
        "import time\nfrom pathlib import Path\nimport cwm_jupyter as cwm\ncwm.panel()",
        "for _ in range(600):\n    if Path('go').exists():\n        break\n    time.sleep(0.1)\n"
        "print('the cell has ended')",
    )
    lab.open(page, f"{name}.ipynb")
    lab.command(page, "notebook:run-cell-and-select-next")
    panel = page.locator(".cwm-panel")
    expect(panel).to_contain_text(name, timeout=_PATIENCE_MS)
    search = panel.get_by_label("Search")
    search.fill("no window")  # Lab's first messages are not on the subshell
    expect(panel).to_contain_text("No window is like that", timeout=_PATIENCE_MS)
    page.locator(".jp-CodeCell .cm-content").nth(1).click()
    lab.command(page, "notebook:run-cell")
    expect(page.locator(".jp-InputPrompt").nth(1)).to_have_text("[*]:")
    search.fill(name)
    expect(panel.get_by_role("rowheader")).to_contain_text(name, timeout=20_000)
    printed = page.locator(".jp-OutputArea", has_text="the cell has ended")
    expect(printed).to_have_count(0)
    (lab.folder / "go").touch()
    expect(printed).to_be_visible(timeout=_PATIENCE_MS)
    index.remove_window(window.id)
    index.remove_session(session.id)


def test_nothing_is_looked_for_once_the_page_is_gone(lab: Lab, page: Page, name: str) -> None:
    lab.notebook(
        f"{name}.ipynb",
        "import cwm_jupyter as cwm\npanel = cwm.panel()\npanel",
        "import threading, time\nfrom pathlib import Path\n"
        "def note(what, following):\n"
        "    while (panel._following is not None) != following:\n        time.sleep(0.1)\n"
        "    Path(what).touch()\n"
        "def watch():\n    note('seen', True)\n    note('gone', False)\n"
        "threading.Thread(target=watch, daemon=True).start()",
    )
    lab.open(page, f"{name}.ipynb")
    lab.command(page, "notebook:run-all-cells")
    _until((lab.folder / "seen").exists)
    page.goto("about:blank")
    _until((lab.folder / "gone").exists)


def _until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.1)

"""The JupyterLab extension in a real browser, in JupyterLab and Notebook 7, on the real stack."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from browser.lab import PATIENCE_MS, Lab, shoot
from playwright.sync_api import Locator, Page, expect

from cwm_jupyter.config import Settings
from cwm_jupyter.core.index import Index
from cwm_jupyter.core.library import Library
from cwm_jupyter.stack.state import StackState

pytestmark = pytest.mark.stack

#: real text, about 3.7 characters a token
_TEXT = Path(argparse.__file__).read_text(encoding="utf-8").partition('"""')[2]
_LOAD = "%load_ext cwm_jupyter"


@pytest.fixture
def index(stack_settings: Settings) -> Index:
    """The index that all look at."""
    return Library(stack_settings.home).index


def say(question: str, characters: int = 0) -> str:
    """A cell that says something short, after so much real text."""
    return f"%%cwm --max-tokens 16\n{_TEXT[:characters]}\n{question}"


def opened(lab: Lab, page: Page, name: str, *cells: str, place: str = "lab/tree") -> Locator:
    """Open a notebook and the sidebar, then run the notebook; returns the sidebar."""
    lab.notebook(f"{name}.ipynb", _LOAD, *cells)
    lab.open(page, f"{name}.ipynb", place=place)
    lab.command(page, "cwm:show-windows")
    sidebar = page.locator("#cwm-windows")
    expect(sidebar.get_by_label("Search windows")).to_be_visible(timeout=PATIENCE_MS)
    lab.command(page, "notebook:run-all-cells")
    page.set_default_timeout(30_000)
    return sidebar


def rows(sidebar: Locator) -> Locator:
    return sidebar.get_by_role("listbox").get_by_role("option")


def row(sidebar: Locator, name: str) -> Locator:
    return sidebar.get_by_role("option", name=f"{name},")


def choose(page: Page, window: Locator, action: str) -> None:
    """Choose from a window's menu."""
    window.click(button="right")
    page.locator(".lm-Menu-itemLabel").get_by_text(action, exact=True).click()


def answer(page: Page, field: str, text: str, button: str) -> None:
    """Fill in one field of a dialog and accept it."""
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox", name=field).fill(text)
    dialog.get_by_role("button", name=button, exact=True).click()
    expect(dialog).to_have_count(0)


def notice(page: Page, words: str) -> Locator:
    found = page.locator(".Toastify__toast").filter(has_text=words)
    expect(found).to_be_visible(timeout=PATIENCE_MS)
    return found


def dashboard(lab: Lab, page: Page) -> Locator:
    """Open the dashboard, and wait for its pictures."""
    lab.command(page, "cwm:open-dashboard")
    found = page.get_by_role("region", name="Cache dashboard")
    expect(drawn(found, "Bytes by window")).to_be_visible(timeout=PATIENCE_MS)
    return found


def drawn(dashboard: Locator, title: str) -> Locator:
    return dashboard.get_by_role("region", name=title, exact=True).locator(".main-svg").first


def tile(dashboard: Locator, name: str) -> Locator:
    return dashboard.locator(".cwm-Tile", has=dashboard.page.get_by_text(name, exact=True))


def dark(page: Page) -> None:
    page.evaluate(
        "() => void window.jupyterapp.commands.execute("
        "'apputils:change-theme', {theme: 'JupyterLab Dark'})"
    )
    page.wait_for_timeout(2000)  # the theme fades in


def test_from_a_notebooks_freeze_to_undo(
    stack: StackState, index: Index, lab: Lab, page: Page
) -> None:
    sidebar = opened(lab, page, "reading", say("What is this?", 2200), "%freeze argparse-source")
    window = row(sidebar, "argparse-source")
    expect(window).to_have_count(1, timeout=PATIENCE_MS)  # nothing was loaded anew
    frozen = index.require_window("argparse-source")
    expect(window).to_contain_text(f"{frozen.tokens} tok")
    gauge = page.locator(".cwm-Gauge")
    expect(gauge.get_by_role("meter")).to_have_attribute("aria-valuenow", str(frozen.tokens))
    sidebar.get_by_label("Search windows").fill("rgparse-sour")
    expect(rows(sidebar)).to_have_count(1)
    shoot(page, "extension-frozen")

    choose(page, window, "Thaw into New Notebook")
    output = page.locator(".jp-NotebookPanel:visible .jp-OutputArea").last
    expect(output).to_contain_text("Thawed argparse-source into session", timeout=PATIENCE_MS)
    expect(output).to_contain_text("tokens from cache")
    expect(output).to_contain_text("probe equal to the bit")
    assert index.require_window("argparse-source").last_thaws[0].complete
    shoot(page, "extension-thawed")

    choose(page, window, "Clone…")
    answer(page, "Name", "argparse-source-twin", "Clone")
    expect(rows(sidebar)).to_have_count(2)
    choose(page, row(sidebar, "argparse-source-twin"), "Rename…")
    answer(page, "Name", "argparse-sources-twin", "Rename")
    twin = row(sidebar, "argparse-sources-twin")
    expect(twin).to_have_count(1)
    assert index.require_window("argparse-sources-twin").parent_window_id == frozen.id

    choose(page, twin, "Delete")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(twin).to_have_count(0)
    assert index.find_window("argparse-sources-twin") is None
    notice(page, "Deleted argparse-sources-twin").get_by_role("button", name="Undo").click()
    expect(twin).to_have_count(1)
    assert index.require_window("argparse-sources-twin").state == "intact"


def test_freeze_by_the_toolbar(stack: StackState, index: Index, lab: Lab, page: Page) -> None:
    sidebar = opened(lab, page, "asking", say("What is a cache?", 1200))
    freeze = page.locator("[data-command='cwm:freeze']")
    expect(freeze).not_to_have_attribute("aria-disabled", "true", timeout=PATIENCE_MS)
    freeze.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("textbox", name="Name")).to_have_value("asking")
    dialog.get_by_role("textbox", name="Tags").fill("caches short")
    dialog.get_by_role("textbox", name="Note").fill("one question about caches")
    shoot(page, "extension-freeze-dialog")
    answer(page, "Name", "argparse-question", "Freeze")
    notice(page, "Froze asking as argparse-question.")
    expect(row(sidebar, "argparse-question")).to_contain_text("caches")
    window = index.require_window("argparse-question")
    assert window.proof.level == "verified"
    assert (window.tags, window.note) == (["caches", "short"], "one question about caches")


def test_the_dashboard_follows_what_is_done(
    stack: StackState, index: Index, lab: Lab, page: Page
) -> None:
    page.set_viewport_size({"width": 1300, "height": 850})
    opened(lab, page, "following", say("What is it for?", 1800), "%freeze argparse-purpose")
    sidebar = page.locator("#cwm-windows")
    window = row(sidebar, "argparse-purpose")
    expect(window).to_have_count(1, timeout=PATIENCE_MS)
    window.dblclick()
    board = dashboard(lab, page)
    expect(board.locator(".cwm-Detail-name")).to_have_text("argparse-purpose")
    expect(tile(board, "Windows")).to_contain_text(str(index.windows().total))
    expect(tile(board, "Stack")).to_contain_text("up")
    expect(board.locator(".cwm-Strip")).to_contain_text("on disk, as frozen")

    # What is done changes tiles and pictures in place.
    bars = drawn(board, "Bytes by window").element_handle()
    choose(page, window, "Clone…")
    answer(page, "Name", "argparse-purpose-twin", "Clone")
    expect(tile(board, "Windows")).to_contain_text(str(index.windows().total))
    picture = board.get_by_role("region", name="Bytes by window")
    expect(picture).to_contain_text("argparse-purpose-twin", timeout=PATIENCE_MS)
    assert bars is not None
    assert bars.evaluate("svg => svg.isConnected")  # it is the same picture

    # Thawed again, in a new notebook, it is used from the cache.
    saved = tile(board, "Tokens from cache").locator("dd").first
    before = saved.inner_text()
    choose(page, window, "Thaw into New Notebook")
    output = page.locator(".jp-NotebookPanel:visible .jp-OutputArea").last
    expect(output).to_contain_text("Thawed argparse-purpose", timeout=PATIENCE_MS)
    board = dashboard(lab, page)
    expect(saved).not_to_have_text(before, timeout=PATIENCE_MS)
    expect(drawn(board, "Prompt tokens: computed, or saved by a cache")).to_be_visible()
    thaws = board.get_by_role("region", name="Latest thaws")
    expect(thaws.get_by_role("row")).to_have_count(2)
    expect(thaws).to_contain_text("yes")

    page.wait_for_timeout(3000)  # Lab saves its layout now and then
    page.reload()
    board = page.get_by_role("region", name="Cache dashboard")
    expect(drawn(board, "Bytes by window")).to_be_visible(timeout=PATIENCE_MS)
    expect(tile(board, "Windows")).to_contain_text(str(index.windows().total))
    picture_of(page, board, "dashboard-light")
    dark(page)
    picture_of(page, board, "dashboard-dark")
    board.get_by_role("heading", name="Stack").scroll_into_view_if_needed()
    shoot(page, "dashboard-below")


def picture_of(page: Page, board: Locator, name: str) -> None:
    """Keep a picture of the dashboard without the folder of this test in it."""
    place = board.locator(".cwm-Dashboard-head p")
    place.evaluate("p => p.style.visibility = 'hidden'")
    page.wait_for_timeout(1000)  # pictures come one after the other
    shoot(page, name)
    place.evaluate("p => p.style.visibility = ''")


def test_notebook_7_has_it_too(stack: StackState, index: Index, lab: Lab, page: Page) -> None:
    sidebar = opened(
        lab, page, "narrow", say("What is a parser?", 900), "%freeze argparse-parser",
        place="notebooks",
    )  # fmt: skip
    expect(row(sidebar, "argparse-parser")).to_have_count(1, timeout=PATIENCE_MS)
    tokens = index.require_window("argparse-parser").tokens
    meter = page.locator(".cwm-Gauge").get_by_role("meter")
    expect(meter).to_have_attribute("aria-valuenow", str(tokens))
    board = dashboard(lab, page)
    expect(tile(board, "Windows")).to_contain_text(str(index.windows().total))
    row(sidebar, "argparse-parser").dblclick()
    expect(board.locator(".cwm-Detail-name")).to_have_text("argparse-parser")
    shoot(page, "extension-notebook")


def test_stop_and_start_by_buttons(stack: StackState, index: Index, lab: Lab, page: Page) -> None:
    sidebar = opened(lab, page, "stopping", say("What is lost?", 1500), "%freeze argparse-stop")
    expect(row(sidebar, "argparse-stop")).to_have_count(1, timeout=PATIENCE_MS)
    board = dashboard(lab, page)
    section = board.get_by_role("region", name="Stack", exact=True)
    section.get_by_text("Logs").click()
    log = section.get_by_role("log")
    expect(log).to_contain_text("vLLM", ignore_case=True)
    section.get_by_label("Log of").select_option("LMCache")
    expect(log).to_contain_text("lmcache", ignore_case=True)
    shoot(page, "dashboard-logs")

    state = section.get_by_role("status")
    section.get_by_role("button", name="Stop…").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(state).to_contain_text("up")
    section.get_by_role("button", name="Stop…").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(state).to_contain_text("down", timeout=PATIENCE_MS)
    notice(page, "The stack is down.")
    expect(sidebar).to_contain_text("No stack is running.")
    shoot(page, "dashboard-down")

    section.get_by_role("button", name="Start").click()
    expect(state).to_contain_text("up", timeout=5 * PATIENCE_MS)
    shoot(page, "dashboard-up-again")
    choose(page, row(sidebar, "argparse-stop"), "Thaw into New Notebook")
    output = page.locator(".jp-NotebookPanel:visible .jp-OutputArea").last
    expect(output).to_contain_text("read from the disk and right", timeout=PATIENCE_MS)
    expect(output).to_contain_text("probe equal to the bit")

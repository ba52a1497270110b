"""The sidebar in a real browser, in JupyterLab and Notebook 7: windows, and no stack."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from browser.lab import Lab, running_lab, serious, shoot, use_dark
from entries import make_session, make_window
from playwright.sync_api import Locator, Page, expect

from cwm_jupyter.core.library import Library
from cwm_jupyter.core.transcript import Transcript

_NAMES = ("paper-read", "code-review", "thesis draft", "survey", "protocol")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A home of its own."""
    home = tmp_path_factory.mktemp("home")
    home.chmod(0o700)
    return Library(home)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, library: Library) -> Iterator[Lab]:
    """JupyterLab, which looks at that home; the shared stack is not needed."""
    environ = {name: value for name, value in os.environ.items() if name.startswith("CWM_")}
    environ["CWM_HOME"] = str(library.index.path.parent)
    with running_lab(tmp_path_factory.mktemp("lab"), environ) as lab:
        yield lab


@pytest.fixture(autouse=True)
def _windows(library: Library) -> None:
    """Three hundred windows, and a session of theirs; some are damaged or pinned, all tagged."""
    with library.index.transaction() as index:
        for window in index.all_windows():
            index.remove_window(window.id)
        for session in index.all_sessions():
            index.remove_session(session.id)
        index.add_session(make_session())
        for i in range(300):
            index.add_window(make_window(f"w{i}", **_fields(i)))


def _fields(i: int) -> dict[str, Any]:
    made = datetime.now(UTC) - timedelta(minutes=5 * i)
    return {
        "name": _NAMES[i] if i < len(_NAMES) else f"window-{i}",
        "state": "damaged" if i == 2 else "intact",
        "created_at": made.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "tokens": 300 + 97 * i,
        "size_bytes": 2_000_000 + 17_000_000 * i,
        "tags": ["even" if i % 2 == 0 else "odd"],
        "note": "What the authors leave out." if i == 3 else "",
        "pinned": i == 1,
    }


def opened(lab: Lab, page: Page, notebook: str = "n.ipynb", *, place: str = "lab/tree") -> Locator:
    """Open a notebook with the sidebar beside it."""
    lab.notebook(notebook, "1 + 1")
    lab.open(page, notebook, place=place)
    lab.command(page, "cwm:show-windows")
    sidebar = page.locator("#cwm-windows")
    expect(sidebar.get_by_role("status")).to_have_text("300 windows")
    return sidebar


def rows(sidebar: Locator) -> Locator:
    return sidebar.get_by_role("listbox").get_by_role("option")


def test_windows_appear_newest_first_in_both_themes(lab: Lab, page: Page) -> None:
    sidebar = opened(lab, page)
    expect(rows(sidebar).first).to_contain_text("paper-read")
    expect(rows(sidebar).first).to_contain_text("2.0 MB")
    expect(rows(sidebar).nth(2)).to_contain_text("damaged")
    expect(rows(sidebar).first).to_have_attribute("aria-setsize", "300")
    expect(sidebar).to_contain_text("No stack is running.")
    assert rows(sidebar).count() < 60  # the others are not there
    shoot(page, "sidebar-light")
    assert serious(page, "#cwm-windows") == []
    use_dark(page)
    shoot(page, "sidebar-dark")
    assert serious(page, "#cwm-windows") == []


def test_what_others_do_is_seen(lab: Lab, page: Page, library: Library) -> None:
    sidebar = opened(lab, page)
    library.index.update_window("w0", lambda w: w.replace(name="paper-read-twice"))
    expect(rows(sidebar).first).to_contain_text("paper-read-twice")


def test_search_tags_and_order(lab: Lab, page: Page) -> None:
    sidebar = opened(lab, page)
    sidebar.get_by_label("Search windows").fill("authors leave")
    expect(rows(sidebar)).to_have_count(1)
    expect(rows(sidebar).first).to_contain_text("survey")
    sidebar.get_by_label("Search windows").fill("nothing-like-it")
    sidebar.get_by_role("button", name="Clear the search").click()
    expect(sidebar.get_by_role("status")).to_have_text("300 windows")
    sidebar.get_by_label("Filter by tag").select_option("odd")
    expect(sidebar.get_by_role("status")).to_have_text("150 windows")
    sidebar.get_by_label("No longer filter by odd").click()
    sidebar.get_by_label("Sort by").select_option("Size")
    expect(rows(sidebar).first).to_contain_text("window-299")


def test_the_keyboard_alone(lab: Lab, page: Page, library: Library) -> None:
    sidebar = opened(lab, page)
    sidebar.get_by_role("listbox").focus()
    page.keyboard.press("End")
    last = rows(sidebar).filter(has_text="window-299")
    expect(last).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    chosen = rows(sidebar).filter(has_text="code-review")
    expect(chosen).to_have_attribute("aria-selected", "true")
    id_ = chosen.get_attribute("id")
    expect(sidebar.get_by_role("listbox")).to_have_attribute("aria-activedescendant", str(id_))

    page.keyboard.press("F2")
    field = page.get_by_role("dialog").get_by_role("textbox", name="Name")
    expect(field).to_be_focused()
    field.fill("a/b")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("not allowed")
    page.get_by_role("dialog").get_by_role("textbox", name="Name").fill("survey")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("survey")  # there is one: the server says so
    expect(page.get_by_role("dialog").get_by_role("alert")).to_be_visible()
    page.get_by_role("dialog").get_by_role("textbox", name="Name").fill("reviewed")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(rows(sidebar).filter(has_text="reviewed")).to_have_count(1)
    assert library.index.require_window("w1").name == "reviewed"

    page.keyboard.press("Shift+F10")
    expect(page.get_by_role("menu")).to_contain_text("Thaw into New Notebook")
    shoot(page, "sidebar-menu")
    page.keyboard.press("Escape")


def test_delete_and_undo(lab: Lab, page: Page, library: Library) -> None:
    sidebar = opened(lab, page)
    rows(sidebar).first.click()
    page.keyboard.press("Delete")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(sidebar.get_by_role("status")).to_have_text("299 windows")
    assert library.index.find_window("paper-read") is None
    page.get_by_role("button", name="Undo").click()
    expect(rows(sidebar).first).to_contain_text("paper-read")
    assert library.index.require_window("paper-read").state == "intact"

    rows(sidebar).first.click()
    page.keyboard.press("Delete")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(sidebar.get_by_role("status")).to_have_text("299 windows")
    sidebar.get_by_label("Show deleted").check()
    deleted = rows(sidebar).filter(has_text="deleted")
    expect(deleted).to_contain_text("paper-read")
    deleted.click(button="right")
    page.get_by_role("menuitem", name="Undo Delete").click()
    expect(deleted).to_have_count(0)


def test_a_window_is_dragged_into_a_notebook(lab: Lab, page: Page) -> None:
    sidebar = opened(lab, page)
    rows(sidebar).filter(has_text="thesis draft").hover()
    page.mouse.down()
    cell = page.locator(".jp-Cell").first.bounding_box()
    assert cell is not None
    page.mouse.move(cell["x"] + 300, cell["y"] + cell["height"] + 80, steps=12)
    page.mouse.up()
    expect(page.locator(".jp-Cell")).to_have_count(2)
    expect(page.locator(".jp-Cell").nth(1)).to_contain_text('%thaw "thesis draft"')


def test_an_empty_home_says_how_to_begin(lab: Lab, page: Page, library: Library) -> None:
    with library.index.transaction() as index:
        for window in index.all_windows():
            index.remove_window(window.id)
    lab.notebook("n.ipynb", "1 + 1")
    lab.open(page, "n.ipynb")
    lab.command(page, "cwm:show-windows")
    sidebar = page.locator("#cwm-windows")
    expect(sidebar).to_contain_text("No windows yet")
    expect(sidebar).to_contain_text("%freeze paper")
    shoot(page, "sidebar-empty")


def test_nothing_is_asked_once_it_is_closed(lab: Lab, page: Page, library: Library) -> None:
    sidebar = opened(lab, page)
    lab.command(page, "application:toggle-left-area")
    expect(sidebar).not_to_be_visible()
    page.wait_for_timeout(4000)  # the channel closes two seconds after
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    library.index.update_window("w0", lambda w: w.replace(note="changed"))
    page.wait_for_timeout(7000)
    assert [url for url in asked if "cwm/api" in url] == []


def test_a_kernels_session_is_in_the_toolbar(lab: Lab, page: Page, library: Library) -> None:
    reading = make_session("s2", "reading", tokens=1234, max_context_tokens=8192)
    library.add_session(reading, Transcript())
    lab.notebook(
        "g.ipynb",
        "from cwm_jupyter.current import shared\n"
        "from cwm_jupyter.workspace import get_workspace\n"
        "get_workspace()\n"
        "shared.use('reading')",
        "x = 1",
    )
    lab.open(page, "g.ipynb")
    freeze = page.locator("[data-command='cwm:freeze']")
    expect(freeze).to_have_attribute("aria-disabled", "true")
    lab.command(page, "notebook:run-all-cells")
    gauge = page.locator(".cwm-Gauge")
    expect(gauge).to_contain_text("1.2k / 8.2k")
    expect(gauge.get_by_role("meter")).to_have_attribute("aria-valuenow", "1234")
    expect(freeze).not_to_have_attribute("aria-disabled", "true")
    expect(page.locator(".jp-InputPrompt").nth(1)).to_have_text("[2]:")  # asking counts for nothing
    shoot(page, "toolbar")


def test_notebook_7_has_it_too(lab: Lab, page: Page) -> None:
    sidebar = opened(lab, page, place="notebooks")
    expect(rows(sidebar).first).to_contain_text("paper-read")
    shoot(page, "sidebar-notebook")

"""Server extension and sidebar behind a real JupyterHub's proxy, over a home without a stack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser.hub import Hub, running_hub
from browser.lab import PATIENCE_MS, shoot
from entries import make_session, make_window
from playwright.sync_api import Browser, Page, expect

from cwm_jupyter.core.library import Library


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A home with a window."""
    home = tmp_path_factory.mktemp("home")
    home.chmod(0o700)
    library = Library(home)
    library.index.add_session(make_session())
    library.index.add_window(make_window("w1", "paper"))
    return library


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, library: Library) -> Iterator[Hub]:
    """A hub whose servers look at that home."""
    environ = {"CWM_HOME": str(library.index.path.parent)}
    with running_hub(tmp_path_factory.mktemp("hub"), environ) as hub:
        yield hub


def test_it_is_followed_and_changed_through_the_proxy(
    hub: Hub, page: Page, library: Library
) -> None:
    channels: list[str] = []
    page.on(
        "response",
        lambda answer: (
            channels.append(answer.headers["content-type"])
            if answer.url == f"{hub.api('ada')}/events"
            else None
        ),
    )
    hub.open_lab(page, "ada")
    page.evaluate("() => void window.jupyterapp.commands.execute('cwm:show-windows')")
    sidebar = page.locator("#cwm-windows")
    expect(sidebar.get_by_role("option", name="paper,")).to_be_visible(timeout=PATIENCE_MS)
    library.index.add_window(make_window("w2", "code"))
    expect(sidebar.get_by_role("option", name="code,")).to_be_visible(timeout=PATIENCE_MS)
    assert channels == ["text/event-stream"]
    sidebar.get_by_role("option", name="code,").click()
    page.keyboard.press("F2")
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill("review")
    dialog.get_by_role("button", name="Rename").click()
    expect(sidebar.get_by_role("option", name="review,")).to_be_visible(timeout=PATIENCE_MS)
    assert library.index.require_window("w2").name == "review"
    shoot(page, "hub")
    unproved = page.evaluate(
        "url => fetch(url, {method: 'DELETE'}).then(answer => answer.status)",
        f"{hub.api('ada')}/windows/paper",
    )
    assert unproved == 403  # without the XSRF token
    assert library.index.require_window("w1").state == "intact"


def test_others_are_kept_out(hub: Hub, page: Page, chromium: Browser) -> None:
    hub.open_lab(page, "ada")
    assert page.request.get(f"{hub.api('ada')}/windows").status == 200
    stranger = chromium.new_context()
    try:
        at = stranger.new_page()
        for logged_in in (False, True):
            if logged_in:
                hub.log_in(at, "bob")
            for place in ("windows", "version", "events"):
                answer = at.request.get(f"{hub.api('ada')}/{place}", max_redirects=0)
                assert answer.status == 403
                assert "paper" not in answer.text()
    finally:
        stranger.close()

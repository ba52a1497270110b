"""The panel's kernel side: what it shows, what its messages do, and that it leaves nothing."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from anyio import to_thread
from bench import QUESTION

import cwm_jupyter as cwm
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.query import Query
from cwm_jupyter.current import shared
from cwm_jupyter.notebook.panel import Panel, actions, widget
from cwm_jupyter.notebook.panel import state as panel_state
from cwm_jupyter.workspace import get_workspace

pytestmark = pytest.mark.usefixtures("own_process", "fake_stack")


def until(true: Callable[[], Any]) -> Any:
    """Wait for what happens on another thread."""
    deadline = time.monotonic() + 30
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
    return found


@pytest.fixture
def panel() -> Iterator[Panel]:
    cwm.session("talk").say(QUESTION)
    cwm.session("talk").say("And then?")
    shared.use("talk")
    cwm.freeze("paper", "talk", tags=["draft"], note="a <b>note</b>")
    panel = cwm.panel()
    yield panel
    panel.close()


def do(panel: Panel, action: str, **message: Any) -> str:
    """Send what a click sends, and return what the user is then told."""
    before = (panel.notice or {}).get("n")
    panel._heard(panel, {"do": action, **message}, [])
    until(lambda: (panel.notice or {}).get("n") != before and panel._working.done())
    assert panel.notice is not None
    return str(panel.notice["text"])


def names(panel: Panel) -> list[str]:
    return [window["name"] for window in panel.listing["windows"]]


def test_it_shows_windows_the_session_and_the_family(panel: Panel) -> None:
    assert names(panel) == ["paper"]
    assert panel.listing["windows"][0]["tags"] == ["draft"]
    assert panel.session is not None
    assert [turn["number"] for turn in panel.session["turns"]] == [1, 2]
    assert panel.session["turns"][1]["question"] == "And then?"
    assert panel.session["turns"][1]["end_tokens"] == panel.session["tokens"]
    assert [node["name"] for node in panel.family["nodes"]] == ["paper"]
    assert panel.stack == {"phase": "down", "model": None}


def test_a_windows_whole_life_by_clicks(panel: Panel, tmp_path: Any) -> None:
    assert "Froze talk as second" in do(panel, "freeze", name="second", session="talk")
    assert "from cache" in do(panel, "thaw", window="paper")
    assert shared.name == "paper"
    assert do(panel, "clone", window="paper", name="branch") == "Cloned as branch."
    assert do(panel, "rename", window="branch", name="twig") == "Renamed to twig."
    assert do(panel, "tag", window="twig", add=["a"], remove=[]) == "Tags of twig: a."
    do(panel, "export", window="twig", file=str(tmp_path / "twig.cwm"))
    assert (tmp_path / "twig.cwm").exists()
    assert "undo" in do(panel, "delete", window="twig")
    assert panel.notice is not None
    assert panel.notice["undo"] == "twig"
    assert "twig" not in names(panel)
    assert do(panel, "undo", window="twig") == "twig is back."
    assert set(names(panel)) == {"paper", "second", "twig"}


def test_going_back_and_freezing_a_turn(panel: Panel) -> None:
    do(panel, "rewind", session="talk", turn=1)
    assert shared.name == "talk-2"
    assert cwm.show(session="talk-2").session.turns == 1
    do(panel, "freeze-turn", session="talk", turn=1, name="first")
    assert cwm.show("first").window.turns == 1
    do(panel, "freeze-turn", session="talk", turn=9, name="none")
    assert panel.notice is not None
    assert panel.notice["kind"] == "error"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"do": "clone", "window": "paper", "name": " "}, "name must be given"),
        ({"do": "clone", "window": "papre", "name": "x"}, "paper"),
        ({"do": "tag", "window": "paper", "add": "a"}, "add must be a list"),
        ({"do": "freeze", "name": "paper"}, "There is a window 'paper' already"),
        ({"do": "rewind", "session": "talk", "turn": "x"}, "invalid literal"),
    ],
)
def test_what_cannot_be_done_is_told(panel: Panel, message: dict[str, Any], told: str) -> None:
    assert told in do(panel, message.pop("do"), **message)
    assert panel.notice is not None
    assert panel.notice["kind"] == "error"
    assert panel.job is None


def test_what_nobody_expected_is_told_and_logged(
    panel: Panel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_arguments: object) -> str:
        raise RuntimeError("no home directory")

    monkeypatch.setitem(actions.ACTIONS, "thaw", broken)  # type: ignore[arg-type]
    assert do(panel, "thaw", window="paper") == "thaw failed: RuntimeError: no home directory"
    assert panel.notice is not None
    assert panel.notice["kind"] == "error"
    assert panel.job is None
    (logged,) = caplog.records
    assert (logged.getMessage(), logged.name) == (
        "thaw failed",
        "cwm_jupyter.notebook.panel.widget",
    )


def test_following_goes_on_after_what_nobody_expected(
    panel: Panel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(widget, "_LOOK_S", 0.001)
    looked = 0

    def look() -> tuple[object, ...]:
        nonlocal looked
        looked += 1
        if looked <= 20:
            raise PermissionError("in use")
        return (looked,)

    async def broken() -> None:
        raise TypeError("no window")

    monkeypatch.setattr(panel, "_signature", look)
    monkeypatch.setattr(panel, "_refresh", broken)
    panel._heard(panel, {"do": "open", "view": "v"}, [])
    until(lambda: panel.notice and "TypeError: no window" in panel.notice["text"])
    panel._heard(panel, {"do": "hide", "view": "v"}, [])
    said = [record.getMessage() for record in caplog.records]
    assert said[:2] == ["Looking for changes failed", "Showing the windows failed"]


def test_unknown_messages_do_nothing(panel: Panel) -> None:
    panel._heard(panel, {"do": "exec", "code": "1/0"}, [])
    panel._heard(panel, {}, [])
    assert panel.notice is None


def test_searching_sorting_and_choosing(panel: Panel) -> None:
    cwm.clone("paper", "another")
    panel._heard(panel, {"do": "look", "text": "anoth", "window": "another"}, [])
    until(lambda: names(panel) == ["another"])
    panel._heard(panel, {"do": "look", "sort": "name"}, [])
    until(lambda: names(panel) == ["another", "paper"])
    panel._heard(panel, {"do": "look", "tag": "draft"}, [])
    until(lambda: names(panel) == ["paper"])
    panel._heard(panel, {"do": "look", "sort": "colour"}, [])
    until(lambda: panel.notice and "colour" in panel.notice["text"])


def test_it_follows_what_others_do_while_it_is_seen(panel: Panel) -> None:
    panel._heard(panel, {"do": "open", "view": "v"}, [])
    cwm.clone("paper", "elsewhere")
    until(lambda: "elsewhere" in names(panel))
    panel._heard(panel, {"do": "hide", "view": "v"}, [])
    assert panel._following is None


def test_one_thing_at_a_time_and_cancel(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    import anyio

    async def endless(*_arguments: object) -> str:
        await anyio.sleep_forever()
        return ""

    monkeypatch.setitem(actions.ACTIONS, "thaw", endless)  # type: ignore[arg-type]
    panel._heard(panel, {"do": "thaw", "window": "paper"}, [])
    until(lambda: panel.job)
    panel._heard(panel, {"do": "clone", "window": "paper", "name": "x"}, [])
    assert panel.notice is not None
    assert "already" in panel.notice["text"]
    panel._heard(panel, {"do": "cancel"}, [])
    until(lambda: panel.notice and "Cancelled" in panel.notice["text"])
    until(lambda: panel.job is None)
    assert names(panel) == ["paper"]


def test_one_can_click_on_while_the_result_is_being_shown(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, listed = threading.Event(), panel_state.listing

    async def slow(manager: Any, query: Query) -> Any:
        await to_thread.run_sync(gate.wait)
        return await listed(manager, query)

    monkeypatch.setattr(panel_state, "listing", slow)
    panel._heard(panel, {"do": "clone", "window": "paper", "name": "one"}, [])
    until(lambda: panel.notice and panel._running is None)
    panel._heard(panel, {"do": "clone", "window": "paper", "name": "two"}, [])
    gate.set()
    until(lambda: panel.notice and panel.notice["text"] == "Cloned as two.")
    until(lambda: set(names(panel)) == {"one", "paper", "two"})


def test_progress_is_shown_as_it_comes(panel: Panel) -> None:
    job = Job("thaw paper", panel._watch)
    job.stage("load", total=10, unit="bytes")
    panel._last_progress = 0.0
    job.advance(4)
    assert panel.job == {
        "what": "thaw paper",
        "stage": "load",
        "done": 4,
        "total": 10,
        "unit": "bytes",
    }


def test_places_without_widgets_get_a_table(panel: Panel) -> None:
    assert "paper" in repr(panel)
    bundle = panel._repr_mimebundle_()
    assert bundle is not None
    data = bundle[0]
    assert "<table" in data["text/html"]
    assert "<b>note" not in data["text/html"]
    assert data["text/plain"].startswith("WINDOW")


def test_without_windows_it_says_how_one_is_made() -> None:
    panel = cwm.panel()
    assert "%freeze NAME" in repr(panel)
    bundle = panel._repr_mimebundle_()
    assert bundle is not None
    assert "%freeze NAME" in bundle[0]["text/html"]
    panel.close()


def test_nothing_shown_is_secret(panel: Panel) -> None:
    library = get_workspace().library
    window = library.index.require_window("paper")
    salt = library.lineages.salt(window.lineage_id, library.manifest(window).fingerprint)
    lineage = next((get_workspace().settings.home / "keys").glob("*.secret")).read_bytes().hex()
    state = repr(panel.get_state())
    assert lineage not in state
    assert salt not in state


def test_of_a_large_family_it_shows_the_part_around_a_window(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panel_state, "TREE", 4)
    index = get_workspace().library.index
    previous = index.require_window("paper")
    for number in range(9):
        name, parent = f"made-{number}", previous.id
        previous = previous.replace(id=f"made{number}", name=name, parent_window_id=parent)
        index.add_window(previous)
    panel._heard(panel, {"do": "look", "window": "made-4"}, [])
    until(lambda: panel.family["offset"])
    shown = [node["name"] for node in panel.family["nodes"]]
    assert shown == ["made-2", "made-3", "made-4", "made-5"]
    assert (panel.family["offset"], panel.family["total"]) == (3, 10)
    panel._heard(panel, {"do": "look", "window": "made-8"}, [])
    until(lambda: panel.family["offset"] == 6)
    panel._heard(panel, {"do": "look"}, [])
    until(lambda: panel.family["offset"] == 0)


def test_a_list_that_comes_late_is_not_shown(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    cwm.clone("paper", "another")
    listed, gate = panel_state.listing, threading.Event()
    begun: list[str | None] = []
    asked: list[str | None] = []

    async def slow(manager: Any, query: Query) -> Any:
        begun.append(query.text)
        found = await listed(manager, query)
        if query.text == "paper":
            await to_thread.run_sync(gate.wait)
        asked.append(query.text)
        return found

    monkeypatch.setattr(panel_state, "listing", slow)
    panel._heard(panel, {"do": "look", "text": "paper"}, [])
    until(lambda: "paper" in begun)
    panel._heard(panel, {"do": "look", "text": "another"}, [])
    until(lambda: names(panel) == ["another"])
    gate.set()
    until(lambda: "paper" in asked)
    before = len(asked)  # the panel looks of itself, too
    panel._heard(panel, {"do": "look", "text": "another", "sort": "name"}, [])
    until(lambda: len(asked) > before)
    assert names(panel) == ["another"]


def test_a_closed_panel_is_forgotten(panel: Panel) -> None:
    one = Panel()
    one._heard(one, {"do": "open", "view": "v"}, [])
    one.close()
    one.close()  # which changes nothing
    seen = weakref.ref(one)
    del one
    until(lambda: gc.collect() >= 0 and seen() is None)

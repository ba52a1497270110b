"""The Python API."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench import QUESTION
from entries import make_session
from fake_stack import FakeStack

import cwm_jupyter as cwm
from cwm_jupyter import api
from cwm_jupyter.core.models import Message
from cwm_jupyter.errors import (
    SessionExistsError,
    SessionNotFoundError,
    StackDownError,
    ValidationError,
    WindowNotFoundError,
)

pytestmark = pytest.mark.usefixtures("own_process")


def test_all_is_whole_and_lazy() -> None:
    assert cwm.__all__ == sorted(cwm.__all__)
    assert set(cwm.__all__) == {*api.__all__, "CWMError", "__version__", "panel"}
    for name in cwm.__all__:
        assert getattr(cwm, name) is not None
        assert name in dir(cwm)
    with pytest.raises(AttributeError, match="no attribute 'thwa'"):
        cwm.thwa  # noqa: B018


def test_importing_it_is_light(home: Path) -> None:
    """The servers import the package too, where few of its dependencies are."""
    code = """
import sys, cwm_jupyter
print([m for m in ("anyio", "httpx2", "msgspec", "tinydb", "IPython") if m in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_a_program_that_used_it_ends(home: Path) -> None:
    code = "import cwm_jupyter as cwm; print(cwm.windows().total)"
    environ = {**os.environ, "CWM_HOME": str(home)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "0\n", "")


@pytest.mark.covers("MS-001")
def test_without_a_stack() -> None:
    assert cwm.status().phase == "down"
    cwm.down()
    with pytest.raises(StackDownError):
        cwm.session("main")
    with pytest.raises(WindowNotFoundError):
        cwm.thaw("paper")
    with pytest.raises(SessionNotFoundError):
        cwm.freeze("paper", "main")
    assert cwm.doctor()


def test_a_conversation(fake_stack: FakeStack, tmp_path: Path) -> None:
    session = cwm.session("main", system="Be brief.")
    file = tmp_path / "a.txt"
    file.write_text("notes")
    pieces: list[str] = []
    reply = session.say(QUESTION, files=[str(file)], max_tokens=20, on_text=pieces.append)
    assert "".join(pieces) == reply.text
    assert reply.generated_tokens == 20
    assert [m.role for m in session.messages] == ["system", "user", "assistant"]
    assert session.record.turns == 1
    report = session.freeze("paper", tags=["x"], note="n")
    assert (report.window.tags, report.window.note) == (["x"], "n")
    assert [w.name for w in cwm.windows(tags=["x"]).items] == ["paper"]
    assert cwm.show("paper").window.name == "paper"
    assert cwm.show(session="main").session.state == "frozen"
    assert cwm.remove("paper").state == "deleted"
    assert cwm.restore("paper").state == "intact"
    fake_stack.restart()
    thawed = cwm.session("again", from_window="paper")
    assert thawed.report is not None
    assert thawed.report.complete
    assert [s.name for s in cwm.sessions().items] == ["main", "again"]
    assert cwm.sessions(state="thawed", limit=1).total == 1


@pytest.mark.covers("TL-005", "TL-006")
def test_listings_choose_and_sort(fake_stack: FakeStack) -> None:
    for name, note in (("b", "On Cats"), ("a", "on dogs")):
        cwm.session(name).say(QUESTION)
        cwm.freeze(name, name, note=note)
    assert [w.name for w in cwm.windows("cats").items] == ["b"]
    assert [w.name for w in cwm.windows(session="a", min_size="1", newer_than="1h").items] == ["a"]
    page = cwm.windows(sort="name", limit=1, offset=1)
    assert ([w.name for w in page.items], page.total) == (["b"], 2)
    assert [s.name for s in cwm.sessions(sort="-created", state=["frozen"]).items] == ["a", "b"]
    assert cwm.sessions("nothing", older_than="1d").total == 0
    with pytest.raises(ValidationError, match="There is no session sort 'bytes'"):
        cwm.sessions(sort="bytes")


def test_upkeep(fake_stack: FakeStack) -> None:
    cwm.session("main").say(QUESTION)
    cwm.freeze("paper", "main")
    assert cwm.verify().intact
    fake_stack.files()[0].unlink()
    assert not cwm.verify("paper").intact
    assert cwm.repair("paper").chunks_bit_equal == 1
    assert [row.window for row in cwm.disk_usage().windows] == ["paper"]
    assert not cwm.collect_garbage(dry_run=True).removed
    cwm.remove("paper")
    assert cwm.purge("paper", dry_run=True).windows == ["paper"]
    assert cwm.purge("paper").windows == ["paper"]
    assert cwm.purge().windows == []
    with pytest.raises(ValidationError, match="Encryption is off"):
        cwm.rotate_key()


async def test_awaited(fake_stack: FakeStack) -> None:
    session = await cwm.asession("main")
    assert (await session.asay(QUESTION)).session == "main"
    assert (await session.afreeze("one")).window.name == "one"
    assert (await cwm.afreeze("two", "main")).window.name == "two"
    assert (await cwm.athaw("one", as_session="back")).complete
    assert (await cwm.averify("one")).intact
    assert (await cwm.arepair("one")).chunks_intact


def test_the_session_that_is_meant_is_that_of_the_magics(fake_stack: FakeStack) -> None:
    from cwm_jupyter.current import shared

    shared.use("talk")
    cwm.session().say(QUESTION)
    assert cwm.freeze("w").session == "talk"


def test_a_cell_may_run_again(fake_stack: FakeStack) -> None:
    opening = [{"role": "user", "content": "a"}, Message(role="assistant", content="b")]
    for _ in range(2):
        session = cwm.session("s", system="Be brief.", messages=opening)
        session.say("next")
    assert session.record.turns == 2
    for otherwise in ({"system": "Be long."}, {"messages": opening}):
        with pytest.raises(SessionExistsError, match="began otherwise"):
            cwm.session("s", **otherwise)  # type: ignore[arg-type]
    assert cwm.session("s").record.turns == 2


def test_a_thawed_session_may_be_asked_for_again(fake_stack: FakeStack) -> None:
    session = cwm.session("s")
    session.say(QUESTION)
    session.freeze("one")
    assert cwm.session("t", from_window="one").report is not None
    assert cwm.session("t", from_window="one").report is None
    cwm.session("other").say(QUESTION)
    with pytest.raises(SessionExistsError):
        cwm.session("other", from_window="one")


def test_a_thaw_that_fell_short_warns(fake_stack: FakeStack) -> None:
    session = cwm.session("s")
    session.say(QUESTION)
    session.freeze("one")
    fake_stack.restart()
    fake_stack.files()[1].unlink()
    with pytest.warns(UserWarning, match="RESTORED ONLY"):
        thawed = cwm.session("t", from_window="one")
    assert thawed.report is not None
    assert not thawed.report.complete


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"messages": [{"role": "user"}]}, "role and content"),
        ({"messages": [{}]}, "not nothing"),
        ({"system": "x", "from_window": "w"}, "not with both"),
    ],
)
def test_what_cannot_be_a_beginning(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        cwm.session("s", **given)


def test_how_a_session_looks(home: Path) -> None:
    from cwm_jupyter.core.library import Library

    Library(home).index.add_session(make_session(name="main", turns=2, tokens=300))
    session = cwm.LiveSession("main")
    assert repr(session).startswith("<Session main, active: 2 turns, 300 tokens, SmolLM2;")
    assert session._repr_html_().startswith("<div>")
    assert repr(cwm.LiveSession("gone")) == "<Session gone, not in the index>"

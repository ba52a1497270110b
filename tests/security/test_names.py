"""Names, ids and paths from outside, at every place where one comes in."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bench import QUESTION, Bench
from entries import make_session, make_window
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from nasty import NASTY, nasty

from cwm_jupyter import current
from cwm_jupyter.core.library import Library
from cwm_jupyter.core.manager import Manager
from cwm_jupyter.core.models import FreezePolicy
from cwm_jupyter.core.names import check_id, check_name
from cwm_jupyter.errors import CWMError, ValidationError

TRAVERSAL = (
    "..", ".", "../x", "../../../../etc/passwd", "/etc/passwd", "a/../../b", "..\\..\\x",
    "C:\\x", "C:x", "\\\\host\\share", "a/b", "a\\b", "x/", "./x", "~/x", "~root",
    "x\0", "x\0.json", "%2e%2e/x", "..%2fx", "..;/x", "file:///etc/passwd", "a:b",
)  # fmt: skip
DEVICES = ("con", "NUL", "aux.txt", "COM1", "lpt9.json", "COM¹", "prn ", "conin$", "nul.")
LONG = ("x" * 129, "é" * 101, "𝔞" * 60, "x" * 100_000)
CONTROLS = (
    "a\nb", "a\x1b[31mb", "\x07", "a\x7f", "a\x85", "a\u202eb", "a\u200bb", "\ufeffa", "\ud800",
)  # fmt: skip
REFUSED = [*TRAVERSAL, *LONG, *CONTROLS, "", " ", " a", "a ", "a.", "-x", "--json"]

#: each place where a name comes in that something will have
PLACES: dict[str, Callable[[Manager, str], Awaitable[Any]]] = {
    "create a session": lambda m, name: m.create_session(name),
    "freeze": lambda m, name: m.freeze(name, "talk"),
    "freeze with a tag": lambda m, name: m.freeze("new", "talk", tags=[name]),
    "freeze a new version": lambda m, name: m.freeze(name, "talk", update=True),
    "thaw": lambda m, name: m.thaw("paper", as_session=name),
    "clone": lambda m, name: m.branches.clone("paper", name),
    "clone with a tag": lambda m, name: m.branches.clone("paper", "new", tags=[name]),
    "rename a window": lambda m, name: m.keeping.edit_window("paper", name=name),
    "tag a window": lambda m, name: m.keeping.edit_window("paper", add_tags=[name]),
    "rename a session": lambda m, name: m.keeping.edit_session("talk", name=name),
    "tag a session": lambda m, name: m.keeping.edit_session("talk", add_tags=[name]),
    "rewind": lambda m, name: m.turns.rewind("talk", 1, as_session=name),
    "a policy's name": lambda m, name: m.autofreeze.set_policy(
        "talk", FreezePolicy(at_tokens=10, name=name)
    ),
    "a policy's tag": lambda m, name: m.autofreeze.set_policy(
        "talk", FreezePolicy(at_tokens=10, tags=[name])
    ),
}
#: each place where a name is looked up: it may be anything, and finds nothing
LOOKUPS: dict[str, Callable[[Manager, str], Awaitable[Any]]] = {
    "a session": lambda m, name: m.session(name),
    "say": lambda m, name: m.say(name, "hello"),
    "freeze": lambda m, name: m.freeze("new", name),
    "thaw": lambda m, name: m.thaw(name),
    "status of a window": lambda m, name: m.status(window=name),
    "status of a session": lambda m, name: m.status(session=name),
    "remove a window": lambda m, name: m.remove_window(name),
    "restore a window": lambda m, name: m.restore_window(name),
    "remove a session": lambda m, name: m.remove_session(name),
    "verify": lambda m, name: m.verify(name),
    "repair": lambda m, name: m.repair(name),
    "purge": lambda m, name: m.purge([name]),
    "clone": lambda m, name: m.branches.clone(name, "new"),
    "compare": lambda m, name: m.branches.compare(name, "paper"),
    "edit": lambda m, name: m.keeping.edit_window(name, note="x"),
    "export": lambda m, name: m.archives.export([name], Path(tempfile.gettempdir(), "cwm-no.cwm")),
}


async def prepared(folder: Path) -> Bench:
    bench = Bench(folder)
    await bench.talk("talk")
    await bench.manager.freeze("paper", "talk")
    return bench


def files(home: Path) -> dict[str, bytes]:
    """All files of a home but its audit log, in which a refusal is noted."""
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and "audit" not in path.name
    }


@pytest.mark.covers("SC-002", "SC-003", "SC-004")
@pytest.mark.parametrize("place", PLACES)
async def test_no_bad_name_gets_in(tmp_path, place) -> None:
    bench = await prepared(tmp_path)
    before, around = files(bench.home), sorted(tmp_path.parent.iterdir())
    devices = () if "tag" in place else DEVICES  # a tag is never the name of a file
    for name in (*REFUSED, *devices):
        with pytest.raises(ValidationError):
            await PLACES[place](bench.manager, name)
    assert files(bench.home) == before
    assert sorted(tmp_path.parent.iterdir()) == around
    assert bench.manager.audit.read().intact
    await bench.reconnect()


@pytest.mark.covers("SC-004")
@pytest.mark.parametrize("lookup", LOOKUPS)
async def test_no_name_that_is_looked_up_leads_anywhere(tmp_path, lookup) -> None:
    bench = await prepared(tmp_path)
    before = files(bench.home)
    for name in [*TRAVERSAL, *CONTROLS, *NASTY, "", "paper@v../x", "paper@../x", "*", "?"]:
        with pytest.raises(CWMError):
            await LOOKUPS[lookup](bench.manager, name)
    assert files(bench.home) == before
    await bench.reconnect()


@pytest.mark.covers("SC-003")
@pytest.mark.parametrize(
    "bad", ["", ".", "..", "../x", "a/b", "A", "a.b", "a\0", "x" * 65, "con", "nul", "ｘ", "a\n"]
)
def test_no_bad_id_gets_in(tmp_path, bad) -> None:
    """Ids are the names of files: those of sessions and windows that come with an import, too."""
    library = Library(tmp_path)
    with pytest.raises(ValidationError):
        check_id(bad)
    with pytest.raises(ValidationError):
        library.index.add_session(make_session(bad))
    library.index.add_session(make_session("s1"))
    with pytest.raises(ValidationError):
        library.index.add_window(make_window(bad))


@given(name=st.one_of(st.text(min_size=1, max_size=40), nasty, st.sampled_from(REFUSED)))
@hypothesis_settings(max_examples=25)
def test_whatever_a_name_is_files_are_named_by_ids(name) -> None:
    async def run(folder: Path) -> None:
        bench = Bench(folder)
        try:
            session = await bench.manager.create_session(name)
        except ValidationError:
            session = await bench.manager.create_session("allowed")
        await bench.manager.say(session.name, QUESTION)
        try:
            await bench.manager.freeze(name, session.name)
        except ValidationError:
            await bench.manager.freeze("allowed", session.name)
        await bench.reconnect()
        for path in bench.home.rglob("*"):
            assert path.name.isascii()
            assert set(path.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_")

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


@pytest.mark.covers("SC-005")
@pytest.mark.parametrize(
    "place", ["question", "system message", "note", "new note", "clone's note"]
)
async def test_half_a_character_is_refused_and_nothing_changes(tmp_path, place) -> None:
    """What bytes that are no UTF-8 become on a command line."""
    bench, bad = await prepared(tmp_path), "a\udcff"
    manager, before = bench.manager, files(bench.home)
    with pytest.raises(ValidationError, match="no valid text"):
        await {
            "question": lambda: manager.say("talk", bad),
            "system message": lambda: manager.create_session("new", system=bad),
            "note": lambda: manager.freeze("new", "talk", note=bad),
            "new note": lambda: manager.keeping.edit_window("paper", note=bad),
            "clone's note": lambda: manager.branches.clone("paper", "new", note=bad),
        }[place]()
    assert files(bench.home) == before
    await bench.reconnect()


@given(path=st.one_of(st.sampled_from([*TRAVERSAL, *NASTY, *LONG]), st.text(max_size=30)))
def test_the_name_of_a_notebook_is_made_a_name(path) -> None:
    """A session is named after the notebook, whose name is anybody's choice."""
    with pytest.MonkeyPatch.context() as patch:
        usable = path.encode("utf-8", "replace").decode().replace("\0", "")
        patch.setenv("JPY_SESSION_NAME", f"/home/me/{usable}.ipynb")
        patch.setattr(current, "_shell", lambda: SimpleNamespace(kernel=object()))
        patch.setattr(current, "_kernel_id", lambda: "0123456789")
        name = current.default_session()
    assert check_name(name, "session") == name

"""The index against a model that is a dict, through any sequence of calls and restarts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from entries import make_session, make_window
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cwm_jupyter.core.index import Index
from cwm_jupyter.core.models import Session, Window
from cwm_jupyter.core.names import name_key
from cwm_jupyter.errors import (
    SessionExistsError,
    SessionNotFoundError,
    StateTransitionError,
    WindowExistsError,
    WindowNotFoundError,
)

IDS = st.sampled_from(["s1", "s2", "s3"])
NAMES = st.sampled_from(["paper", "Paper", "other", "s1", "ü", "u\u0308"])
TIMES = st.sampled_from(["2026-01-01", "2026-01-02"])
TAGS = st.lists(st.sampled_from(["x", "y"]), unique=True)


class IndexMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.index = Index(Path(self.folder.name))
        self.sessions: dict[str, Session] = {}
        self.windows: dict[str, Window] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    def taken(self, entries: dict[str, Any], name: str, but: str = "") -> bool:
        return any(
            e.state != "deleted" and e.id != but and name_key(name) in (name_key(e.name), e.id)
            for e in entries.values()
        )

    @rule(id_=IDS, name=NAMES, time=TIMES)
    def add_session(self, id_: str, name: str, time: str) -> None:
        session = make_session(id_, name, created_at=time)
        if id_ in self.sessions or self.taken(self.sessions, name):
            with pytest.raises(SessionExistsError):
                self.index.add_session(session)
        else:
            self.sessions[id_] = self.index.add_session(session)

    @rule(id_=IDS, name=NAMES, time=TIMES, session=IDS, tags=TAGS)
    def add_window(self, id_: str, name: str, time: str, session: str, tags: list[str]) -> None:
        window = make_window(id_, name, created_at=time, session_id=session, tags=tags)
        expected = (
            SessionNotFoundError
            if session not in self.sessions
            else WindowExistsError
            if id_ in self.windows or self.taken(self.windows, name)
            else None
        )
        if expected:
            with pytest.raises(expected):
                self.index.add_window(window)
        else:
            self.windows[id_] = self.index.add_window(window)

    @rule(id_=IDS, state=st.sampled_from(["active", "frozen", "expired", "deleted"]))
    def move_session(self, id_: str, state: Any) -> None:
        old = self.sessions.get(id_)
        try:
            new = self.index.update_session(id_, lambda s: s.to(state))
        except SessionNotFoundError:
            assert old is None
        except StateTransitionError:
            assert old is not None
            with pytest.raises(StateTransitionError):
                old.to(state)
        except SessionExistsError:
            assert old is not None
            assert old.state == "deleted"
            assert self.taken(self.sessions, old.name, but=id_)
        else:
            assert old is not None
            assert new == old.to(state).replace(updated_at=new.updated_at)
            self.sessions[id_] = new

    @precondition(lambda self: self.windows)
    @rule(data=st.data(), name=NAMES)
    def rename_window(self, data: st.DataObject, name: str) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.windows)))
        if self.windows[id_].state != "deleted" and self.taken(self.windows, name, but=id_):
            with pytest.raises(WindowExistsError):
                self.index.update_window(id_, lambda w: w.replace(name=name))
        else:
            self.windows[id_] = self.index.update_window(id_, lambda w: w.replace(name=name))

    @rule(id_=IDS, softly=st.booleans())
    def delete_window(self, id_: str, softly: bool) -> None:
        old = self.windows.get(id_)
        if old is None:
            with pytest.raises(WindowNotFoundError):
                self.index.remove_window(id_)
        elif softly and old.state != "deleted":
            self.windows[id_] = self.index.update_window(id_, lambda w: w.to("deleted"))
        else:
            self.index.remove_window(id_)
            del self.windows[id_]

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def remove_session(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.sessions)))
        self.index.remove_session(id_)
        del self.sessions[id_]

    @rule()
    def restart(self) -> None:
        self.index = Index(Path(self.folder.name))

    @invariant()
    def lists_what_the_model_has(self) -> None:
        live = [s for s in self.sessions.values() if s.state != "deleted"]
        assert self.index.sessions().items == sorted(live, key=lambda s: s.created_at)
        shown = {w.id for w in self.windows.values() if w.state != "deleted"}
        windows = self.index.windows().items
        assert {w.id for w in windows} == shown
        assert [w.created_at for w in windows] == sorted(
            (w.created_at for w in windows), reverse=True
        )
        tagged = {w.id for w in self.windows.values() if "x" in w.tags} & shown
        assert {w.id for w in self.index.windows(tags=["x"]).items} == tagged

    @invariant()
    def finds_what_the_model_has(self) -> None:
        for id_, window in self.windows.items():
            assert self.index.get_window(id_) == window
            if window.state != "deleted":
                assert self.index.find_window(window.name.upper()) == window
        for id_, session in self.sessions.items():
            assert self.index.get_session(id_) == session
            if session.state == "deleted":
                assert self.index.find_session(id_) != session


TestIndexMachine = IndexMachine.TestCase
IndexMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)

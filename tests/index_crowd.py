"""One of many processes that work on one index at once; `test_index_crowd` runs them.

Each one changes entries of its own, which nobody else changes, so it knows at every moment what the
index has to say of them, and asks. Names are another matter: a few are wanted by all, and who comes
too late is refused. What it did is in its log, one JSON line a change.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from entries import make_session, make_window

from cwm_jupyter.core.index import Index
from cwm_jupyter.core.models import Session, Window
from cwm_jupyter.errors import SessionExistsError, WindowExistsError

#: A session that all of them count in, in the transaction that adds a window.
COMMON = "common"
_WANTED = [f"wanted {number}" for number in range(3)]
_MOST = 5  # entries of a kind that one process has at a time


def work(folder: str, number: int, operations: int) -> None:
    """Do so many operations, drawn at random, and write the log."""
    with (Path(folder) / f"crowd-{number}.log").open("w") as log:
        worker = _Worker(Index(Path(folder), lock_timeout_s=120), number, log.write)
        for _ in range(operations):
            worker.step()


class _Worker:
    def __init__(self, index: Index, number: int, write: Callable[[str], object]) -> None:
        self.index, self.me, self.write = index, f"p{number}", write
        self.random = random.Random(number)
        self.added = 0
        self.windows: dict[str, Window] = {}
        self.sessions: dict[str, Session] = {}
        self.steps: list[tuple[Callable[[], None], int]] = [
            (self.add_window, 4),
            (self.change_window, 4),
            (self.rename_window, 3),
            (self.delete_window, 2),
            (self.restore_window, 1),
            (self.purge_window, 3),
            (self.list_windows, 3),
            (self.add_session, 2),
            (self.change_session, 2),
            (self.purge_session, 1),
            (self.list_sessions, 2),
        ]

    def step(self) -> None:
        steps, weights = zip(*self.steps, strict=True)
        self.random.choices(steps, weights)[0]()

    def note(self, table: dict[str, Any], id_: str, entry: Any) -> None:
        """Remember a change, and log it."""
        if entry is None:
            del table[id_]
        else:
            table[id_] = entry
        what = "windows" if table is self.windows else "sessions"
        self.write(json.dumps([what, id_, entry and entry.to_dict()]) + "\n")

    def new_id(self) -> str:
        self.added += 1
        return f"{self.me}-{self.added}"

    def name(self, id_: str) -> str:
        return self.random.choice([id_.upper(), *_WANTED])

    def any_of(self, table: dict[str, Any], *, deleted: bool) -> Any:
        found = [entry for entry in table.values() if (entry.state == "deleted") == deleted]
        return self.random.choice(found) if found else None

    def add_window(self) -> None:
        if len(self.windows) == _MOST:
            return self.list_windows()
        id_ = self.new_id()
        window = make_window(id_, self.name(id_), session_id=COMMON, tags=[self.me])
        try:
            with self.index.transaction() as transaction:
                transaction.update_session(COMMON, lambda s: s.replace(tokens=s.tokens + 1))
                added = transaction.add_window(window)
        except WindowExistsError:
            assert window.name in _WANTED
        else:
            self.note(self.windows, id_, added)

    def change_window(self) -> None:
        if window := self.any_of(self.windows, deleted=False):
            changed = self.index.update_window(
                window.id,
                lambda w: w.replace(thaws=w.thaws + 1, note="x" * self.random.randint(0, 9)),
            )
            assert changed.thaws == window.thaws + 1
            self.note(self.windows, window.id, changed)

    def rename_window(self) -> None:
        if window := self.any_of(self.windows, deleted=False):
            name = self.name(window.id)
            try:
                changed = self.index.update_window(window.id, lambda w: w.replace(name=name))
            except WindowExistsError:
                assert name in _WANTED
            else:
                self.note(self.windows, window.id, changed)

    def delete_window(self) -> None:
        if window := self.any_of(self.windows, deleted=False):
            changed = self.index.update_window(window.id, lambda w: w.to("deleted"))
            self.note(self.windows, window.id, changed)

    def restore_window(self) -> None:
        if window := self.any_of(self.windows, deleted=True):
            try:
                changed = self.index.update_window(window.id, lambda w: w.to("intact"))
            except WindowExistsError:
                assert window.name in _WANTED
            else:
                self.note(self.windows, window.id, changed)

    def purge_window(self) -> None:
        if window := self.any_of(self.windows, deleted=True):
            self.index.remove_window(window.id)
            self.note(self.windows, window.id, None)

    def list_windows(self) -> None:
        live = {w.id: w for w in self.windows.values() if w.state != "deleted"}
        page = self.index.windows(tags=[self.me], sort="-name")
        assert {w.id: w for w in page.items} == live
        assert page.total == len(live)
        for window in live.values():
            assert self.index.require_window(window.name) == window

    def add_session(self) -> None:
        if len(self.sessions) == _MOST:
            return self.purge_session()
        id_ = self.new_id()
        session = make_session(id_, self.name(id_), tags=[self.me])
        try:
            added = self.index.add_session(session)
        except SessionExistsError:
            assert session.name in _WANTED
        else:
            self.note(self.sessions, id_, added)

    def change_session(self) -> None:
        if session := self.any_of(self.sessions, deleted=False):
            changed = self.index.update_session(session.id, lambda s: s.replace(turns=s.turns + 1))
            assert changed.turns == session.turns + 1
            self.note(self.sessions, session.id, changed)

    def purge_session(self) -> None:
        if session := self.any_of(self.sessions, deleted=False):
            with self.index.transaction() as transaction:
                transaction.update_session(session.id, lambda s: s.to("deleted"))
                transaction.remove_session(session.id)
            self.note(self.sessions, session.id, None)

    def list_sessions(self) -> None:
        page = self.index.sessions(tags=[self.me], state=["active"])
        assert {s.id: s for s in page.items} == self.sessions

"""The index: what sessions and windows there are.

A TinyDB database over `IndexFile`. Each reading method looks at the present generation; each
writing method is a transaction of its own, and `Index.transaction` joins several into one write.
All methods block, for milliseconds, and may be called from any thread and any process.

A session or window is *live* until it is deleted (softly: the entry stays, for undo), a window
until a newer version supersedes it. Live ones are what `find` and the listings see, and their names
are unique, case aside. ``NAME@vN`` is a version of a window, superseded or not.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

from tinydb import TinyDB
from tinydb.storages import Storage
from tinydb.table import Document, Table

from cwm_jupyter.core.files import make_private_dir
from cwm_jupyter.core.indexfile import IndexFile, Tables
from cwm_jupyter.core.models import SESSION_STATES, Page, Session, Window, WindowState
from cwm_jupyter.core.names import check_id, check_name, name_key
from cwm_jupyter.core.query import SESSION_SORTS, WINDOW_SORTS, Listed, Query
from cwm_jupyter.core.versions import placed, settled
from cwm_jupyter.errors import (
    CWMError,
    SessionExistsError,
    SessionNotFoundError,
    ValidationError,
    WindowExistsError,
    WindowNotFoundError,
)

__all__ = ["Index", "Transaction"]

_Entry = TypeVar("_Entry", Session, Window)
_VERSION = re.compile(r"(.+)@[vV]([1-9][0-9]{0,8})", re.ASCII)


@dataclass(frozen=True)
class _Kind(Generic[_Entry]):
    """What differs between sessions and windows."""

    what: str
    table: str
    model: type[_Entry]
    listed: Listed
    missing: Callable[[str, Iterable[str]], CWMError]
    exists: type[CWMError]


_SESSIONS = _Kind(
    "session",
    "sessions",
    Session,
    Listed("session", SESSION_STATES, SESSION_SORTS, "created"),
    SessionNotFoundError,
    SessionExistsError,
)
_WINDOWS = _Kind(
    "window",
    "windows",
    Window,
    Listed("window", get_args(WindowState), WINDOW_SORTS, "-created"),
    WindowNotFoundError,
    WindowExistsError,
)


class _Generation(Storage):
    """TinyDB's storage over the tables of one generation."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def read(self) -> Tables:
        return self._tables

    def write(self, data: Tables) -> None:
        self._tables.update(data)


class _Shared(Document):
    """Stands where TinyDB copies each document for whoever reads it: here none is copied."""

    def __new__(cls, document: Mapping[str, Any], _id: str) -> Mapping[str, Any]:  # type: ignore[misc]
        return document


class _Table(Table):
    """A table under our own ids, whose documents are replaced and never changed in place."""

    document_class = _Shared  # type: ignore[assignment]  # as far as its __new__ is looked at
    document_id_class = str  # type: ignore[assignment]  # TinyDB's annotations know int alone
    default_query_cache_capacity = 0

    def read(self, key: str) -> Mapping[str, Any] | None:
        return self.get(doc_id=key)  # type: ignore[call-overload,no-any-return]

    def put(self, key: str, document: Mapping[str, Any]) -> None:
        self._update_table(lambda table: table.update({key: document}))

    def drop(self, key: str) -> bool:
        return bool(self.remove(doc_ids=[key]))  # type: ignore[list-item]

    def _update_table(self, updater: Callable[[dict[Any, Any]], None]) -> None:
        """Change a copy of the table; TinyDB would make two, to convert ids that need none."""
        table = dict(self._read_table())
        updater(table)
        self._storage.write({self.name: table})


class _Database(TinyDB):
    table_class = _Table


class _Reader:
    """The reading half of the index."""

    def _tables(self) -> Tables:
        raise NotImplementedError

    def get_session(self, session_id: str) -> Session | None:
        """Return the session of this id, deleted or not, or None."""
        return self._get(_SESSIONS, session_id)

    def get_window(self, window_id: str) -> Window | None:
        """Return the window of this id, deleted or not, or None."""
        return self._get(_WINDOWS, window_id)

    def find_session(self, name_or_id: str) -> Session | None:
        """Return the live session of this id or, case aside, this name, or None."""
        return self._find(_SESSIONS, name_or_id)

    def find_window(self, name_or_id: str) -> Window | None:
        """Return the live window of this id or, case aside, this name, or None.

        ``NAME@vN`` is version N of a name: superseded or not, but not deleted.
        """
        version = _VERSION.fullmatch(name_or_id)
        if version is None:
            return self._find(_WINDOWS, name_or_id)
        return next((w for w in self.versions(version[1]) if w.version == int(version[2])), None)

    def versions(self, name: str) -> list[Window]:
        """Return the window of this name and its earlier versions, newest first; none deleted."""
        wanted = name_key(name)
        found = [
            _entry(_WINDOWS, document)
            for document in self._table(_WINDOWS).search(
                lambda each: each["state"] != "deleted" and name_key(each["name"]) == wanted
            )
        ]
        return sorted(found, key=lambda w: (w.version, w.created_at), reverse=True)

    def require_session(self, name_or_id: str) -> Session:
        """Return what `find_session` finds.

        Raises
        ------
        SessionNotFoundError
            There is none; the hint gives the nearest names.
        """
        session = self._find(_SESSIONS, name_or_id)
        if session is None:
            raise self._missing(_SESSIONS, name_or_id)
        return session

    def require_window(self, name_or_id: str) -> Window:
        """Return what `find_window` finds.

        Raises
        ------
        WindowNotFoundError
            There is none; the hint gives the nearest names, or the versions that there are.
        """
        window = self.find_window(name_or_id)
        if window is not None:
            return window
        version = _VERSION.fullmatch(name_or_id)
        versions = self.versions(version[1]) if version else []
        if versions:
            raise WindowNotFoundError(name_or_id, [f"{w.name}@v{w.version}" for w in versions])
        raise self._missing(_WINDOWS, name_or_id)

    def sessions(self, query: Query | None = None, **asked: Any) -> Page:
        """List sessions, oldest first where nothing else is asked.

        Parameters
        ----------
        query
            What to list; None is all that are not deleted.
        **asked
            Fields of the query, for short.

        Raises
        ------
        ValidationError
            Something is asked that cannot be.
        """
        return self._page(_SESSIONS, _asked(query, asked))

    def windows(self, query: Query | None = None, **asked: Any) -> Page:
        """List windows, newest first where nothing else is asked.

        Parameters
        ----------
        query
            What to list; None is all that are live.
        **asked
            Fields of the query, for short.

        Raises
        ------
        ValidationError
            Something is asked that cannot be.
        SessionNotFoundError
            Windows of a session are asked for, and there is none of that name or id.
        """
        return self._page(_WINDOWS, _asked(query, asked))

    def all_sessions(self) -> list[Session]:
        """Return all sessions, in whatever state, in no order."""
        return [_entry(_SESSIONS, document) for document in self._table(_SESSIONS)]

    def all_windows(self) -> list[Window]:
        """Return all windows, the deleted and the superseded ones too, in no order."""
        return [_entry(_WINDOWS, document) for document in self._table(_WINDOWS)]

    def _table(self, kind: _Kind[_Entry]) -> _Table:
        table = _Database(self._tables(), storage=_Generation).table(kind.table)
        assert isinstance(table, _Table)  # noqa: S101  (for the type checker)
        return table

    def _get(self, kind: _Kind[_Entry], key: str) -> _Entry | None:
        document = self._table(kind).read(key)
        return None if document is None else _entry(kind, document)

    def _find(self, kind: _Kind[_Entry], name_or_id: str) -> _Entry | None:
        table = self._table(kind)
        document = table.read(name_or_id)
        if document is None or not _live(document):
            wanted = name_key(name_or_id)
            document = table.get(lambda each: name_key(each["name"]) == wanted and _live(each))
        return None if document is None else _entry(kind, document)

    def _missing(self, kind: _Kind[_Entry], name_or_id: str) -> CWMError:
        known = (document["name"] for document in self._table(kind).search(_live))
        return kind.missing(name_or_id, known)

    def _page(self, kind: _Kind[_Entry], query: Query) -> Page:
        kind.listed.check(query)
        session_ids = self._session_ids(query.session) if query.session is not None else ()
        first, *others = kind.listed.conditions(query, session_ids)
        chosen: list[Any] = self._table(kind).search(first)  # type: ignore[arg-type]  # a name
        for condition in others:
            chosen = [document for document in chosen if condition(document)]
        kind.listed.sort(query, chosen)
        end = None if query.limit is None else query.offset + query.limit
        return Page(
            items=[_entry(kind, document) for document in chosen[query.offset : end]],
            total=len(chosen),
            limit=query.limit,
            offset=query.offset,
        )

    def _session_ids(self, name_or_id: str) -> set[str]:
        """Return the id of the live session of this name, or else of all that had it.

        An entry may be gone for good while windows of the session are there: its id is enough.
        """
        live = self.find_session(name_or_id)
        if live is not None:
            return {live.id}
        wanted = name_key(name_or_id)
        ids = {
            each["id"]
            for each in self._table(_SESSIONS)
            if each["id"] == name_or_id or name_key(each["name"]) == wanted
        }
        if not ids and not self._table(_WINDOWS).contains(
            lambda each: each["session_id"] == name_or_id
        ):
            raise self._missing(_SESSIONS, name_or_id)
        return ids or {name_or_id}


class Transaction(_Reader):
    """Reads and writes that become one generation of the index, or none; see `Index`."""

    def __init__(self, tables: Tables) -> None:
        self._staged = tables

    def _tables(self) -> Tables:
        return self._staged

    def add_session(self, session: Session) -> Session:
        """Add a session; see `Index.add_session`."""
        return self._add(_SESSIONS, session)

    def update_session(self, session_id: str, change: Callable[[Session], Session]) -> Session:
        """Change a session; see `Index.update_session`."""
        return self._update(_SESSIONS, session_id, change)

    def remove_session(self, session_id: str) -> None:
        """Remove a session's entry; see `Index.remove_session`."""
        self._remove(_SESSIONS, session_id)

    def add_window(self, window: Window) -> Window:
        """Add a window; see `Index.add_window`.

        The session of a clone may be gone, where that of the window it was made of is too.
        """
        parent = self.get_window(window.parent_window_id) if window.parent_window_id else None
        known = parent is not None and parent.session_id == window.session_id
        if not known and self.get_session(window.session_id) is None:
            raise self._missing(_SESSIONS, window.session_id)
        return self._add(_WINDOWS, window)

    def add_version(self, window: Window) -> Window:
        """Add a window as the newest version of the one that has its name.

        That one is superseded. Where none has the name, it is the first. Raises as `add_window`.
        """
        holder = self._find(_WINDOWS, window.name)
        if holder is None or name_key(holder.name) != name_key(window.name):
            return self.add_window(window)
        series = self._series(holder)
        self._put(_WINDOWS, holder.replace(superseded=True))
        return self.add_window(
            window.replace(
                name=holder.name,
                version=max(each.numbered for each in series) + 1,
                series_id=holder.series,
            )
        )

    def update_window(self, window_id: str, change: Callable[[Window], Window]) -> Window:
        """Change a window; see `Index.update_window`."""
        others: list[Window] = []

        def changed(old: Window) -> Window:
            new = change(old)
            if (old.name, old.state == "deleted") == (new.name, new.state == "deleted"):
                return new
            others.extend(w for w in self._series(old) if w.id != old.id and w.state != "deleted")
            return placed(old, new, others)

        window = self._update(_WINDOWS, window_id, changed)
        for other in settled(window, others):
            self._put(_WINDOWS, other)
        return window

    def remove_window(self, window_id: str) -> None:
        """Remove a window's entry; see `Index.remove_window`."""
        window = self.get_window(window_id)
        self._remove(_WINDOWS, window_id)
        if window is None:
            return
        for other in self._series(window):
            if other.numbered < window.numbered:
                self._put(_WINDOWS, other.replace(last_version=window.numbered))

    def _add(self, kind: _Kind[_Entry], entry: _Entry) -> _Entry:
        check_id(entry.id, kind.what)
        if self._table(kind).read(entry.id) is not None:
            raise kind.exists(
                f"There is a {kind.what} with the id {entry.id} already.", id=entry.id
            )
        entry = entry.replace(name=check_name(entry.name, kind.what))
        self._check_free(kind, entry)
        return self._put(kind, entry)

    def _update(self, kind: _Kind[_Entry], key: str, change: Callable[[_Entry], _Entry]) -> _Entry:
        old = self._get(kind, key)
        if old is None:
            raise self._missing(kind, key)
        new = change(old)
        if new.id != old.id:
            raise ValidationError(f"The id of a {kind.what} cannot change.")
        if new.state != old.state:
            old.to(new.state)  # raises where no such way is allowed
        if new.name != old.name:
            new = new.replace(name=check_name(new.name, kind.what))
        if new.name != old.name or not _is_live(old):
            self._check_free(kind, new)
        return self._put(kind, new)

    def _series(self, window: Window) -> list[Window]:
        """Return all versions of a window, deleted ones and itself too, in no order."""
        documents = self._table(_WINDOWS).search(
            lambda each: (each.get("series_id") or each["id"]) == window.series
        )
        return [_entry(_WINDOWS, document) for document in documents]

    def _check_free(self, kind: _Kind[_Entry], entry: _Entry) -> None:
        """Refuse a live entry whose name another live one has, as its name or its id."""
        other = self._find(kind, entry.name) if _is_live(entry) else None
        if other is not None and other.id != entry.id and not _same_series(other, entry):
            raise kind.exists(
                f"There is a {kind.what} {other.name!r} already.", name=entry.name, id=other.id
            )

    def _put(self, kind: _Kind[_Entry], entry: _Entry) -> _Entry:
        self._table(kind).put(entry.id, entry.to_dict())
        return entry

    def _remove(self, kind: _Kind[_Entry], key: str) -> None:
        if not self._table(kind).drop(key):
            raise self._missing(kind, key)


class Index(_Reader):
    """The sessions and windows of one home.

    Parameters
    ----------
    folder
        Where the index lies; it is created, private.
    lock_timeout_s
        How long a writer waits for another one.

    Notes
    -----
    All methods can raise `IndexCorruptError` (neither the index nor the generation before can be
    read) and `SchemaError` (a newer release wrote it); those that write also `IndexBusyError` and
    `ResourceExhaustedError`. Whatever is raised, the index is as it was.
    """

    def __init__(self, folder: Path, lock_timeout_s: float = 10.0) -> None:
        self._file = IndexFile(make_private_dir(folder), lock_timeout_s)

    @property
    def path(self) -> Path:
        """The index's file."""
        return self._file.path

    @property
    def warning(self) -> str | None:
        """What the user should know: that a damaged file was recovered; None if all is well."""
        return self._file.warning

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Join several reads and writes: all in one generation, or none if an exception leaves.

        Within the block use the transaction that it gives. The index itself can be read there and
        shows the state before; writing through it raises RuntimeError.
        """
        with self._file.transaction() as tables:
            yield Transaction(tables)

    def add_session(self, session: Session) -> Session:
        """Add a session and return it as stored, its name in the normal form.

        Raises
        ------
        SessionExistsError
            Its id, or as a live one its name, is taken.
        ValidationError
            Its name or id may not be one.
        """
        with self.transaction() as transaction:
            return transaction.add_session(session)

    def update_session(self, session_id: str, change: Callable[[Session], Session]) -> Session:
        """Store and return what `change` makes of the session, under the lock.

        Raises
        ------
        SessionNotFoundError
            There is no session of this id.
        StateTransitionError
            The new state cannot be reached from the old one.
        SessionExistsError
            Its new name, or the name that it has when it comes back, is taken.
        """
        with self.transaction() as transaction:
            return transaction.update_session(session_id, change)

    def remove_session(self, session_id: str) -> None:
        """Remove a session's entry for good; windows that were made of it stay.

        Raises
        ------
        SessionNotFoundError
            There is no session of this id.
        """
        with self.transaction() as transaction:
            transaction.remove_session(session_id)

    def add_window(self, window: Window) -> Window:
        """Add a window and return it as stored, its name in the normal form.

        Raises
        ------
        WindowExistsError
            Its id, or as a live one its name, is taken.
        SessionNotFoundError
            There is no entry of its session.
        ValidationError
            Its name or id may not be one.
        """
        with self.transaction() as transaction:
            return transaction.add_window(window)

    def update_window(self, window_id: str, change: Callable[[Window], Window]) -> Window:
        """Store and return what `change` makes of the window, under the lock.

        Raises
        ------
        WindowNotFoundError
            There is no window of this id.
        StateTransitionError
            The new state cannot be reached from the old one.
        WindowExistsError
            Its new name, or the name that it has when it comes back, is taken.
        """
        with self.transaction() as transaction:
            return transaction.update_window(window_id, change)

    def remove_window(self, window_id: str) -> None:
        """Remove a window's entry for good; its version's number is not given again.

        Raises
        ------
        WindowNotFoundError
            There is no window of this id.
        """
        with self.transaction() as transaction:
            transaction.remove_window(window_id)

    def forget_previous(self) -> None:
        """Keep no trace of removed entries: not in the generation before the present one either."""
        self._file.forget_previous()

    def _tables(self) -> Tables:
        return self._file.read()


def _live(value: Mapping[Any, Any]) -> bool:  # the parameter's name is TinyDB's
    return value["state"] != "deleted" and not value.get("superseded")


def _is_live(entry: Session | Window) -> bool:
    return entry.state != "deleted" and not (isinstance(entry, Window) and entry.superseded)


def _same_series(one: Session | Window, other: Session | Window) -> bool:
    return isinstance(one, Window) and isinstance(other, Window) and one.series == other.series


def _entry(kind: _Kind[_Entry], document: Mapping[str, Any]) -> _Entry:
    if document.get("metadata"):
        # Documents are shared between readers; what is nested here would be with the caller too.
        document = {**document, "metadata": copy.deepcopy(document["metadata"])}
    return kind.model.from_dict(dict(document))


def _asked(query: Query | None, fields: Mapping[str, Any]) -> Query:
    return Query(**fields) if query is None else query.replace(**fields)

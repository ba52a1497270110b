"""Deletion for good, and the proof that nothing is left.

Removing is soft: an entry stays, hidden, and can be brought back. Purging is for good.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from anyio import to_thread

from cwm_jupyter.core.kept import KeptStore, Traces, kept
from cwm_jupyter.core.models import Session, Window
from cwm_jupyter.core.names import name_key
from cwm_jupyter.core.outcomes import DeletedCheck, DeletedReport
from cwm_jupyter.core.parts import Parts
from cwm_jupyter.core.purge import Purge
from cwm_jupyter.core.receipts import Receipt, Receipts
from cwm_jupyter.core.reports import PurgeReport
from cwm_jupyter.errors import (
    CWMError,
    SessionNotFoundError,
    StackDownError,
    StateTransitionError,
    WindowNotFoundError,
)

__all__ = ["Deletion"]

_PAGE = 5000  # LMCache's own limit
#: what an index has its entries under, also where it cannot be parsed
_KEY = re.compile(rb'"([a-z0-9][a-z0-9_-]{0,63})":')


class Deletion:
    """Deletes for good, and looks whether anything is left.

    Parameters
    ----------
    parts
        What the manager works with.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def purge(self, names: Sequence[str] = (), *, dry_run: bool = False) -> PurgeReport:
        """Delete for good what was removed, or only tell what would go.

        Parameters
        ----------
        names
            Of windows that were removed; all removed windows of such a name go. None: all windows
            and sessions that were removed.

        Raises
        ------
        StateTransitionError
            A window of this name is there and was not removed; nothing was deleted.
        WindowNotFoundError
            There is none of this name; nothing was deleted.
        KVStoreConnectionError
            The chunks of one are in a remote store that is not connected; nothing was deleted.
        """
        store = kept(self._parts.store)
        windows, sessions = await to_thread.run_sync(self._removed, names)
        return await self._run(store, windows, sessions, dry_run=dry_run)

    async def delete_window(self, name: str) -> PurgeReport:
        """Delete a window for good, in one step; one of this name that was removed before, too.

        Raises
        ------
        WindowNotFoundError
            There is none.
        KVStoreError
            Its chunks are in a store that cannot be looked after; it was not deleted.
        KVStoreConnectionError
            They are in a remote store that is not connected; it was removed, and can be brought
            back.
        """
        store = kept(self._parts.store)
        windows = await to_thread.run_sync(self._remove_window, name)
        return await self._run(store, windows, [])

    async def delete_session(self, name: str) -> PurgeReport:
        """Delete a session for good, in one step; its windows stay, with their chunks.

        Raises
        ------
        SessionNotFoundError
            There is none.
        SessionBusyError
            It is being used; it was not deleted.
        """
        store = kept(self._parts.store)
        sessions = await to_thread.run_sync(self._remove_session, name)
        return await self._run(store, [], sessions)

    async def verify(self, name: str | None = None) -> DeletedReport:
        """Look whether anything is left of what was purged.

        Parameters
        ----------
        name
            Of a window or session that was purged, or its id; None: of all.

        Raises
        ------
        WindowNotFoundError
            Nothing of this name was purged, or its receipt is gone.
        """
        started = time.perf_counter()
        store = kept(self._parts.store)
        receipts = await to_thread.run_sync(self._receipts, name)
        labels = {label for receipt in receipts for label in receipt.labels}
        owners = {window.id for receipt in receipts for window in receipt.windows}
        # Listed first: what is stored meanwhile is then seen to be new.
        listed = await self._listed(store, labels)
        traces = await store.traces(owners, labels)
        traced = {one for receipt in receipts for one in (*receipt.ids, *receipt.lineages)}
        files = await to_thread.run_sync(self._files, traced)
        checks = [_check(receipt, traces, files, listed) for receipt in receipts]
        return DeletedReport(
            checks=checks,
            unmeant=traces.unmeant,
            gone=not traces.unmeant and all(check.gone for check in checks),
            verify_s=time.perf_counter() - started,
        )

    async def _run(
        self,
        store: KeptStore,
        windows: Sequence[Window],
        sessions: Sequence[Session],
        *,
        dry_run: bool = False,
    ) -> PurgeReport:
        stack, down = None, False
        try:
            stack = await self._parts.connect()
        except StackDownError:
            down = True
        except CWMError:  # one that hangs must not keep anything from being deleted
            pass
        purge = Purge(self._parts.library, store, stack, down)
        if dry_run:
            return await purge.run(windows, sessions, dry_run=True)
        with self._parts.audit.entry(
            "purge",
            windows=[window.known_as for window in windows],
            sessions=[session.name for session in sessions],
        ) as entry:
            report = await purge.run(windows, sessions)
            entry.size_bytes = report.freed_bytes
            return report

    def _removed(self, names: Sequence[str]) -> tuple[list[Window], list[Session]]:
        index = self._parts.library.index
        deleted: list[Window] = index.windows(state="deleted").items
        if not names:
            return deleted, index.sessions(state="deleted").items
        return list({w.id: w for name in names for w in self._named(name, deleted)}.values()), []

    def _named(self, name: str, deleted: Sequence[Window]) -> list[Window]:
        found = [window for window in deleted if _is_called(window, name)]
        if found:
            return found
        live = self._parts.library.index.find_window(name)
        if live is None:
            raise WindowNotFoundError(name, [window.known_as for window in deleted])
        raise StateTransitionError(
            f"The window {live.name!r} was not removed, so it is not purged.",
            hint="Remove it first, with cwm rm; until it is purged it can be brought back.",
            window=live.name,
        )

    def _remove_window(self, name: str) -> list[Window]:
        with self._parts.library.index.transaction() as transaction:
            found = transaction.find_window(name)
            if found is not None:
                return [transaction.update_window(found.id, lambda w: w.to("deleted"))]
            deleted = [w for w in transaction.all_windows() if w.state == "deleted"]
            named = [window for window in deleted if _is_called(window, name)]
            return named or [transaction.require_window(name)]  # which raises

    def _remove_session(self, name: str) -> list[Session]:
        index = self._parts.library.index
        found = index.find_session(name)
        if found is not None:
            with self._parts.library.using(found):
                return [index.update_session(found.id, lambda s: s.to("deleted"))]
        deleted = [s for s in index.all_sessions() if s.state == "deleted"]
        named = [session for session in deleted if _is_called(session, name)]
        if not named:
            raise SessionNotFoundError(name, [s.name for s in index.sessions().items])
        return named

    def _receipts(self, name: str | None) -> list[Receipt]:
        receipts = list(Receipts(self._parts.library.home).all())
        if name is None:
            return receipts
        named = [receipt for receipt in receipts if _speaks_of(receipt, name)]
        if not named:
            known = [one.name for r in receipts for one in (*r.windows, *r.sessions)]
            raise WindowNotFoundError(name, known)
        return named

    def _files(self, ids: Collection[str]) -> dict[str, set[str]]:
        """Return, by id, the files of the home that still speak of it."""
        home = self._parts.library.home
        found: dict[str, set[str]] = {}
        for folder in (home / "windows", home / "sessions", home / "keys"):
            for path in folder.glob("*"):  # a folder that is not there has none
                named = path.name.lstrip(".").partition(".")[0]
                if named in ids:
                    found.setdefault(named, set()).add(f"{folder.name}/{path.name}")
        for path in home.glob("index*"):
            for key in {one.decode() for one in _KEY.findall(_bytes(path))} & set(ids):
                found.setdefault(key, set()).add(path.name)
        return found

    async def _listed(self, store: KeptStore, labels: Collection[str]) -> set[str] | None:
        """Return the labels of the chunks that LMCache lists, None where it cannot be asked."""
        try:
            stack = await self._parts.connect()
            if stack.cache is None:
                return None
            found: set[str] = set()
            cursor = None
            while True:
                page = await stack.cache.list_page(limit=_PAGE, cursor=cursor)
                found.update(map(store.label, page.keys))
                cursor = page.cursor
                if cursor is None:
                    return found.intersection(labels)
        except CWMError:
            return None


def _check(
    receipt: Receipt,
    traces: Traces,
    files: Mapping[str, Collection[str]],
    listed: Collection[str] | None,
) -> DeletedCheck:
    until = receipt.purged_at or receipt.begun_at
    there = traces.stored_at.keys() & receipt.labels
    again = {label for label in there if traces.stored_at[label] > until}
    traced = (*receipt.ids, *receipt.lineages)
    return DeletedCheck(
        windows=[one.name for one in receipt.windows],
        sessions=[one.name for one in receipt.sessions],
        purged_at=receipt.purged_at,
        chunks_deleted=len(receipt.labels),
        files=sorted({file for one in traced for file in files.get(one, ())}),
        holds=sum(one.id in traces.owners for one in receipt.windows),
        chunks=len(there) - len(again),
        chunks_again=len(again),
        listed=None if listed is None else len(set(receipt.labels) & set(listed) - again),
        memory_cleared=receipt.memory_cleared,
        engine_cleared=receipt.engine_cleared,
        remote_cleared=receipt.remote_cleared,
    )


def _is_called(entry: Window | Session, name: str) -> bool:
    names = {entry.name, entry.known_as} if isinstance(entry, Window) else {entry.name}
    return name == entry.id or name_key(name) in map(name_key, names)


def _speaks_of(receipt: Receipt, name: str) -> bool:
    return any(
        name == one.id or name_key(name) == name_key(one.name)
        for one in (*receipt.windows, *receipt.sessions)
    )


def _bytes(path: Path) -> bytes:
    with suppress(OSError):
        return path.read_bytes()
    return b""

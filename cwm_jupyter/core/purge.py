"""Purge: delete for good what was removed, and leave nothing of it.

The order is the promise. A receipt says what is to go. Then the index entry goes, then hold and
chunks on the disk, then what LMCache and the engine have in memory, then the files and, with the
last entry of a lineage, its secret: a window in the index has its chunks, whatever crashes when.
What a crash leaves is found by `cwm_jupyter.core.upkeep`, and the receipt tells whose it was.

Of a window in a remote store only the servers can delete the chunks. So it is purged only while a
stack like its own is connected; where that fails half-way, the secret stays, which leads to them.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio
from anyio import to_thread

from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.going import Going, choose, choose_remote
from cwm_jupyter.core.kept import Freed, KeptStore
from cwm_jupyter.core.library import Library
from cwm_jupyter.core.models import Session, Window, now
from cwm_jupyter.core.receipts import Named, Receipt, Receipts
from cwm_jupyter.core.reports import PurgeReport
from cwm_jupyter.errors import CWMError, KVStoreConnectionError, StateTransitionError

__all__ = ["Purge"]

_POLL_S = 0.05
#: how long servers may be busy with what is to go
_PATIENCE_S = 5.0


@dataclass
class Purge:
    """One purge.

    Parameters
    ----------
    library, store
        Where windows and chunks are kept.
    stack
        The running one; None: there is none, or it cannot be reached.
    down
        Whether none is running.
    """

    library: Library
    store: KeptStore
    stack: ConnectedStack | None
    down: bool

    async def run(
        self, windows: Sequence[Window], sessions: Sequence[Session], *, dry_run: bool = False
    ) -> PurgeReport:
        """Delete removed windows and sessions for good, or only tell what would go.

        Raises
        ------
        StateTransitionError
            One of them was brought back meanwhile; nothing was deleted.
        SessionBusyError
            One of the sessions is being used; nothing was deleted.
        KVStoreConnectionError
            The chunks of one of the windows are in a remote store that is not connected; nothing
            was deleted.
        """
        await to_thread.run_sync(self._check_reached, windows)
        if not dry_run:
            for session in sessions:  # one that was removed in the middle of a turn goes on
                with self.library.using(session):
                    pass
            await self._await_stores()
        going = await choose(self.library, self.store, self.stack, windows, sessions)
        looked = await self._free(going, dry_run=True)
        if dry_run or not going.ids:
            return _report(going, looked, removed=not dry_run)
        receipts = Receipts(self.library.home)
        receipt = _begun(going, looked)
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(receipts.write, receipt)
            try:
                await to_thread.run_sync(self._leave_index, going)
            except CWMError:
                await to_thread.run_sync(receipts.remove, receipt.id)
                raise
            copies = await to_thread.run_sync(self._clear_copies)
            receipt = receipt.replace(lineages=going.lineages)
            freed = await self._free(going)
            remote = await self._clear_remote(going)
            memory, engine = await self._clear_memory(going), await self._clear_engine(going)
            if remote is False:  # the secret leads to what may be there still
                far = {window.lineage_id for window in going.far}
                going.lineages = [one for one in going.lineages if one not in far]
            await to_thread.run_sync(self._forget, going)
            receipt = receipt.replace(
                purged_at=now() if copies else None,  # else it is for upkeep to finish
                labels=sorted({*receipt.labels, *freed.labels}),
                freed_bytes=freed.freed_bytes,
                memory_cleared=memory,
                engine_cleared=engine,
                remote_cleared=remote,
            )
            await to_thread.run_sync(receipts.write, receipt)
        return _report(going, freed, removed=True).replace(
            memory_cleared=memory,
            engine_cleared=engine,
            remote_cleared=remote,
            copies_cleared=copies,
        )

    def _check_reached(self, windows: Sequence[Window]) -> None:
        for window in windows:
            if window.proof.level == "present" and not self._reaches(window):
                raise KVStoreConnectionError(
                    f"The chunks of the window {window.known_as!r} are in a remote store, and its "
                    "stack is not connected: nothing is purged.",
                    hint="Connect to it with cwm connect, then: cwm admin purge "
                    f"{window.known_as}. Until then the window can be brought back.",
                    window=window.known_as,
                )

    def _reaches(self, window: Window) -> bool:
        """Whether the stack may be the one that has a remote window's chunks."""
        stack = self.stack
        if stack is None or stack.cache is None or stack.store is not None:
            return False
        try:
            layout = self.library.manifest(window).fingerprint.layout
        except CWMError:  # nothing names its chunks any more, so no other stack would do better
            return True
        return layout["kv_model_name"] == stack.kv_model_name

    async def _await_stores(self) -> None:
        """Wait a while for chunks that are on their way to the disk: they would come after us."""
        cache = self.stack.cache if self.stack is not None else None
        if cache is None:
            return

        async def stored() -> bool:
            return not await cache.unstored()

        with suppress(CWMError):
            await _patiently(stored)

    async def _free(self, going: Going, *, dry_run: bool = False) -> Freed:
        return await self.store.purge(
            [window.id for window in going.windows],
            keys=going.keys,
            salts=going.salts,
            damaged=bool(going.ids),
            dry_run=dry_run,
        )

    def _leave_index(self, going: Going) -> None:
        with self.library.index.transaction() as transaction:
            for window in going.windows:
                _check_removed(transaction.get_window(window.id), "window", window.name)
                transaction.remove_window(window.id)
            for session in going.sessions:
                _check_removed(transaction.get_session(session.id), "session", session.name)
                transaction.remove_session(session.id)
            # One that was brought back, cloned and removed again meanwhile has left a clone.
            stay = {window.lineage_id for window in transaction.all_windows()}
            stay |= {session.lineage_id for session in transaction.all_sessions()}
            going.lineages = [one for one in going.lineages if one not in stay]
            choose_remote(self.library, going, transaction)

    def _clear_copies(self) -> bool:
        """Clear the copies of the index, and say whether that went well: the entries are gone."""
        try:
            self.library.index.forget_previous()
        except (CWMError, OSError):
            return False
        return True

    async def _clear_remote(self, going: Going) -> bool | None:
        """Have a remote store delete its chunks; None: there are none."""
        if not going.far:
            return None
        if self.stack is None or self.stack.cache is None:
            return False
        try:
            dropped = await self.stack.cache.drop(going.remote, tier="all")
        except CWMError:
            return False
        return dropped and going.certain

    async def _clear_memory(self, going: Going) -> bool | None:
        """Have LMCache drop the chunks, and ask again whether it has one; None: no stack runs.

        False also where not all of them can be told.
        """
        if self.stack is None or self.stack.cache is None:
            return None if self.down else False
        try:
            dropped = await self.stack.cache.drop(going.keys)
            again = await self.stack.cache.delete([*going.keys, *going.remote], tier="l1")
        except CWMError:
            return False
        return going.certain and dropped and again.deleted == again.skipped == 0

    async def _clear_engine(self, going: Going) -> bool | None:
        """Have the engine drop its prefix cache, as soon as it is idle; None: no stack runs.

        It cannot drop some of it: who goes on gets the rest from LMCache again. So it need not be
        told which chunks.
        """
        if self.stack is None:
            return None if self.down else False
        if going.certain and not (going.keys or going.remote):
            return True
        with suppress(CWMError):
            return await _patiently(self.stack.engine.forget)
        return False

    def _forget(self, going: Going) -> None:
        for window in going.windows:
            self.library.forget_manifests(window.id)
        for session in going.sessions:
            self.library.forget_session(session.id)
        for lineage_id in going.lineages:
            self.library.lineages.remove(lineage_id)


async def _patiently(done: Callable[[], Awaitable[bool]]) -> bool:
    """Ask until it is so, and return whether it was, in time."""
    deadline = anyio.current_time() + _PATIENCE_S
    while not await done():
        if anyio.current_time() > deadline:
            return False
        await anyio.sleep(_POLL_S)
    return True


def _check_removed(entry: Window | Session | None, what: str, name: str) -> None:
    if entry is None or entry.state != "deleted":
        raise StateTransitionError(
            f"The {what} {name!r} was brought back meanwhile: nothing is purged."
        )


def _begun(going: Going, looked: Freed) -> Receipt:
    return Receipt(
        id=uuid.uuid4().hex,
        begun_at=now(),
        purged_at=None,
        windows=[Named(id=window.id, name=window.known_as) for window in going.windows],
        sessions=[Named(id=session.id, name=session.name) for session in going.sessions],
        lineages=going.lineages,
        labels=looked.labels,
        freed_bytes=0,
        memory_cleared=False,
        engine_cleared=False,
        remote_cleared=False if going.far else None,
    )


def _report(going: Going, freed: Freed, *, removed: bool) -> PurgeReport:
    return PurgeReport(
        windows=[window.known_as for window in going.windows],
        sessions=[session.name for session in going.sessions],
        chunks=freed.chunks,
        freed_bytes=freed.freed_bytes,
        secrets=len(going.lineages),
        memory_cleared=None,
        engine_cleared=None,
        removed=removed,
    )

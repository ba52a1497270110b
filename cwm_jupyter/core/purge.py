"""Purge: delete for good what was removed, and leave nothing of it.

The order is the promise. A receipt says what is to go. Then the index entry goes, then hold and
chunks on the disk, then what LMCache and the engine have in memory, then the files and, with the
last entry of a lineage, its secret: a window in the index has its chunks, whatever crashes when.
What a crash leaves is found by `cwm_jupyter.core.upkeep`, and the receipt tells whose it was.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio
from anyio import to_thread

from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.going import Going, choose
from cwm_jupyter.core.kept import Freed, KeptStore
from cwm_jupyter.core.library import Library
from cwm_jupyter.core.models import Session, Window, now
from cwm_jupyter.core.receipts import Named, Receipt, Receipts
from cwm_jupyter.core.reports import PurgeReport
from cwm_jupyter.errors import CWMError, StateTransitionError

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
        """
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
            freed = await self._free(going)
            memory, engine = await self._clear_memory(going), await self._clear_engine(going)
            await to_thread.run_sync(self._forget, going)
            receipt = receipt.replace(
                purged_at=now(),
                labels=sorted({*receipt.labels, *freed.labels}),
                freed_bytes=freed.freed_bytes,
                memory_cleared=memory,
                engine_cleared=engine,
            )
            await to_thread.run_sync(receipts.write, receipt)
        return _report(going, freed, removed=True, memory=memory, engine=engine)

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
        index = self.library.index
        with index.transaction() as transaction:
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
        index.forget_previous()

    async def _clear_memory(self, going: Going) -> bool | None:
        """Have LMCache drop the chunks, and ask again whether it has one; None: no stack runs."""
        if self.stack is None or self.stack.cache is None:
            return None if self.down else False
        try:
            dropped = await self.stack.cache.drop(going.keys)
            dropped = await self.stack.cache.drop(going.remote, tier="all") and dropped
            again = await self.stack.cache.delete([*going.keys, *going.remote], tier="l1")
        except CWMError:
            return False
        return dropped and again.deleted == again.skipped == 0

    async def _clear_engine(self, going: Going) -> bool | None:
        """Have the engine drop its prefix cache, as soon as it is idle; None: no stack runs.

        It cannot drop some of it: who goes on gets the rest from LMCache again.
        """
        if self.stack is None:
            return None if self.down else False
        if not (going.keys or going.remote):
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
        memory_cleared=None,
        engine_cleared=None,
    )


def _report(
    going: Going,
    freed: Freed,
    *,
    removed: bool,
    memory: bool | None = None,
    engine: bool | None = None,
) -> PurgeReport:
    return PurgeReport(
        windows=[window.known_as for window in going.windows],
        sessions=[session.name for session in going.sessions],
        chunks=freed.chunks,
        freed_bytes=freed.freed_bytes,
        secrets=len(going.lineages),
        memory_cleared=memory,
        engine_cleared=engine,
        removed=removed,
    )

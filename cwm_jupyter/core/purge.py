"""Purge: delete for good what was removed, and leave nothing of it.

The order is the promise. The index entry goes first, then hold and chunks, then the manifest and,
with the last entry of a lineage, its secret: a window in the index has its chunks, whatever crashes
when; what a crash leaves is found by `cwm_jupyter.core.upkeep`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
from anyio import to_thread

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.kept import Freed, KeptStore
from cwm_jupyter.core.leftovers import salts
from cwm_jupyter.core.library import Library
from cwm_jupyter.core.models import Fingerprint, Session, Window
from cwm_jupyter.core.names import name_key
from cwm_jupyter.core.reports import PurgeReport
from cwm_jupyter.core.verify import window_keys
from cwm_jupyter.errors import CWMError, StateTransitionError, WindowNotFoundError

__all__ = ["Purge"]


@dataclass
class _Chosen:
    """What is to go, and what goes with it."""

    windows: list[Window]
    sessions: list[Session]
    #: lineages of which nothing remains, and their salts
    lineages: list[str] = field(default_factory=list)
    salts: list[str] = field(default_factory=list)
    #: chunks that no other window has, here and in a remote store
    keys: list[ChunkKey] = field(default_factory=list)
    remote: list[ChunkKey] = field(default_factory=list)


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

    async def run(self, names: Sequence[str] = (), *, dry_run: bool = False) -> PurgeReport:
        """Delete removed windows for good, or only tell what would go.

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
        """
        engine = None
        if self.stack is not None:
            with suppress(CWMError):
                engine = (await self.stack.facts()).fingerprint
        chosen = await to_thread.run_sync(self._choose, names, engine)
        if dry_run:
            freed = await self._free(chosen, dry_run=True)
            return self._report(chosen, freed, None, removed=False)
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(self._leave_index, chosen)
            freed = await self._free(chosen)
            cleared = await self._clear_memory(chosen)
            await to_thread.run_sync(self._forget, chosen)
        return self._report(chosen, freed, cleared, removed=True)

    async def _free(self, chosen: _Chosen, *, dry_run: bool = False) -> Freed:
        owners = [window.id for window in chosen.windows]
        return await self.store.purge(
            owners, keys=chosen.keys, salts=chosen.salts, damaged=bool(owners), dry_run=dry_run
        )

    def _choose(self, names: Sequence[str], engine: Fingerprint | None) -> _Chosen:
        index = self.library.index
        deleted: list[Window] = index.windows(state="deleted").items
        windows = deleted
        sessions: list[Session] = index.sessions(state="deleted").items
        if names:
            found = {w.id: w for name in names for w in self._named(name, deleted)}
            windows, sessions = list(found.values()), []
        chosen = _Chosen(windows, sessions)
        going = {window.id for window in windows} | {session.id for session in sessions}
        touched = {w.lineage_id for w in windows} | {s.lineage_id for s in sessions}
        stay = {w.lineage_id for w in self.library.index.all_windows() if w.id not in going}
        stay |= {s.lineage_id for s in self.library.index.all_sessions() if s.id not in going}
        chosen.lineages = sorted(touched - stay)
        chosen.salts = salts(self.library, chosen.lineages, engine)
        self._choose_keys(chosen, touched)
        return chosen

    def _named(self, name: str, deleted: Sequence[Window]) -> list[Window]:
        wanted = name_key(name)
        found = [w for w in deleted if name == w.id or name_key(w.name) == wanted]
        if found:
            return found
        live = self.library.index.find_window(name)
        if live is None:
            raise WindowNotFoundError(name, [window.name for window in deleted])
        raise StateTransitionError(
            f"The window {live.name!r} was not removed, so it is not purged.",
            hint="Remove it first, with cwm rm; until it is purged it can be brought back.",
            window=live.name,
        )

    def _choose_keys(self, chosen: _Chosen, lineages: set[str]) -> None:
        """Choose the keys that no window has that stays."""
        going = {window.id for window in chosen.windows}
        others: set[ChunkKey] = set()
        certain = True
        for window in self.library.index.all_windows():
            if window.lineage_id in lineages and window.id not in going:
                try:
                    others.update(self._keys(window))
                except CWMError:
                    certain = False
        for window in chosen.windows:
            keys: list[ChunkKey] = []
            with suppress(CWMError):  # its hold tells what it had, too
                keys = [key for key in self._keys(window) if key not in others]
            if window.proof.level == "verified":
                chosen.keys += keys
            elif certain:  # a remote store knows no holds: what another window may have stays
                chosen.remote += keys

    def _keys(self, window: Window) -> list[ChunkKey]:
        return window_keys(self.library, window, self.library.manifest(window))

    def _leave_index(self, chosen: _Chosen) -> None:
        index = self.library.index
        with index.transaction() as transaction:
            for window in chosen.windows:
                entry = transaction.get_window(window.id)
                if entry is None or entry.state != "deleted":
                    raise StateTransitionError(
                        f"The window {window.name!r} was brought back meanwhile: nothing is purged."
                    )
                transaction.remove_window(window.id)
            for session in chosen.sessions:
                entry_of = transaction.get_session(session.id)
                if entry_of is None or entry_of.state != "deleted":
                    raise StateTransitionError(
                        f"The session {session.name!r} was brought back meanwhile: "
                        "nothing is purged."
                    )
                transaction.remove_session(session.id)
        index.forget_previous()

    async def _clear_memory(self, chosen: _Chosen) -> bool | None:
        """Have LMCache drop the chunks; None where no stack runs."""
        if self.stack is None or self.stack.cache is None:
            return None if self.down else False
        try:
            dropped = await self.stack.cache.drop(chosen.keys)
            return await self.stack.cache.drop(chosen.remote, tier="all") and dropped
        except CWMError:
            return False

    def _forget(self, chosen: _Chosen) -> None:
        for window in chosen.windows:
            self.library.forget_manifests(window.id)
        for session in chosen.sessions:
            self.library.forget_session(session.id)
        for lineage_id in chosen.lineages:
            self.library.lineages.remove(lineage_id)

    def _report(
        self, chosen: _Chosen, freed: Freed, cleared: bool | None, *, removed: bool
    ) -> PurgeReport:
        return PurgeReport(
            windows=[window.name for window in chosen.windows],
            sessions=[session.name for session in chosen.sessions],
            chunks=freed.chunks,
            freed_bytes=freed.freed_bytes,
            secrets=len(chosen.lineages),
            memory_cleared=cleared,
            removed=removed,
        )

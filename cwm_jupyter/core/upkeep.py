"""Upkeep: what the windows take on disk, and clearing away what nothing can use any more."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.kept import KeptStore, Share
from cwm_jupyter.core.leftovers import (
    check_index,
    lost_files,
    lost_lineages,
    salts,
    unfinished,
)
from cwm_jupyter.core.library import Library
from cwm_jupyter.core.models import Window, now
from cwm_jupyter.core.portable import remove
from cwm_jupyter.core.receipts import Receipt, Receipts
from cwm_jupyter.core.reports import DiskUsage, GarbageReport, WindowUsage

__all__ = ["Upkeep"]


@dataclass
class Upkeep:
    """Looks after one home.

    Parameters
    ----------
    library, store
        Where windows and chunks are kept.
    """

    library: Library
    store: KeptStore

    async def usage(self) -> DiskUsage:
        """Count what lies in the vault, window by window; deleted ones keep theirs until purged."""
        windows = await to_thread.run_sync(self.library.index.all_windows)
        shares = await self.store.shares()
        known = {window.id for window in windows}
        return DiskUsage(
            folder=shares.folder,
            windows=[_usage(window, shares.owners.get(window.id)) for window in windows],
            stored_bytes=shares.stored_bytes,
            raw_bytes=shares.raw_bytes,
            unfrozen_bytes=shares.unheld_bytes,
            other_bytes=sum(
                share.held_bytes for owner, share in shares.owners.items() if owner not in known
            ),
            quarantined=shares.quarantined,
            quarantined_bytes=shares.quarantined_bytes,
            quota_bytes=shares.quota_bytes,
            free_bytes=shares.free_bytes,
        )

    async def collect(self, *, dry_run: bool = False) -> GarbageReport:
        """Remove what nothing can use any more, or only look for it.

        In the vault see `Room.collect`. Beside it, what a crash left in the home: manifests,
        transcripts and secrets without an entry in the index, a day old, and with a secret all
        chunks that only it leads to. A purge that died half-way is finished, of whatever age: its
        receipt and its windows' holds tell what was to go.

        Raises
        ------
        IndexCorruptError
            The index seems to be lost, or a receipt is damaged: then nothing is removed.
        """
        await to_thread.run_sync(check_index, self.library)
        receipts = await to_thread.run_sync(lambda: list(Receipts(self.library.home).all()))
        died = await to_thread.run_sync(unfinished, receipts, self.library)
        purged = {one for receipt in died for one in (*receipt.ids, *receipt.lineages)}
        windows = await to_thread.run_sync(self.library.index.all_windows)
        owners = [window.id for receipt in died for window in receipt.windows]
        garbage = await self.store.collect(
            [*owners, *(window.id for window in windows)], dry_run=dry_run
        )
        lineages = await to_thread.run_sync(lost_lineages, self.library, purged)
        # The secret of what a remote store may still have is all that leads there.
        far = {one for r in receipts if r.remote_cleared is False for one in r.lineages}
        lineages = [one for one in lineages if one not in far]
        freed = await self.store.purge(
            owners,
            keys=await self._labelled({label for receipt in died for label in receipt.labels}),
            salts=await to_thread.run_sync(salts, self.library, lineages),
            dry_run=dry_run,
        )
        files = await to_thread.run_sync(lost_files, self.library, purged)
        sizes = await to_thread.run_sync(_sizes, files)
        if not dry_run:
            await to_thread.run_sync(_remove, files)
            for lineage_id in lineages:
                await to_thread.run_sync(self.library.lineages.remove, lineage_id)
            await to_thread.run_sync(self._finish, died)
        return GarbageReport(
            contents=garbage.contents,
            records=garbage.records,
            holds=garbage.holds,
            temporary_files=garbage.temporary_files,
            quarantined=garbage.quarantined,
            chunks=freed.chunks,
            leftovers=len(files) + len(lineages),
            freed_bytes=garbage.freed_bytes + freed.freed_bytes + sizes,
            removed=not dry_run,
        )

    async def _labelled(self, labels: Collection[str]) -> list[ChunkKey]:
        """Return the keys of the chunks that the store calls so."""
        if not labels:
            return []
        known = await to_thread.run_sync(salts, self.library, self.library.lineages.ids())
        return [key for key in await self.store.salted(known) if self.store.label(key) in labels]

    def _finish(self, died: Collection[Receipt]) -> None:
        """Note that purges which had died are done; what servers had in memory was not asked."""
        if died:
            self.library.index.forget_previous()
        for receipt in died:
            for session in receipt.sessions:  # its lock, too
                self.library.forget_session(session.id)
            Receipts(self.library.home).write(receipt.replace(purged_at=now()))


def _usage(window: Window, share: Share | None) -> WindowUsage:
    here = window.proof.level == "verified"
    nothing = 0 if here else None
    return WindowUsage(
        window=window.known_as,
        state=window.state,
        size_bytes=window.size_bytes,
        held_bytes=share.held_bytes if share else nothing,
        exclusive_bytes=share.exclusive_bytes if share else nothing,
    )


def _sizes(files: list[Path]) -> int:
    return sum(path.stat().st_size for path in files if path.exists())


def _remove(files: list[Path]) -> None:
    for path in files:
        remove(path)

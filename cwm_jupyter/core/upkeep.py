"""Upkeep: what the windows take on disk, and clearing away what nothing can use any more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from cwm_jupyter.core.kept import KeptStore, Share
from cwm_jupyter.core.leftovers import check_index, lost_files, lost_lineages, salts
from cwm_jupyter.core.library import Library
from cwm_jupyter.core.models import Window
from cwm_jupyter.core.portable import remove
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
        chunks that only it leads to.

        Raises
        ------
        IndexCorruptError
            The index seems to be lost: then nothing is removed.
        """
        await to_thread.run_sync(check_index, self.library)
        windows = await to_thread.run_sync(self.library.index.all_windows)
        garbage = await self.store.collect([window.id for window in windows], dry_run=dry_run)
        lineages = await to_thread.run_sync(lost_lineages, self.library)
        known_salts = await to_thread.run_sync(salts, self.library, lineages)
        freed = await self.store.purge(salts=known_salts, dry_run=dry_run)
        files = await to_thread.run_sync(lost_files, self.library)
        sizes = await to_thread.run_sync(_sizes, files)
        if not dry_run:
            await to_thread.run_sync(_remove, files)
            for lineage_id in lineages:
                await to_thread.run_sync(self.library.lineages.remove, lineage_id)
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

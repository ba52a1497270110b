"""Leftovers: what lies in a home and no entry of the index speaks of.

Files are written before the entry that makes them count, and entries go before their files. So a
crash leaves files without an entry, and never an entry without its files. Those of a freeze or a
repair that is under way look the same, so only what is a day old is left over.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from cwm_jupyter.core.library import Library
from cwm_jupyter.core.receipts import Receipts
from cwm_jupyter.errors import IndexCorruptError

__all__ = ["check_index", "lost_files", "lost_lineages", "salts"]

_ABANDONED_S = 24 * 3600.0


def lost_files(library: Library) -> list[Path]:
    """Return the manifests and transcripts that no entry of the index speaks of."""
    # First the files: what is written meanwhile is then not among them.
    files = [path for path in library.documents() if _is_old(path)]
    known = {session.id for session in library.index.all_sessions()}
    known |= {
        f"{window.id}.{window.manifest_digest[:16]}" for window in library.index.all_windows()
    }
    return [path for path in files if path.stem not in known]


def lost_lineages(library: Library) -> list[str]:
    """Return the lineages whose secrets are there, and which no session or window has."""
    lineages = library.lineages
    old = [one for one in lineages.ids() if _is_old(lineages.path(one))]
    known = {session.lineage_id for session in library.index.all_sessions()}
    known |= {window.lineage_id for window in library.index.all_windows()}
    return [one for one in old if one not in known]


def salts(library: Library, lineages: Collection[str]) -> list[str]:
    """Return all salts that these lineages may have been given."""
    return [salt for lineage_id in lineages for salt in library.lineages.salts(lineage_id)]


def check_index(library: Library) -> None:
    """Refuse to clear up where the index seems to have been lost, or most of it.

    To a lost index everything is garbage. So more is not to be without an entry than there are
    entries; what a purge that died has left does not count, since its receipt tells of it.

    Raises
    ------
    IndexCorruptError
        There is more; nothing may be removed.
    """
    index = library.index
    lost = {path.stem.partition(".")[0] for path in lost_files(library)} | {*lost_lineages(library)}
    with suppress(IndexCorruptError):  # without receipts nothing is explained
        for receipt in Receipts(library.home).all():
            lost -= {*receipt.ids, *receipt.lineages}
    known = len(index.all_sessions()) + len(index.all_windows())
    if len(lost) > known:
        raise IndexCorruptError(
            f"The index has {known} sessions and windows, and {len(lost)} more have files in "
            f"{library.home}: it seems to be lost, so nothing was removed.",
            hint="Restore index.json from a backup. If nothing of it is wanted any more, delete "
            "what lies in the folders sessions, windows and keys, and run gc again.",
        )


def _is_old(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime < time.time() - _ABANDONED_S
    return False

"""Leftovers: what lies in a home and no entry of the index speaks of.

Files are written before the entry that makes them count, and entries go before their files. So a
crash leaves files without an entry, and never an entry without its files. Those of a freeze or a
repair that is under way look the same, so only what is a day old is left over. So are manifests
that were replaced: should the index be lost, the generation before it names them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from cwm_jupyter.core.library import Library
from cwm_jupyter.core.receipts import Receipt, Receipts
from cwm_jupyter.errors import IndexCorruptError

__all__ = ["check_index", "lost_files", "lost_lineages", "salts", "unfinished"]

_ABANDONED_S = 24 * 3600.0


def unfinished(receipts: Sequence[Receipt], library: Library) -> list[Receipt]:
    """Return the purges whose entries have left the index, and which then did not end."""
    known = {session.id for session in library.index.all_sessions()}
    known |= {window.id for window in library.index.all_windows()}
    return [one for one in receipts if one.purged_at is None and known.isdisjoint(one.ids)]


def lost_files(library: Library, purged: Collection[str] = ()) -> list[Path]:
    """Return the manifests and transcripts that no entry of the index speaks of.

    Those of `purged` windows and sessions need not be a day old.
    """
    # First the files: what is written meanwhile is then not among them.
    files = [path for path in library.documents() if _id(path) in purged or _is_old(path)]
    known = {session.id for session in library.index.all_sessions()}
    known |= {
        f"{window.id}.{window.manifest_digest[:16]}" for window in library.index.all_windows()
    }
    return [path for path in files if path.stem not in known]


def lost_lineages(library: Library, purged: Collection[str] = ()) -> list[str]:
    """Return the lineages whose secrets are there, and which no session or window has.

    Those of `purged` ones need not be a day old.
    """
    lineages = library.lineages
    old = [one for one in lineages.ids() if one in purged or _is_old(lineages.path(one))]
    known = {session.lineage_id for session in library.index.all_sessions()}
    known |= {window.lineage_id for window in library.index.all_windows()}
    return [one for one in old if one not in known]


def salts(library: Library, lineages: Collection[str]) -> list[str]:
    """Return all salts that these lineages may have been given."""
    return [salt for lineage_id in lineages for salt in library.lineages.salts(lineage_id)]


def check_index(library: Library) -> None:
    """Refuse to clear up where the index was damaged, or seems to have been lost, or most of it.

    What was recovered of a damaged index lacks its last change. To a lost one everything is
    garbage: so more is not to be without an entry than there are entries. What a purge that died
    has left does not count, since its receipt tells of it.

    Raises
    ------
    IndexCorruptError
        There is more, or a damaged index was put aside; nothing may be removed.
    """
    aside = sorted(path.name for path in library.home.glob("index.corrupt-*.json"))
    if aside:
        raise IndexCorruptError(
            "The index was damaged, and recovered without its last change, so nothing was removed; "
            f"in {library.home} lies {', '.join(aside)}.",
            hint="See with cwm ls whether all is there. Then move that file away and run gc again.",
        )
    index = library.index
    lost = {_id(path) for path in lost_files(library)} | {*lost_lineages(library)}
    with suppress(IndexCorruptError):  # without receipts nothing is explained
        for receipt in Receipts(library.home).all():
            lost -= {*receipt.ids, *receipt.lineages}
    known = {session.id for session in index.all_sessions()}
    known |= {window.id for window in index.all_windows()}
    lost -= known  # of those a manifest that was replaced is left
    if len(lost) > len(known):
        raise IndexCorruptError(
            f"The index has {len(known)} sessions and windows, and {len(lost)} more have files in "
            f"{library.home}: it seems to be lost, so nothing was removed.",
            hint="Restore index.json from a backup. If nothing of it is wanted any more, delete "
            "what lies in the folders sessions, windows and keys, and run gc again.",
        )


def _id(path: Path) -> str:
    """Return whose manifest or transcript a file is."""
    return path.stem.partition(".")[0]


def _is_old(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime < time.time() - _ABANDONED_S
    return False

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
from cwm_jupyter.core.models import Fingerprint
from cwm_jupyter.errors import CWMError

__all__ = ["lost_files", "lost_lineages", "salts"]

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


def salts(
    library: Library, lineages: Collection[str], engine: Fingerprint | None = None
) -> list[str]:
    """Return the salts of these lineages on `engine`, and all that a window was frozen on."""
    if not lineages:
        return []
    found: dict[str, None] = {}
    for fingerprint in [*library.fingerprints(), *([engine] if engine else [])]:
        for lineage_id in lineages:
            with suppress(CWMError):  # without its secret nobody finds its chunks
                found[library.lineages.salt(lineage_id, fingerprint)] = None
    return list(found)


def _is_old(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime < time.time() - _ABANDONED_S
    return False

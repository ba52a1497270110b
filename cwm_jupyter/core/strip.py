"""Strip: a window's chunks, one after the other, and where each is. Nothing is read."""

from __future__ import annotations

from typing import Literal

from anyio import to_thread

from cwm_jupyter.core.models import Value
from cwm_jupyter.core.parts import Parts
from cwm_jupyter.core.verify import window_keys
from cwm_jupyter.errors import KVStoreError

__all__ = ["ChunkPlace", "ChunkStrip", "strip"]

#: ``other``: there, with other bytes than were frozen. ``unknown``: the store cannot be asked.
ChunkPlace = Literal["disk", "recomputed", "other", "missing", "unknown"]


class ChunkStrip(Value, frozen=True, kw_only=True):
    """A window's chunks in the order of its tokens.

    `places` has one entry for each; with several workers it is that of the worst part. The last
    `tail_tokens`, less than a chunk, are in none: they are kept as tokens. Which chunks are in
    memory too LMCache does not tell.
    """

    window: str
    chunk_tokens: int
    tail_tokens: int
    places: list[ChunkPlace]


_WORST: tuple[ChunkPlace, ...] = ("unknown", "missing", "other", "recomputed", "disk")


async def strip(parts: Parts, name: str) -> ChunkStrip:
    """Tell where a window's chunks are; needs no running stack.

    Raises
    ------
    WindowNotFoundError
        With the nearest names.
    IndexCorruptError
        Its manifest is damaged.
    """
    library = parts.library
    window = await to_thread.run_sync(library.index.require_window, name)
    manifest = await to_thread.run_sync(library.manifest, window)
    places: list[ChunkPlace] = ["unknown"] * len(manifest.refs)
    if parts.store is not None and window.proof.level == "verified":
        try:
            keys = window_keys(library, window, manifest)
        except KVStoreError:  # without the lineage's secret nobody knows its keys
            keys = []
        stats = await parts.store.stat(keys)
        for at, (stat, ref) in enumerate(zip(stats, manifest.refs, strict=False)):
            if stat is None:
                places[at] = "missing"
            elif ref.chunk_hash in manifest.recomputed:
                places[at] = "recomputed"
            elif stat.digest is not None and stat.digest != ref.digest:
                places[at] = "other"
            else:
                places[at] = "disk"
    workers = max(len(places) // max(window.chunks, 1), 1)
    groups = [places[start : start + workers] for start in range(0, len(places), workers)]
    return ChunkStrip(
        window=window.known_as,
        chunk_tokens=window.chunk_tokens,
        tail_tokens=window.tokens - window.chunks * window.chunk_tokens,
        places=[min(group, key=_WORST.index) for group in groups],
    )

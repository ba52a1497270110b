"""What tests do to a vault, and how they look into it."""

from __future__ import annotations

from pathlib import Path

from bench import Bench

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.models import ChunkRef, Window
from cwm_jupyter.core.verify import window_keys


def flip(path: Path, at: int = -3) -> None:
    """Flip a bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def refs_of(bench: Bench, window: Window) -> list[ChunkRef]:
    """Return what a window's manifest says of its chunks now."""
    return bench.library.manifest(bench.library.index.get_window(window.id) or window).refs


def keys_of(bench: Bench, window: Window) -> list[ChunkKey]:
    """Return the keys of a window's chunks."""
    return window_keys(bench.library, window, bench.library.manifest(window))


def damage(bench: Bench, window: Window, *chunks: int) -> None:
    """Flip a bit in the contents of these chunks."""
    refs = refs_of(bench, window)
    for chunk in chunks:
        flip(bench.stack.vault.folder.content(refs[chunk].digest))

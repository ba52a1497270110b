"""Verify: read every chunk of windows from the store, and say of each whether it is as frozen.

Needs no running stack. A chunk whose key means nothing, or something else, while the frozen content
is still there and intact, is linked to it again at once. A hold that was lost is put back, so that
nothing of a window goes by a quota or as garbage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from anyio import to_thread

from cwm_jupyter.core.chunks import ChunkKey, ChunkStore, chunk_keys
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.kept import KeptStore
from cwm_jupyter.core.library import Library, Manifest
from cwm_jupyter.core.models import ChunkRef, Window
from cwm_jupyter.core.reports import (
    ChunkFault,
    ChunkState,
    HoldState,
    VerifyReport,
    WindowCheck,
)
from cwm_jupyter.errors import CWMError, IndexCorruptError, KVStoreError, WindowNotFoundError

__all__ = ["Verify", "check_chunks", "mark", "window_keys"]

#: a chunk that several ranks have parts of is as bad as its worst part
_BADNESS: tuple[ChunkState, ...] = ("intact", "relinked", "missing", "corrupt")
#: chunks a batch: few enough that Ctrl-C is heard soon
_BATCH = 16


@dataclass
class _Look:
    """A window and where its chunks are."""

    window: Window
    keys: list[ChunkKey] = field(default_factory=list)
    refs: list[ChunkRef] = field(default_factory=list)
    recomputed: int = 0
    problem: str | None = None
    #: the problem lies in the window, and not in what can be seen from here
    broken: bool = False

    @property
    def ranks(self) -> int:
        return len(self.refs) // max(len({ref.chunk_hash for ref in self.refs}), 1)


@dataclass(frozen=True)
class _Checked:
    state: ChunkState
    reason: str | None


@dataclass
class Verify:
    """One verification.

    Parameters
    ----------
    library, store
        Where windows and chunks are kept.
    job
        Told of the bytes read.
    """

    library: Library
    store: ChunkStore
    job: Job

    async def run(self, windows: Sequence[Window]) -> VerifyReport:
        """Verify windows and note their states in the index.

        Chunks that several of them share are read once.
        """
        started = time.perf_counter()
        self.job.stage("look")
        looks = [await to_thread.run_sync(self._look, window) for window in windows]
        sizes = {pair: pair[1].size_bytes or 0 for look in looks for pair in _pairs(look)}
        self.job.stage("verify", total=sum(sizes.values()), unit="bytes")
        known: dict[tuple[ChunkKey, ChunkRef], _Checked] = {}
        done = 0
        checks = []
        for look in looks:
            window_started = time.perf_counter()
            new = [pair for pair in dict.fromkeys(_pairs(look)) if pair not in known]
            found = await check_chunks(self.store, new, _after(done, self.job.advance))
            known.update(zip(new, found, strict=True))
            read = sum(sizes[pair] for pair in new)
            done += read
            self.job.advance(done)
            checked = [known[pair] for pair in _pairs(look)]
            hold = await self._held(look, checked)
            window = await to_thread.run_sync(self._marked, look, checked)
            seconds = time.perf_counter() - window_started
            checks.append(_window_check(window, look, checked, read, seconds, hold))
        self.job.finish()
        return VerifyReport(
            windows=checks,
            intact=all(check.state != "damaged" for check in checks),
            size_bytes=done,
            verify_s=time.perf_counter() - started,
        )

    def _look(self, window: Window) -> _Look:
        look = _Look(window)
        if window.proof.level != "verified":
            look.problem = "its chunks are in a remote store, whose files cannot be read from here"
            return look
        try:
            manifest = self.library.manifest(window)
            look.keys = window_keys(self.library, window, manifest)
        except (IndexCorruptError, KVStoreError) as error:
            look.problem, look.broken = error.message, True
            return look
        except CWMError as error:  # of a newer release, for example: not the window's fault
            look.problem = error.message
            return look
        look.refs, look.recomputed = manifest.refs, len(manifest.recomputed)
        return look

    async def _held(self, look: _Look, checked: Sequence[_Checked]) -> HoldState | None:
        """Put the window's hold back if need be, and say what was found; None: not looked at."""
        if look.problem is not None or not isinstance(self.store, KeptStore):
            return None
        window_id = look.window.id
        there = [
            ref
            for ref, one in zip(look.refs, checked, strict=True)
            if one.state in ("intact", "relinked")
        ]
        try:
            renewed = await self.store.renew_hold(window_id, look.keys, there)
            if renewed and self.library.index.get_window(window_id) is None:  # purged meanwhile
                await self.store.release(window_id)
        except CWMError:  # the disk is full, say: what was found is told all the same
            return "lost"
        return "renewed" if renewed else "kept"

    def _marked(self, look: _Look, checked: Sequence[_Checked]) -> Window:
        if look.problem is not None and not look.broken:
            return look.window
        damaged = look.broken or any(c.state in ("missing", "corrupt") for c in checked)
        return mark(self.library, look.window, "damaged" if damaged else "intact")


def _after(start: int, on_bytes: Callable[[int], None]) -> Callable[[int], None]:
    """Return what counts on from `start`."""
    return lambda done: on_bytes(start + done)


def _pairs(look: _Look) -> Iterator[tuple[ChunkKey, ChunkRef]]:
    return zip(look.keys, look.refs, strict=True)


def window_keys(library: Library, window: Window, manifest: Manifest) -> list[ChunkKey]:
    """Return the keys of a window's chunks, in the order of its manifest's refs.

    Raises
    ------
    KVStoreError
        The lineage's secret is gone, and with it the way to the chunks.
    """
    hashes = dict.fromkeys(bytes.fromhex(ref.chunk_hash) for ref in manifest.refs)
    return chunk_keys(
        list(hashes),
        model_name=str(manifest.fingerprint.layout["kv_model_name"]),
        world_size=len(manifest.refs) // max(len(hashes), 1),
        cache_salt=library.lineages.salt(window.lineage_id, manifest.fingerprint),
    )


async def check_chunks(
    store: ChunkStore,
    pairs: Sequence[tuple[ChunkKey, ChunkRef]],
    on_bytes: Callable[[int], None],
) -> list[_Checked]:
    """Read chunks, compare them with their refs, and relink those whose content is still there.

    `on_bytes` is told the bytes that are done.
    """
    checked: list[_Checked] = []
    done = 0
    for start in range(0, len(pairs), _BATCH):
        batch = pairs[start : start + _BATCH]
        keys, refs = [key for key, _ in batch], [ref for _, ref in batch]
        found = await store.verify(keys, refs, _after(done, on_bytes))
        for (key, ref), one in zip(batch, found, strict=True):
            state: ChunkState = one.state
            if state != "intact" and isinstance(store, KeptStore) and await store.point(key, ref):
                state = "relinked"
            checked.append(_Checked(state, one.reason))
        done += sum(ref.size_bytes or 0 for ref in refs)
        on_bytes(done)
    return checked


def mark(library: Library, window: Window, state: Literal["intact", "damaged"]) -> Window:
    """Note a window's state, unless it was changed or deleted meanwhile; return its entry."""

    def change(entry: Window) -> Window:
        same = entry.manifest_digest == window.manifest_digest
        if not same or entry.state in (state, "deleted"):
            return entry
        return entry.to(state)

    with suppress(WindowNotFoundError):
        return library.index.update_window(window.id, change)
    return window


def _worst(states: Sequence[ChunkState], ranks: int) -> list[ChunkState]:
    """Return the state of each chunk from those of its parts."""
    return [
        max(states[start : start + ranks], key=_BADNESS.index)
        for start in range(0, len(states), max(ranks, 1))
    ]


def _window_check(
    window: Window,
    look: _Look,
    checked: Sequence[_Checked],
    size_bytes: int,
    verify_s: float,
    hold: HoldState | None,
) -> WindowCheck:
    states = _worst([one.state for one in checked], look.ranks)
    relinked = states.count("relinked")
    return WindowCheck(
        window=window.known_as,
        state=window.state,
        chunks=window.chunks,
        chunks_intact=states.count("intact") + relinked,
        chunks_relinked=relinked,
        chunks_missing=states.count("missing"),
        chunks_corrupt=states.count("corrupt"),
        chunks_recomputed=look.recomputed,
        size_bytes=size_bytes,
        verify_s=verify_s,
        faults=[
            ChunkFault(
                chunk=i // look.ranks, rank=i % look.ranks, state=one.state, reason=one.reason
            )
            for i, one in enumerate(checked)
            if one.state != "intact"
        ],
        problem=look.problem,
        hold=hold,
    )

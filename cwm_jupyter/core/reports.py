"""Reports of upkeep: what verify, repair, purge and the rest did and found.

Apart from what makes them, since front ends load them to show them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cwm_jupyter.core.models import Value, Window, WindowState

__all__ = [
    "ChunkFault",
    "ChunkState",
    "DiskUsage",
    "GarbageReport",
    "HoldState",
    "Outcome",
    "PurgeReport",
    "RepairReport",
    "VerifyReport",
    "WindowCheck",
    "WindowUsage",
]

ChunkState = Literal["intact", "relinked", "missing", "corrupt"]
HoldState = Literal["kept", "renewed", "lost"]
Outcome = Literal["intact", "relinked", "bit-equal", "recomputed"]


class ChunkFault(Value, frozen=True, kw_only=True):
    """A chunk that was not found as frozen; chunks and ranks count from 0.

    ``relinked`` ones are intact again: their record was lost, their content was not.
    """

    chunk: int
    rank: int
    state: Literal["relinked", "missing", "corrupt"]
    reason: str | None


class WindowCheck(Value, frozen=True, kw_only=True):
    """One window, as it was found.

    `chunks_intact` includes the relinked ones. `chunks_recomputed` are those that were computed
    again since the freeze: right, but not the bytes that were frozen. `size_bytes` is what was
    read. `problem` says why the chunks could not be looked at; nothing is counted then. `hold` is
    what keeps the chunks from quotas and clean-ups: ``renewed``, it was lost and is back; ``lost``,
    it could not be put back; null where it was not looked at.
    """

    window: str
    state: WindowState
    chunks: int
    chunks_intact: int
    chunks_relinked: int
    chunks_missing: int
    chunks_corrupt: int
    chunks_recomputed: int
    size_bytes: int
    verify_s: float
    faults: list[ChunkFault]
    problem: str | None
    hold: HoldState | None = None


class VerifyReport(Value, frozen=True, kw_only=True):
    """What a verification found; `intact` is whether no window is damaged."""

    windows: list[WindowCheck]
    intact: bool
    size_bytes: int
    verify_s: float


class RepairReport(Value, frozen=True, kw_only=True):
    """What a repair did.

    `outcomes` has one entry a chunk: ``intact``, it was; ``relinked``, its record was lost and its
    content was not; ``bit-equal``, computed again to the very bytes that the window had;
    ``recomputed``, computed again to right, but other bytes. `turns_differed` are the turns whose
    answers a greedy engine does not give again: they had been sampled. `also_intact` are other
    windows that shared what was damaged, and have all their chunks again.
    """

    window: Window
    outcomes: list[Outcome]
    chunks_intact: int
    chunks_relinked: int
    chunks_bit_equal: int
    chunks_recomputed: int
    turns_replayed: int
    turns_differed: int
    computed_tokens: int
    repair_s: float
    stages_s: dict[str, float]
    accepted_differences: list[str]
    also_intact: list[str] = msgspec.field(default_factory=list)


class WindowUsage(Value, frozen=True, kw_only=True):
    """What one window takes on disk: `held_bytes` in all, `exclusive_bytes` of it alone.

    Both are null for a window whose chunks are in a remote store. `size_bytes` is its KV, decoded.
    """

    window: str
    state: WindowState
    size_bytes: int | None
    held_bytes: int | None
    exclusive_bytes: int | None


class DiskUsage(Value, frozen=True, kw_only=True):
    """What everything takes on disk; see `Shares` for the vault's figures.

    `other_bytes` are held by no window: a freeze or a repair is under way, or was when it crashed.
    """

    folder: str
    windows: list[WindowUsage]
    stored_bytes: int
    raw_bytes: int
    unfrozen_bytes: int
    other_bytes: int
    quarantined: int
    quarantined_bytes: int
    quota_bytes: int | None
    free_bytes: int


class GarbageReport(Value, frozen=True, kw_only=True):
    """What nothing could use any more, by kind; `removed` is false where it was only looked for.

    `leftovers` are manifests, transcripts and secrets that no entry of the index speaks of.
    """

    contents: int
    records: int
    holds: int
    temporary_files: int
    quarantined: int
    chunks: int
    leftovers: int
    freed_bytes: int
    removed: bool


class PurgeReport(Value, frozen=True, kw_only=True):
    """What was deleted for good; `removed` is false where it was only looked for.

    `freed_bytes` are those of the vault. `memory_cleared` is whether LMCache dropped the chunks
    from its memory and then had none of them, `engine_cleared` whether the engine dropped its
    prefix cache: null where no stack runs. `remote_cleared` is whether a remote store deleted its
    chunks, null where none were there. `copies_cleared` is false where copies of the index may
    still speak of what went.
    """

    windows: list[str]
    sessions: list[str]
    chunks: int
    freed_bytes: int
    secrets: int
    memory_cleared: bool | None
    engine_cleared: bool | None
    removed: bool
    remote_cleared: bool | None = None
    copies_cleared: bool = True

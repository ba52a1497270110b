"""What a run of the bench measures: all of it, or little, to try it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "QUICK", "Plan"]


@dataclass(frozen=True)
class Plan:
    """The extent of a run.

    Parameters
    ----------
    sizes
        Lengths of contexts in tokens; what does not fit into the model's context is left out.
    repetitions
        How often each is measured, but for cold prefills: they happen once.
    fs
        Whether a second stack with LMCache's own disk tier is measured beside the vault.
    planes
        Whether the vault's codec is measured beside raw bytes.
    prefetches
        Pure loads from each store, alternating.
    long_tokens
        Length of the context of a small model that is made for it; None: leave it out.
    many_tokens
        Length of each of the ten sessions that are frozen at once; None: leave them out.
    index_windows
        Windows in the index whose operations are measured.
    bound_bytes
        Size of what the machine's own bounds are measured with.
    """

    sizes: tuple[int, ...]
    repetitions: int
    fs: bool
    planes: bool
    prefetches: int
    long_tokens: int | None
    many_tokens: int | None
    index_windows: int
    bound_bytes: int


FULL = Plan(
    sizes=(1_000, 4_000, 8_000),
    repetitions=7,
    fs=True,
    planes=True,
    prefetches=9,
    long_tokens=32_768,
    many_tokens=1_000,
    index_windows=10_000,
    bound_bytes=256 << 20,
)
QUICK = Plan(
    sizes=(1_000, 2_000),
    repetitions=3,
    fs=False,
    planes=True,
    prefetches=3,
    long_tokens=None,
    many_tokens=None,
    index_windows=1_000,
    bound_bytes=64 << 20,
)

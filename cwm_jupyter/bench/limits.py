"""Limits: the targets of the acceptance table, made fit for machines of any speed.

A target in seconds says what a user should feel on a machine like the one it was written for. On a
slower one the same code would fail it, so a limit is the looser of the target and a share of what
the same machine needed for the prefill in the same run: that is what freeze and thaw save.
"""

from __future__ import annotations

from typing import NamedTuple

from cwm_jupyter.units import seconds as spoken

__all__ = ["TARGETS", "Limit", "Target", "at_most", "target_limit"]


class Limit(NamedTuple):
    """A time that is not to be exceeded, and how it came about."""

    seconds: float
    words: str


class Target(NamedTuple):
    """A row of the acceptance table: so many seconds, or one part in `of_cold` of the prefill."""

    row: str
    seconds: float
    of_cold: int


#: by what is done and the nominal length of the context in tokens
TARGETS = {
    ("freeze", 1_000): Target("PF-001", 0.1, 20),
    ("freeze", 8_000): Target("PF-002", 0.5, 40),
    ("freeze", 32_768): Target("PF-003", 2.0, 20),
    ("thaw", 1_000): Target("PF-004", 0.5, 8),
    ("thaw", 8_000): Target("PF-005", 2.0, 20),
    ("thaw", 32_768): Target("PF-006", 5.0, 20),
}


def target_limit(target_s: float, cold_s: float, of_cold: int) -> Limit:
    """Return the looser of a target and a share of a cold prefill."""
    share_s = cold_s / of_cold
    words = f"{target_s:g} s or 1/{of_cold} of the cold prefill ({spoken(share_s)})"
    return Limit(max(target_s, share_s), f"at most {words}, the longer")


def at_most(factor: float, than_s: float, than: str) -> Limit:
    """Return a multiple of another time of the same run, or a share of it."""
    share = f"{factor:g} times" if factor >= 1 else f"1/{1 / factor:.0f} of"
    return Limit(factor * than_s, f"at most {share} {than} ({spoken(than_s)})")

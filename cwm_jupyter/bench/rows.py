"""What the bench gives: rows of figures, each beside what it is held against."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Self

import msgspec

from cwm_jupyter.bench.limits import Limit
from cwm_jupyter.bench.machine import Bounds
from cwm_jupyter.core.models import Value

__all__ = ["BenchResult", "Row", "Yardsticks", "bound_s"]


class Yardsticks(msgspec.Struct, frozen=True, kw_only=True):
    """What the times of one context are divided by, all of the same run; None: not measured."""

    cold_s: float | None = None
    live_s: float | None = None
    bound_s: float | None = None


class Row(Value, frozen=True, kw_only=True):
    """One figure.

    `id` is the row of the acceptance table where there is one. Times are medians over `runs`;
    a ratio is `seconds` over the cold prefill's first token, over the first token of a live engine
    hit, and over the bound that this machine's reading and copying set. `within` says whether
    `limit` is kept, and is null where there is none. Null is what does not apply, or could not be
    measured.
    """

    id: str
    what: str
    store: str | None = None
    codec: str | None = None
    tokens: int | None = None
    seconds: float | None = None
    min_s: float | None = None
    max_s: float | None = None
    runs: int = 0
    ratio_to_cold: float | None = None
    ratio_to_live_hit: float | None = None
    ratio_to_bound: float | None = None
    bytes: int | None = None
    limit: str | None = None
    within: bool | None = None
    #: what the figure is made of: stages in seconds, processes in bytes
    details: dict[str, Any] = msgspec.field(default_factory=dict)

    @classmethod
    def timed(
        cls,
        id_: str,
        what: str,
        times: Sequence[float],
        *,
        against: Yardsticks | None = None,
        limit: Limit | None = None,
        **fields: Any,
    ) -> Self:
        """Return the row of a time that was measured again and again.

        Parameters
        ----------
        id_, what
            As in the row.
        times
            In seconds, at least one.
        against
            What the ratios are taken to.
        limit
            What the median is held against.
        fields
            The others.
        """
        median, against = statistics.median(times), against or Yardsticks()
        return cls(
            id=id_,
            what=what,
            seconds=median,
            min_s=min(times),
            max_s=max(times),
            runs=len(times),
            ratio_to_cold=_ratio(median, against.cold_s),
            ratio_to_live_hit=_ratio(median, against.live_s),
            ratio_to_bound=_ratio(median, against.bound_s),
            limit=None if limit is None else limit.words,
            within=None if limit is None else median <= limit.seconds,
            **fields,
        )


class BenchResult(Value, frozen=True, kw_only=True):
    """All figures of one run, and the machine that they are of."""

    machine: dict[str, Any]
    rows: list[Row]

    def row(self, id_: str) -> Row:
        """Return the row of this id; KeyError where there is none."""
        for row in self.rows:
            if row.id == id_:
                return row
        raise KeyError(id_)


def bound_s(bounds: Bounds, size_bytes: int | None) -> float | None:
    """Return how long reading these bytes and copying them once would take at least."""
    if size_bytes is None:
        return None
    return size_bytes / bounds.read_bytes_per_s + size_bytes / bounds.copy_bytes_per_s


def _ratio(seconds: float, to: float | None) -> float | None:
    return seconds / to if to else None

"""What the samples of a context say beyond their medians: the worst, the first, the aims."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from cwm_jupyter.bench.limits import Limit, at_most, target_limit
from cwm_jupyter.bench.machine import Bounds
from cwm_jupyter.bench.rows import Row
from cwm_jupyter.bench.speed import Series, held, of_context, yardsticks

__all__ = ["aim_rows", "large_rows", "long_row"]

#: aims: a commit (s); a thaw as a multiple of a live hit, a part of cold, a multiple of fs
_COMMIT_S, _LIVE_HITS, _OF_COLD, _FS = 0.15, 1.5, 60, 1.1
_LONG_TOKENS = 32_768


def large_rows(series: Series, bounds: Bounds) -> list[Row]:
    """Return the rows of a large session that are not about a typical time."""
    context, samples = series.context, series.samples[0]
    first = context.first_freeze
    slowest_s = max(s.thaw.restore_s for s in samples)
    fields = {**of_context(context), "against": yardsticks(series, bounds)}
    fields |= {"store": "vault", "codec": series.subjects[0].codec}
    return [
        Row.timed(
            "TF-006",
            "first freeze of a large session, right after its answer, with its probe",
            [first.commit_s + first.probe_s],
            limit=target_limit(2.0, context.cold_s, 10),
            details={"stages_s": first.stages_s, "newly_stored_bytes": first.newly_stored_bytes},
            **fields,
        ),
        held(
            Row.timed(
                "TT-006",
                "the slowest of all thaws of a large session",
                [slowest_s],
                limit=target_limit(2.0, context.cold_s, 20),
                **fields,
            ),
            samples,
        ),
    ]


def long_row(thaw: Row) -> Row:
    """Return what a long context's thaw says of the whole way there and back."""
    return thaw.replace(
        id="E2E-007",
        what="a long context: computed, frozen, dropped, thawed to the bit",
        limit=f"{_LONG_TOKENS:,} tokens or more, and {thaw.limit}",
        within=bool(thaw.within) and (thaw.tokens or 0) >= _LONG_TOKENS,
    )


def aim_rows(series: Series) -> list[Row]:
    """Return what is aimed at beyond the targets."""
    n, cold_s = series.context.nominal, series.context.cold_s
    thaws = series.times(0, lambda s: s.thaw.restore_s)
    commits = series.times(0, lambda s: s.freeze.commit_s)
    aims = [
        ("commit", "freeze without its probe", commits, Limit(_COMMIT_S, "at most 150 ms")),
        ("cold", "thaw against cold", thaws, at_most(1 / _OF_COLD, cold_s, "the cold prefill")),
        ("live", "thaw against live", thaws, at_most(_LIVE_HITS, series.live_s, "a live hit")),
    ]
    found = [_aim(series, f"aim-{id_}-{n}", what, t, limit) for id_, what, t, limit in aims]
    return [*found, *_fs_rows(series, thaws)]


def _fs_rows(series: Series, thaws: Sequence[float]) -> list[Row]:
    """Hold the vault, which checks every byte, against ``fs``, which checks nothing."""
    fs = next((i for i, s in enumerate(series.subjects) if s.store == "fs"), None)
    if fs is None or not series.prefetches[fs]:
        return []
    n, loading_s = series.context.nominal, statistics.median(series.prefetches[fs])
    thaw_s = statistics.median(series.times(fs, lambda s: s.thaw.restore_s))
    return [
        _aim(
            series,
            f"vault-prefetch-{n}",
            "loading from the vault against fs",
            series.prefetches[0],
            at_most(1.0, loading_s, "fs in the same run"),
        ),
        _aim(
            series,
            f"vault-thaw-{n}",
            "thaw from the vault against fs",
            thaws,
            at_most(_FS, thaw_s, "fs in the same run"),
        ),
    ]


def _aim(series: Series, id_: str, what: str, times: Sequence[float], limit: Limit) -> Row:
    fields = {**of_context(series.context), "store": "vault", "codec": series.subjects[0].codec}
    return Row.timed(id_, what, times, limit=limit, **fields)

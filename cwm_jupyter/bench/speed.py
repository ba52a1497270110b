"""Freeze and thaw of contexts of several lengths, all subjects in turn, again and again."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cwm_jupyter.bench.limits import TARGETS, Limit, target_limit
from cwm_jupyter.bench.machine import Bounds
from cwm_jupyter.bench.rows import Row, Yardsticks, bound_s
from cwm_jupyter.bench.subject import Context, Sample, Subject
from cwm_jupyter.core.job import Job

__all__ = ["Series", "held", "measure", "of_context", "rows", "yardsticks"]


class Series:
    """All that was measured of one context: samples by subject, the first subject the vault raw."""

    def __init__(self, context: Context, subjects: Sequence[Subject]) -> None:
        self.context = context
        self.subjects = list(subjects)
        self.samples: list[list[Sample]] = [[] for _ in subjects]
        self.prefetches: list[list[float]] = [[] for _ in subjects]

    @property
    def live_s(self) -> float:
        """A live engine hit's first token, over all subjects: no store is in it."""
        return statistics.median(s.live_s for samples in self.samples for s in samples)

    def times(self, number: int, pick: Callable[[Sample], float]) -> list[float]:
        """Return one figure of all samples of a subject."""
        return [pick(sample) for sample in self.samples[number]]


def measure(series: Series, repetitions: int, prefetches: int, job: Job) -> None:
    """Measure, so that what changes on the machine meanwhile meets all subjects alike."""
    numbered = list(enumerate(series.subjects))
    nominal = series.context.nominal
    for repetition in range(repetitions):
        job.stage(f"{nominal:,} tokens, {repetition + 1} of {repetitions}")
        for number, subject in _turned(numbered, repetition):
            series.samples[number].append(subject.measure(series.context))
    for repetition in range(prefetches):
        job.stage(f"{nominal:,} tokens, loading alone, {repetition + 1} of {prefetches}")
        for number, subject in _turned(numbered, repetition):
            series.prefetches[number].append(subject.prefetch(series.context))


def _turned(subjects: list[tuple[int, Subject]], repetition: int) -> list[tuple[int, Subject]]:
    """Begin with another one each time, since who comes first finds other caches."""
    start = repetition % len(subjects)
    return [*subjects[start:], *subjects[:start]]


def yardsticks(series: Series, bounds: Bounds) -> Yardsticks:
    """Return what the context's times are divided by."""
    context = series.context
    return Yardsticks(
        cold_s=context.cold_s,
        live_s=series.live_s,
        bound_s=bound_s(bounds, context.size_bytes),
    )


def rows(series: Series, bounds: Bounds) -> list[Row]:
    """Return the rows of one context."""
    context = series.context
    against = yardsticks(series, bounds)
    n, common = context.nominal, of_context(context)
    found = [
        Row.timed(
            f"cold-{n}",
            "cold prefill, first token",
            [context.cold_s],
            against=against,
            **common,
        ),
        Row.timed(
            f"live-{n}",
            "live engine hit, first token",
            [s.live_s for samples in series.samples for s in samples],
            against=against,
            details={"tail_tokens": context.first_freeze.tail_tokens},
            **common,
        ),
    ]
    for number, subject in enumerate(series.subjects):
        found += _subject_rows(series, number, subject, against)
    return found


def _subject_rows(series: Series, number: int, subject: Subject, against: Yardsticks) -> list[Row]:
    context, cold_s = series.context, series.context.cold_s
    n, first = context.nominal, number == 0
    common = {**of_context(context), "store": subject.store, "codec": subject.codec}
    samples = series.samples[number]

    def id_(what: str) -> str:
        if first:
            return TARGETS[what, n].row if (what, n) in TARGETS else f"{what}-{n}"
        return f"{what}-{n}-{'fs' if subject.store == 'fs' else subject.codec}"

    def limit(what: str) -> Limit | None:
        target = TARGETS.get((what, n)) if first else None
        return None if target is None else target_limit(target.seconds, cold_s, target.of_cold)

    def row(what: str, said: str, pick: Callable[[Sample], float], **details: Any) -> Row:
        return Row.timed(
            id_(what),
            said,
            [pick(sample) for sample in samples],
            against=against,
            limit=limit(what),
            details=details,
            **common,
        )

    thaw = row(
        "thaw",
        "thaw, neither server having it",
        lambda s: s.thaw.restore_s,
        stages_s=_stages(s.thaw.stages_s for s in samples),
        tail_tokens=context.first_freeze.tail_tokens,
    )
    found = [
        row(
            "freeze",
            "freeze without its probe, chunks stored already",
            lambda s: s.freeze.commit_s,
            stages_s=_stages(s.freeze.stages_s for s in samples),
        ),
        row("freeze-probe", "the freeze's probe", lambda s: s.freeze.probe_s),
        held(thaw, samples),
        row("next", "next answer's first token after the thaw", lambda s: s.next_s),
    ]
    if series.prefetches[number]:
        found.append(
            Row.timed(
                id_("prefetch"),
                "loading into LMCache's memory alone",
                series.prefetches[number],
                against=against,
                **common,
            )
        )
    return found


def held(row: Row, samples: Sequence[Sample]) -> Row:
    """Return a thaw's row with whether it was right each time: a quick wrong one is no success."""
    exact = all(
        s.thaw.complete and s.thaw.probe is not None and s.thaw.probe.max_abs_logprob_diff == 0
        for s in samples
    )
    within = row.within if exact or row.within is None else False
    return row.replace(within=within, details={**row.details, "complete_and_exact": exact})


def of_context(context: Context) -> dict[str, Any]:
    """Return the fields that all rows of a context have."""
    return {"tokens": context.first_freeze.window.tokens, "bytes": context.size_bytes}


def _stages(all_stages: Iterable[dict[str, float]]) -> dict[str, float]:
    """Return the median of each stage."""
    collected: dict[str, list[float]] = {}
    for stages in all_stages:
        for name, seconds in stages.items():
            collected.setdefault(name, []).append(seconds)
    return {name: statistics.median(times) for name, times in collected.items()}

"""What a run of the bench looks like: figures in a table, then each limit and whether it held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cwm_jupyter.bench.rows import BenchResult, Row
from cwm_jupyter.layout import Block, Facts, Line, Table
from cwm_jupyter.present import blocks
from cwm_jupyter.units import UNAVAILABLE, count, megabytes, seconds

__all__ = ["shown"]

#: times that are in the table already, held against something else
_JUDGED_ALONE = ("aim-", "vault-")
_HEADER = ("WHAT", "STORE", "TOKENS", "TIME", "LEAST", "MOST", "OF COLD", "LIVE HITS", "BOUNDS")


@blocks.register
def shown(result: BenchResult) -> list[Block]:
    """Return what a result looks like."""
    timed = [
        row
        for row in result.rows
        if row.seconds is not None and not row.id.startswith(_JUDGED_ALONE)
    ]
    judged = [row for row in result.rows if row.within is not None]
    over = [row for row in judged if not row.within]
    said = "All limits were kept." if not over else f"{len(over)} of {len(judged)} limits were not."
    return [
        Facts(_machine(result.machine)),
        Line(""),
        Table(_HEADER, [_timed(row) for row in timed], frozenset(range(2, len(_HEADER)))),
        Line(""),
        *(Line(_judged(row), loud=not row.within) for row in judged),
        Line(said, loud=bool(over)),
    ]


def _machine(machine: dict[str, Any]) -> Sequence[tuple[str, str]]:
    bounds = machine["bounds"]
    speeds = [
        f"{what} {megabytes(round(bounds[f'{what}_bytes_per_s']))}/s"
        for what in ("read", "copy", "write")
    ]
    flags = ", ".join(machine["flags"] or ()) or "no vector units known"
    versions = [_version(name, version) for name, version in machine["versions"].items()]
    loads = [str(machine.get(name, UNAVAILABLE)) for name in ("load", "load_at_end")]
    return [
        ("machine", f"{machine['cpu']}, {machine['cores']} cores, {flags}"),
        ("memory", f"{megabytes(machine['memory_bytes'])}; disk {machine['disk']}"),
        ("speeds", ", ".join(speeds)),
        ("versions", ", ".join(versions)),
        ("load", f"{loads[0]} before, {loads[1]} after: a busy machine measures itself"),
        *(("note", note) for note in machine.get("notes", ())),
    ]


def _version(name: str, version: str | None) -> str:
    """Return a part and its version; some versions begin with the part's name already."""
    shown = version or UNAVAILABLE
    return shown if shown.startswith(name) else f"{name} {shown}"


def _timed(row: Row) -> tuple[str, ...]:
    store = "" if row.store is None else row.store
    if row.codec not in (None, "raw"):
        store = f"{store}, {row.codec}"
    return (
        row.what,
        store,
        "" if row.tokens is None else count(row.tokens),
        seconds(row.seconds),
        seconds(row.min_s),
        seconds(row.max_s),
        "" if not row.ratio_to_cold else f"1/{1 / row.ratio_to_cold:,.0f}",
        "" if row.ratio_to_live_hit is None else f"{row.ratio_to_live_hit:.1f}",
        "" if row.ratio_to_bound is None else f"{row.ratio_to_bound:.1f}",
    )


def _judged(row: Row) -> str:
    figure = seconds(row.seconds) if row.seconds is not None else megabytes(row.bytes)
    if "ratio" in row.details:
        figure = f"{row.details['ratio']:.3f}"
    verdict = "within" if row.within else "OVER"
    return f"{row.id}: {row.what}: {figure}, {verdict} ({row.limit})"

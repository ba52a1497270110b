"""The bench in a reduced form, on the real stack: every limit is a share of the same run's prefill.

The whole bench is ``cwm bench``; docs/bench.md has its figures.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import msgspec
import pytest

from cwm_jupyter.bench.machine import Bounds, measure_bounds
from cwm_jupyter.bench.plan import QUICK
from cwm_jupyter.bench.rows import BenchResult, Row
from cwm_jupyter.bench.run import measure_long, measure_stack
from cwm_jupyter.bench.stacks import random_model
from cwm_jupyter.bench.subject import Subject
from cwm_jupyter.config import Settings
from cwm_jupyter.core.job import Job
from cwm_jupyter.stack import launcher
from cwm_jupyter.workspace import Workspace

pytestmark = pytest.mark.stack

#: the shortest that shows each row: the cold prefills are most of its cost
_PLAN = dataclasses.replace(
    QUICK,
    sizes=(1_000, 8_000),
    planes=False,
    prefetches=0,
    long_tokens=32_768,
    many_tokens=250,
    bound_bytes=32 << 20,
)


@pytest.fixture(scope="module")
def bounds(stack_settings: Settings) -> Bounds:
    return measure_bounds(stack_settings.home.parent, _PLAN.bound_bytes)


@pytest.fixture(scope="module")
def result(stack_settings: Settings, bounds: Bounds) -> BenchResult:
    """What the stack that all tests share measured."""
    launcher.up(stack_settings)
    workspace = Workspace(stack_settings)
    try:
        rows = measure_stack(Subject(workspace, "vault", "raw"), _PLAN, bounds, Job("bench"))
    finally:
        workspace.close()
    return _said(rows)


@pytest.fixture(scope="module")
def long_result(
    stack_settings: Settings, bounds: Bounds, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BenchResult]:
    """What a small model with a long context measured, on a stack of its own."""
    model = random_model(stack_settings, Job("bench"))
    replace = msgspec.structs.replace
    settings = replace(
        stack_settings,
        home=tmp_path_factory.mktemp("long") / "home",
        stack=replace(stack_settings.stack, model=str(model)),
    )
    launcher.up(settings)
    workspace = Workspace(settings)
    try:
        rows = measure_long(Subject(workspace, "vault", "raw"), _PLAN, bounds, Job("bench"))
        yield _said(rows)
    finally:
        workspace.close()
        launcher.down(settings)


def _said(rows: list[Row]) -> BenchResult:
    """Print the figures: who reads a failure wants all of them."""
    for row in rows:
        print(json.dumps(row.to_dict()))
    return BenchResult(machine={}, rows=rows)


def _each(*rows: str) -> pytest.MarkDecorator:
    """Run a test for each row, which it then shows."""
    covered = [pytest.param(row, marks=pytest.mark.covers(row)) for row in rows]
    return pytest.mark.parametrize("row", covered)


def _holds(row: Row) -> None:
    assert row.within, f"{row.id}: {row.seconds} s, {row.bytes} bytes; {row.limit}; {row.details}"


@_each("PF-001", "PF-002", "TF-006")
def test_a_freeze_costs_little_beside_the_prefill(result: BenchResult, row: str) -> None:
    _holds(result.row(row))


@_each("PF-004", "PF-005", "TT-006")
def test_a_thaw_costs_little_beside_the_prefill(result: BenchResult, row: str) -> None:
    found = result.row(row)
    _holds(found)
    assert found.details["complete_and_exact"]
    assert found.ratio_to_cold is not None
    assert found.ratio_to_cold < 1


@pytest.mark.covers("PF-007")
def test_the_disk_holds_what_the_formula_says(result: BenchResult) -> None:
    row = result.row("PF-007")
    _holds(row)
    assert row.details["raw_bytes"] == row.details["formula_bytes"]


@pytest.mark.covers("PF-008")
def test_ten_thawed_sessions_take_little_memory(result: BenchResult) -> None:
    row = result.row("PF-008")
    _holds(row)
    assert {name.split()[0] for name in row.details["growth_bytes"]} == {"lmcache", "vllm"}


@pytest.mark.covers("PF-009")
def test_ten_freezes_at_once(result: BenchResult) -> None:
    _holds(result.row("PF-009"))


@_each("PF-003", "PF-006", "E2E-007")
def test_a_context_of_32k_tokens(long_result: BenchResult, row: str) -> None:
    found = long_result.row(row)
    _holds(found)
    assert found.tokens is not None
    assert found.tokens >= 32_768


def test_operations_of_a_full_index_are_quick_beside_writing_it(result: BenchResult) -> None:
    for what in ("open", "find", "list", "tag", "page", "add", "see"):
        _holds(result.row(f"index-{what}"))

"""Statistics: what the servers say, and what is null where they say nothing."""

from __future__ import annotations

import dataclasses

import pytest
from bench import Bench

from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.statistics import statistics
from cwm_jupyter.errors import KVStoreConnectionError, StackDownError, VLLMConnectionError


async def test_the_figures_of_a_running_stack(bench: Bench) -> None:
    await bench.talk("talk")
    seen = await statistics(bench.manager.parts)
    assert seen.running
    assert seen.engine is not None
    assert seen.cache is not None


async def test_without_a_stack_nothing_is_zero(bench: Bench) -> None:
    async def down() -> ConnectedStack:
        raise StackDownError("No stack is running.")

    seen = await statistics(dataclasses.replace(bench.manager.parts, connect=down))
    assert (seen.running, seen.engine, seen.cache) == (False, None, None)
    assert (seen.engine_used_bytes, seen.engine_total_bytes) == (None, None)


async def test_a_server_that_does_not_answer_leaves_the_others_figures(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = await bench.connect()

    async def dead() -> None:
        raise VLLMConnectionError("gone")

    monkeypatch.setattr(stack.engine, "metrics", dead)
    seen = await statistics(bench.manager.parts)
    assert seen.engine is None
    assert seen.cache is not None

    async def gone() -> None:
        raise KVStoreConnectionError("gone")

    monkeypatch.setattr(stack.keeper(), "figures", gone)
    assert (await statistics(bench.manager.parts)).cache is None

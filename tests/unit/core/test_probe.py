"""The probe: what passes for the same state, and what does not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from bench import Bench
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.core import probe
from cwm_jupyter.core.models import Probe

LOGPROBS = st.floats(-50, 0, allow_nan=False)
TOPS = st.dictionaries(st.integers(0, 9), LOGPROBS, min_size=1, max_size=6)


def noted(top: Mapping[int, float], position: int = 100) -> Probe:
    order = sorted(top.items(), key=lambda item: (-item[1], item[0]))
    return Probe(
        position_tokens=position, token_ids=[t for t, _ in order], logprobs=[p for _, p in order]
    )


@given(TOPS, st.floats(0, 1))
def test_a_probe_passes_against_itself(top: dict[int, float], tolerance: float) -> None:
    result = probe.compare(noted(top), noted(top), tolerance=tolerance)
    assert (result.passed, result.max_abs_logprob_diff) == (True, 0.0)


@given(TOPS, st.data())
def test_exactness_means_every_bit(top: dict[int, float], data: st.DataObject) -> None:
    token = data.draw(st.sampled_from(sorted(top)))
    nudged = noted({**top, token: top[token] - 1e-6})
    result = probe.compare(noted(top), nudged, tolerance=0)
    assert not result.passed
    assert result.max_abs_logprob_diff == pytest.approx(1e-6, rel=1e-3)


@given(TOPS, TOPS, st.floats(0.01, 2))
def test_comparing_is_symmetric_and_bounded_by_the_tolerance(
    a: dict[int, float], b: dict[int, float], tolerance: float
) -> None:
    result = probe.compare(noted(a), noted(b), tolerance=tolerance)
    assert result == probe.compare(noted(b), noted(a), tolerance=tolerance)
    common = a.keys() & b.keys()
    worst = max((abs(a[t] - b[t]) for t in common), default=None)
    assert result.max_abs_logprob_diff == worst
    likeliest_shared = noted(a).token_ids[0] in b and noted(b).token_ids[0] in a
    assert result.passed == (worst is not None and worst <= tolerance and likeliest_shared)


@pytest.mark.parametrize("tolerance", [0.0, 0.5])
def test_other_tokens_altogether_never_pass(tolerance: float) -> None:
    result = probe.compare(noted({1: -0.1}), noted({2: -0.1}), tolerance=tolerance)
    assert (result.passed, result.max_abs_logprob_diff) == (False, None)


@pytest.mark.parametrize(
    ("measured", "passed"),
    [
        pytest.param({1: -0.3, 2: -1.0, 4: -3.0}, True, id="another unlikely token"),
        pytest.param({2: -0.3, 1: -0.4, 3: -2.0}, False, id="differs by more than tolerated"),
        pytest.param({9: -0.05, 1: -0.1, 2: -1.0}, False, id="another likeliest token"),
        pytest.param({2: -0.9, 3: -2.0}, False, id="the likeliest token is gone"),
    ],
)
def test_the_rules_with_a_tolerance(measured: dict[int, float], passed: bool) -> None:
    before = noted({1: -0.1, 2: -1.0, 3: -2.0})
    assert probe.compare(before, noted(measured), tolerance=0.5).passed is passed


def test_exactness_holds_order_and_place_too() -> None:
    before = noted({1: -0.5, 2: -0.5})
    swapped = before.replace(token_ids=[2, 1])
    assert not probe.compare(before, swapped, tolerance=0).passed
    assert not probe.compare(before, before.replace(position_tokens=99), tolerance=0).passed


async def test_asking_notes_the_likeliest_first_and_what_came_from_cache(bench: Bench) -> None:
    stack = await bench.connect()
    prompt = list(range(20, 60))
    first, cached = await probe.ask(stack, prompt, "s", top=5)
    assert (first.position_tokens, len(first.token_ids), cached) == (40, 5, 0)
    assert first.logprobs == sorted(first.logprobs, reverse=True)
    again, cached = await probe.ask(stack, prompt, "s", top=5)
    assert cached == 32
    assert again.token_ids == first.token_ids


@pytest.mark.parametrize(("tokens", "asked"), [(31, 31), (32, 31), (33, 33)])
async def test_a_context_that_ends_with_a_chunk_is_probed_one_token_before(
    bench: Bench, tokens: int, asked: int
) -> None:
    """An engine takes all but one token of a context whose last chunk a cache has."""
    stack = await bench.connect()
    noted, _ = await probe.ask(stack, list(range(20, 20 + tokens)), "salt", top=3)
    assert (noted.position_tokens, len(bench.stack.prompts[-1])) == (asked, asked)

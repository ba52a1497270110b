"""Figures out of metrics that real servers gave, whole, thinned out and broken."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cwm_jupyter.clients import CacheFigures, EngineFigures, figures_text
from cwm_jupyter.clients.metrics import cache_figures, engine_figures

ENGINE = EngineFigures(
    block_size_tokens=128,
    kv_cache_blocks=728,
    kv_cache_usage_ratio=0.0,
    running_requests=0,
    waiting_requests=0,
    prompt_tokens=17547,
    computed_tokens=9611,
    local_cache_tokens=7936,
    external_cache_tokens=0,
    generated_tokens=268,
    prefix_query_tokens=17547,
    prefix_hit_tokens=7936,
    prefix_hit_rate=7936 / 17547,
    external_query_tokens=9611,
    external_hit_tokens=0,
    external_hit_rate=0.0,
)

# Which series each figure needs, where it is not the only one to need them.
SERIES = {
    "vllm:cache_config_info": {"block_size_tokens", "kv_cache_blocks"},
    "vllm:kv_cache_usage_perc": {"kv_cache_usage_ratio"},
    "vllm:num_requests_running": {"running_requests"},
    "vllm:num_requests_waiting": {"waiting_requests"},
    "vllm:prompt_tokens_total": {"prompt_tokens"},
    "vllm:prompt_tokens_by_source_total": {
        "computed_tokens",
        "local_cache_tokens",
        "external_cache_tokens",
    },
    "vllm:generation_tokens_total": {"generated_tokens"},
    "vllm:prefix_cache_queries_total": {"prefix_query_tokens", "prefix_hit_rate"},
    "vllm:prefix_cache_hits_total": {"prefix_hit_tokens", "prefix_hit_rate"},
    "vllm:external_prefix_cache_queries_total": {"external_query_tokens", "external_hit_rate"},
    "vllm:external_prefix_cache_hits_total": {"external_hit_tokens", "external_hit_rate"},
}


@pytest.mark.covers("UC-015")
def test_engine_figures_of_a_real_server(vllm_metrics):
    assert engine_figures(vllm_metrics) == ENGINE


@pytest.mark.covers("UC-015")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gone=st.sets(st.sampled_from(sorted(SERIES))))
def test_a_missing_series_is_unavailable_and_nothing_else_changes(vllm_metrics, gone):
    kept = [
        line
        for line in vllm_metrics.splitlines()
        if re.split(r"[{ ]", line.removeprefix("# HELP ").removeprefix("# TYPE "))[0] not in gone
    ]
    figures = engine_figures("\n".join(kept) + "\n").to_dict()
    unavailable = set().union(*(SERIES[name] for name in gone))
    for name, value in ENGINE.to_dict().items():
        assert figures[name] == (None if name in unavailable else value), name


@settings(deadline=None)
@given(st.text())
def test_no_text_is_an_error(text):
    assert isinstance(engine_figures(text), EngineFigures)
    assert isinstance(cache_figures({}, text), CacheFigures)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_metrics_are_no_error(vllm_metrics, data):
    at = data.draw(st.integers(0, len(vllm_metrics)))
    put = data.draw(st.text(max_size=5))
    engine_figures(vllm_metrics[:at] + put + vllm_metrics[at + len(put) :])
    engine_figures(vllm_metrics[:at])


@pytest.mark.parametrize("value", ["NaN", "+Inf"])
def test_a_value_that_is_no_number_is_unavailable(value):
    text = f"vllm:num_requests_running {value}\nvllm:kv_cache_usage_perc {value}\n"
    assert engine_figures(text) == EngineFigures()


@pytest.mark.parametrize("label", ["None", "", "x"])
def test_a_label_that_is_no_number_is_unavailable(label):
    figures = engine_figures(f'vllm:cache_config_info{{block_size="{label}"}} 1\n')
    assert figures.block_size_tokens is None


def test_several_engines_are_summed_and_the_fullest_counts():
    figures = engine_figures(
        'vllm:prompt_tokens_total{engine="0"} 3\nvllm:prompt_tokens_total{engine="1"} 4\n'
        'vllm:kv_cache_usage_perc{engine="0"} 0.25\nvllm:kv_cache_usage_perc{engine="1"} 0.5\n'
    )
    assert figures.prompt_tokens == 7
    assert figures.kv_cache_usage_ratio == 0.5


@pytest.mark.parametrize(
    ("hits", "queries", "rate"), [(0, 0, 0.0), (0, 8, 0.0), (2, 8, 0.25), (8, 8, 1.0)]
)
def test_hit_rates(hits, queries, rate):
    figures = engine_figures(
        f"vllm:prefix_cache_queries_total {queries}\nvllm:prefix_cache_hits_total {hits}\n"
    )
    assert figures.prefix_hit_rate == rate
    assert figures.external_hit_rate is None


def test_cache_figures_of_a_real_server(lmcache_status, lmcache_metrics):
    assert cache_figures(lmcache_status, lmcache_metrics) == CacheFigures(
        l1_used_bytes=191_692_800,
        l1_total_bytes=2**31,
        l1_objects=65,
        l2_used_bytes=191_692_800,
        l2_pending_stores=0,
        l2_stored_chunks=72,
        lookup_tokens=17024,
        lookup_hit_tokens=7936,
        l1_hit_tokens=7936,
        l2_hit_tokens=0,
        hit_rate=7936 / 17024,
    )


def test_cache_figures_hold_no_salt(lmcache_status, lmcache_metrics):
    figures = cache_figures(lmcache_status, lmcache_metrics)
    assert 'cache_salt="saltA"' in lmcache_metrics
    assert "saltA" not in f"{figures} {figures.to_dict()} {figures_text(figures)}"


def test_cache_figures_from_the_metrics_alone(lmcache_metrics):
    figures = cache_figures({}, lmcache_metrics)
    assert figures.lookup_hit_tokens == 7936
    assert figures.l1_used_bytes is None
    assert figures.l2_pending_stores is None


@pytest.mark.parametrize(
    "storage",
    [
        {},
        {"l1_managers": {}},
        {"l1_managers": {"a": {}}},
        {"l1_managers": {"a": {"memory_used_bytes": 5}, "b": {}}},
        {"l1_managers": {"a": {"memory_used_bytes": "5"}}},
        {"l1_managers": None},
    ],
)
def test_a_status_that_does_not_tell_the_memory(storage):
    assert cache_figures({"storage_manager": storage}, "").l1_used_bytes is None


def test_several_memories_are_summed():
    storage = {"l1_managers": {"a": {"memory_used_bytes": 5}, "b": {"memory_used_bytes": 0}}}
    assert cache_figures({"storage_manager": storage}, "").l1_used_bytes == 5


def test_text_form():
    figures = CacheFigures(l1_used_bytes=3 * 2**20, l1_objects=1234, lookup_tokens=0, hit_rate=0.5)
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in figures_text(figures).splitlines())
    assert lines["l1 used"] == "3.0 MiB"
    assert lines["l1 objects"] == "1,234"
    assert lines["lookup"] == "0 tokens"
    assert lines["hit rate"] == "50.0%"
    assert lines["l2 used"] == "unavailable"

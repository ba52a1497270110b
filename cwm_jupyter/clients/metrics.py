"""Figures of the servers, read from their Prometheus metrics.

Names of series drift from version to version, so each figure is optional: None says that it could
not be read ('unavailable'), 0 that it was read and is zero. Series that carry a salt as a label are
summed over it; no label but the ones named here leaves this module.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from cwm_jupyter.core.models import Value

__all__ = ["CacheFigures", "EngineFigures", "cache_figures", "engine_figures", "figures_text"]


class EngineFigures(Value, frozen=True, kw_only=True):
    """What the engine counts since its start; None: unavailable.

    `computed_tokens`, `local_cache_tokens` and `external_cache_tokens` are the sources of the
    prompt tokens: prefill, the engine's own prefix cache, LMCache. A hit rate is hits by queried
    tokens, 0 before the first query.
    """

    block_size_tokens: int | None = None
    kv_cache_blocks: int | None = None
    #: of the fullest engine, 0 to 1
    kv_cache_usage_ratio: float | None = None
    running_requests: int | None = None
    waiting_requests: int | None = None
    prompt_tokens: int | None = None
    computed_tokens: int | None = None
    local_cache_tokens: int | None = None
    external_cache_tokens: int | None = None
    generated_tokens: int | None = None
    prefix_query_tokens: int | None = None
    prefix_hit_tokens: int | None = None
    prefix_hit_rate: float | None = None
    external_query_tokens: int | None = None
    external_hit_tokens: int | None = None
    external_hit_rate: float | None = None


class CacheFigures(Value, frozen=True, kw_only=True):
    """What LMCache holds now (L1 is memory, L2 the vault) and counts since its start."""

    l1_used_bytes: int | None = None
    l1_total_bytes: int | None = None
    l1_objects: int | None = None
    l2_used_bytes: int | None = None
    #: keys whose store to L2 has been neither begun nor finished, and store tasks under way
    l2_pending_stores: int | None = None
    l2_stored_chunks: int | None = None
    lookup_tokens: int | None = None
    lookup_hit_tokens: int | None = None
    l1_hit_tokens: int | None = None
    l2_hit_tokens: int | None = None
    hit_rate: float | None = None


class _Series:
    """The series of one scrape."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        try:
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    self._samples[sample.name].append((sample.labels, sample.value))
        except (ValueError, KeyError, IndexError):
            # Half a scrape would give sums over half of the labels.
            self._samples.clear()

    def _of(self, name: str, labels: dict[str, str]) -> list[float]:
        wanted = labels.items()
        return [value for has, value in self._samples.get(name, ()) if wanted <= has.items()]

    def total(self, name: str, **labels: str) -> int | None:
        """The sum over all series of this name and these labels."""
        values = self._of(name, labels)
        return _finite(sum, values, int)

    def largest(self, name: str) -> float | None:
        """The largest value of this name."""
        return _finite(max, self._of(name, {}), float)

    def label(self, name: str, label: str) -> int | None:
        """The whole number in a label of an info series, of the first engine."""
        for has, _ in self._samples.get(name, ()):
            if has.get(label, "").isdecimal():
                return int(has[label])
        return None


def _finite(
    reduce: Callable[[Iterable[float]], float], values: list[float], kind: type[Any]
) -> Any | None:
    if not values or not math.isfinite(result := reduce(values)):
        return None
    return kind(result)


def _rate(hits: int | None, queries: int | None) -> float | None:
    if hits is None or queries is None:
        return None
    return hits / queries if queries else 0.0


def engine_figures(text: str) -> EngineFigures:
    """Read vLLM's ``/metrics`` (names of vLLM 0.32)."""
    series = _Series(text)

    def source(name: str) -> int | None:
        return series.total("vllm:prompt_tokens_by_source_total", source=name)

    queries = series.total("vllm:prefix_cache_queries_total")
    hits = series.total("vllm:prefix_cache_hits_total")
    external_queries = series.total("vllm:external_prefix_cache_queries_total")
    external_hits = series.total("vllm:external_prefix_cache_hits_total")
    return EngineFigures(
        block_size_tokens=series.label("vllm:cache_config_info", "block_size"),
        kv_cache_blocks=series.label("vllm:cache_config_info", "num_gpu_blocks"),
        kv_cache_usage_ratio=series.largest("vllm:kv_cache_usage_perc"),
        running_requests=series.total("vllm:num_requests_running"),
        waiting_requests=series.total("vllm:num_requests_waiting"),
        prompt_tokens=series.total("vllm:prompt_tokens_total"),
        computed_tokens=source("local_compute"),
        local_cache_tokens=source("local_cache_hit"),
        external_cache_tokens=source("external_kv_transfer"),
        generated_tokens=series.total("vllm:generation_tokens_total"),
        prefix_query_tokens=queries,
        prefix_hit_tokens=hits,
        prefix_hit_rate=_rate(hits, queries),
        external_query_tokens=external_queries,
        external_hit_tokens=external_hits,
        external_hit_rate=_rate(external_hits, external_queries),
    )


class _L1(msgspec.Struct):
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    total_object_count: int | None = None


class _StoreController(msgspec.Struct):
    pending_keys_count: int | None = None
    in_flight_task_count: int | None = None


class _StorageManager(msgspec.Struct):
    l1_managers: dict[str, _L1] = msgspec.field(default_factory=dict)
    store_controllers: dict[str, _StoreController] = msgspec.field(default_factory=dict)


class _Status(msgspec.Struct):
    storage_manager: _StorageManager = msgspec.field(default_factory=_StorageManager)


def cache_figures(status: dict[str, Any], text: str) -> CacheFigures:
    """Read LMCache's ``/status`` and ``/metrics`` (names of LMCache 0.5.6); either may be empty."""
    series = _Series(text)
    try:
        storage = msgspec.convert(status, _Status).storage_manager
    except msgspec.ValidationError:
        storage = _StorageManager()
    l1, stores = storage.l1_managers.values(), storage.store_controllers.values()
    lookups = series.total("lmcache_mp_lookup_requested_tokens_total")
    hits = series.total("lmcache_mp_lookup_hit_tokens_total")
    return CacheFigures(
        l1_used_bytes=_sum(one.memory_used_bytes for one in l1),
        l1_total_bytes=_sum(one.memory_total_bytes for one in l1),
        l1_objects=_sum(one.total_object_count for one in l1),
        l2_used_bytes=series.total("lmcache_mp_l2_usage_bytes"),
        l2_pending_stores=_sum(
            count for one in stores for count in (one.pending_keys_count, one.in_flight_task_count)
        ),
        l2_stored_chunks=series.total("lmcache_mp_l2_store_completed_objects_chunks_total"),
        lookup_tokens=lookups,
        lookup_hit_tokens=hits,
        l1_hit_tokens=series.total("lmcache_mp_lookup_hit_l1_tokens_total"),
        l2_hit_tokens=series.total("lmcache_mp_lookup_hit_l2_tokens_total"),
        hit_rate=_rate(hits, lookups),
    )


def _sum(values: Iterable[int | None]) -> int | None:
    """The sum, None where there is nothing to add or a part is unknown."""
    known = list(values)
    return None if not known or None in known else sum(v for v in known if v is not None)


def figures_text(figures: Value) -> str:
    """Return figures as aligned lines for a terminal; None reads ``unavailable``."""
    rows = [(name, _shown(name, value)) for name, value in figures.to_dict().items()]
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{_label(name):<{width}}  {shown}" for name, shown in rows)


def _label(name: str) -> str:
    stem = name.removesuffix("_bytes").removesuffix("_tokens").removesuffix("_ratio")
    return stem.replace("_", " ")


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "unavailable"
    if name.endswith(("_rate", "_ratio")):
        return f"{value:.1%}"
    if name.endswith("_bytes"):
        return f"{value / 2**20:,.1f} MiB"
    return f"{value:,} tokens" if name.endswith("_tokens") else f"{value:,}"

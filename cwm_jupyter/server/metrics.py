"""Metrics: the servers' figures in Prometheus' text format, without any label.

What could not be read is left out: a series that is absent is unavailable, one that is 0 is zero.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cwm_jupyter.core.statistics import Statistics

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
#: figures that only grow, from a server's start on
_COUNTED = frozenset(
    {
        "prompt_tokens",
        "computed_tokens",
        "local_cache_tokens",
        "external_cache_tokens",
        "generated_tokens",
        "prefix_query_tokens",
        "prefix_hit_tokens",
        "external_query_tokens",
        "external_hit_tokens",
        "l2_stored_chunks",
        "lookup_tokens",
        "lookup_hit_tokens",
        "l1_hit_tokens",
        "l2_hit_tokens",
    }
)


class _Figures(Collector):
    """The figures of one scrape."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def exposition(
    statistics: Statistics, *, windows: int, sessions: int, jobs: int, clients: int
) -> bytes:
    """Return the figures as Prometheus reads them.

    Parameters
    ----------
    statistics
        Of the servers.
    windows, sessions
        How many there are.
    jobs, clients
        How many of this server's jobs run, and how many clients listen to it.
    """
    own = {
        "cwm_stack_running": ("Whether there is a stack.", float(statistics.running)),
        "cwm_engine_used_bytes": ("Used of the engine's KV cache.", statistics.engine_used_bytes),
        "cwm_engine_total_bytes": ("The engine's KV cache.", statistics.engine_total_bytes),
        "cwm_quota_bytes": ("What the vault may take.", statistics.quota_bytes),
        "cwm_windows": ("Windows that are not deleted.", windows),
        "cwm_sessions": ("Sessions that are not deleted.", sessions),
        "cwm_jobs_running": ("Jobs of this Jupyter server.", jobs),
        "cwm_clients_listening": ("Clients of the event channel.", clients),
    }
    metrics: list[Metric] = [
        GaugeMetricFamily(name, text, value)
        for name, (text, value) in own.items()
        if value is not None
    ]
    for prefix, source, figures in (
        ("cwm_engine", "vLLM", statistics.engine),
        ("cwm_cache", "LMCache", statistics.cache),
    ):
        if figures is None:
            continue
        for field, value in msgspec.structs.asdict(figures).items():
            if value is not None:
                kind = CounterMetricFamily if field in _COUNTED else GaugeMetricFamily
                text = f"{field.replace('_', ' ')}, as {source} tells it."
                metrics.append(kind(f"{prefix}_{field}", text, value))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(metrics))
    return generate_latest(registry)

"""The caches' figures: of this moment, over time, and as Prometheus reads them."""

from __future__ import annotations

import msgspec

from cwm_jupyter.core.overview import Overview, overview
from cwm_jupyter.core.statistics import Statistics
from cwm_jupyter.server.history import HistoryReport
from cwm_jupyter.server.metrics import CONTENT_TYPE, exposition
from cwm_jupyter.server.operation import Asked, Operation, Text

__all__ = ["OPERATIONS"]


async def whole(asked: Asked) -> Text:
    """Return all windows and sessions in a few figures."""

    async def make() -> str:
        value = await asked.run(lambda w: overview(w.manager.parts))
        return msgspec.json.encode(value).decode()

    key = ("overview", await asked.service.generation())
    return Text(await asked.service.drawings.get(key, make), "application/json")


async def figures(asked: Asked) -> Statistics:
    """Return what the caches hold and have done; what cannot be read is null."""
    return await asked.service.history.now()


async def history(asked: Asked) -> HistoryReport:
    """Return those figures over time; they are sampled while somebody asks for them."""
    await asked.service.workspace()
    return asked.service.history.report()


async def metrics(asked: Asked) -> Text:
    """Return those figures in Prometheus' text format."""
    statistics = await asked.service.history.now()
    windows = await asked.run(lambda w: w.manager.windows(limit=0))
    sessions = await asked.run(lambda w: w.manager.sessions(limit=0))
    text = exposition(
        statistics,
        windows=windows.total,
        sessions=sessions.total,
        jobs=asked.service.jobs.running,
        clients=asked.service.hub.listeners,
    )
    return Text(text, CONTENT_TYPE)


_R = "cwm-statistics"

OPERATIONS = (
    Operation("GET", "overview", _R, whole, Overview, conditional=True),
    Operation("GET", "statistics", _R, figures, Statistics),
    Operation("GET", "history", _R, history, HistoryReport),
    Operation("GET", "metrics", _R, metrics, None, content_type=CONTENT_TYPE),
)

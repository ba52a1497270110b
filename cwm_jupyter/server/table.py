"""The table of all routes."""

from __future__ import annotations

from cwm_jupyter.server.operation import Operation
from cwm_jupyter.server.routes import (
    about,
    cache,
    figures,
    jobs,
    lineage,
    sessions,
    stack,
    windows,
)

__all__ = ["TABLE"]

TABLE: tuple[Operation, ...] = (
    *windows.OPERATIONS,
    *sessions.OPERATIONS,
    *lineage.OPERATIONS,
    *cache.OPERATIONS,
    *figures.OPERATIONS,
    *stack.OPERATIONS,
    *jobs.OPERATIONS,
    *about.OPERATIONS,
)

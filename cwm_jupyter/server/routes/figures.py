"""Figures: as Plotly's JSON, drawn by the functions that notebooks use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cwm_jupyter.core.models import SessionStatus, WindowStatus
from cwm_jupyter.errors import ValidationError
from cwm_jupyter.server.failures import RefusedError
from cwm_jupyter.server.operation import Asked, Operation, Text
from cwm_jupyter.server.requests import FigureQuery

__all__ = ["OPERATIONS"]


async def _history(asked: Asked) -> Any:
    return asked.service.history.report().items


async def _thaw_waterfall(asked: Asked) -> Any:
    if asked.query.window is None:
        raise ValidationError("window: say whose latest thaw is to be drawn.", field="window")
    index = (await asked.service.workspace()).library.index
    window = await asyncio.to_thread(index.require_window, asked.query.window)
    if not window.last_thaws:
        raise RefusedError(404, f"{window.known_as} was not thawed yet.", field="window")
    return window.last_thaws[0]


async def _thaw_against_recompute(asked: Asked) -> Any:
    return (await asked.run(lambda w: w.manager.windows())).items


async def _bytes_by_window(asked: Asked) -> Any:
    return await asked.run(lambda w: w.manager.disk_usage())


async def _family_tree(asked: Asked) -> Any:
    return await asked.run(lambda w: w.manager.branches.tree(asked.query.window))


async def _context_used(asked: Asked) -> Any:
    if asked.query.session is None:
        raise ValidationError("session: say whose context is to be drawn.", field="session")
    return await asked.run(lambda w: w.manager.status(session=asked.query.session))


async def _tokens_from_cache(asked: Asked) -> Any:
    named = asked.query.window, asked.query.session
    if (named[0] is None) == (named[1] is None):
        raise ValidationError("window: name one window or one session.", field="window")
    status: WindowStatus | SessionStatus = await asked.run(
        lambda w: w.manager.status(window=named[0], session=named[1])
    )
    return status.turns


#: what each figure is drawn of
_FIGURES: Mapping[str, Callable[[Asked], Awaitable[Any]]] = {
    "bytes_by_window": _bytes_by_window,
    "cache_by_tier": _history,
    "context_used": _context_used,
    "family_tree": _family_tree,
    "hit_rate": _history,
    "thaw_against_recompute": _thaw_against_recompute,
    "thaw_waterfall": _thaw_waterfall,
    "tokens_by_source": _history,
    "tokens_from_cache": _tokens_from_cache,
}


async def figure(asked: Asked) -> Text:
    """Draw a figure as Plotly's JSON.

    ``context_used`` needs a session, ``thaw_waterfall`` a window, ``tokens_from_cache`` one of
    them; ``family_tree`` takes a window.
    """
    name = asked.path["name"]
    if name not in _FIGURES:
        raise RefusedError(404, f"There is no such figure. There are: {', '.join(_FIGURES)}.")
    await asked.service.workspace()
    return Text(await _drawn(asked, name), "application/json")


async def _drawn(asked: Asked, name: str) -> str:
    """Draw a figure once for all who watch it."""
    of = _FIGURES[name]
    state = (
        asked.service.history.report().latest
        if of is _history
        else await asked.service.generation()
    )
    return await asked.service.drawings.get(
        (name, asked.query.window, asked.query.session, state), lambda: _draw(asked, name)
    )


async def _draw(asked: Asked, name: str) -> str:
    value = await _FIGURES[name](asked)

    def draw() -> str:
        from cwm_jupyter.notebook import figures  # Plotly takes a while to import

        drawn: str = getattr(figures, name)(value).to_json()
        return drawn

    return await asyncio.to_thread(draw)


OPERATIONS = (Operation("GET", "figures/{name}", "cwm-figures", figure, dict, query=FigureQuery),)

"""Pictures of what the API returns, and the figures of the caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cwm_jupyter.api.frozen import show
from cwm_jupyter.api.live import LiveSession
from cwm_jupyter.api.turns import FrozenWindow
from cwm_jupyter.core.family import Tree
from cwm_jupyter.core.models import (
    Page,
    SessionStatus,
    ThawReport,
    Turn,
    Window,
    WindowStatus,
)
from cwm_jupyter.core.reports import DiskUsage
from cwm_jupyter.core.statistics import Statistics
from cwm_jupyter.core.statistics import statistics as measured
from cwm_jupyter.errors import ValidationError
from cwm_jupyter.workspace import get_workspace

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["plot", "statistics"]

_DRAWN = (
    "a session or window, cwm.show(), cwm.windows(), cwm.tree(), cwm.disk_usage(), "
    "a thaw's report, turns, or a list of cwm.statistics()"
)


def plot(value: Any) -> go.Figure:
    """Return a Plotly figure of what the API or a magic returned.

    Parameters
    ----------
    value
        A session, or ``cwm.show(session=…)``: its context, turn by turn. A window, ``cwm.show(…)``
        or a list of turns: tokens from cache, turn by turn. ``cwm.windows()``: the latest thaws
        against the prefill. ``cwm.tree()``: the family of windows. ``cwm.disk_usage()``: bytes by
        window, own and shared. The report of ``cwm.thaw(…)``: where its time went. A list of
        ``cwm.statistics()``: what each tier of the cache held when.

    Raises
    ------
    ValidationError
        There is no picture of this.

    Examples
    --------
    >>> cwm.plot(cwm.windows())  # doctest: +SKIP
    >>> cwm.plot(cwm.thaw("paper"))  # doctest: +SKIP
    """
    from cwm_jupyter.notebook import figures

    if isinstance(value, LiveSession):
        value = show(session=value.name)
    if isinstance(value, FrozenWindow):
        value = value.show()
    if isinstance(value, Page):
        value = value.items
    if isinstance(value, SessionStatus):
        return figures.context_used(value)
    if isinstance(value, WindowStatus):
        return figures.tokens_from_cache(value.turns)
    if isinstance(value, Tree):
        return figures.family_tree(value)
    if isinstance(value, DiskUsage):
        return figures.bytes_by_window(value)
    if isinstance(value, ThawReport):
        return figures.thaw_waterfall(value)
    if _all_are(value, Window):
        return figures.thaw_against_recompute(value)
    if _all_are(value, Turn):
        return figures.tokens_from_cache(value)
    if _all_are(value, Statistics):
        return figures.cache_by_tier(value)
    raise ValidationError(
        f"There is no picture of a {type(value).__name__}.", hint=f"There is one of {_DRAWN}."
    )


def _all_are(value: object, kind: type) -> bool:
    return isinstance(value, Sequence) and all(isinstance(one, kind) for one in value)


def statistics() -> Statistics:
    """Return what the caches hold and have done, as the servers tell it now.

    What cannot be read is None, and never 0; without a running stack that is nearly all.
    """
    workspace = get_workspace()
    return workspace.run(measured, workspace.manager.parts)

"""What all figures share: colours, the layout, and what is shown where there is nothing."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

__all__ = ["COLOURS", "figure", "megabytes_axis", "nothing"]

#: Okabe and Ito's colours, which people with any kind of colour vision tell apart
COLOURS = {
    "cache": "#0072B2",
    "computed": "#E69F00",
    "memory": "#56B4E9",
    "disk": "#009E73",
    "engine": "#CC79A7",
    "other": "#999999",
    "alarm": "#D55E00",
}
#: a grey that reads on white and on black
_INK = "#767676"
_GRID = "rgba(128,128,128,0.25)"


def figure(title: str, *traces: Any, x: str, y: str, **layout: Any) -> go.Figure:
    """Return a figure in the common layout; it takes its background from the page.

    Parameters
    ----------
    title
        What is to be seen, in one line.
    traces
        Plotly's traces.
    x, y
        Titles of the axes, with the unit.
    layout
        What else goes to `plotly.graph_objects.Layout`.
    """
    axis = {"gridcolor": _GRID, "zerolinecolor": _GRID, "linecolor": _GRID, "automargin": True}
    chosen: dict[str, Any] = {
        "title": {"text": title, "x": 0, "xanchor": "left", "font": {"size": 15}},
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": _INK, "size": 12},
        "xaxis": {**axis, "title": {"text": x}},
        "yaxis": {**axis, "title": {"text": y}, "rangemode": "tozero"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"},
        "margin": {"l": 60, "r": 20, "t": 70, "b": 50},
        "height": 340,
        "hovermode": "closest",
    }
    for key, value in layout.items():
        known = chosen.get(key)
        chosen[key] = {**known, **value} if isinstance(known, dict) else value
    return go.Figure(data=traces, layout=chosen)


def nothing(title: str, why: str) -> go.Figure:
    """Return a figure that says why there is nothing to see."""
    empty = figure(title, x="", y="", height=200)
    empty.update_xaxes(visible=False)
    empty.update_yaxes(visible=False)
    empty.add_annotation(text=why, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")
    return empty


def megabytes_axis(value: int | None) -> float | None:
    """Return bytes as megabytes for an axis; None, a gap, where they are unknown."""
    return None if value is None else value / 1e6

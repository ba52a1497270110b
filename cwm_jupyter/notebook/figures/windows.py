"""Figures of windows: what they take on the disk, and the tree of a family."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from cwm_jupyter.core.family import Tree, TreeNode
from cwm_jupyter.core.reports import DiskUsage, WindowUsage
from cwm_jupyter.notebook.figures.base import COLOURS, figure, megabytes_axis, nothing
from cwm_jupyter.units import count, megabytes

__all__ = ["bytes_by_window", "family_tree"]

_MOST_BARS = 30
_MOST_NODES = 300


def bytes_by_window(usage: DiskUsage) -> go.Figure:
    """Draw what each window keeps on the disk: of its own, and shared with others.

    The largest are shown, and all others as one bar, of their own bytes alone.

    Parameters
    ----------
    usage
        Of the vault.
    """
    title = f"On disk: {megabytes(usage.stored_bytes)} in all"
    known = [one for one in usage.windows if one.held_bytes is not None]
    if not known:
        return nothing(title, "There are no windows whose bytes can be counted.")
    known.sort(key=lambda one: one.held_bytes or 0, reverse=True)
    shown, rest = known[:_MOST_BARS], known[_MOST_BARS:]
    names = [one.window for one in shown]
    own = [megabytes_axis(one.exclusive_bytes) for one in shown]
    shared = [megabytes_axis(_shared(one)) for one in shown]
    if rest:
        names.append(f"{count(len(rest))} more")
        own.append(megabytes_axis(sum(one.exclusive_bytes or 0 for one in rest)))
        shared.append(None)
    bars = [
        go.Bar(
            y=names,
            x=values,
            name=name,
            orientation="h",
            marker={"color": colour, "pattern": {"shape": pattern}},
            hovertemplate="%{x:,.1f} MB<extra>" + name + "</extra>",
        )
        for name, values, colour, pattern in (
            ("its own", own, COLOURS["disk"], ""),
            ("shared with others", shared, COLOURS["memory"], "/"),
        )
    ]
    return figure(
        title,
        *bars,
        x="MB",
        y="",
        barmode="stack",
        yaxis={"autorange": "reversed", "type": "category"},
        height=150 + 24 * len(names),
    )


def _shared(one: WindowUsage) -> int | None:
    if one.held_bytes is None or one.exclusive_bytes is None:
        return None
    return one.held_bytes - one.exclusive_bytes


def family_tree(tree: Tree) -> go.Figure:
    """Draw a family of windows: a child right of and below its parent, its size by its own bytes.

    Parameters
    ----------
    tree
        Of one window's family, or of all; the first few hundred nodes are drawn.
    """
    title = "Family of windows" if tree.window is None else f"Family of {tree.window}"
    nodes: Sequence[TreeNode] = tree.nodes[:_MOST_NODES]
    if not nodes:
        return nothing(title, "There are no windows yet.")
    rows = {node.window_id: row for row, node in enumerate(nodes)}
    lines_x: list[float | None] = []
    lines_y: list[float | None] = []
    for row, node in enumerate(nodes):
        if node.parent_window_id in rows:
            above = rows[node.parent_window_id]
            lines_x += [node.level - 1, node.level - 1, node.level, None]
            lines_y += [above, row, row, None]
    edges = go.Scatter(
        x=lines_x,
        y=lines_y,
        mode="lines",
        line={"color": COLOURS["other"], "width": 1},
        hoverinfo="skip",
    )
    dots = go.Scatter(
        x=[node.level for node in nodes],
        y=list(range(len(nodes))),
        mode="markers+text",
        text=[f"  {node.name or 'purged'}" for node in nodes],
        textposition="middle right",
        marker={
            "size": _sizes(nodes),
            "color": [_colour(node) for node in nodes],
            "symbol": ["circle" if node.state == "intact" else "circle-open" for node in nodes],
            "opacity": 1,
            "line": {"width": 2, "color": [_colour(node) for node in nodes]},
        },
        customdata=[node.window_id for node in nodes],
        hovertext=[_told(node) for node in nodes],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    more = len(tree.nodes) - len(nodes)
    deepest = max(node.level for node in nodes)
    return figure(
        title + (f" ({count(more)} more not shown)" if more else ""),
        edges,
        dots,
        x="generation",
        y="",
        showlegend=False,
        xaxis={"tickformat": "d", "range": [-0.3, deepest + 1.6], "dtick": 1},
        yaxis={"autorange": "reversed", "visible": False, "rangemode": "normal"},
        height=130 + 28 * len(nodes),
    )


def _sizes(nodes: Sequence[TreeNode]) -> list[float]:
    """Return the diameters of the dots (px): their areas follow the bytes of their own."""
    largest = max((node.own_bytes or 0 for node in nodes), default=0) or 1
    return [8 + 16 * ((node.own_bytes or 0) / largest) ** 0.5 for node in nodes]


def _colour(node: TreeNode) -> str:
    if node.state == "damaged":
        return COLOURS["alarm"]
    return COLOURS["cache"] if node.state == "intact" else COLOURS["other"]


def _told(node: TreeNode) -> str:
    if node.name is None:
        return "A window that was purged"
    return (
        f"{node.name}, {node.state}: {count(node.turns)} turns, {count(node.tokens)} tokens<br>"
        f"{megabytes(node.own_bytes)} of its own, {megabytes(node.shared_bytes)} shared"
    )

"""Figures of thaws: where the time went, and what was saved against computing anew."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from cwm_jupyter.core.models import ThawNote, ThawReport, Window
from cwm_jupyter.core.overview import saved_s
from cwm_jupyter.notebook.figures.base import COLOURS, figure, nothing

__all__ = ["thaw_against_recompute", "thaw_waterfall"]

_MOST = 30
#: the stages of a thaw, as people call what they do
_STAGES = {
    "check": "compare engines",
    "load": "load and verify",
    "take into the engine": "copy, compute the tail",
    "recompute": "compute anew",
    "heal": "store what was missing",
    "session": "make the session",
}


def thaw_waterfall(report: ThawReport | ThawNote, next_ttft_s: float | None = None) -> go.Figure:
    """Draw a thaw's stages one after the other, in seconds.

    Parameters
    ----------
    report
        Of the thaw, or what its window remembers of it.
    next_ttft_s
        The next answer's first token after it (s), if it was measured.
    """
    stages = [(_STAGES.get(name, name), spent) for name, spent in report.stages_s.items()]
    if next_ttft_s is not None:
        stages.append(("next first token", next_ttft_s))
    what = f"of {report.window}" if isinstance(report, ThawReport) else f"into {report.session}"
    title = f"Thaw {what}: {report.restore_s:.2f} s"
    if not stages:
        return nothing(title, "Its stages were not measured.")
    names, starts, at = [], [], 0.0
    for name, spent in stages:
        names.append(name)
        starts.append(at)
        at += spent
    bars = go.Bar(
        y=names,
        x=[spent for _, spent in stages],
        base=starts,
        orientation="h",
        marker={"color": [_colour(name) for name in names]},
        text=[f"{spent:.3f} s" for _, spent in stages],
        textposition="auto",
        hovertemplate="%{y}: %{x:.3f} s<extra></extra>",
    )
    return figure(
        title,
        bars,
        x="seconds from the start of the thaw",
        y="",
        yaxis={"autorange": "reversed"},
        showlegend=False,
        height=120 + 36 * len(stages),
    )


def _colour(stage: str) -> str:
    if stage in (_STAGES["take into the engine"], _STAGES["recompute"], "next first token"):
        return COLOURS["computed"]
    return COLOURS["cache"]


def thaw_against_recompute(windows: Sequence[Window]) -> go.Figure:
    """Draw each window's latest thaw against the prefill that its state once took, both measured.

    The prefill is the time to the first token of all its turns, as they were spoken. Windows never
    thawed, and those whose turns were not measured, are left out.

    Parameters
    ----------
    windows
        Those with the most to save are shown.
    """
    title = "Thaw against prefill"
    measured = [
        (window, window.prefill_s, window.last_thaws[0].restore_s)
        for window in windows
        if window.prefill_s and window.last_thaws
    ]
    if not measured:
        return nothing(title, "No window was thawed yet.")
    measured.sort(key=lambda one: one[1] - one[2], reverse=True)
    shown = measured[:_MOST]
    names = [window.known_as for window, _, _ in shown]
    saved = sum(saved_s(window) or 0.0 for window, _, _ in measured)
    left = len(measured) - len(shown)
    return figure(
        f"{title}: {saved:,.0f} s saved so far" + (f" ({left:,} more not shown)" if left else ""),
        go.Bar(
            y=names,
            x=[prefill for _, prefill, _ in shown],
            name="prefill, when it was computed",
            orientation="h",
            marker={"color": COLOURS["computed"]},
            hovertemplate="%{x:.2f} s<extra>prefill</extra>",
        ),
        go.Bar(
            y=names,
            x=[restore for _, _, restore in shown],
            name="latest thaw",
            orientation="h",
            marker={"color": COLOURS["cache"]},
            text=[f"{prefill / restore:.0f}x" for _, prefill, restore in shown],
            textposition="outside",
            hovertemplate="%{x:.2f} s<extra>thaw</extra>",
        ),
        x="seconds",
        y="",
        barmode="group",
        yaxis={"autorange": "reversed", "type": "category"},
        height=160 + 34 * len(shown),
    )

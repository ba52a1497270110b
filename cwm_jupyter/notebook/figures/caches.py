"""Figures of the caches: what the tiers hold over time, and what turns took from them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import plotly.graph_objects as go

from cwm_jupyter.core.models import SessionStatus, Turn
from cwm_jupyter.core.statistics import Statistics
from cwm_jupyter.notebook.figures.base import COLOURS, figure, megabytes_axis, nothing

__all__ = ["cache_by_tier", "context_used", "hit_rate", "tokens_by_source", "tokens_from_cache"]


def cache_by_tier(history: Sequence[Statistics]) -> go.Figure:
    """Draw what the tiers hold over time, in megabytes; gaps where a figure was unavailable.

    Parameters
    ----------
    history
        In the order of time.
    """
    title = "Cache by tier"
    if not history:
        return nothing(title, "Nothing was measured yet.")
    times = [one.at for one in history]
    tiers = (
        ("engine", "engine", [one.engine_used_bytes for one in history]),
        ("memory (LMCache)", "memory", [_cache(one, "l1_used_bytes") for one in history]),
        ("disk (vault)", "disk", [_cache(one, "l2_used_bytes") for one in history]),
    )
    if all(value is None for _, _, values in tiers for value in values):
        return nothing(title, "The servers' figures are unavailable: is a stack running?")
    lines = [
        go.Scatter(
            x=times,
            y=[megabytes_axis(value) for value in values],
            name=name,
            mode="lines+markers" if len(history) < 30 else "lines",
            line={"color": COLOURS[colour], "dash": dash},
            connectgaps=False,
            hovertemplate="%{y:,.1f} MB<extra>" + name + "</extra>",
        )
        for (name, colour, values), dash in zip(tiers, ("solid", "dash", "dot"), strict=True)
    ]
    return figure(title, *lines, x="time (UTC)", y="MB", hovermode="x unified")


def _cache(one: Statistics, name: str) -> int | None:
    value: int | None = None if one.cache is None else getattr(one.cache, name)
    return value


def hit_rate(history: Sequence[Statistics]) -> go.Figure:
    """Draw the share of prompt tokens that came from a cache, between each two samples (%).

    Gaps where nothing was asked meanwhile, or a figure was unavailable.

    Parameters
    ----------
    history
        In the order of time.
    """
    title = "Hit rate"
    points: list[tuple[str, float | None]] = []
    for earlier, later in pairwise(history):
        steps = [_step(earlier, later, name) for name in _SOURCES]
        asked = None if None in steps else sum(step or 0 for step in steps)
        points.append((later.at, 100 * (asked - (steps[0] or 0)) / asked if asked else None))
    if all(rate is None for _, rate in points):
        return nothing(title, "No prompt was computed while this was watched.")
    line = go.Scatter(
        x=[at for at, _ in points],
        y=[rate for _, rate in points],
        mode="lines+markers",
        line={"color": COLOURS["cache"]},
        connectgaps=False,
        hovertemplate="%{y:.1f} %<extra></extra>",
    )
    return figure(title, line, x="time (UTC)", y="% of prompt tokens", yaxis={"range": [0, 105]})


def tokens_by_source(history: Sequence[Statistics]) -> go.Figure:
    """Draw where the prompt tokens came from, summed up since the first sample.

    Parameters
    ----------
    history
        In the order of time.
    """
    title = "Prompt tokens: computed, or saved by a cache"
    sums = [0] * len(_SOURCES)
    rows: list[tuple[str, list[int]]] = []
    for earlier, later in pairwise(history):
        steps = [_step(earlier, later, name) for name in _SOURCES]
        if None not in steps:
            sums = [total + (step or 0) for total, step in zip(sums, steps, strict=True)]
            rows.append((later.at, sums))
    if not rows:
        return nothing(title, "The engine's figures are unavailable: is a stack running?")
    if not any(sums):
        return nothing(title, "No prompt was computed while this was watched.")
    layers = [
        go.Scatter(
            x=[at for at, _ in rows],
            y=[values[number] for _, values in rows],
            name=name,
            mode="lines",
            stackgroup="tokens",
            line={"color": COLOURS[colour], "width": 1},
            hovertemplate="%{y:,d} tokens<extra>" + name + "</extra>",
        )
        for number, (name, colour) in enumerate(_SOURCES.values())
    ]
    return figure(title, *layers, x="time (UTC)", y="tokens", hovermode="x unified")


#: the engine's counters of prompt tokens by where they came from; what was computed comes first
_SOURCES = {
    "computed_tokens": ("computed", "computed"),
    "local_cache_tokens": ("from the engine's cache", "engine"),
    "external_cache_tokens": ("from LMCache", "cache"),
}


def _step(earlier: Statistics, later: Statistics, name: str) -> int | None:
    """Return by how much a counter rose; an engine that was started anew counts from 0."""
    if earlier.engine is None or later.engine is None:
        return None
    before, after = getattr(earlier.engine, name), getattr(later.engine, name)
    if before is None or after is None:
        return None
    return int(after - before if after >= before else after)


def tokens_from_cache(turns: Sequence[Turn]) -> go.Figure:
    """Draw each turn's prompt: tokens from cache, tokens computed, and the hit rate.

    Parameters
    ----------
    turns
        Of one session or window.
    """
    title = "Tokens from cache, by turn"
    if not turns:
        return nothing(title, "Nothing was said yet.")
    numbers = [turn.number for turn in turns]
    known = [turn.cached_tokens for turn in turns]
    computed = [
        None if turn.cached_tokens is None else turn.prompt_end - turn.cached_tokens
        for turn in turns
    ]
    unknown = [turn.prompt_end if turn.cached_tokens is None else None for turn in turns]
    rates = [
        None if turn.cached_tokens is None else 100 * turn.cached_tokens / turn.prompt_end
        for turn in turns
    ]
    bars = [
        _bar(numbers, known, "from cache", COLOURS["cache"]),
        _bar(numbers, computed, "computed", COLOURS["computed"]),
    ]
    if any(value is not None for value in unknown):
        bars.append(_bar(numbers, unknown, "not told", COLOURS["other"]))
    rate = go.Scatter(
        x=numbers,
        y=rates,
        name="hit rate",
        yaxis="y2",
        mode="lines+markers",
        line={"color": COLOURS["disk"], "dash": "dot"},
        hovertemplate="%{y:.1f} %<extra>hit rate</extra>",
    )
    return figure(
        title,
        *bars,
        rate,
        x="turn",
        y="tokens of the prompt",
        barmode="stack",
        xaxis={"tickformat": "d", "dtick": 1 if len(turns) < 20 else None},
        yaxis2={
            "overlaying": "y",
            "side": "right",
            "range": [0, 105],
            "tickmode": "array",
            "tickvals": [0, 25, 50, 75, 100],
            "showgrid": False,
            "title": {"text": "hit rate (%)"},
        },
        margin={"r": 60},
    )


def _bar(
    x: Sequence[object], y: Sequence[float | None], name: str, colour: str, pattern: str = ""
) -> go.Bar:
    return go.Bar(
        x=x,
        y=y,
        name=name,
        marker={"color": colour, "pattern": {"shape": pattern}},
        hovertemplate="%{y:,} tokens<extra>" + name + "</extra>",
    )


def context_used(status: SessionStatus) -> go.Figure:
    """Draw how the context fills: by turn what was there, what was asked, what was answered.

    What stands before the first question (the system message, given messages) cannot be told from
    it in tokens, so the first turn's prompt is divided by their characters.

    Parameters
    ----------
    status
        Of the session.
    """
    title = f"Context used by {status.session.name}"
    turns = status.turns
    if not turns:
        return nothing(title, "Nothing was said yet.")
    numbers = [turn.number for turn in turns]
    opening = _opening_tokens(status)
    asked = [turn.prompt_end - turn.start for turn in turns]
    asked[0] -= opening
    before = [0, *(turn.start - opening for turn in turns[1:])]
    bars = [
        _bar(numbers, [opening] * len(turns), "system and given (about)", COLOURS["other"]),
        _bar(numbers, before, "earlier turns", COLOURS["memory"], "/"),
        _bar(numbers, asked, "user", COLOURS["computed"]),
        _bar(
            numbers, [turn.end - turn.prompt_end for turn in turns], "assistant", COLOURS["engine"]
        ),
    ]
    drawn = figure(
        title,
        *(bars if opening else bars[1:]),
        go.Scatter(
            x=numbers,
            y=[turn.cached_tokens for turn in turns],
            name="from cache, up to here",
            mode="markers",
            marker={
                "symbol": "line-ew",
                "size": 28,
                "line": {"width": 4, "color": COLOURS["cache"]},
            },
            hovertemplate="%{y:,} tokens from cache<extra></extra>",
        ),
        x="turn",
        y="tokens",
        barmode="stack",
        xaxis={"tickformat": "d", "dtick": 1 if len(turns) < 20 else None},
    )
    limit = status.session.max_context_tokens
    if limit is not None:
        drawn.add_hline(
            y=limit,
            line={"color": COLOURS["alarm"], "dash": "dash"},
            annotation_text=f"the model's context: {limit:,}",
            annotation_position="top left",
        )
    return drawn


def _opening_tokens(status: SessionStatus) -> int:
    """Estimate how many tokens of the first prompt stand before its question."""
    given = len(status.messages) - 2 * len(status.turns)
    if given < 1:
        return 0
    before = sum(len(message.content) for message in status.messages[:given])
    question = len(status.messages[given].content)
    return round(status.turns[0].prompt_end * before / max(before + question, 1))

"""Figures: what they show, what they say where there is nothing, and how they stand a crowd."""

from __future__ import annotations

import json
from typing import Any

import plotly.graph_objects as go
import pytest
from entries import make_session, make_window

from cwm_jupyter.clients.metrics import CacheFigures, EngineFigures
from cwm_jupyter.core.family import Tree, TreeNode
from cwm_jupyter.core.models import (
    Message,
    ProbeResult,
    SessionStatus,
    ThawNote,
    ThawReport,
    Turn,
    Window,
)
from cwm_jupyter.core.reports import DiskUsage, WindowUsage
from cwm_jupyter.core.statistics import Statistics
from cwm_jupyter.notebook import figures


def turn(number: int, start: int, cached: int | None) -> Turn:
    return Turn(
        number=number,
        start=start,
        prompt_end=start + 300,
        end=start + 340,
        cached_tokens=cached,
        ttft_s=0.4,
        total_s=1.0,
        finish_reason="stop",
        created_at="2026-01-01T00:00:00.000000Z",
    )


TURNS = [turn(1, 0, 0), turn(2, 340, 256), turn(3, 680, None)]
MESSAGES = [Message(role="system", content="x" * 100)] + [
    Message(role=role, content="y" * 300) for _ in TURNS for role in ("user", "assistant")
]


def moment(second: int, **cache: Any) -> Statistics:
    return Statistics(
        at=f"2026-01-01T00:00:{second:02}.000000Z",
        running=True,
        cache=CacheFigures(**cache),
        engine_used_bytes=3_000_000,
    )


def thawed(name: str, prefill_s: float | None, *restore_s: float) -> Window:
    notes = [
        ThawNote(
            at="2026-01-01T00:00:00.000000Z",
            session="s",
            cached_tokens=1,
            expected_cached_tokens=1,
            complete=True,
            restore_s=one,
        )
        for one in restore_s
    ]
    return make_window(name, name).replace(prefill_s=prefill_s, last_thaws=notes, thaws=len(notes))


def usage(*windows: WindowUsage) -> DiskUsage:
    return DiskUsage(
        folder="vault",
        windows=list(windows),
        stored_bytes=5_000_000,
        raw_bytes=5_000_000,
        unfrozen_bytes=0,
        other_bytes=0,
        quarantined=0,
        quarantined_bytes=0,
        quota_bytes=None,
        free_bytes=1,
    )


def takes(name: str, held: int | None, own: int | None) -> WindowUsage:
    return WindowUsage(
        window=name, state="intact", size_bytes=held, held_bytes=held, exclusive_bytes=own
    )


def node(name: str | None, level: int, parent: str | None, **more: Any) -> TreeNode:
    return TreeNode(
        window_id=name or "gone",
        name=name,
        parent_window_id=parent,
        level=level,
        state=more.pop("state", "intact"),
        **more,
    )


def report() -> ThawReport:
    return ThawReport(
        window="paper",
        session="paper",
        tokens=100,
        size_bytes=1,
        chunks_expected=1,
        chunks_found=1,
        chunks_missing=0,
        chunks_corrupt=0,
        chunks_recomputed=0,
        expected_cached_tokens=96,
        cached_tokens=96,
        recomputed_tokens=4,
        recompute=False,
        complete=True,
        probe=ProbeResult(passed=True, max_abs_logprob_diff=0.0, tolerance=0.0, repeated=False),
        restore_s=0.3,
        stages_s={"check": 0.01, "load": 0.1, "take into the engine": 0.18, "session": 0.01},
        accepted_differences=[],
    )


def said(figure: go.Figure) -> str:
    """All text of a figure, as it goes to the browser."""
    return str(figure.to_json())


def trace(figure: go.Figure, name: str) -> Any:
    return next(one for one in figure.data if one.name == name)


def test_tiers_over_time_have_gaps_where_a_figure_is_missing() -> None:
    history = [moment(0, l1_used_bytes=1_000_000), moment(1), moment(2, l1_used_bytes=2_000_000)]
    drawn = figures.cache_by_tier(history)
    assert list(trace(drawn, "memory (LMCache)").y) == [1.0, None, 2.0]
    assert not trace(drawn, "memory (LMCache)").connectgaps
    assert list(trace(drawn, "disk (vault)").y) == [None, None, None]


def test_tokens_from_cache_sum_to_the_prompt() -> None:
    drawn = figures.tokens_from_cache(TURNS)
    cached, computed = trace(drawn, "from cache").y, trace(drawn, "computed").y
    assert [cached[0] + computed[0], cached[1] + computed[1]] == [300, 640]
    assert list(trace(drawn, "not told").y) == [None, None, 980]
    assert list(trace(drawn, "hit rate").y) == [0.0, pytest.approx(40.0), None]


def test_the_context_adds_up_turn_by_turn() -> None:
    session = make_session(tokens=1020, max_context_tokens=2048)
    status = SessionStatus(session=session, turns=TURNS, messages=MESSAGES)
    drawn = figures.context_used(status)
    bars = [one for one in drawn.data if isinstance(one, go.Bar)]
    assert [sum(bar.y[i] for bar in bars) for i in range(3)] == [t.end for t in TURNS]
    assert bars[0].y[0] == 75  # a quarter of the first prompt's characters
    assert "the model's context: 2,048" in said(drawn)


def test_what_thaws_saved() -> None:
    windows = [
        thawed("slow", 60.0, 2.0, 3.0),
        thawed("quick", 2.0, 1.0),
        thawed("never", 9.0),
        thawed("unknown", None, 1.0),
    ]
    drawn = figures.thaw_against_recompute(windows)
    assert list(drawn.data[0].y) == ["slow", "quick"]
    assert list(drawn.data[1].text) == ["30x", "2x"]
    assert "117 s saved so far" in drawn.layout.title.text


def test_a_thaws_waterfall_begins_each_stage_where_the_last_ended() -> None:
    bars = figures.thaw_waterfall(report(), next_ttft_s=0.2).data[0]
    assert list(bars.base) == pytest.approx([0, 0.01, 0.11, 0.29, 0.3])
    assert bars.y[-1] == "next first token"


def test_bytes_by_window_own_and_shared_and_the_rest_as_one() -> None:
    windows = [takes(f"w{i:03}", 2_000_000 + i, 1_000_000) for i in range(10_000)]
    drawn = figures.bytes_by_window(usage(*windows, takes("remote", None, None)))
    own = trace(drawn, "its own")
    assert own.y[0] == "w9999"
    assert own.y[-1] == "9,970 more"
    assert own.x[-1] == pytest.approx(9_970)
    assert trace(drawn, "shared with others").x[-1] is None


def test_a_family_is_drawn_as_a_tree() -> None:
    nodes = [
        node(None, 0, None, state="gone"),
        node("a", 1, "gone", own_bytes=4_000_000, turns=1, tokens=9),
        node("b", 2, "a", own_bytes=1_000_000, turns=2, tokens=20),
        node("c", 1, "gone", state="damaged", turns=2, tokens=20),
    ]
    drawn = figures.family_tree(Tree(window="a", nodes=nodes))
    dots = drawn.data[1]
    assert list(dots.x) == [0, 1, 2, 1]
    assert [one.strip() for one in dots.text] == ["purged", "a", "b", "c"]
    assert dots.marker.size[1] > dots.marker.size[2]
    assert list(drawn.data[0].x[-4:]) == [0, 0, 1, None]


def test_ten_thousand_windows_are_not_all_drawn() -> None:
    nodes = [node(f"w{i}", 0, None) for i in range(10_000)]
    drawn = figures.family_tree(Tree(window=None, nodes=nodes))
    assert "9,700 more not shown" in drawn.layout.title.text
    windows = [thawed(f"w{i}", 5.0, 1.0) for i in range(10_000)]
    assert "9,970 more" in figures.thaw_against_recompute(windows).layout.title.text


@pytest.mark.parametrize(
    "empty",
    [
        figures.cache_by_tier([]),
        figures.cache_by_tier([Statistics(at="2026-01-01T00:00:00Z", running=False)]),
        figures.tokens_from_cache([]),
        figures.context_used(SessionStatus(session=make_session(), turns=[], messages=[])),
        figures.thaw_against_recompute([]),
        figures.thaw_waterfall(report().replace(stages_s={})),
        figures.bytes_by_window(usage()),
        figures.family_tree(Tree(window=None, nodes=[])),
    ],
)
def test_an_empty_figure_says_why(empty: go.Figure) -> None:
    assert not empty.data
    assert empty.layout.annotations[0].text
    assert json.loads(said(empty))["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"


def counted(second: int, computed: int | None, local: int = 0, external: int = 0) -> Statistics:
    engine = EngineFigures(
        computed_tokens=computed, local_cache_tokens=local, external_cache_tokens=external
    )
    return moment(second).replace(engine=engine)


def test_the_hit_rate_is_that_between_two_samples() -> None:
    history = [counted(0, 100), counted(5, 110, 30), counted(10, 110, 30), counted(15, None)]
    [line] = figures.hit_rate(history).data
    assert list(line.y) == [75.0, None, None]
    for nothing in ([], history[:1], history[1:3]):
        assert "No prompt" in figures.hit_rate(nothing).layout.annotations[0].text


def test_tokens_by_source_are_summed_over_a_new_start_of_the_engine() -> None:
    history = [counted(0, 100, 5), counted(5, 110, 30, 7), counted(10, 20, 1)]
    computed, local, external = figures.tokens_by_source(history).data
    assert [list(layer.y) for layer in (computed, local, external)] == [[10, 30], [25, 26], [7, 7]]
    assert (
        "unavailable" in figures.tokens_by_source([counted(0, None)] * 2).layout.annotations[0].text
    )
    assert "No prompt" in figures.tokens_by_source([counted(0, 1)] * 2).layout.annotations[0].text


def test_a_noted_thaw_has_a_waterfall() -> None:
    [note] = thawed("paper", 2.0, 0.5).last_thaws
    drawn = figures.thaw_waterfall(
        note.replace(stages_s={"load": 0.2, "take into the engine": 0.3})
    )
    assert list(drawn.data[0].base) == [0.0, 0.2]
    assert drawn.layout.title.text == "Thaw into s: 0.50 s"
    assert "not measured" in figures.thaw_waterfall(note).layout.annotations[0].text

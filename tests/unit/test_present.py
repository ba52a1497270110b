"""The text and the HTML of every value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from entries import TIME, make_session, make_window
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.core.job import Job
from cwm_jupyter.core.models import (
    Fingerprint,
    FreezePlan,
    FreezeReport,
    Message,
    Page,
    Probe,
    ProbeResult,
    Proof,
    Reply,
    SessionStatus,
    ThawReport,
    Turn,
    WindowStatus,
)
from cwm_jupyter.core.printable import printable
from cwm_jupyter.errors import WindowNotFoundError
from cwm_jupyter.layout import Facts, Line, Prose, Table, draw_html, draw_text
from cwm_jupyter.present import has_form, html, text
from cwm_jupyter.progress import Progress, describe
from cwm_jupyter.stack.state import PartStatus, StackState, StackStatus
from cwm_jupyter.units import age, count, megabytes, nats, seconds

EXACT = ProbeResult(passed=True, max_abs_logprob_diff=0.0, tolerance=0.0, repeated=False)
NEAR = ProbeResult(passed=True, max_abs_logprob_diff=0.131, tolerance=0.5, repeated=True)
WINDOW = make_window(
    name="paper",
    tokens=5993,
    chunks=46,
    size_bytes=135_659_520,
    proof=Proof(level="verified", chunks=46, size_bytes=135_659_520, checked_at=TIME),
)
TURN = Turn(
    number=1,
    start=0,
    prompt_end=6012,
    end=6155,
    cached_tokens=5888,
    ttft_s=0.2134,
    total_s=3.2,
    finish_reason="stop",
    created_at=TIME,
)


def thawed(**fields: Any) -> ThawReport:
    values: dict[str, Any] = {
        "window": "paper",
        "session": "paper-2",
        "tokens": 5993,
        "size_bytes": 135_659_520,
        "chunks_expected": 46,
        "chunks_found": 46,
        "chunks_missing": 0,
        "chunks_corrupt": 0,
        "chunks_recomputed": 0,
        "expected_cached_tokens": 5888,
        "cached_tokens": 5888,
        "recomputed_tokens": 105,
        "recompute": False,
        "complete": True,
        "probe": EXACT,
        "restore_s": 0.31,
        "stages_s": {},
        "accepted_differences": [],
    }
    return ThawReport(**{**values, **fields})


def reply(**fields: Any) -> Reply:
    values: dict[str, Any] = {
        "session": "main",
        "text": "It is <b>so</b>.",
        "turn": TURN,
        "prompt_tokens": 6012,
        "cached_tokens": 5888,
        "generated_tokens": 143,
        "ttft_s": 0.2134,
        "total_s": 3.2,
        "finish_reason": "stop",
    }
    return Reply(**{**values, **fields})


# --- figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (count(5993), "5,993"),
        (megabytes(0), "0 bytes"),
        (megabytes(999), "999 bytes"),
        (megabytes(23_040), "23.0 kB"),
        (megabytes(135_659_520), "136 MB"),
        (megabytes(999_600), "1.00 MB"),
        (megabytes(2_100_000_000), "2.10 GB"),
        (seconds(0.0004), "0.4 ms"),
        (seconds(0.081), "81 ms"),
        (seconds(0.2134), "0.21 s"),
        (seconds(0.9999), "1.0 s"),
        (seconds(12.3), "12 s"),
        (seconds(59.9), "1 min 00 s"),
        (seconds(125), "2 min 05 s"),
        (seconds(3 * 3600 + 120), "3 h 02 min"),
        (nats(0.1312), "0.131 nats"),
    ],
)
def test_figures_have_the_digits_that_matter(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize("form", [count, megabytes, seconds, nats, age])
def test_what_could_not_be_read_is_unavailable(form: Any) -> None:
    assert form(None) == "unavailable"


@given(st.integers(1000, 10**15))
def test_three_digits_say_a_size_within_half_a_percent(size_bytes: int) -> None:
    figure, unit = megabytes(size_bytes).split()
    exponent = {"kB": 3, "MB": 6, "GB": 9, "TB": 12}[unit]
    assert abs(float(figure) * 10**exponent - size_bytes) <= 0.00505 * size_bytes


@pytest.mark.parametrize(
    ("past", "said"),
    [
        (timedelta(seconds=5), "just now"),
        (timedelta(seconds=-5), "just now"),
        (timedelta(minutes=5), "5 min ago"),
        (timedelta(hours=3), "3 h ago"),
        (timedelta(days=1), "1 day ago"),
        (timedelta(days=9), "9 days ago"),
        (timedelta(days=90), "2026-01-01"),
    ],
)
def test_ages(past: timedelta, said: str) -> None:
    present = datetime(2026, 4, 1, 12, tzinfo=UTC)
    assert age((present - past).isoformat(), present=present) == said


# --- layout ---------------------------------------------------------------------------------------

CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Mn", "Me", "Cf", "Zl", "Zp"]))


def columns(line: str) -> int:
    import wcwidth

    return wcwidth.wcswidth(line)


def test_columns_line_up_for_wide_characters_and_accents() -> None:
    drawn = draw_text([Table(("NAME", "N"), [("日本語", "1"), ("e\u0301", "22")], frozenset({1}))])
    assert drawn.split("\n") == ["NAME     N", "日本語   1", "e\u0301       22"]
    assert len({columns(line) for line in drawn.split("\n")}) == 1


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1))
def test_html_escapes_every_cell(rows: list[tuple[str, str]]) -> None:
    drawn = draw_html([Table(("A", "B"), rows), Facts(rows), *(Line(a) for a, _ in rows)])
    for tag in ("div", "table", "thead", "tbody", "tr", "td", "th"):
        for bracket in (f"<{tag}>", f"<{tag} ", f"</{tag}>"):
            drawn = drawn.replace(bracket, "")
    assert "<" not in drawn


@given(st.text())
def test_a_terminal_gets_nothing_to_obey(said: str) -> None:
    shown = draw_text([Prose(said)])
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in shown)


def test_line_ends_of_windows_stay_line_ends() -> None:
    assert printable("a\r\nb\x1b[31m") == "a\nb\N{REPLACEMENT CHARACTER}[31m"


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (46, "all read from the disk and right"),
        (12, "12 read from the disk and right, the others in LMCache's memory"),
        (0, "all in LMCache's memory"),
        (None, "all found"),
    ],
)
def test_a_complete_thaw_says_what_was_measured(read: int | None, said: str) -> None:
    """What was not read from the disk was not looked at either: nothing is called intact then."""
    assert text(thawed(chunks_read=read)) == (
        "Thawed paper into session paper-2: 5,888 of 5,993 tokens from cache (46 chunks, 136 MB, "
        f"{said}), tail of 105 computed; probe equal to the bit; 0.31 s"
    )


@pytest.mark.parametrize("form", [text, html])
def test_an_incomplete_thaw_is_loud(form: Any) -> None:
    short = thawed(
        complete=False, cached_tokens=3968, chunks_missing=14, chunks_corrupt=1, probe=NEAR
    )
    shown = form(short)
    assert "RESTORED ONLY 3,968 of 5,888 tokens" in shown
    assert "Of 46 chunks, 14 missing and 1 corrupt" in shown
    assert "probe within 0.131 nats (0.5 nats allowed), asked twice" in shown
    assert form is text or "font-weight:bold" in shown


def test_a_thaw_that_was_not_measured_claims_nothing() -> None:
    shown = text(thawed(complete=False, cached_tokens=None, recomputed_tokens=None))
    assert shown.startswith("RESTORED, BUT NOT MEASURED: tokens from cache unavailable")
    assert " 0 " not in shown


def test_chunks_found_but_not_taken_are_told_apart_from_missing_ones() -> None:
    shown = text(thawed(complete=False, cached_tokens=0))
    assert "All 46 chunks were found, but the engine did not take them" in shown


def test_a_recomputed_thaw_does_not_claim_the_cache() -> None:
    differences = ["threads: frozen with 2, the engine has 4"]
    shown = text(
        thawed(recompute=True, complete=False, probe=NEAR, accepted_differences=differences)
    )
    assert shown.startswith("Recomputed paper into session paper-2: 5,993 tokens computed anew")
    assert "Accepted: threads: frozen with 2, the engine has 4." in shown
    assert "RESTORED" not in shown


def test_a_failed_probe_is_loud_and_earlier_recomputation_is_told() -> None:
    failed = NEAR.replace(passed=False)
    assert "PROBE DIFFERS by 0.131 nats" in text(thawed(recompute=True, probe=failed))
    shown = text(thawed(chunks_recomputed=3, probe=NEAR))
    assert "3 chunks had been computed anew since the freeze" in shown


def test_freeze_says_what_it_will_do_and_what_it_did() -> None:
    plan = FreezePlan(
        session="main",
        tokens=5993,
        chunks=46,
        tail_tokens=105,
        size_bytes=135_659_520,
        already_stored_bytes=9_990_000,
    )
    assert text(plan) == (
        "Freezing main: 5,993 tokens, 46 chunks (136 MB, 9.99 MB of it stored already), "
        "tail of 105 kept as tokens"
    )
    assert "size unavailable" in text(plan.replace(size_bytes=None, already_stored_bytes=None))
    report = FreezeReport(
        window=WINDOW,
        session="main",
        commit_s=0.42,
        probe_s=0.081,
        already_stored_bytes=9_990_000,
        newly_stored_bytes=125_669_520,
        tail_tokens=0,
        stages_s={},
    )
    assert text(report) == (
        "Froze main as paper: 5,993 tokens, 46 chunks (136 MB: 126 MB new, 9.99 MB stored "
        "already); all verified on disk; 0.42 s, probe 81 ms"
    )
    proof = WINDOW.proof.replace(level="present")
    assert "verified" not in text(report.replace(window=WINDOW.replace(proof=proof)))


def test_the_line_under_an_answer() -> None:
    footer = "tokens in 6,012 · from cache 5,888 · first token 0.21 s · 143 tokens out"
    assert text(reply()) == f"It is <b>so</b>.\n{footer}"
    assert "from cache unavailable" in text(reply(cached_tokens=None))
    assert text(reply(finish_reason="length")).endswith("cut at its longest")


def test_pages() -> None:
    windows = [WINDOW, WINDOW.replace(name="b", tags=["x", "y"], note="n" * 50)]
    shown = text(Page(items=windows, total=5, limit=2, offset=2)).split("\n")
    assert shown[0].split() == [
        "WINDOW",
        "STATE",
        "TOKENS",
        "SIZE",
        "FROZEN",
        "THAWED",
        "TAGS",
        "NOTE",
    ]
    assert shown[2].endswith(f"x y   {'n' * 39}…")
    assert shown[-1] == "3 to 4 of 5"
    earlier = Page(items=[WINDOW.replace(superseded=True)], total=1, limit=None, offset=0)
    assert f"{WINDOW.name}@v1" in text(earlier)
    sessions = Page(items=[make_session(name="main")], total=1, limit=None, offset=0)
    assert "main     active" in text(sessions)
    assert text(Page(items=[], total=0, limit=None, offset=0)) == "There are none."
    assert text(Page(items=[], total=3, limit=2, offset=9)) == "None of 3 on this page."


def test_a_windows_whole_story() -> None:
    fingerprint = Fingerprint(
        layout={"weights_digest": "ab" * 32, "dtype": "bfloat16", "cpu_isa": None},
        numeric={"threads": 2},
    )
    status = WindowStatus(
        window=WINDOW.replace(note="a note", used_at=TIME),
        turns=[TURN, TURN.replace(number=2, cached_tokens=None)],
        messages=[Message(role="user", content="one\ntwo"), Message(role="assistant", content="3")],
        fingerprint=fingerprint,
        probe=Probe(position_tokens=5993, token_ids=[1, 2], logprobs=[-0.1, -2.0]),
        chunks_present=None,
        chunks_recomputed=2,
        held_bytes=30_000_000,
        own_bytes=10_000_000,
        parent="before",
        children=["left", "right"],
        lineage=["before", "left", "paper", "right"],
    )
    shown = text(status)
    for said in (
        "46 of 128 tokens, unavailable present",
        "weights_digest abababababab…, dtype bfloat16",
        "layout, unknown  cpu_isa",
        "left, right",
        "user       one two",
    ):
        assert said in shown
    assert "<" not in shown
    session = text(SessionStatus(session=make_session(tokens=7), turns=[], messages=[]))
    assert "TURN" not in session
    assert "tags" not in session


def test_a_deleted_window_says_how_to_bring_it_back() -> None:
    deleted = WINDOW.replace(name="my paper", state="deleted")
    assert text(deleted).endswith("cwm rm --undo 'my paper'")


def test_the_stack() -> None:
    state = StackState(
        kind="local",
        phase="ready",
        engine_url="http://127.0.0.1:1",
        lmcache_url=None,
        api_key="secret-key",
        served_model="toy",
        started_at=TIME,
        stages_s={"a": 60.0, "b": 12.0},
    )
    assert text(state) == "The stack is ready: toy at http://127.0.0.1:1; 1 min 12 s"
    assert "running already" in text(state.replace(already_running=True))
    assert "nothing can be frozen" in text(state.replace(kind="remote"))
    assert "secret-key" not in text(state) + html(state)
    part = PartStatus(
        name="vllm", phase="up", url=None, since=None, memory_bytes=None, pid=None, log=None
    )
    status = StackStatus(phase="degraded", kind="local", parts=[part])
    assert "DEGRADED" in text(status)
    assert "vllm    up         unavailable" in text(status)
    assert text(StackStatus(phase="down")).startswith("No stack is running")


@pytest.mark.covers("SC-005")
def test_nothing_that_a_user_named_becomes_markup() -> None:
    evil = "<img src=x onerror=alert(1)>"
    values = [
        reply(text=evil),
        WINDOW.replace(name=evil, note=evil, tags=[evil]),
        Page(items=[WINDOW.replace(note=evil)], total=1, limit=None, offset=0),
        thawed(window=evil, session=evil, accepted_differences=[evil]),
        WindowNotFoundError(evil, [evil]),
        Message(role=evil, content=evil),
        [evil],
    ]
    for value in values[:-1]:
        assert "<img" not in html(value)
        assert "&lt;img" in html(value)


def test_an_error_is_a_line_with_its_code_and_a_hint() -> None:
    shown = text(WindowNotFoundError("papr", ["paper"]))
    assert shown == "There is no window 'papr'. [window.not_found]\nDid you mean paper?"


def test_a_form_of_ones_own_serves_html_too() -> None:
    class Own:
        pass

    assert not has_form(Own())
    assert not has_form(TURN)
    text.register(Own, lambda value: "a < b")
    assert has_form(Own())
    assert html(Own()).endswith("a &lt; b</pre>")


# --- progress -------------------------------------------------------------------------------------


def test_progress_says_stage_amount_and_time() -> None:
    job = Job("freeze paper")
    job.stage("storing chunks", total=135_659_520, unit="bytes")
    job.advance(61_000_000)
    said = describe(job.state, 3.2)
    assert said == "freeze paper · storing chunks · 61.0 MB of 136 MB (45%) · 3 s"
    job.stage("waiting", unit="chunks")
    job.advance(7)
    assert describe(job.state) == "freeze paper · waiting · 7 chunks"


def test_short_work_shows_nothing() -> None:
    slow, quick = Progress(delay_s=0), Progress(delay_s=60)
    for progress in (slow, quick):
        assert progress.line == ""
        job = Job("up", progress.watch)
        job.stage("starting")
    assert slow.line == "up · starting"
    assert quick.line == quick.stage == ""
    Job("up", slow.watch).finish()
    assert slow.line == ""

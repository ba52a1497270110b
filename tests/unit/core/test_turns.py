"""Turns: going back to the end of one, in a window as in a session, loses and changes nothing."""

from __future__ import annotations

import itertools
from typing import Any

import httpx2
import pytest
from bench import QUESTION, Bench
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.core.models import Message, Window
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.core.turns import until
from cwm_jupyter.errors import (
    EngineMismatchError,
    SessionEmptyError,
    SessionExistsError,
    SessionNotFoundError,
    ValidationError,
    VLLMConnectionError,
    WindowNotFoundError,
)

QUESTIONS = (QUESTION, "And what else is there to see?", "Where does one eat well there?")
OTHER = "Which river flows through it?"


def written(opening: list[Message], lengths: list[tuple[int, int]]) -> Transcript:
    """A transcript with turns of so many tokens, asked and answered."""
    transcript = Transcript(messages=opening)
    tokens = itertools.count()
    for number, (asked, answered) in enumerate(lengths, 1):
        transcript = transcript.extended(
            question=f"q{number}",
            prompt=list(itertools.islice(tokens, asked)),
            answer=f"a{number}",
            generated=list(itertools.islice(tokens, answered)),
            cached_tokens=0,
            ttft_s=0.1,
            total_s=0.2,
            finish_reason="stop",
        )
    return transcript


async def answer(bench: Bench, session: str, question: str = OTHER) -> list[int]:
    """The tokens that the model says next in a session."""
    reply = await bench.manager.say(session, question)
    transcript = bench.transcript(await bench.manager.session(session))
    return transcript.token_ids[reply.turn.prompt_end :]


async def three(bench: Bench, name: str = "paper") -> Window:
    """A window of three turns, its servers restarted since."""
    window = await bench.frozen(name, *QUESTIONS)
    bench.stack.restart()
    return window


# --- cutting --------------------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=4),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=5),
    st.data(),
)
def test_a_cut_transcript_is_what_it_was_then(
    roles: list[str], lengths: list[tuple[int, int]], data: st.DataObject
) -> None:
    opening = [Message(role=role, content="before") for role in roles]
    transcript = written(opening, lengths)
    turn = data.draw(st.integers(0, len(lengths)))
    then = written(opening, lengths[:turn])
    cut = until(transcript, turn, "window 'x'", first=0)
    assert (cut.messages, cut.token_ids) == (then.messages, then.token_ids)
    assert cut.turns == transcript.turns[:turn]


@pytest.mark.parametrize(
    ("turns", "turn", "first", "hint"),
    [
        (3, 4, 1, "The turn can be 1 to 3."),
        (3, 0, 1, "The turn can be 1 to 3."),
        (1, 2, 1, "The turn can be 1."),
        (2, 3, 0, "The turn can be 0 to 2 (0 is its beginning)."),
        (0, 1, 0, "The turn can be 0 (0 is its beginning)."),
        (2, -1, 0, "The turn can be 0 to 2 (0 is its beginning)."),
    ],
)
def test_a_turn_that_is_not_there_is_refused_with_those_that_are(
    turns: int, turn: int, first: int, hint: str
) -> None:
    with pytest.raises(ValidationError, match=r"has \d turn") as caught:
        until(written([], [(1, 1)] * turns), turn, "window 'x'", first=first)
    assert caught.value.hint == hint


# --- windows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [1, 2])
async def test_a_window_is_thawed_at_the_end_of_a_turn(bench: Bench, turn: int) -> None:
    window = await three(bench)
    whole = bench.library.manifest(window).transcript
    end = whole.turns[turn - 1].end
    loaded = len(bench.stack.memory)
    report = await bench.manager.thaw(f"paper@{turn}")
    chunks = (end - 1) // 16
    assert (report.window, report.turn, report.session) == ("paper", turn, "paper-2")
    assert (report.tokens, report.chunks_expected, report.chunks_found) == (end, chunks, chunks)
    assert report.size_bytes == chunks * 16 * 8 < (window.size_bytes or 0)
    assert report.cached_tokens == report.expected_cached_tokens == chunks * 16
    assert report.recomputed_tokens == end - chunks * 16
    assert (report.complete, report.probe) == (True, None)
    assert len(bench.stack.memory) - loaded <= end // 16  # nothing beyond was loaded
    session = await bench.manager.session("paper-2")
    assert (session.state, session.tokens, session.turns) == ("thawed", end, turn)
    assert (session.window_id, session.lineage_id) == (None, window.lineage_id)
    assert bench.transcript(session) == until(whole, turn, "")
    after = bench.window("paper")
    assert (after.thaws, after.last_thaws[0].session) == (1, "paper-2")


async def test_continuing_from_a_turn_equals_continuing_then(bench: Bench) -> None:
    """Also after an answer that was cut, whose end of turn is not among its tokens."""
    await bench.manager.create_session("paper", system="Be short.")
    await bench.manager.say("paper", QUESTION, max_tokens=7)
    await bench.manager.turns.rewind("paper", 1, as_session="then")
    expected = await answer(bench, "then")
    for question in QUESTIONS[1:]:
        await bench.manager.say("paper", question)
    await bench.manager.freeze("paper", "paper")
    bench.stack.restart()
    report = await bench.manager.thaw("paper@1")
    assert report.cached_tokens == report.expected_cached_tokens
    assert await answer(bench, report.session) == expected
    then = bench.transcript(await bench.manager.session("then"))
    assert bench.transcript(await bench.manager.session(report.session)).token_ids == then.token_ids


async def test_the_last_turn_is_the_window_s_end_and_probed(bench: Bench) -> None:
    window = await three(bench)
    report = await bench.manager.thaw("paper@3")
    assert (report.turn, report.tokens, report.complete) == (3, window.tokens, True)
    assert report.probe is not None
    assert report.probe.max_abs_logprob_diff == 0
    assert (await bench.manager.session(report.session)).window_id == window.id


@pytest.mark.parametrize("turn", [0, 4])
async def test_a_turn_that_a_window_has_not_is_refused(bench: Bench, turn: int) -> None:
    window = await three(bench)
    asked = len(bench.stack.prompts)
    with pytest.raises(ValidationError, match="'paper' has 3 turns") as caught:
        await bench.manager.thaw(f"paper@{turn}")
    assert caught.value.hint == "The turn can be 1 to 3."
    assert len(bench.stack.prompts) == asked
    assert bench.window("paper") == window
    with pytest.raises(WindowNotFoundError, match="'papers'"):
        await bench.manager.thaw("papers@1")


async def test_a_turn_of_an_earlier_version(bench: Bench) -> None:
    first = await bench.frozen("paper")
    await bench.talk("paper", OTHER)
    await bench.manager.freeze("paper", "paper", update=True)
    report = await bench.manager.thaw("paper@v1@1")
    assert (report.window, report.turn, report.tokens) == ("paper@v1", 1, first.tokens)
    session = await bench.manager.session(report.session)
    assert (session.name, session.window_id) == ("paper-2", first.id)


async def test_a_branch_continues_the_nearest_window_that_it_begins_with(bench: Bench) -> None:
    """A family tells the truth: what was made from before a window's end is not its child."""
    first = await bench.frozen("first", QUESTIONS[0])
    await bench.talk("first", QUESTIONS[1])
    await bench.manager.freeze("second", "first")
    await bench.talk("first", QUESTIONS[2])
    await bench.manager.freeze("third", "first")
    parents = {}
    for turn in (1, 2, 3):
        report = await bench.manager.thaw(f"third@{turn}")
        parents[turn] = (await bench.manager.session(report.session)).window_id
    ids = [bench.window(name).id for name in ("first", "second", "third")]
    assert list(parents.values()) == ids
    frozen = await bench.manager.freeze("again", (await bench.manager.thaw("third@1")).session)
    assert (frozen.window.parent_window_id, frozen.newly_stored_bytes) == (first.id, 0)


async def test_a_missing_chunk_of_the_prefix_is_told_computed_and_healed(
    bench: Bench, impatient: None
) -> None:
    window = await three(bench)
    refs = bench.library.manifest(window).refs
    bench.stack.vault.folder.content(refs[1].digest).unlink()
    report = await bench.manager.thaw("paper@1")
    assert (report.chunks_missing, report.cached_tokens, report.complete) == (1, 16, False)
    assert report.probe is None
    bench.stack.restart()
    report = await bench.manager.thaw("paper")
    assert (report.chunks_missing, report.chunks_recomputed, report.complete) == (0, 1, True)
    assert len(bench.library.manifest(bench.window("paper")).refs) == len(refs)


async def test_healing_a_prefix_keeps_the_hold_on_the_rest(bench: Bench, impatient: None) -> None:
    window = await three(bench)
    refs = bench.library.manifest(window).refs
    bench.stack.vault.folder.content(refs[1].digest).unlink()
    await bench.manager.thaw("paper@1")
    store = (await bench.connect()).store
    assert store is not None
    for key in (await store.list()).keys:
        await store.delete([key])  # what somebody holds is not deleted
    bench.stack.restart()
    assert (await bench.manager.thaw("paper")).complete


async def test_a_damaged_window_is_not_intact_since_its_prefix_is(
    bench: Bench, impatient: None
) -> None:
    window = await three(bench)
    refs = bench.library.manifest(window).refs
    for ref in (refs[1], refs[-1]):
        bench.stack.vault.folder.content(ref.digest).unlink()
    await bench.manager.verify("paper")
    assert bench.window("paper").state == "damaged"
    assert (await bench.manager.thaw("paper@1")).chunks_missing == 1
    assert bench.window("paper").state == "damaged"
    bench.stack.restart()
    assert (await bench.manager.thaw("paper")).chunks_missing == 1
    assert bench.window("paper").state == "intact"


async def test_chunks_beyond_the_turn_do_not_matter(bench: Bench) -> None:
    window = await three(bench)
    bench.stack.vault.folder.content(bench.library.manifest(window).refs[-1].digest).unlink()
    assert (await bench.manager.thaw("paper@1")).complete


async def test_another_engine_is_not_accepted_where_no_probe_can_decide(bench: Bench) -> None:
    window = await three(bench)
    bench.stack.told = {**(bench.stack.told or {}), "threads": 8}
    with pytest.raises(EngineMismatchError, match="no probe to decide: threads") as caught:
        await bench.manager.thaw("paper@1", accept_engine=True)
    assert "%cwm rewind 1" in (caught.value.hint or "")
    assert bench.window("paper") == window
    report = await bench.manager.thaw("paper", accept_engine=True)
    assert report.probe is not None
    assert (await bench.manager.turns.rewind(report.session, 1)).session.turns == 1


async def test_recomputing_up_to_a_turn(bench: Bench) -> None:
    window = await three(bench)
    bench.stack.told = {**(bench.stack.told or {}), "dtype": "float16"}
    report = await bench.manager.thaw("paper@1", recompute=True)
    end = bench.library.manifest(window).transcript.turns[0].end
    assert (report.recompute, report.probe, report.recomputed_tokens) == (True, None, end)
    assert bench.stack.prompts[-1] == bench.library.manifest(window).transcript.token_ids[:end]
    session = await bench.manager.session(report.session)
    assert session.lineage_id != window.lineage_id


async def test_a_turn_that_ends_with_a_chunk(bench: Bench) -> None:
    """The chunk that ends there is not usable: one token at least is always computed."""
    await bench.manager.create_session("paper")
    tokens = (await bench.manager.say("paper", "?", max_tokens=1)).turn.end
    await bench.manager.say("paper", "?", max_tokens=16)
    begun = bench.transcript(await bench.manager.session("paper")).turns[1]
    room = 16 - (begun.prompt_end % 16)
    await bench.manager.turns.rewind("paper", 1, as_session="even")
    await bench.manager.say("even", "?", max_tokens=room)
    assert (await bench.manager.session("even")).tokens % 16 == 0
    assert tokens < 16
    await bench.manager.say("even", QUESTION)
    await bench.manager.freeze("even", "even")
    bench.stack.restart()
    report = await bench.manager.thaw("even@2")
    assert report.tokens % 16 == 0
    assert report.cached_tokens == report.expected_cached_tokens == report.tokens - 16
    assert report.complete


async def test_a_failing_request_makes_no_session(bench: Bench) -> None:
    window = await three(bench)

    def fail(call: str) -> None:
        if call == "POST /v1/completions":
            raise httpx2.ReadError("the server died")

    bench.stack.before = fail
    with pytest.raises(VLLMConnectionError):
        await bench.manager.thaw("paper@1")
    assert bench.window("paper") == window
    assert await bench.manager.find_session("paper-2") is None


# --- sessions -------------------------------------------------------------------------------------


async def test_rewinding_makes_a_branch_and_leaves_the_session(bench: Bench) -> None:
    old = await bench.talk("talk", *QUESTIONS)
    before = bench.transcript(old)
    report = await bench.manager.turns.rewind("talk", 1)
    new = report.session
    assert (report.source, report.turn) == (old, 1)
    assert (new.name, new.state, new.turns) == ("talk-2", "active", 1)
    assert new.tokens == before.turns[0].end
    assert new.lineage_id == old.lineage_id
    assert new.id != old.id
    assert new == await bench.manager.session("talk-2")
    assert bench.transcript(new) == until(before, 1, "")
    reply = await bench.manager.say("talk-2", OTHER)
    assert reply.cached_tokens == (new.tokens - 1) // 16 * 16
    assert await bench.manager.session("talk") == old
    assert bench.transcript(old) == before


async def test_rewinding_needs_no_stack(bench: Bench) -> None:
    await bench.talk("talk", *QUESTIONS)
    calls = len(bench.stack.calls)
    await bench.manager.turns.rewind("talk", 2, as_session="other")
    assert len(bench.stack.calls) == calls


async def test_rewinding_to_the_beginning_keeps_what_was_there_before(bench: Bench) -> None:
    await bench.manager.create_session("talk", system="Be short.")
    await bench.talk("talk", QUESTION)
    new = (await bench.manager.turns.rewind("talk", 0)).session
    transcript = bench.transcript(new)
    assert (new.tokens, new.turns, transcript.token_ids) == (0, 0, [])
    assert transcript.messages == [Message(role="system", content="Be short.")]
    with pytest.raises(SessionEmptyError):
        await bench.manager.freeze("none", new.name)
    await bench.manager.say(new.name, QUESTION)
    assert bench.stack.prompts[-1] == bench.stack.prompts[0]


async def test_what_a_branch_takes_over_and_what_not(bench: Bench) -> None:
    window = await bench.frozen("talk", *QUESTIONS[:2])
    session = await bench.manager.session("talk")
    index = bench.library.index
    index.update_session(session.id, lambda s: s.replace(tags=["x"], pinned=True, ttl_s=60.0))
    await bench.talk("talk", QUESTIONS[2])
    beyond = (await bench.manager.turns.rewind("talk", 2)).session
    within = (await bench.manager.turns.rewind("talk", 1)).session
    assert (beyond.window_id, within.window_id) == (window.id, None)
    assert (within.tags, within.pinned, within.ttl_s) == (["x"], False, 60.0)
    assert within.expires_at is not None


async def test_rewinding_refuses(bench: Bench) -> None:
    await bench.talk("talk", *QUESTIONS[:2])
    turns = bench.manager.turns
    with pytest.raises(ValidationError, match="'talk' has 2 turns"):
        await turns.rewind("talk", 3)
    with pytest.raises(SessionNotFoundError):
        await turns.rewind("walk", 1)
    with pytest.raises(SessionExistsError):
        await turns.rewind("talk", 1, as_session="TALK")
    with pytest.raises(ValidationError, match="session name"):
        await turns.rewind("talk", 1, as_session="a/b")
    assert (await bench.manager.sessions()).total == 1


async def test_a_session_is_rewound_while_it_is_used(bench: Bench) -> None:
    session = await bench.talk("talk", *QUESTIONS[:2])
    with bench.library.using(session):
        assert (await bench.manager.turns.rewind("talk", 1)).session.turns == 1


async def test_a_window_whose_manifest_is_damaged_is_no_parent(bench: Bench) -> None:
    window = await bench.frozen("talk", QUESTION)
    await bench.talk("talk", OTHER)
    (path,) = (bench.home / "windows").glob(f"{window.id}*")
    path.write_bytes(b"?")
    assert (await bench.manager.turns.rewind("talk", 2)).session.window_id is None


async def test_a_window_that_is_gone_for_good_is_no_parent(bench: Bench) -> None:
    window = await bench.frozen("talk", QUESTION)
    await bench.talk("talk", OTHER)
    bench.library.index.remove_window(window.id)
    assert (await bench.manager.turns.rewind("talk", 2)).session.window_id is None


async def test_no_branch_is_made_of_a_session_that_was_purged_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await bench.talk("paper", *QUESTIONS)

    def purge(*arguments: Any, **options: Any) -> Transcript:
        bench.library.index.remove_session(session.id)
        return until(*arguments, **options)

    before = bench.library.documents()
    monkeypatch.setattr("cwm_jupyter.core.turns.until", purge)
    with pytest.raises(SessionNotFoundError):
        await bench.manager.turns.rewind("paper", 1)
    assert bench.library.index.all_sessions() == []
    assert bench.library.documents() == before

"""One turn: what is sent, what is kept, and that a failure keeps nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
import pytest
from bench import QUESTION, Bench
from fake_stack import END, encode, render

from cwm_jupyter.core.conversation import compose
from cwm_jupyter.core.models import Message
from cwm_jupyter.errors import (
    ContextFullError,
    EngineMismatchError,
    SessionBusyError,
    SessionNotFoundError,
    StateTransitionError,
    ValidationError,
    VLLMConnectionError,
)


def test_files_go_before_the_question(tmp_path: Path) -> None:
    notes, data = tmp_path / "notes.txt", tmp_path / "data.csv"
    notes.write_text("Grüße", encoding="utf-8")
    data.write_text("a,b", encoding="utf-8")
    message = compose("Why?", [notes, data], max_bytes=100)
    assert message == "File notes.txt:\n\nGrüße\n\nFile data.csv:\n\na,b\n\nWhy?"
    assert compose(" \n", [data], max_bytes=3) == "File data.csv:\n\na,b"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"x" * 11, "has 11 bytes; at most 10", id="too large"),
        pytest.param(b"ab\xff", r"not UTF-8 text \(byte 2\)", id="not text"),
        pytest.param(None, "cannot be read", id="missing"),
    ],
)
def test_a_file_that_cannot_go_into_a_context(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValidationError, match=says):
        compose("Why?", [path], max_bytes=10)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="cannot be read"):
        compose("Why?", [tmp_path], max_bytes=10**9)


def test_nothing_to_say(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="nothing to say"):
        compose(" \n", [], max_bytes=10)


async def test_a_turn_is_kept_token_by_token(bench: Bench) -> None:
    pieces: list[str] = []
    await bench.manager.create_session("talk", system="Be short.")
    reply = await bench.manager.say("talk", QUESTION, on_text=pieces.append)
    session = await bench.manager.session("talk")
    transcript = bench.transcript(session)
    question = [Message(role="system", content="Be short."), Message(role="user", content=QUESTION)]
    prompt = render(question)
    assert bench.stack.prompts == [prompt]
    assert transcript.token_ids[: len(prompt)] == prompt
    assert transcript.token_ids[-1] == END
    assert reply.text == "".join(pieces) == transcript.messages[-1].content
    assert transcript.messages[:-1] == question
    assert (reply.finish_reason, reply.generated_tokens) == ("stop", 41)
    assert (reply.prompt_tokens, reply.cached_tokens) == (len(prompt), 0)
    assert (session.tokens, session.turns) == (len(transcript.token_ids), 1)
    assert session.max_context_tokens == 4096
    assert reply.ttft_s is not None
    assert reply.ttft_s <= reply.total_s


async def test_the_next_turn_takes_the_turn_before_from_cache(bench: Bench) -> None:
    first = bench.transcript(await bench.talk("talk"))
    reply = await bench.manager.say("talk", "And then?")
    assert bench.stack.prompts[1][: len(first.token_ids)] == first.token_ids
    assert reply.cached_tokens == (len(first.token_ids) - 1) // 16 * 16


async def test_a_file_reaches_the_engine(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("zebra")
    await bench.manager.create_session("talk")
    await bench.manager.say("talk", "Which animal?", files=[path])
    assert bench.stack.prompts[0] == render(
        [Message(role="user", content="File a.txt:\n\nzebra\n\nWhich animal?")]
    )


async def test_an_answer_is_cut_where_asked(bench: Bench) -> None:
    await bench.manager.create_session("talk")
    reply = await bench.manager.say("talk", QUESTION, max_tokens=7)
    assert (reply.generated_tokens, reply.finish_reason) == (7, "length")
    await bench.manager.say("talk", "Go on.")
    before = bench.transcript(await bench.manager.session("talk")).turns[0].end
    assert bench.stack.prompts[1][before] == END


async def test_an_answer_is_cut_to_the_room_that_is_left(bench: Bench) -> None:
    """And a full session can still be frozen: a token is left for the probe."""
    bench.stack.told = {**(bench.stack.told or {}), "max_context_tokens": 100}
    bench.stack.max_context = 100
    session = await bench.talk("talk")
    assert session.tokens == 99
    assert bench.transcript(session).turns[0].finish_reason == "length"
    report = await bench.manager.freeze("paper", "talk")
    assert report.window.tokens == 99
    with pytest.raises(ContextFullError, match=r"the model's context holds 100") as caught:
        await bench.manager.say("talk", "?")
    assert caught.value.context["max_context_tokens"] == 100
    assert (await bench.manager.session("talk")).tokens == 99


async def test_a_question_that_does_not_fit_is_refused_before_it_is_asked(bench: Bench) -> None:
    await bench.manager.create_session("talk")
    with pytest.raises(ContextFullError):
        await bench.manager.say("talk", "x" * 5000)
    assert bench.stack.prompts == []
    assert bench.transcript(await bench.manager.session("talk")).turns == []


async def test_an_interrupted_answer_is_kept_as_far_as_it_came(bench: Bench) -> None:
    bench.stack.stall_after = 5
    await bench.manager.create_session("talk")
    turn = asyncio.create_task(bench.manager.say("talk", QUESTION))
    await bench.stack.stalled.wait()
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    session = await bench.manager.session("talk")
    kept = bench.transcript(session)
    (only,) = kept.turns
    # What the server had said before the last piece reached us may be missing, never more.
    assert 1 <= only.end - only.prompt_end <= 5
    assert (only.finish_reason, session.tokens) == ("interrupted", len(kept.token_ids))

    bench.stack.stall_after = None
    await bench.manager.say("talk", "Go on.")
    prompt = bench.stack.prompts[1]
    assert prompt[: len(kept.token_ids)] == kept.token_ids
    assert prompt[len(kept.token_ids) :] == [
        END,
        *render([Message(role="user", content="Go on.")]),
    ]


async def test_a_turn_cancelled_before_its_first_token_leaves_nothing(bench: Bench) -> None:
    await bench.talk("talk")
    before = bench.transcript(await bench.manager.session("talk"))
    reached = asyncio.Event()

    async def wait_for_ever(request: httpx2.Request) -> httpx2.Response:
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    stack = await bench.connect()
    stack.engine._http._client._transport = httpx2.MockTransport(wait_for_ever)
    turn = asyncio.create_task(bench.manager.say("talk", "And then?"))
    await reached.wait()
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert bench.transcript(await bench.manager.session("talk")) == before


async def test_a_stream_that_breaks_leaves_the_session_as_it_was(bench: Bench) -> None:
    session = await bench.talk("talk")
    before = bench.transcript(session)
    bench.stack.break_after = 3
    with pytest.raises(VLLMConnectionError):
        await bench.manager.say("talk", "And then?")
    assert await bench.manager.session("talk") == session
    assert bench.transcript(session) == before


async def test_a_display_that_fails_leaves_the_session_as_it_was(bench: Bench) -> None:
    session = await bench.talk("talk")

    def fail(text: str) -> None:
        raise RuntimeError("closed")

    with pytest.raises(RuntimeError, match="closed"):
        await bench.manager.say("talk", "And then?", on_text=fail)
    assert await bench.manager.session("talk") == session


async def test_an_engine_that_aborts_cuts_the_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        bench.stack, "_generate", lambda *_: (encode("so"), "abort", [[(1, 0.0)]] * 2)
    )
    await bench.manager.create_session("talk")
    reply = await bench.manager.say("talk", QUESTION)
    assert (reply.finish_reason, reply.text) == ("interrupted", "so")


async def test_a_session_that_is_in_use_is_busy(bench: Bench) -> None:
    session = await bench.talk("talk")
    with bench.library.using(session), pytest.raises(SessionBusyError):
        await bench.manager.say("talk", "And then?")
    await bench.manager.say("talk", "And then?")


async def test_a_turn_makes_a_frozen_session_active(bench: Bench) -> None:
    await bench.frozen("talk")
    assert (await bench.manager.session("talk")).state == "frozen"
    assert (await bench.talk("talk", "And then?")).state == "active"


async def test_a_turn_makes_a_thawed_session_active(bench: Bench) -> None:
    await bench.frozen("talk")
    report = await bench.manager.thaw("talk")
    assert (await bench.manager.session(report.session)).state == "thawed"
    assert (await bench.talk(report.session, "And then?")).state == "active"


@pytest.mark.parametrize("before_that", ["active", "frozen"])
async def test_an_expired_session_is_refused_before_anything_is_generated(
    bench: Bench, before_that: str
) -> None:
    await bench.talk("talk")
    if before_that == "frozen":
        await bench.manager.freeze("paper", "talk")
    session = await bench.manager.session("talk")
    bench.library.index.update_session(session.id, lambda s: s.to("expired"))
    asked, before = len(bench.stack.prompts), bench.transcript(session)
    with pytest.raises(StateTransitionError, match="has expired") as refused:
        await bench.manager.say("talk", "And then?")
    assert "cwm rm -s talk --undo" in (refused.value.hint or "")
    assert len(bench.stack.prompts) == asked
    assert bench.transcript(session) == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_tokens": 0}, "at least 1, not 0"),
        ({"temperature": 2.5}, "0 to 2, not 2.5"),
        ({"temperature": -1.0}, "0 to 2, not -1"),
    ],
)
async def test_options_are_checked(bench: Bench, options: dict[str, float], says: str) -> None:
    await bench.talk("talk")
    with pytest.raises(ValidationError, match=says):
        await bench.manager.say("talk", "And then?", **options)  # type: ignore[arg-type]


async def test_a_session_that_is_not_there(bench: Bench) -> None:
    await bench.talk("talk")
    with pytest.raises(SessionNotFoundError, match="'tolk'") as caught:
        await bench.manager.say("tolk", "And then?")
    assert "talk" in (caught.value.hint or "")


async def test_another_model_does_not_go_on_in_a_session(bench: Bench) -> None:
    before = await bench.talk("talk")
    await bench.manager.create_session("begun")
    bench.stack.model = "other"
    bench.stack.restart()
    await bench.reconnect()
    with pytest.raises(EngineMismatchError, match="model toy, and the engine serves other"):
        await bench.manager.say("talk", "And then?")
    assert await bench.manager.session("talk") == before
    await bench.manager.say("begun", QUESTION)  # nothing was said in it
    assert (await bench.manager.session("begun")).model == "other"

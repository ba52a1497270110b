"""Ask many: one restoration, a branch a question, and no question lost to another's failure."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import msgspec
import pytest
from bench import QUESTION, Bench
from fake_stack import encode

from cwm_jupyter.core.answers import AskReport
from cwm_jupyter.core.job import Job, JobState
from cwm_jupyter.errors import (
    CancelledJobError,
    ContextFullError,
    EngineMismatchError,
    ProbeError,
    SessionExistsError,
    StackDownError,
    ValidationError,
    VLLMConnectionError,
    WindowNotFoundError,
)

QUESTIONS = ["What is there to see?", "Which river is it?", "How does one get there?"]


async def alone(bench: Bench, window: str, question: str) -> list[int]:
    """The tokens of an answer that is asked for by itself."""
    session = (await bench.manager.thaw(window)).session
    reply = await bench.manager.say(session, question)
    transcript = bench.transcript(await bench.manager.session(session))
    return transcript.token_ids[reply.turn.prompt_end :]


def texts(report: AskReport) -> list[str | None]:
    return [answer.reply.text if answer.reply else None for answer in report.answers]


def fail_on(bench: Bench, word: str) -> None:
    """Have the engine die for the prompts that have this word, after they are rendered."""
    complete, wanted = bench.stack._complete, encode(word)

    def dying(body: dict[str, Any]) -> httpx2.Response:
        prompt = body["prompt"]
        if any(prompt[at : at + len(wanted)] == wanted for at in range(len(prompt))):
            raise httpx2.ReadError("the server died")
        return complete(body)

    bench.stack._complete = dying  # type: ignore[method-assign]


async def test_all_questions_share_one_restoration(bench: Bench) -> None:
    window = await bench.frozen("paper")
    bench.stack.restart()
    asked, job = len(bench.stack.calls), Job("ask")
    report = await bench.manager.questions.ask("paper", QUESTIONS, job=job)
    calls = bench.stack.calls[asked:]
    assert calls.count("POST /cache/prefetches") == 1
    assert calls.count("POST /v1/completions") == 1 + len(QUESTIONS)
    restored = report.restored
    assert (restored.window, restored.turn, restored.tokens) == ("paper", None, window.tokens)
    assert restored.cached_tokens == restored.expected_cached_tokens == window.chunks * 16
    assert restored.complete
    assert restored.probe is not None
    assert restored.probe.max_abs_logprob_diff == 0
    assert set(restored.stages_s) == {"check", "load", "take into the engine", "answer"}
    assert [answer.question for answer in report.answers] == QUESTIONS
    assert [answer.error for answer in report.answers] == [None] * 3
    for answer in report.answers:
        assert answer.reply is not None
        assert answer.reply.cached_tokens == window.chunks * 16
        assert (answer.reply.session, answer.reply.turn.number) == (None, 2)
    assert report.generated_tokens == sum(
        a.reply.generated_tokens for a in report.answers if a.reply
    )
    assert report.ask_s > 0
    assert AskReport.from_dict(report.to_dict()) == report


async def test_each_answer_is_that_of_the_question_alone(bench: Bench) -> None:
    await bench.frozen("paper")
    bench.stack.restart()
    report = await bench.manager.questions.ask("paper", QUESTIONS, keep="branch")
    for number, question in enumerate(QUESTIONS, 1):
        branch = bench.transcript(await bench.manager.session(f"branch-{number}"))
        assert branch.token_ids[branch.turns[-1].prompt_end :] == await alone(
            bench, "paper", question
        )
        assert branch.messages[-1].content == texts(report)[number - 1]


async def test_nothing_is_kept_unless_it_is_asked_for(bench: Bench) -> None:
    window = await bench.frozen("paper")
    transcripts = sorted((bench.home / "sessions").glob("*.json"))
    await bench.manager.questions.ask("paper", QUESTIONS)
    assert [s.name for s in (await bench.manager.sessions()).items] == ["paper"]
    assert sorted((bench.home / "sessions").glob("*.json")) == transcripts
    after = bench.window("paper")
    assert (after.thaws, after.state) == (0, "intact")
    assert after.used_at is not None
    assert after.replace(used_at=None) == window


async def test_branches_that_are_kept_are_sessions(bench: Bench) -> None:
    window = await bench.frozen("paper")
    limits = msgspec.structs.replace(bench.settings.limits, session_ttl="1h")
    bench.manager.settings = msgspec.structs.replace(bench.settings, limits=limits)
    report = await bench.manager.questions.ask("paper", QUESTIONS, keep="branch")
    assert [a.reply.session for a in report.answers if a.reply] == [
        f"branch-{n}" for n in (1, 2, 3)
    ]
    for number, question in enumerate(QUESTIONS, 1):
        session = await bench.manager.session(f"branch-{number}")
        transcript = bench.transcript(session)
        assert (session.state, session.turns, session.ttl_s) == ("active", 2, 3600)
        assert (session.window_id, session.lineage_id) == (window.id, window.lineage_id)
        assert session.tokens == len(transcript.token_ids)
        assert transcript.messages[-2].content == question
    reply = await bench.manager.say("branch-2", "Go on.")
    assert reply.turn.number == 3
    assert (await bench.manager.freeze("kept", "branch-2")).window.parent_window_id == window.id


async def test_questions_at_the_end_of_a_turn(bench: Bench) -> None:
    window = await bench.frozen("paper", QUESTION, QUESTIONS[0])
    bench.stack.restart()
    report = await bench.manager.questions.ask("paper@1", QUESTIONS[1:], keep="branch")
    end = bench.library.manifest(window).transcript.turns[0].end
    assert (report.restored.turn, report.restored.tokens, report.restored.probe) == (1, end, None)
    session = await bench.manager.session("branch-1")
    assert (session.turns, session.window_id) == (2, None)
    assert bench.transcript(session).turns[1].start == end


async def test_a_question_that_does_not_fit_is_told_and_the_others_answered(bench: Bench) -> None:
    await bench.frozen("paper")
    questions = [QUESTIONS[0], "x" * 5000, QUESTIONS[1]]
    report = await bench.manager.questions.ask("paper", questions, keep="branch")
    assert [text is None for text in texts(report)] == [False, True, False]
    error = report.answers[1].error
    assert error is not None
    assert error["code"] == "resource.context_full"
    names = [s.name for s in (await bench.manager.sessions()).items]
    assert names == ["paper", "branch-1", "branch-3"]


async def test_a_question_whose_request_fails_is_told_and_the_others_answered(
    bench: Bench,
) -> None:
    await bench.frozen("paper")
    fail_on(bench, "river")
    report = await bench.manager.questions.ask("paper", QUESTIONS)
    assert [text is None for text in texts(report)] == [False, True, False]
    error = report.answers[1].error
    assert error is not None
    assert error["code"] == "vllm.connection"


async def test_where_none_is_answered_the_first_error_is_raised(bench: Bench) -> None:
    await bench.frozen("paper")
    with pytest.raises(ContextFullError):
        await bench.manager.questions.ask("paper", ["x" * 5000])
    fail_on(bench, "?")
    with pytest.raises(VLLMConnectionError):
        await bench.manager.questions.ask("paper", QUESTIONS)


async def test_a_name_that_is_taken_meanwhile_costs_one_branch(bench: Bench) -> None:
    await bench.frozen("paper")

    def watch(state: JobState) -> None:
        if state.stage == "load":
            session = bench.library.index.require_session("paper")
            bench.library.index.update_session(session.id, lambda s: s.replace(name="branch-2"))

    report = await bench.manager.questions.ask(
        "paper", QUESTIONS, keep="branch", job=Job("ask", watch)
    )
    assert [answer.error and answer.error["code"] for answer in report.answers] == [
        None,
        "session.exists",
        None,
    ]


async def test_only_some_run_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.frozen("paper")
    monkeypatch.setattr("cwm_jupyter.core.ask._AT_ONCE", 2)
    running, most = 0, 0
    stream = bench.stack._stream

    async def counted(*args: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        async for piece in stream(*args):
            await asyncio.sleep(0)
            yield piece
        running -= 1

    monkeypatch.setattr(bench.stack, "_stream", counted)
    questions = [f"What is {n}?" for n in range(7)]
    report = await bench.manager.questions.ask("paper", questions)
    assert [answer.question for answer in report.answers] == questions
    assert (most <= 2, None in texts(report)) == (True, False)


async def test_cancelling_the_task_ends_all(bench: Bench) -> None:
    await bench.frozen("paper")
    bench.stack.stall_after = 5
    asking = asyncio.create_task(bench.manager.questions.ask("paper", QUESTIONS, keep="branch"))
    await bench.stack.stalled.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert [s.name for s in (await bench.manager.sessions()).items] == ["paper"]


async def test_a_branch_that_was_kept_before_a_cancel_stays_and_is_logged(bench: Bench) -> None:
    await bench.frozen("paper")

    def watch(state: JobState) -> None:
        if state.stage == "answer" and state.done:
            job.cancel()

    job = Job("ask", watch)
    with pytest.raises(CancelledJobError):
        await bench.manager.questions.ask("paper", QUESTIONS, keep="branch", job=job)
    kept = [s.name for s in (await bench.manager.sessions()).items if s.name != "paper"]
    assert kept
    line = bench.manager.audit.read(last=1).records[0].line
    assert (line.action, line.result) == ("ask", "job.cancelled")
    assert sorted(line.names["sessions"]) == sorted(kept)


@pytest.mark.parametrize("stage", ["check", "load", "answer"])
async def test_cancelling_the_job_ends_all(bench: Bench, stage: str) -> None:
    await bench.frozen("paper")

    def watch(state: JobState) -> None:
        if state.stage == stage:
            job.cancel()

    job = Job("ask", watch)
    with pytest.raises(CancelledJobError):
        await bench.manager.questions.ask("paper", QUESTIONS, job=job)


@pytest.mark.parametrize(
    ("questions", "options", "said"),
    [
        ([], {}, "no questions"),
        (["a", " "], {}, "Question 2 is empty"),
        ("a?", {}, "not one text"),
        (["a"], {"max_tokens": 0}, "max_tokens"),
        (["a"], {"temperature": 3}, "temperature"),
        (["a"], {"keep": "a/b"}, "session name"),
    ],
)
async def test_what_cannot_be_asked(
    bench: Bench, questions: Any, options: dict[str, Any], said: str
) -> None:
    await bench.frozen("paper")
    asked = len(bench.stack.calls)
    with pytest.raises(ValidationError, match=said):
        await bench.manager.questions.ask("paper", questions, **options)
    assert len(bench.stack.calls) == asked


async def test_what_is_refused_before_anything_is_asked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = await bench.frozen("paper")
    ask = bench.manager.questions.ask
    await bench.talk("branch-2")
    with pytest.raises(SessionExistsError, match="branch-2"):
        await ask("paper", QUESTIONS, keep="branch")
    with pytest.raises(WindowNotFoundError):
        await ask("papers", QUESTIONS)
    with pytest.raises(ValidationError, match="has 1 turn"):
        await ask("paper@2", QUESTIONS)
    bench.stack.restart()
    with monkeypatch.context() as patch:
        patch.setattr(bench.stack, "_judge", lambda prompt, used: (b"wrong", 0.0))
        with pytest.raises(ProbeError):
            await ask("paper", QUESTIONS)
    bench.stack.told = {**(bench.stack.told or {}), "threads": 8}
    with pytest.raises(EngineMismatchError):
        await ask("paper", QUESTIONS)

    async def down() -> None:
        raise StackDownError("No stack is running.")

    monkeypatch.setattr(bench.manager.parts, "connect", down)
    with pytest.raises(StackDownError):
        await ask("paper", QUESTIONS)
    assert bench.window("paper") == window


async def test_no_branch_is_kept_of_a_window_that_was_purged_meanwhile(bench: Bench) -> None:
    window = await bench.frozen("paper")

    def purge(state: JobState) -> None:
        if state.stage == "answer" and not state.done and bench.library.index.get_window(window.id):
            bench.library.index.remove_window(window.id)

    before = bench.library.documents()
    with pytest.raises(WindowNotFoundError):
        await bench.manager.questions.ask("paper", QUESTIONS, keep="branch", job=Job("ask", purge))
    assert [s.name for s in (await bench.manager.sessions()).items] == ["paper"]
    assert bench.library.documents() == before

"""Going back and asking many, from the front ends: verbs, how they look, the Python API."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from bench import QUESTION
from entries import make_session
from fake_stack import FakeStack

import cwm_jupyter as cwm
from cwm_jupyter.cli import _exit_status
from cwm_jupyter.config import get_settings
from cwm_jupyter.core.answers import Answered, AskReport, RewindReport
from cwm_jupyter.core.job import JobState
from cwm_jupyter.core.models import Reply, Restored, ThawReport, Turn
from cwm_jupyter.errors import (
    ContextFullError,
    SessionExistsError,
    SessionNotFoundError,
    StackDownError,
    UsageError,
    ValidationError,
    WindowNotFoundError,
)
from cwm_jupyter.present import html, text
from cwm_jupyter.verbs import parse
from cwm_jupyter.workspace import Workspace

OTHER = "And what else is there to see?"
Run = Callable[..., Any]


class Front:
    """A front end that keeps what it is told."""

    def __init__(self) -> None:
        self.session = "main"
        self.notes: list[Any] = []
        self.piped = f"{QUESTION}\n\n{OTHER}\n"

    def use(self, session: str) -> bool:
        first, self.session = session != self.session, session
        return first

    def note(self, value: object) -> None:
        self.notes.append(value)

    def later(self, work: Callable[[], None]) -> None:
        raise AssertionError("no policy was set")

    @contextmanager
    def progress(self) -> Iterator[Callable[[JobState], None]]:
        yield lambda state: None

    @contextmanager
    def answer(self) -> Iterator[Callable[[str], Any]]:
        yield io.StringIO().write

    def read(self) -> str:
        return self.piped


@pytest.fixture
def front() -> Front:
    return Front()


@pytest.fixture
def run(home: Any, front: Front) -> Iterator[Run]:
    """Run a verb in one workspace, which is made when the first one runs."""
    workspaces: list[Workspace] = []

    def run(*arguments: str) -> Any:
        verb, parsed = parse(arguments, "cwm")
        if not workspaces:
            workspaces.append(Workspace(get_settings()))
        return verb.run(workspaces[0], parsed, front)

    yield run
    for workspace in workspaces:
        workspace.close()


# --- verbs ----------------------------------------------------------------------------------------


def test_rewind_goes_on_in_a_branch(run: Run, front: Front, fake_stack: FakeStack) -> None:
    run("say", QUESTION)
    run("say", OTHER)
    report = run("rewind", "1")
    assert (report.source.name, report.session.name, report.turn) == ("main", "main-2", 1)
    assert front.session == "main-2"
    assert run("say", "Go on.").turn.number == 2
    assert run("rewind", "0", "-s", "main", "--as", "fresh").session.turns == 0
    assert front.session == "fresh"
    assert run("show", "-s", "main").session == report.source


@pytest.mark.parametrize("turn", ["x", "-1", "1.5", "٣"])
def test_what_is_no_turn(run: Run, turn: str) -> None:
    with pytest.raises(UsageError):
        run("rewind", turn)


def test_rewind_refuses(run: Run, front: Front, fake_stack: FakeStack) -> None:
    with pytest.raises(SessionNotFoundError):
        run("rewind", "1")
    run("say", QUESTION)
    with pytest.raises(ValidationError, match="has 1 turn"):
        run("rewind", "2")
    with pytest.raises(SessionExistsError):
        run("rewind", "1", "--as", "main")
    assert front.session == "main"


def test_a_turn_is_asked_otherwise(run: Run, front: Front, fake_stack: FakeStack) -> None:
    first = run("say", QUESTION)
    run("say", OTHER)
    front.notes.clear()
    reply = run("say", "--edit", "2", "And what not?")
    assert (reply.session, reply.turn.number, front.session) == ("main-2", 2, "main-2")
    assert [type(note) for note in front.notes] == [RewindReport]
    said = [message.content for message in run("show", "-s", "main-2").messages]
    assert said == [QUESTION, first.text, "And what not?", reply.text]
    assert run("say", "--edit", "1", "-s", "main", OTHER).turn.number == 1
    assert run("show", "-s", "main").session.turns == 2


def test_what_cannot_be_edited(
    run: Run, front: Front, fake_stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SessionNotFoundError):
        run("say", "--edit", "1", "hello")
    run("say", QUESTION)
    with pytest.raises(ValidationError, match="no turn 2 to edit"):
        run("say", "--edit", "2", "hello")
    with pytest.raises(ValidationError, match="system message cannot change"):
        run("say", "--edit", "1", "--system", "Be short.", "hello")

    async def down(self: Workspace) -> None:
        raise StackDownError("No stack is running.")

    monkeypatch.setattr(Workspace, "connect", down)
    with pytest.raises(StackDownError):
        run("say", "--edit", "1", "hello")
    assert run("ls", "--sessions").total == 1
    assert front.session == "main"


def test_thaw_at_a_turn(run: Run, front: Front, fake_stack: FakeStack) -> None:
    run("say", QUESTION)
    run("say", OTHER)
    run("freeze", "paper")
    report = run("thaw", "paper@1", "--as", "back")
    assert (report.turn, report.probe, front.session) == (1, None, "back")
    assert _exit_status(report) == 0
    assert "Thawed paper@1 into session back: " in text(report)
    assert "not probed" in text(report)


def test_ask(run: Run, front: Front, fake_stack: FakeStack) -> None:
    run("say", QUESTION)
    run("freeze", "paper")
    report = run("ask", "paper", "Why?", "How so?", "--max-tokens", "7")
    assert [answer.question for answer in report.answers] == ["Why?", "How so?"]
    assert report.generated_tokens == 14
    assert _exit_status(report) == 0
    assert front.session == "main"
    report = run("ask", "paper@1", "-", "--keep", "branch")
    assert [answer.question for answer in report.answers] == [QUESTION, OTHER]
    assert [answer.reply.session for answer in report.answers] == ["branch-1", "branch-2"]
    with pytest.raises(ValidationError, match="no questions"):
        run("ask", "paper")
    with pytest.raises(ContextFullError):
        run("ask", "paper", "x" * 5000)
    partly = run("ask", "paper", "Why?", "x" * 5000)
    assert _exit_status(partly) == 1


def test_an_answer_from_what_was_restored_in_part(run: Run, fake_stack: FakeStack) -> None:
    run("say", QUESTION)
    run("freeze", "paper")
    fake_stack.restart()
    fake_stack.files()[1].unlink()
    report = run("ask", "paper", "Why?")
    assert not report.restored.complete
    assert _exit_status(report) == 3
    assert "The answers are right: what was missing was computed anew" in text(report)


# --- how they look --------------------------------------------------------------------------------


def reply(**fields: Any) -> Reply:
    turn = Turn(
        number=3,
        start=5993,
        prompt_end=6012,
        end=6155,
        cached_tokens=5888,
        ttft_s=0.2134,
        total_s=3.2,
        finish_reason="stop",
        created_at="2026-01-02T03:04:05.000000Z",
    )
    values: dict[str, Any] = {
        "session": None,
        "text": "It is <b>so</b>.",
        "turn": turn,
        "prompt_tokens": 6012,
        "cached_tokens": 5888,
        "generated_tokens": 143,
        "ttft_s": 0.2134,
        "total_s": 3.2,
        "finish_reason": "stop",
    }
    return Reply(**{**values, **fields})


def restored(**fields: Any) -> Restored:
    values: dict[str, Any] = {
        "window": "paper",
        "turn": 2,
        "tokens": 5993,
        "size_bytes": 135_659_520,
        "chunks_expected": 46,
        "chunks_found": 46,
        "chunks_missing": 0,
        "chunks_corrupt": 0,
        "chunks_recomputed": 0,
        "chunks_read": 46,
        "expected_cached_tokens": 5888,
        "cached_tokens": 5888,
        "recomputed_tokens": 105,
        "recompute": False,
        "complete": True,
        "probe": None,
        "restore_s": 0.31,
        "stages_s": {},
        "accepted_differences": [],
    }
    kind = ThawReport if "session" in fields else Restored
    return kind(**{**values, **fields})


def test_a_thaw_at_a_turn_says_where_and_that_it_was_not_probed() -> None:
    assert text(restored(session="main")) == (
        "Thawed paper@2 into session main: 5,888 of 5,993 tokens from cache (46 chunks, 136 MB, "
        "all read from the disk and right), tail of 105 computed; not probed (a window's probe is "
        "of its end); 0.31 s"
    )
    shown = text(restored(session="main", recompute=True, complete=False))
    assert shown.startswith("Recomputed paper@2 into session main: 5,993 tokens computed anew;")


def test_a_rewind_says_how_to_get_back() -> None:
    source = make_session("s1", "my talk", turns=5, tokens=900)
    new = make_session("s2", "my talk-2", turns=2, tokens=1300)
    assert text(RewindReport(session=new, source=source, turn=2)).split("\n") == [
        "Session my talk-2 goes on from the end of turn 2 of my talk: 2 turns, 1,300 tokens",
        "my talk stays as it is, with all its 5 turns; go back to it with -s 'my talk'",
    ]
    new = new.replace(turns=0, tokens=0)
    assert "goes on from the beginning of my talk: 0 turns" in text(
        RewindReport(session=new, source=source, turn=0)
    )


def test_answers_are_a_table() -> None:
    report = AskReport(
        restored=restored(),
        answers=[
            Answered(question="What\nis it?", reply=reply(), error=None),
            Answered(question="Why? " * 20, reply=reply(text="x " * 80), error=None),
        ],
        generated_tokens=286,
        ask_s=4.2,
    )
    lines = text(report).split("\n")
    assert lines[0].startswith("Restored paper@2: 5,888 of 5,993 tokens from cache (46 chunks")
    header = "QUESTION ANSWER TOKENS OUT FROM CACHE FIRST TOKEN"
    assert " ".join(lines[1].split()) == header
    assert " ".join(lines[2].split()) == "What is it? It is <b>so</b>. 143 5,888 0.21 s"
    assert lines[3].count("…") == 2
    assert lines[4:] == [
        "2 answers, 286 tokens out, in 4.2 s together",
        "-o VARIABLE or --json gives the answers in full",
    ]
    assert "&lt;b&gt;so&lt;/b&gt;" in html(report)
    assert "<b>" not in html(report)


def test_a_question_without_an_answer_is_loud() -> None:
    error = ContextFullError("It does not fit.")
    report = AskReport(
        restored=restored(turn=None),
        answers=[
            Answered(question="What?", reply=reply(session="b-1"), error=None),
            Answered(question="Why?", reply=None, error=error.to_dict()),
        ],
        generated_tokens=143,
        ask_s=4.2,
    )
    shown = text(report)
    assert "NO ANSWER: It does not fit. [resource.context_full]" in shown
    assert "\n1 question got NO ANSWER; the others are not touched by that\n" in shown
    assert shown.endswith("\nKept as sessions: b-1")
    assert "font-weight:bold" in html(report)


# --- Python ---------------------------------------------------------------------------------------


@pytest.fixture
def paper(own_process: None, fake_stack: FakeStack) -> cwm.FrozenWindow:
    """A window of two turns."""
    session = cwm.session("talk")
    session.say(QUESTION)
    session.say(OTHER)
    session.freeze("paper")
    return cwm.window("paper")


def test_a_window_is_asked(paper: cwm.FrozenWindow) -> None:
    report = paper.ask(["Why?", "How so?"], max_tokens=7, keep="branch")
    assert report.restored.complete
    assert report.generated_tokens == 14
    assert cwm.session("branch-2").record.turns == 3
    assert cwm.window("paper@1").ask(["Why?"]).restored.turn == 1


async def test_a_window_is_asked_and_thawed_awaited(paper: cwm.FrozenWindow) -> None:
    assert (await paper.aask(["Why?"])).answers[0].error is None
    session = await cwm.window("paper@1").athaw("back")
    assert (session.name, session.report.turn) == ("back", 1)  # type: ignore[union-attr]


def test_a_window_is_thawed_into_a_session(paper: cwm.FrozenWindow, fake_stack: FakeStack) -> None:
    session = paper.thaw()
    assert session.say("Go on.").turn.number == 3
    assert session.report is not None
    assert session.report.complete
    assert paper.record.thaws == 1
    fake_stack.restart()
    fake_stack.files()[1].unlink()
    with pytest.warns(UserWarning, match="RESTORED ONLY"):
        paper.thaw("again")


def test_what_a_window_is(paper: cwm.FrozenWindow) -> None:
    assert paper.show().turns == cwm.show("paper").turns
    assert cwm.window("paper@1").show().turns == cwm.show("paper").turns
    assert repr(paper).startswith("<Window paper, intact: 2 turns, ")
    assert paper._repr_html_().startswith("<div>")
    cwm.remove("paper")
    assert repr(paper) == "<Window paper, not in the index>"
    with pytest.raises(WindowNotFoundError):
        cwm.window("paper")


def test_going_back_in_a_session(paper: cwm.FrozenWindow) -> None:
    session = cwm.rewind(1, "talk")
    assert (session.name, session.record.turns) == ("talk-2", 1)
    assert session.say("And what not?").turn.number == 2
    with pytest.raises(ValidationError):
        cwm.rewind(3, "talk")


def test_a_session_from_a_turn_may_be_asked_for_again(paper: cwm.FrozenWindow) -> None:
    assert cwm.session("t", from_window="paper@1").report is not None
    cwm.session("t").say("Go on.")
    again = cwm.session("t", from_window="paper@1")
    assert (again.report, again.record.turns) == (None, 2)
    with pytest.raises(SessionExistsError):
        cwm.session("t", from_window="paper@2")
    cwm.session("other").say(QUESTION)
    with pytest.raises(SessionExistsError):
        cwm.session("other", from_window="paper@1")

"""The table of verbs: what each does, asks and refuses."""

from __future__ import annotations

import io
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bench import QUESTION
from fake_stack import FakeStack

from cwm_jupyter.cli import _exit_status
from cwm_jupyter.config import get_settings
from cwm_jupyter.core.job import JobState
from cwm_jupyter.core.models import FreezePlan, Page, Reply, ThawReport
from cwm_jupyter.errors import (
    EngineMismatchError,
    KVStoreError,
    SecurityError,
    SessionNotFoundError,
    StackDownError,
    StackError,
    StateTransitionError,
    UsageError,
    ValidationError,
    WindowExistsError,
    WindowNotFoundError,
)
from cwm_jupyter.parsing import HelpRequestError
from cwm_jupyter.stack.state import StackState
from cwm_jupyter.verbs import VERBS, overview, parse
from cwm_jupyter.workspace import Workspace


class Front:
    """A front end that keeps what it is told."""

    def __init__(self) -> None:
        self.session = "main"
        self.notes: list[Any] = []
        self.stages: list[str] = []
        self.said = io.StringIO()
        self.piped = "from a pipe"

    def use(self, session: str) -> bool:
        first, self.session = session != self.session, session
        return first

    def note(self, value: object) -> None:
        self.notes.append(value)

    @contextmanager
    def progress(self) -> Iterator[Callable[[JobState], None]]:
        yield lambda state: self.stages.append(state.stage)

    @contextmanager
    def answer(self) -> Iterator[Callable[[str], Any]]:
        yield self.said.write

    def read(self) -> str:
        return self.piped

    def later(self, work: Callable[[], None]) -> None:
        self.notes.append("result")
        work()


@pytest.fixture
def front() -> Front:
    return Front()


@pytest.fixture
def run(home: Path, front: Front) -> Iterator[Callable[..., Any]]:
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


Run = Callable[..., Any]


# --- help and usage -------------------------------------------------------------------------------


#: by what one types
ALL = {
    **VERBS,
    **{f"admin {name}": verb for name, verb in VERBS["admin"].verbs.items()},
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("prog", ["cwm", "%cwm"])
def test_every_verb_explains_itself(name: str, prog: str) -> None:
    verb = ALL[name]
    with pytest.raises(HelpRequestError) as request:
        parse([*name.split(), "--help"], prog)
    shown = str(request.value)
    assert shown.startswith(f"usage: {prog} {name}")
    assert verb.help[1:] in " ".join(shown.split())
    for example in verb.examples:
        assert f"  {prog} {name} {example}".rstrip() in shown.split("\n")
    assert max(map(len, shown.split("\n"))) <= 100


@pytest.mark.parametrize("name", ALL)
def test_every_example_can_be_parsed(name: str) -> None:
    import shlex

    for example in ALL[name].examples:
        parse([*name.split(), *shlex.split(example)], "cwm")


def test_the_overview_has_every_verb_and_what_holds_for_all() -> None:
    shown = overview("cwm")
    assert all(f"  {verb.name} " in shown and verb.help in shown for verb in VERBS.values())
    assert "--json" in shown
    assert "-o VARIABLE" in overview("%cwm")


def test_verbs_of_admin_are_found_without_it() -> None:
    short, long = parse(["gc", "--dry-run"], "cwm"), parse(["admin", "gc", "--dry-run"], "cwm")
    assert short == long
    assert "\n  gc " not in overview("cwm")


@pytest.mark.parametrize("arguments", [["admin"], ["admin", "-h"], ["admin", "help"]])
def test_the_overview_of_the_verbs_below_a_verb(arguments: list[str]) -> None:
    with pytest.raises(HelpRequestError) as request:
        parse(arguments, "cwm")
    shown = str(request.value)
    assert shown.startswith("usage: cwm admin VERB ...\n\nLook after what lies on disk.\n")
    assert all(f"  {verb.name} " in shown for verb in VERBS["admin"].verbs.values())
    assert "cwm admin VERB -h tells more. --json" in shown


@pytest.mark.parametrize("arguments", [[], ["-h"], ["help"], ["--version"]])
def test_help_without_a_verb(arguments: list[str]) -> None:
    with pytest.raises(HelpRequestError):
        parse(arguments, "cwm")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frezze", "x"], "Did you mean freeze"),
        (["qqqq"], "See cwm -h"),
        (["freeze"], "the following arguments are required: NAME"),
        (["thaw", "a", "b"], "unrecognized arguments: b"),
        (["ls", "--limit", "0"], "must be a whole number from 1, not '0'"),
        (["ls", "--limit", "ten"], "must be a whole number from 1, not 'ten'"),
        (["logs", "nginx"], "invalid choice: 'nginx'"),
        (["say", "--temp", "1", "x"], "--temp"),
        (["admin", "purg"], "cwm admin: there is no verb 'purg'.\nDid you mean purge?"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(arguments, "cwm")
    assert said in str(refused.value)
    assert refused.value.code == "input.usage"


def test_options_may_stand_among_the_words() -> None:
    _, parsed = parse(["say", "What", "-s", "x", "is", "it?", "--max-tokens", "3"], "cwm")
    assert (parsed.text, parsed.session, parsed.max_tokens) == (["What", "is", "it?"], "x", 3)


# --- without a stack ------------------------------------------------------------------------------


@pytest.mark.covers("MS-001")
def test_what_needs_a_stack_says_that_there_is_none(run: Run, front: Front) -> None:
    for arguments in (["say", "hi"], ["say", "-s", "x", "hi"]):
        with pytest.raises(StackDownError, match="No stack is running"):
            run(*arguments)
    assert run("ls", "--sessions").items == []
    assert run("status").phase == "down"
    assert run("down").phase == "down"
    with pytest.raises(StackDownError):
        run("logs")


@pytest.mark.covers("TL-001", "SL-001")
def test_empty_lists(run: Run) -> None:
    assert run("ls").to_dict() == {"items": [], "total": 0, "limit": None, "offset": 0}
    assert run("ls", "--sessions").total == 0


@pytest.mark.covers("TT-003", "TD-002", "TS-005", "TS-006")
def test_unknown_names(run: Run) -> None:
    for arguments in (["thaw", "x"], ["rm", "x"], ["rm", "x", "--undo"], ["show", "x"]):
        with pytest.raises(WindowNotFoundError):
            run(*arguments)
    for arguments in (["show", "-s", "x"], ["freeze", "new", "-s", "x"]):
        with pytest.raises(SessionNotFoundError):
            run(*arguments)


def test_verify_wants_one_window_or_all(run: Run) -> None:
    with pytest.raises(ValidationError, match="not both"):
        run("verify", "paper", "--all")
    with pytest.raises(ValidationError, match="nothing was said"):
        run("verify")
    assert run("verify", "--all").windows == []
    for arguments in (["verify", "x"], ["repair", "x"], ["admin", "purge", "x"]):
        with pytest.raises(WindowNotFoundError):
            run(*arguments)


def test_upkeep_of_nothing(run: Run) -> None:
    assert run("admin", "du").windows == []
    assert run("admin", "gc").freed_bytes == 0
    assert run("admin", "purge", "--dry-run").windows == []
    with pytest.raises(ValidationError, match="Encryption is off"):
        run("admin", "rotate-key")


@pytest.mark.covers("TS-003", "TS-004")
def test_show_wants_one_thing(run: Run) -> None:
    with pytest.raises(ValidationError, match="not both"):
        run("show", "paper", "-s", "main")
    with pytest.raises(ValidationError, match="none was given"):
        run("show")


def test_doctor_finds_something(run: Run) -> None:
    findings = run("doctor")
    assert {finding.level for finding in findings} <= {"ok", "warn", "error"}
    assert findings


def test_connect_checks_what_it_is_given(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ValidationError, match="NO_SUCH_KEY is not set"):
        run("connect", "http://127.0.0.1:1", "--api-key-env", "NO_SUCH_KEY")
    with pytest.raises(SecurityError, match="plain http"):
        run("connect", "http://192.0.2.1:1")


def test_connect_hands_over_urls_and_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr("cwm_jupyter.stack.launcher.connect", lambda *args: given.append(args))
    monkeypatch.setenv("THE_KEY", "k")
    run("connect", "http://127.0.0.1:1/", "http://127.0.0.1:2", "--api-key-env", "THE_KEY")
    assert given[0][1:] == ("http://127.0.0.1:1", "http://127.0.0.1:2", "k")


def test_up_changes_the_settings_and_no_running_stack(
    run: Run, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    runs = {"stack": {"model": "/m", "engine_args": ["--dtype=bfloat16"]}}

    def up(settings: Any, job: Any) -> StackState:
        job.stage("starting")
        asked.append(settings.stack)
        return StackState(
            kind="local",
            phase="ready",
            engine_url="http://127.0.0.1:1",
            lmcache_url=None,
            started_at="2026-01-01T00:00:00Z",
            settings=runs,
            already_running=True,
        )

    monkeypatch.setattr("cwm_jupyter.stack.launcher.up", up)
    assert run("up", "--model", "/m", "--engine-arg=--dtype=bfloat16").already_running
    assert (asked[0].model, asked[0].engine_args) == ("/m", ("--dtype=bfloat16",))
    assert front.stages == ["starting"]
    with pytest.raises(StackError, match="another model"):
        run("up", "--model", "/other", "--engine-arg=--dtype=bfloat16")


# --- with a stack ---------------------------------------------------------------------------------


def test_say_begins_a_session_and_streams(run: Run, front: Front, fake_stack: FakeStack) -> None:
    reply = run("say", "--system", "Be brief.", *QUESTION.split())
    assert isinstance(reply, Reply)
    assert front.said.getvalue() == reply.text
    assert front.session == reply.session == "main"
    status = run("show", "-s", "main")
    assert [m.role for m in status.messages] == ["system", "user", "assistant"]
    assert status.messages[1].content == QUESTION
    assert run("say", "And of Spain?").cached_tokens > 0


def test_say_reads_pipes_and_files(
    run: Run, front: Front, fake_stack: FakeStack, tmp_path: Path
) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("all of it")
    run("say", "-", "--file", str(file))
    assert run("show", "-s", "main").messages[0].content == (
        "File notes.txt:\n\nall of it\n\nfrom a pipe"
    )


def test_say_refuses_before_a_session_is_begun(run: Run, fake_stack: FakeStack) -> None:
    with pytest.raises(ValidationError, match="nothing to say"):
        run("say", "  ")
    assert run("ls", "--sessions").total == 0


def test_a_begun_session_keeps_its_system_message(run: Run, fake_stack: FakeStack) -> None:
    run("say", "hello")
    with pytest.raises(ValidationError, match="has begun"):
        run("say", "--system", "Be brief.", "hello")


def test_going_on_elsewhere_is_told_once(run: Run, front: Front, fake_stack: FakeStack) -> None:
    run("say", "-s", "old", "hello")
    front.session = "main"
    run("say", "-s", "old", "again")
    assert [str(note).startswith("Going on in session old: 1 turn,") for note in front.notes] == [
        True
    ]
    run("say", "again")
    assert len(front.notes) == 1


@pytest.mark.covers("TT-001", "TT-002", "TS-001", "TS-002")
def test_freeze_and_thaw(run: Run, front: Front, fake_stack: FakeStack) -> None:
    run("say", QUESTION)
    frozen = run("freeze", "paper", "--tag", "draft", "--note", "a note")
    assert isinstance(front.notes[0], FreezePlan)
    assert frozen.window.tags == ["draft"]
    assert front.stages[0]
    fake_stack.restart()
    report = run("thaw", "paper")
    assert isinstance(report, ThawReport)
    assert report.complete
    assert report.cached_tokens == report.expected_cached_tokens > 0
    assert front.session == report.session == "paper"
    status = run("show", "paper")
    assert (status.window.note, status.window.thaws) == ("a note", 1)
    assert run("show", "-s", "paper").session.state == "thawed"
    assert run("thaw", "paper", "--as", "other").session == "other"


def test_freeze_never_overwrites(run: Run, fake_stack: FakeStack) -> None:
    run("say", QUESTION)
    run("freeze", "paper")
    with pytest.raises(WindowExistsError):
        run("freeze", "paper")


def test_a_freeze_whose_chunks_are_lost_fails(
    run: Run, fake_stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cwm_jupyter.core.freeze._patience_s", lambda chunks: 0.05)
    monkeypatch.setenv("CWM_STORAGE_DURABLE_TIMEOUT_S", "0.5")
    fake_stack.store = lambda key: False
    run("say", QUESTION)
    with pytest.raises(KVStoreError):
        run("freeze", "paper")
    assert run("ls").total == 0


def test_another_engine_is_refused_until_it_is_accepted(run: Run, fake_stack: FakeStack) -> None:
    run("say", QUESTION)
    run("freeze", "paper")
    assert fake_stack.told is not None
    fake_stack.told["threads"] = 4
    with pytest.raises(EngineMismatchError, match="threads"):
        run("thaw", "paper")
    assert run("thaw", "paper", "--accept-engine").accepted_differences
    assert run("thaw", "paper", "--recompute").recompute


@pytest.mark.covers("TL-002", "TL-003", "TL-004")
def test_ls_chooses(run: Run, fake_stack: FakeStack) -> None:
    run("say", QUESTION)
    for name, tags in (("a", ["x"]), ("b", ["x", "y"]), ("c", [])):
        run("freeze", name, *(word for tag in tags for word in ("--tag", tag)))
    assert names(run("ls")) == ["c", "b", "a"]
    assert names(run("ls", "--tag", "x")) == ["b", "a"]
    assert names(run("ls", "--tag", "x", "--tag", "y")) == ["b"]
    page = run("ls", "--limit", "2")
    assert (names(page), page.total) == (["c", "b"], 3)


@pytest.mark.covers("SL-002", "SL-003", "SL-004")
def test_ls_of_sessions(run: Run, fake_stack: FakeStack) -> None:
    run("say", "-s", "one", QUESTION)
    run("say", "-s", "two", QUESTION)
    run("freeze", "w", "-s", "two")
    assert names(run("ls", "--sessions")) == ["one", "two"]
    assert names(run("ls", "--sessions", "--state", "frozen")) == ["two"]
    with pytest.raises(ValidationError, match="active"):
        run("ls", "--sessions", "--state", "sleeping")
    with pytest.raises(ValidationError, match="intact, damaged, deleted"):
        run("ls", "--state", "frozen")
    assert names(run("ls", "--sessions", "--tag", "x")) == []
    with pytest.raises(ValidationError, match="min_size chooses windows"):
        run("ls", "--sessions", "--min-size", "1MB")


@pytest.mark.covers("TL-005", "TL-006")
def test_ls_searches_and_sorts(run: Run, fake_stack: FakeStack) -> None:
    run("say", "-s", "one", QUESTION)
    run("freeze", "short", "-s", "one", "--note", "the first Chapter")
    run("say", "-s", "one", QUESTION)
    run("freeze", "long", "-s", "one", "--tag", "chapter")
    run("say", "-s", "two", QUESTION)
    run("freeze", "other", "-s", "two")
    assert names(run("ls", "chapter")) == ["long", "short"]
    assert names(run("ls", "--sort", "tokens", "chapter")) == ["short", "long"]
    assert names(run("ls", "--sort", "-tokens", "the", "CHAPTER")) == ["short"]
    assert names(run("ls", "--sort", "-name")) == ["short", "other", "long"]
    assert names(run("ls", "-s", "two")) == ["other"]
    assert names(run("ls", "--older-than", "1d")) == []
    assert names(run("ls", "--newer-than", "1d", "--max-size", "1TB", "--limit", "1")) == ["other"]
    assert names(run("ls", "--offset", "2")) == ["short"]
    assert names(run("ls", "--model", "nobody's")) == []
    with pytest.raises(ValidationError, match="Did you mean created"):
        run("ls", "--sort", "-craeted")
    with pytest.raises(UsageError, match="--sort: expected one argument"):
        run("ls", "--sort", "--sessions")


def test_ls_shows_earlier_versions_where_asked(run: Run, fake_stack: FakeStack) -> None:
    run("say", QUESTION)
    run("freeze", "paper")
    run("freeze", "paper", "--update")
    assert [w.known_as for w in run("ls").items] == ["paper"]
    assert [w.known_as for w in run("ls", "--versions").items] == ["paper", "paper@v1"]


@pytest.mark.covers("TD-001")
def test_rm_and_back(run: Run, fake_stack: FakeStack) -> None:
    run("say", QUESTION)
    run("freeze", "paper")
    assert run("rm", "paper").state == "deleted"
    assert run("ls").total == 0
    with pytest.raises(WindowNotFoundError):
        run("thaw", "paper")
    assert run("rm", "paper", "--undo").state == "intact"
    assert run("thaw", "paper").complete


def test_verify_and_repair(run: Run, front: Front, fake_stack: FakeStack) -> None:
    run("say", QUESTION)
    run("freeze", "paper")
    assert run("verify", "paper").intact
    fake_stack.files()[1].unlink()
    report = run("verify", "--all")
    assert not report.intact
    assert _exit_status(report) == 3
    repaired = run("repair", "paper")
    assert (repaired.chunks_bit_equal, repaired.window.state) == (1, "intact")
    assert "compute" in front.stages
    assert _exit_status(run("verify", "paper")) == 0


def test_du_rm_and_purge(run: Run, fake_stack: FakeStack) -> None:
    run("say", QUESTION)
    run("freeze", "paper")
    [row] = run("admin", "du").windows
    assert row.held_bytes == row.exclusive_bytes > 0
    with pytest.raises(StateTransitionError, match="was not removed"):
        run("admin", "purge", "paper")
    run("rm", "paper")
    assert not run("admin", "purge", "paper", "--dry-run").removed
    report = run("admin", "purge", "paper")
    assert (report.windows, report.freed_bytes) == (["paper"], row.held_bytes)
    with pytest.raises(WindowNotFoundError):
        run("rm", "paper", "--undo")
    assert run("admin", "gc", "--dry-run").contents == 0


class CtrlC:
    """Stands for the stalled stream's event: whoever waits in the main thread is interrupted."""

    def set(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)


@pytest.mark.parametrize(("after", "kept"), [(5, True), (None, False)])
def test_ctrl_c_says_what_was_kept(
    run: Run, front: Front, fake_stack: FakeStack, after: int | None, kept: bool
) -> None:
    run("say", "hello")
    if after is not None:
        fake_stack.stall_after, fake_stack.stalled = after, CtrlC()  # type: ignore[assignment]
    else:
        fake_stack.before = lambda call: CtrlC().set() if call == "POST /tokenize" else None
    with pytest.raises(KeyboardInterrupt):
        run("say", "and then?")
    fake_stack.stall_after, fake_stack.before = None, lambda call: None
    session = run("show", "-s", "main")
    if kept:
        assert front.notes == ["Interrupted: what had been said is kept, as turn 2 of main."]
        assert session.turns[-1].finish_reason == "interrupted"
        assert run("say", "go on").cached_tokens > 0
    else:
        assert front.notes == [
            "Interrupted: no answer had come yet, the session main is as it was."
        ]
        assert len(session.turns) == 1


def names(page: Page) -> list[str]:
    return [entry.name for entry in page.items]

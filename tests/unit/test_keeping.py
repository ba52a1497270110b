"""Keeping and letting go in the front ends: cwm, a notebook, Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
from bench import QUESTION
from fake_stack import FakeStack
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

import cwm_jupyter as cwm
from cwm_jupyter.api.live import LiveSession
from cwm_jupyter.cli import main
from cwm_jupyter.core.autofreeze import AutoFreeze
from cwm_jupyter.core.models import FreezePolicy
from cwm_jupyter.core.outcomes import (
    DeletedCheck,
    DeletedReport,
    ExpireReport,
    Expiry,
    PolicyReport,
)
from cwm_jupyter.current import shared
from cwm_jupyter.errors import (
    KVStoreError,
    SessionNotFoundError,
    ValidationError,
    WindowNotFoundError,
)
from cwm_jupyter.present import html, text
from cwm_jupyter.workspace import Workspace, get_workspace

pytestmark = pytest.mark.usefixtures("own_process")
POLICY = ("policy", "--at", "16", "--cooldown", "10000")


@pytest.fixture
def run(home: Any, fake_stack: FakeStack, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command; returns exit status, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@contextmanager
def a_shell(*, kernel: bool) -> Iterator[InteractiveShell]:
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    shell = InteractiveShell.instance(config=config)
    shell.run_line_magic("load_ext", "cwm_jupyter")
    if kernel:
        shell.kernel = object()
    try:
        yield shell
    finally:
        shell.restore_sys_module_state()
        InteractiveShell.clear_instance()


# --- rm and edit ----------------------------------------------------------------------------------


def test_windows_and_sessions_are_removed_brought_back_and_purged(run: Any) -> None:
    run("say", QUESTION)
    run("freeze", "paper")
    assert "deleted" in run("rm", "paper")[1]
    assert "intact" in run("rm", "--undo", "paper")[1]
    status, out, _ = run("rm", "-s", "main")
    assert (status, "Session main, deleted" in out) == (0, True)
    assert "cwm rm --undo -s main" in out
    assert "Session main, frozen" in run("rm", "--undo", "-s", "main")[1]
    status, out, _ = run("rm", "--purge", "-s", "main")
    assert "Purged session main" in out
    assert "Purged window paper" in run("rm", "paper", "--purge")[1]
    status, out, _ = run("verify", "--deleted")
    assert status == 0
    assert out.count("Nothing is left of") == 2
    assert run("verify", "--deleted", "paper", "--json")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rm",), "none was named"),
        (("rm", "paper", "-s", "main"), "not both"),
        (("rm", "paper", "--undo", "--purge"), "cannot be brought back"),
        (("edit", "paper"), "Nothing was said"),
        (("edit", "-s", "main", "--note", "x"), "has no note"),
        (("verify", "--deleted", "--all"), "--deleted looks at all"),
        (("policy", "--off", "--at", "10"), "nothing else can be said"),
        (("policy", "-s", "main", "--name", "x"), "at_tokens or at_share"),
        (("policy", "-s", "main", "--at", "120%"), "at_share must be"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Any, arguments: tuple[str, ...], said: str) -> None:
    run("say", QUESTION)
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert said in err


@pytest.mark.parametrize("at", ["x%", "many", "-5", "1.5"])
def test_a_threshold_that_is_none_is_a_usage_error(run: Any, at: str) -> None:
    assert run("policy", f"--at={at}")[0] == 2


def test_edits(run: Any) -> None:
    run("say", QUESTION)
    run("freeze", "paper", "--ttl", "30d", "--tag", "draft")
    status, out, _ = run(
        "edit", "paper", "--name", "Paper", "--tag", "done", "--untag", "draft", "--note", "read",
        "--pin", "--json",
    )  # fmt: skip
    window = json.loads(out)
    assert status == 0
    assert (window["name"], window["tags"], window["note"]) == ("Paper", ["done"], "read")
    assert (window["pinned"], window["ttl_s"]) == (True, 30 * 86400)
    shown = run("show", "Paper")[1]
    assert "pinned" in shown
    out = run("edit", "-s", "main", "--ttl", "2h", "--json")[1]
    assert json.loads(out)["ttl_s"] == 7200
    assert run("edit", "Paper", "--unpin", "--ttl", "never", "--json")[0] == 0
    assert "Nothing has expired." in run("expire", "--dry-run")[1]


# --- auto-freeze ----------------------------------------------------------------------------------


def test_the_answer_comes_first_and_the_freeze_is_told_after_it(run: Any) -> None:
    run("say", QUESTION)
    assert "is not frozen by itself" in run("policy")[1]
    assert "at 16 tokens" in run(*POLICY)[1]
    status, out, err = run("say", "And then?", "--json")
    reply = json.loads(out.splitlines()[-1])
    assert (status, reply["freeze_due"]) == (0, True)
    assert "Frozen by itself, at 16 tokens: main as main-1" in err
    assert "main-1" in run("ls")[1]
    status, out, err = run("say", "And what else?")
    assert "Frozen" not in out + err
    assert "50% of the context" in run("policy", "--at", "50%", "--tag", "auto")[1]
    assert json.loads(run("policy", "--json")[1])["policy"]["cooldown_tokens"] == 10000
    assert json.loads(run("policy", "--off", "--json")[1])["policy"] is None


def test_a_freeze_that_fails_does_not_fail_the_turn(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("say", QUESTION)
    run(*POLICY)

    async def fail(*_: Any, **__: Any) -> None:
        raise KVStoreError("The disk is full.", hint="Make room.")

    monkeypatch.setattr(AutoFreeze, "_run", fail)
    status, _out, err = run("say", "And then?")
    assert status == 0
    assert "was not frozen by itself, and will be tried again: The disk is full." in err


def test_ctrl_c_ends_the_freeze_and_not_the_turn(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run("say", QUESTION)
    run(*POLICY)
    work = Workspace.run

    def interrupted(workspace: Any, what: Any, *arguments: Any) -> Any:
        if getattr(what, "func", None) == workspace.manager.autofreeze.run:
            raise KeyboardInterrupt
        return work(workspace, what, *arguments)

    monkeypatch.setattr(Workspace, "run", interrupted)
    status, _out, err = run("say", "And then?")
    assert status == 0
    assert "Interrupted: the session is frozen by itself after its next turn" in err


def test_a_fresh_session_is_the_present_one(run: Any, fake_stack: FakeStack) -> None:
    with a_shell(kernel=False) as shell, capture_output() as seen:
        shell.run_cell_magic("cwm", "", QUESTION)
        for line in (
            "policy --at 16 --then fresh --summary 'We spoke of Paris.'",
            "say And then?",
            "say Go on.",
        ):
            shell.run_line_magic("cwm", line)
    assert "The conversation goes on in session terminal-2." in seen.stderr
    assert [s.name for s in cwm.sessions().items][:2] == ["terminal", "terminal-2"]
    assert shared.name == "terminal-3"  # the fresh one was long enough at once


def test_a_notebook_shows_the_answer_while_it_freezes(
    fake_stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/Notes.ipynb")
    shown: list[str] = []
    freeze = AutoFreeze._run
    with a_shell(kernel=True) as shell, capture_output() as seen:
        shell.run_line_magic("cwm", f'say "{QUESTION}"')
        cwm.autofreeze(shared.name, at=16)

        async def look(*arguments: Any) -> Any:
            shown.append(seen.outputs[-1].data["text/plain"])
            return await freeze(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AutoFreeze, "_run", look)
            shell.run_line_magic("cwm", 'say "And then?"')
    last = seen.outputs[-1].data
    assert "tokens in" in shown[0]
    assert "tokens in" in last["text/plain"]
    assert last["text/plain"].index("tokens in") < last["text/plain"].index("Frozen by itself")
    assert "Frozen by itself" in last["text/html"]


def test_python_freezes_in_the_background_and_the_next_turn_waits(fake_stack: FakeStack) -> None:
    session = cwm.session("chat")
    session.say(QUESTION)
    assert session.freezing is None
    cwm.autofreeze("chat", at=16, cooldown_tokens=30, tags=["auto"])
    session.say("And then?")
    assert session.freezing is not None
    first = session.freezing
    reply = session.say("And what else?")
    report = first.result(0)
    assert report is not None
    assert report.freeze.window.tags == ["auto"]
    assert (reply.session, session.record.turns) == ("chat", 3)
    session.freezing.result(30)
    assert {w.name for w in cwm.windows().items} == {"chat-1", "chat-2"}
    assert cwm.autofreeze("chat", at=None).policy is None
    assert cwm.autofreeze("chat", at=0.5).threshold_tokens == 2048


async def test_python_awaits_it_and_goes_on_in_the_fresh_session(fake_stack: FakeStack) -> None:
    session = await cwm.asession("chat")
    shared.use("chat")
    await session.asay(QUESTION)
    manager = get_workspace().manager
    policy = FreezePolicy(at_tokens=16, then="fresh", summary="We spoke of Paris.")
    await get_workspace().arun(manager.autofreeze.set_policy, "chat", policy)
    await session.asay("And then?")
    reply = await session.asay("Go on.")
    assert (session.name, reply.session, shared.name) == ("chat-2", "chat-2", "chat-2")


def test_a_background_freeze_that_fails_is_logged_and_the_session_goes_on(
    fake_stack: FakeStack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session = cwm.session("chat")
    session.say(QUESTION)
    cwm.autofreeze("chat", at=16)

    async def fail(*_: Any, **__: Any) -> None:
        raise KVStoreError("The disk is full.")

    monkeypatch.setattr(AutoFreeze, "_run", fail)
    session.say("And then?")
    assert isinstance(session.freezing, Future)
    assert session.say("Go on.").freeze_due
    assert "was not frozen by itself: The disk is full." in caplog.text


def test_a_program_s_end_waits_for_the_freeze(fake_stack: FakeStack) -> None:
    session = LiveSession("chat")
    cwm.session("chat")
    session.say(QUESTION)
    cwm.autofreeze("chat", at=16)
    session.say("And then?")
    get_workspace().close()
    assert session.freezing is not None
    assert session.freezing.done()
    assert [w.name for w in cwm.windows().items] == ["chat-1"]


# --- Python ---------------------------------------------------------------------------------------


def test_editing_and_deleting_from_python(fake_stack: FakeStack) -> None:
    session = cwm.session("chat")
    session.say(QUESTION)
    session.freeze("paper")
    window = cwm.edit("paper", name="article", ttl="7d", add_tags=["x"], pinned=True, note="n")
    assert (window.name, window.tags, window.pinned) == ("article", ["x"], True)
    assert cwm.edit(session="chat", name="talk").name == "talk"
    assert cwm.expire(dry_run=True).entries == []
    assert cwm.remove_session("talk").state == "deleted"
    assert cwm.restore_session("talk").state == "frozen"
    assert cwm.delete(session="talk").sessions == ["talk"]
    assert cwm.delete("article").windows == ["article"]
    assert cwm.verify_deleted().gone
    with pytest.raises(WindowNotFoundError):
        cwm.verify_deleted("other")
    with pytest.raises(SessionNotFoundError):
        cwm.restore_session("talk")
    for wrong in ({}, {"window": "a", "session": "b"}):
        with pytest.raises(ValidationError, match="one window or one session"):
            cwm.delete(**wrong)
    with pytest.raises(ValidationError, match="has no note"):
        cwm.edit(session="talk", note="x")


# --- how it looks ---------------------------------------------------------------------------------


def test_what_expired_is_told() -> None:
    past = "2020-01-01T00:00:00.000000Z"
    entries = [
        Expiry(kind="session", name="chat", expires_at=past, outcome="expired"),
        Expiry(kind="window", name="<b>", expires_at=past, outcome="expired"),
        Expiry(kind="window", name="kept", expires_at=past, outcome="pinned"),
        Expiry(kind="session", name="busy", expires_at=past, outcome="busy"),
    ]
    shown = text(ExpireReport(entries=entries, removed=True))
    for said in ("stays: pinned", "stays: in use", "1 session and 1 window gone", "--undo"):
        assert said in shown
    assert "&lt;b&gt;" in html(ExpireReport(entries=entries, removed=True))
    looked = text(ExpireReport(entries=entries, removed=False))
    assert "1 session and 1 window would go" in looked
    assert text(ExpireReport(entries=[], removed=True)) == "Nothing has expired."


def test_what_is_left_is_told() -> None:
    check = DeletedCheck(
        windows=["paper"],
        sessions=["chat"],
        purged_at="2026-01-01T00:00:00.000000Z",
        chunks_deleted=3,
        files=[],
        holds=0,
        chunks=0,
        chunks_again=2,
        listed=0,
        memory_cleared=True,
        engine_cleared=False,
    )

    def said(check: DeletedCheck, unmeant: int = 0) -> str:
        return text(DeletedReport(checks=[check], unmeant=unmeant, gone=check.gone, verify_s=0.1))

    assert "Nothing is left of paper, session chat" in said(check)
    assert "LMCache lists none" in said(check)
    assert "2 chunks stored again since" in said(check)
    assert "the engine could not be asked to forget" in said(check)
    none = check.replace(memory_cleared=None, engine_cleared=None)
    assert "no stack was running" in said(none)
    left = check.replace(files=["windows/x.json"], holds=1, chunks=2, listed=2)
    assert "STILL THERE of paper, session chat: 1 hold, 2 chunks, 2 listed by LMCache" in said(left)
    assert "left in the home: windows/x.json" in said(left)
    assert "STILL THERE of paper, session chat: chunks in a remote store, perhaps" in said(
        check.replace(remote_cleared=False)
    )
    assert "DIED HALF-WAY" in said(left.replace(purged_at=None))
    assert "whose purge had died half-way" in said(check.replace(purged_at=None))
    assert "whose they were cannot be told" in said(check, 1)
    empty = DeletedReport(checks=[], unmeant=0, gone=True, verify_s=0.1)
    assert text(empty) == "Nothing was purged, or there are no receipts of it."


def test_a_policy_is_told_while_the_context_is_unknown() -> None:
    policy = FreezePolicy(at_share=0.75, then="fresh", summary="We <spoke>.")
    report = PolicyReport(
        session="chat", tokens=0, max_context_tokens=None, policy=policy, threshold_tokens=None
    )
    assert "at 75% of the model's context, which is known after a turn" in text(report)
    assert "goes on in a fresh session" in text(report)
    assert "We &lt;spoke&gt;." in html(report)

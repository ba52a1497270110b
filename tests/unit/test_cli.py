"""``cwm``: what goes where, and with which exit status."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import QUESTION
from fake_stack import FakeStack

from cwm_jupyter.cli import main
from cwm_jupyter.core.job import Job
from cwm_jupyter.current import CurrentSession
from cwm_jupyter.terminal import Terminal


@pytest.fixture
def cwm(home: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Run a command; returns exit status, stdout and stderr."""

    def cwm(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return cwm


def document(out: str) -> Any:
    """The JSON of a run: one line and nothing else."""
    assert out.count("\n") == 1
    return json.loads(out)


def test_a_process_of_its_own(home: Path) -> None:
    command = [sys.executable, "-m", "cwm_jupyter.cli"]
    environ = {**os.environ, "CWM_HOME": str(home)}
    listed = subprocess.run([*command, "ls", "--json"], env=environ, capture_output=True, text=True)
    assert listed.returncode == 0
    assert document(listed.stdout)["total"] == 0
    assert listed.stderr == ""
    down = subprocess.run([*command, "say", "hi"], env=environ, capture_output=True, text=True)
    assert (down.returncode, down.stdout) == (1, "")
    assert down.stderr.split("\n")[0] == "cwm: No stack is running. [stack.down]"


def test_a_damaged_window_has_a_status_of_its_own(cwm: Any, fake_stack: FakeStack) -> None:
    cwm("say", QUESTION)
    cwm("freeze", "paper")
    assert cwm("verify", "paper")[0] == 0
    fake_stack.files()[0].unlink()
    status, out, err = cwm("verify", "--all", "--json")
    assert (status, err) == (3, "")
    report = document(out)
    assert not report["intact"]
    (fault,) = report["windows"][0]["faults"]
    assert (fault["state"], fault["reason"]) == ("missing", "its content is gone")
    status, out, _ = cwm("verify", "paper")
    assert status == 3
    assert out.startswith("Window paper is DAMAGED: of ")
    assert cwm("repair", "paper")[0] == 0
    assert cwm("verify", "--all")[0] == 0


def test_errors_are_a_line_with_their_code_and_a_hint(cwm: Any) -> None:
    status, out, err = cwm("thaw", "paper")
    assert (status, out) == (1, "")
    assert err == (
        "cwm: There is no window 'paper'. [window.not_found]\n"
        "%cwm ls lists them; %freeze NAME makes one.\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [["--json", "thaw", "x"], ["thaw", "--json", "x"], ["thaw", "x", "--json"]],
)
def test_json_may_stand_anywhere(cwm: Any, arguments: list[str]) -> None:
    status, out, err = cwm(*arguments)
    assert status == 1
    assert document(out)["error"]["code"] == "window.not_found"
    assert "window.not_found" in err


def test_json_after_two_dashes_is_text(cwm: Any, fake_stack: FakeStack) -> None:
    status, out, _ = cwm("say", "--max-tokens", "3", "--", "--json")
    assert status == 0
    with pytest.raises(json.JSONDecodeError):
        json.loads(out)
    messages = document(cwm("show", "-s", "main", "--json")[1])["messages"]
    assert messages[0]["content"] == "--json"


@pytest.mark.parametrize("arguments", [["frezze"], ["freeze"], ["ls", "--limit", "x"]])
def test_usage_errors(cwm: Any, arguments: list[str]) -> None:
    status, out, err = cwm(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("cwm")
    assert "[input.usage]" in err.split("\n")[0]
    status, out, _ = cwm(*arguments, "--json")
    assert status == 2
    assert document(out)["error"]["category"] == "input"


def test_a_bad_setting_is_an_error_line(cwm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CWM_LIMITS_MAX_TOKENS", "many")
    status, _, err = cwm("ls")
    assert status == 1
    assert "limits.max_tokens cannot be 'many'" in err


def test_a_home_that_cannot_be_made_is_an_error_line(
    cwm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CWM_HOME", str(tmp_path / "file" / "home"))
    status, _, err = cwm("ls")
    assert status == 1
    assert err.startswith("cwm: Not a directory")


@pytest.mark.parametrize("arguments", [[], ["-h"], ["thaw", "-h"], ["--version"]])
def test_help_is_no_error(cwm: Any, arguments: list[str]) -> None:
    status, out, err = cwm(*arguments)
    assert (status, err) == (0, "")
    assert "cwm" in out


@pytest.mark.covers("ER-007")
def test_an_unknown_window_suggests_the_nearest(cwm: Any, fake_stack: FakeStack) -> None:
    cwm("say", QUESTION)
    assert cwm("freeze", "paper")[0] == 0
    status, _, err = cwm("show", "papr")
    assert status == 1
    assert err.endswith("Did you mean paper?\n")


def test_an_answer_is_on_stdout_and_its_cost_on_stderr(cwm: Any, fake_stack: FakeStack) -> None:
    status, out, err = cwm("say", QUESTION)
    assert status == 0
    assert out.endswith("\n")
    assert len(out.strip()) == fake_stack.answer_tokens
    assert err.startswith(f"tokens in {len(fake_stack.prompts[0])} · from cache 0 · first token ")


def test_with_json_the_answer_streams_on_stderr(cwm: Any, fake_stack: FakeStack) -> None:
    status, out, err = cwm("say", QUESTION, "--json")
    assert status == 0
    assert document(out)["text"] in err


def test_freeze_thaw_ls_rm(cwm: Any, fake_stack: FakeStack) -> None:
    cwm("say", QUESTION)
    status, out, err = cwm("freeze", "paper", "--tag", "x")
    assert status == 0
    assert out.startswith("Froze main as paper: ")
    assert err.startswith("Freezing main: ")
    listed = document(cwm("ls", "--json")[1])
    assert [w["name"] for w in listed["items"]] == ["paper"]
    fake_stack.restart()
    status, out, _ = cwm("thaw", "paper")
    assert status == 0
    assert "all read from the disk and right" in out
    assert cwm("rm", "paper")[1].endswith("cwm rm --undo paper\n")
    assert document(cwm("rm", "paper", "--undo", "--json")[1])["state"] == "intact"


def test_a_thaw_that_is_not_complete_is_not_a_success(cwm: Any, fake_stack: FakeStack) -> None:
    cwm("say", QUESTION)
    cwm("freeze", "paper")
    fake_stack.restart()
    fake_stack.files()[1].unlink()
    status, out, _ = cwm("thaw", "paper")
    assert status == 3
    assert out.startswith("RESTORED ONLY ")
    assert cwm("thaw", "paper", "--recompute")[0] == 0


def test_ctrl_c(cwm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cwm_jupyter.stack.launcher.status", interrupted)
    status, out, _ = cwm("status", "--json")
    assert status == 130
    assert document(out)["error"]["code"] == "job.cancelled"


def test_doctor_fails_on_errors_alone(cwm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cwm_jupyter.stack.doctor import Finding

    found: list[Finding] = []
    monkeypatch.setattr("cwm_jupyter.stack.doctor.diagnose", lambda settings: found)
    for level, expected in (("ok", 0), ("warn", 0), ("error", 1)):
        found[:] = [Finding(id="disk", level=level, what="The disk.", hint="Free it.", figures={})]
        status, out, _ = cwm("doctor")
        assert status == expected
        assert ("Free it." in out) == (level != "ok")
        assert document(cwm("doctor", "--json")[1])[0]["id"] == "disk"


# --- the terminal ---------------------------------------------------------------------------------


class Screen(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, tty: bool) -> None:
        super().__init__()
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


def terminal(tty: bool) -> tuple[Terminal, Screen, Screen]:
    out, err = Screen(tty), Screen(tty)
    return Terminal(out, err, CurrentSession("main", tells=False)), out, err


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show progress without waiting half a second for it."""
    from cwm_jupyter import progress

    original = progress.Progress.__init__
    monkeypatch.setattr(progress.Progress, "__init__", lambda self: original(self, 0.0))


@pytest.mark.usefixtures("at_once")
def test_progress_rewrites_one_line_of_a_terminal() -> None:
    screen, out, err = terminal(tty=True)
    with screen.progress() as watch:
        Job("up", watch).stage("starting")
        until(lambda: "up · starting" in err.getvalue())
        screen.note("a note")
    assert out.getvalue() == ""
    assert "\n" not in err.getvalue().partition("a note")[0]
    assert err.getvalue().endswith("\r\x1b[Ka note\n") or err.getvalue().endswith("\r\x1b[K")


@pytest.mark.usefixtures("at_once")
def test_progress_is_a_line_a_stage_elsewhere() -> None:
    screen, _, err = terminal(tty=False)
    with screen.progress() as watch:
        job = Job("up", watch)
        for stage in ("starting", "warming"):
            job.stage(stage)
            until(lambda stage=stage: stage in err.getvalue())
    assert err.getvalue() == "starting\nwarming\n"


@pytest.mark.usefixtures("at_once")
def test_waiting_for_the_first_token_is_shown_and_cleared() -> None:
    screen, out, err = terminal(tty=True)
    with screen.answer() as on_text:
        until(lambda: "waiting for the first token" in err.getvalue())
        on_text("Par\x1b[2Jis")
    assert out.getvalue() == "Par\N{REPLACEMENT CHARACTER}[2Jis\n"
    assert err.getvalue().endswith("\r\x1b[K")


def until(true: Any) -> None:
    """Wait for what another thread does, for ten seconds at most."""
    import threading

    tick = threading.Event()
    for _ in range(1000):
        if true():
            return
        tick.wait(0.01)
    raise AssertionError("it never came")

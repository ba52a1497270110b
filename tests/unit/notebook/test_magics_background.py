"""Work in the background: awaited, polled, cancelled, and shown in one output."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from bench import QUESTION
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from jupyter_client.manager import start_new_kernel
from shells import Published, failure, run

from cwm_jupyter.core.job import Job
from cwm_jupyter.core.manager import Manager
from cwm_jupyter.core.models import FreezeReport, ThawReport
from cwm_jupyter.current import shared
from cwm_jupyter.errors import CancelledJobError, UsageError, WindowNotFoundError
from cwm_jupyter.notebook.background import Background
from cwm_jupyter.notebook.magics import Interrupted

pytestmark = pytest.mark.usefixtures("own_process", "fake_stack")

_LONG_S = 30.0


class Gate(threading.Event):
    """What waits here goes on when it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Freezes begin a stage and wait at the gate."""
    gate = Gate()
    original = Manager.freeze

    async def freeze(self: Manager, *args: object, job: Job, **options: object) -> FreezeReport:
        job.stage("waiting at the gate", total=3, unit="chunks")
        job.advance(1)
        gate.reached.set()
        while not gate.is_set():  # noqa: ASYNC110  (another thread sets it)
            await anyio.sleep(0.01)
        return await original(self, *args, job=job, **options)

    monkeypatch.setattr(Manager, "freeze", freeze)
    yield gate
    gate.set()


def begun(shell: InteractiveShell, cell: str) -> Background:
    """Run a cell that works in the background; return the handle it kept."""
    shell.run_cell(cell).raise_error()
    handle = shell.user_ns["handle"]
    assert isinstance(handle, Background)
    return handle


async def at_the_gate(handle: Background) -> None:
    while not handle.state.done:  # noqa: ASYNC110  (so is it polled)
        await asyncio.sleep(0.01)


async def test_it_returns_at_once_and_is_polled_and_awaited(
    kernel: InteractiveShell, gate: Gate
) -> None:
    run(kernel, f"%%cwm\n{QUESTION}")
    published = Published(kernel)
    handle = begun(kernel, "%freeze paper --background -o handle")
    assert not handle.done
    assert published.text == "freeze · in the background"
    await at_the_gate(handle)
    state = handle.state
    assert (state.what, state.stage, state.done, state.total) == (
        "freeze paper",
        "waiting at the gate",
        1,
        3,
    )
    assert repr(handle) == (
        "<freeze paper · waiting at the gate · 1 of 3 chunks (33%) · in the background>"
    )
    gate.set()
    report = await handle
    assert isinstance(report, FreezeReport)
    assert handle.done
    assert handle.result() is report
    assert repr(handle) == "<freeze paper: done>"
    assert published.text.startswith("Froze My-notebook as paper")
    assert "in the background" not in published.text
    assert len(published.ids) == 1


async def test_it_is_cancelled_and_leaves_everything_in_order(
    kernel: InteractiveShell, gate: Gate, home: Path
) -> None:
    run(kernel, f"%%cwm\n{QUESTION}")
    published = Published(kernel)
    handle = begun(kernel, "%freeze paper --background -o handle")
    await at_the_gate(handle)
    handle.cancel()
    with pytest.raises(CancelledJobError, match=r"Cancelled: freeze paper\."):
        await handle
    assert published.text == "Cancelled: freeze paper. [job.cancelled]"
    assert not list((home / "windows").glob("*"))
    gate.set()
    run(kernel, "%freeze paper")  # the name is free, and the session usable
    handle.cancel()  # late, and without effect
    assert handle.done


async def test_awaiting_in_vain_does_not_end_it(kernel: InteractiveShell, gate: Gate) -> None:
    run(kernel, f"%%cwm\n{QUESTION}")
    Published(kernel)
    handle = begun(kernel, "%freeze paper --background -o handle")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(handle, 0.01)
    with pytest.raises(TimeoutError):
        handle.result(0.01)
    gate.set()
    assert (await handle).window.name == "paper"


async def test_an_error_is_two_lines_in_its_place(kernel: InteractiveShell) -> None:
    run(kernel, f"%%cwm\n{QUESTION}")
    run(kernel, "%freeze paper")
    published = Published(kernel)
    handle = begun(kernel, "%thaw papers --background -o handle")
    with pytest.raises(WindowNotFoundError):
        handle.result(_LONG_S)
    assert published.text.splitlines()[0] == "There is no window 'papers'. [window.not_found]"
    assert len(published.text.splitlines()) == 2
    assert "There is no window 'papers'" in repr(handle)


async def test_what_nobody_expected_is_told_too(
    kernel: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Manager, *args: object, **options: object) -> None:
        raise ZeroDivisionError("no")

    monkeypatch.setattr(Manager, "thaw", broken)
    published = Published(kernel)
    with pytest.raises(ZeroDivisionError):
        begun(kernel, "%thaw paper --background -o handle").result(_LONG_S)
    assert published.text == "ZeroDivisionError: no"


def test_the_session_that_is_meant_stays(kernel: InteractiveShell) -> None:
    run(kernel, f"%%cwm\n{QUESTION}")
    run(kernel, "%freeze paper")
    published = Published(kernel)
    report = begun(kernel, "%thaw paper --background -o handle").result(_LONG_S)
    assert isinstance(report, ThawReport)
    assert shared.name == "My-notebook"
    assert f"To go on in it: %%cwm -s {report.session}" in published.text


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%cwm export paper {file} --encrypt", "cannot ask for a passphrase"),
        ("%cwm ask paper -", "reads no standard input"),
    ],
)
def test_nothing_is_asked(kernel: InteractiveShell, tmp_path: Path, cell: str, said: str) -> None:
    Published(kernel)
    handle = begun(kernel, f"{cell.format(file=tmp_path / 'x')} --background -o handle")
    with pytest.raises(UsageError, match=said):
        handle.result(_LONG_S)


def test_a_terminal_keeps_its_prompt_and_gets_the_report(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell(f"%%cwm\n{QUESTION}").raise_error()
    capsys.readouterr()
    begun(shell, "%freeze paper --background -o handle").result(_LONG_S)
    assert "Froze terminal as paper" in capsys.readouterr().out


def test_ctrl_c_stops_the_foreground_and_leaves_the_background(
    kernel: InteractiveShell, gate: Gate, home: Path
) -> None:
    run(kernel, f"%%cwm\n{QUESTION}")
    run(kernel, "%%cwm -s other\nhello")
    Published(kernel)
    handle = begun(kernel, "%freeze behind -s My-notebook --background -o handle")
    gate.reached.wait()
    gate.reached.clear()

    def press() -> None:
        gate.reached.wait()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with capture_output() as seen:
        result = kernel.run_cell("%freeze before -s other")
    thread.join()
    assert isinstance(result.error_in_exec, Interrupted)
    assert seen.stdout == "Interrupted.\n"
    assert not list((home / "windows").glob("*"))
    gate.set()
    assert handle.result(_LONG_S).window.name == "behind"
    run(kernel, "%freeze before -s other")


def test_only_long_work_has_it(shell: InteractiveShell) -> None:
    for verb in ("freeze", "thaw", "verify", "repair", "ask", "export", "import", "up"):
        assert "--background" in run(shell, f"%cwm {verb} --help").stdout
    _, seen = failure(shell, "%cwm ls --background")
    assert "unrecognized arguments: --background" in seen


def test_without_a_name_for_it_the_work_is_done_all_the_same(kernel: InteractiveShell) -> None:
    run(kernel, f"%%cwm\n{QUESTION}")
    published = Published(kernel)
    kernel.run_cell("%freeze paper --background").raise_error()
    for thread in threading.enumerate():
        if thread.name == "cwm-background":
            thread.join()
    assert published.text.startswith("Froze My-notebook as paper")


def test_in_a_kernel_the_line_becomes_the_report(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread finds the output of its cell, which is long over."""
    monkeypatch.setenv("CWM_HOME", str(home))
    manager, client = start_new_kernel(kernel_name="python3")
    messages: list[dict[str, Any]] = []
    try:
        for code in (
            "%load_ext cwm_jupyter",
            "%cwm verify nothing --background -o handle",
            "try:\n    await handle\nexcept Exception:\n    print('the end')",
        ):
            client.execute(code)
        while not any(m["content"].get("text") == "the end\n" for m in messages):
            messages.append(client.get_iopub_msg(timeout=_LONG_S))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    shown = [m for m in messages if m["msg_type"] in ("display_data", "update_display_data")]
    first, last = shown[0], shown[-1]
    assert first["content"]["data"]["text/plain"] == "verify · in the background"
    assert last["content"]["data"]["text/plain"].startswith("There is no window 'nothing'.")
    assert first["content"]["transient"] == last["content"]["transient"]
    assert first["parent_header"]["msg_id"] == last["parent_header"]["msg_id"]

"""Processes: started apart, known again, stopped with their children, on every system's terms."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from cwm_jupyter.stack import processes
from cwm_jupyter.stack.processes import ProcessId

_SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
# Says when its child runs, and does not hear the wish to end.
_STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def start(code: str, log: Path) -> ProcessId:
    process = processes.start([sys.executable, "-c", code], log=log, env=os.environ)
    said = psutil.Process(process.pid)
    for _ in range(1000):
        if log.read_text().endswith("\n"):
            return process
        psutil.wait_procs([said], timeout=0.01)
    raise AssertionError(log.read_text())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.mark.covers("PW-004")
def test_a_process_starts_without_fork_in_a_session_of_its_own(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise AssertionError("forked")

    monkeypatch.setattr(os, "fork", refuse)
    process = start(_SLEEPER, log)
    assert processes.alive(process)
    assert os.getsid(process.pid) == process.pid
    assert log.stat().st_mode & 0o777 == 0o600
    assert processes.stop([process])
    assert not processes.alive(process)


def test_the_whole_tree_is_stopped_when_it_does_not_listen(log: Path) -> None:
    process = start(_STUBBORN, log)
    child = processes.identify(int(log.read_text()))
    assert {one.pid for one in processes.tree(process)} == {process.pid, child.pid}
    assert not processes.stop([process], grace_s=0.2)
    assert not processes.alive(process)
    assert not processes.alive(child)


@pytest.mark.covers("PW-005")
def test_a_process_is_stopped_where_there_is_no_sigterm(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> None:
        raise psutil.AccessDenied

    process = start(_SLEEPER, log)
    monkeypatch.setattr(psutil.Process, "terminate", unknown)
    monkeypatch.delattr(signal, "SIGTERM")
    processes.stop([process], grace_s=0.1)
    assert not processes.alive(process)


def test_an_orphan_is_stopped_by_what_was_known_of_it(log: Path) -> None:
    process = start(_STUBBORN, log)
    child = processes.identify(int(log.read_text()))
    psutil.Process(process.pid).kill()
    while processes.alive(process):
        pass
    assert processes.alive(child)
    processes.stop([process], also=[child], grace_s=0.1)
    assert not processes.alive(child)


def test_another_process_under_the_same_pid_is_not_taken_for_it(log: Path) -> None:
    process = start(_SLEEPER, log)
    other = process.replace(created_s=process.created_s - 100)
    assert not processes.alive(other)
    processes.stop([other])
    assert processes.alive(process)
    processes.stop([process])


def test_a_process_that_ended_is_dead_and_no_zombie(log: Path) -> None:
    process = start("print('bye', flush=True)", log)
    while processes.alive(process):
        pass
    assert not psutil.pid_exists(process.pid)


def test_memory_is_measured_and_unavailable_for_the_dead(log: Path) -> None:
    process = start(_SLEEPER, log)
    memory = processes.memory_bytes(process)
    assert memory is not None
    assert 1e6 < memory < 1e9
    processes.stop([process])
    assert processes.memory_bytes(process) is None


def test_a_port_that_is_free_can_be_bound() -> None:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", processes.free_port()))

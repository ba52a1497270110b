"""Processes that outlive the notebook: start detached, know again, stop with all their children.

Nothing here needs ``fork`` or ``SIGTERM``: starting goes through `subprocess`, and stopping asks in
the way the operating system has (``SIGTERM``, on Windows a break event) and kills only at last.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from cwm_jupyter.core.models import Value

__all__ = ["ProcessId", "alive", "free_port", "identify", "memory_bytes", "start", "stop", "tree"]

# The time of creation comes from the boot time, which some kernels round: a process of another
# start within two seconds under the same pid would need the pids to wrap around in between.
_SAME_START_S = 2.0
_POLL_S = 0.05

# Children of this very process must be waited for, or they stay as zombies.
_children: dict[int, subprocess.Popen[bytes]] = {}
_children_lock = threading.Lock()


@atexit.register
def _let_go() -> None:
    """Part from children that live on; subprocess would take them for forgotten and warn."""
    for child in _children.values():
        if child.poll() is None:
            child.returncode = 0


class ProcessId(Value, frozen=True, kw_only=True):
    """A process that can be known again: pids are reused, a pid and its start are not.

    `created_s` is seconds since the epoch, as psutil gives it.
    """

    pid: int
    created_s: float


def start(
    argv: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path | None = None
) -> ProcessId:
    """Start a process that lives on when this one ends, and return its identity.

    Parameters
    ----------
    argv
        The program and its arguments; no shell is involved.
    log
        File that its output is appended to; created readable by its owner alone.
    env
        Its whole environment.
    cwd
        Its working folder.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=os.name != "nt",
            creationflags=_creation_flags(),
        )
    finally:
        os.close(descriptor)
    with _children_lock:
        _children[child.pid] = child
    return identify(child.pid)


def identify(pid: int) -> ProcessId:
    """Return the identity of the process that has this pid now.

    A process that is gone already gets an identity that is never alive.
    """
    try:
        return ProcessId(pid=pid, created_s=psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return ProcessId(pid=pid, created_s=0.0)


def alive(process: ProcessId) -> bool:
    """Return whether this very process still runs; a zombie does not."""
    return _find(process) is not None


def tree(process: ProcessId) -> list[ProcessId]:
    """Return the process and all its descendants, those that live."""
    found = _find(process)
    if found is None:
        return []
    members = [found, *_descendants(found)]
    return [identify(member.pid) for member in members]


def memory_bytes(process: ProcessId) -> int | None:
    """Return the resident memory of the process and its descendants in bytes.

    Pages that they share are counted once where the system tells (Linux: proportional set size).
    None: it cannot be read.
    """
    total, read = 0, False
    for member in tree(process):
        with contextlib.suppress(psutil.Error):
            info = psutil.Process(member.pid).memory_full_info()
            total += getattr(info, "pss", info.rss)
            read = True
    return total if read else None


def stop(
    processes: Iterable[ProcessId], *, grace_s: float = 15.0, also: Iterable[ProcessId] = ()
) -> bool:
    """Stop processes with all their descendants and return whether none had to be killed.

    Parameters
    ----------
    processes
        Each is asked to end; dead ones are no error.
    grace_s
        How long they have before they are killed (s).
    also
        Descendants known from earlier: one whose parent died is in no tree any more.
    """
    asked = list(processes)
    members = {member.pid: member for one in asked for member in tree(one)}
    members.update({one.pid: one for one in also if alive(one)})
    for one in asked:
        found = _find(one)
        if found is not None:
            _ask_to_end(found)
    # An orphan has nobody who would pass the wish on.
    if not any(alive(one) for one in asked):
        grace_s = min(grace_s, 2.0)
    if _wait_for_end(members.values(), grace_s):
        return True
    # Python's resource trackers last: they remove what the others have left, and then end.
    trackers = {pid for pid, member in members.items() if _is_tracker(member)}
    for batch, wait_s in ((members.keys() - trackers, 2.0), (trackers, 10.0)):
        for pid in batch:
            found = _find(members[pid])
            if found is not None:
                with contextlib.suppress(psutil.Error):
                    found.kill()
        _wait_for_end(members.values(), wait_s)
    return False


def free_port() -> int:
    """Return a TCP port that is free on the loopback interface now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _creation_flags() -> int:
    if sys.platform == "win32":
        return subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    return 0


def _ask_to_end(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error, OSError):
        if sys.platform == "win32":
            process.send_signal(signal.CTRL_BREAK_EVENT)
        else:
            process.terminate()


def _is_tracker(member: ProcessId) -> bool:
    found = _find(member)
    try:
        return found is not None and "resource_tracker" in " ".join(found.cmdline())
    except psutil.Error:
        return False


def _wait_for_end(members: Iterable[ProcessId], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    waiting = list(members)
    while waiting := [member for member in waiting if alive(member)]:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _find(process: ProcessId) -> psutil.Process | None:
    try:
        found = psutil.Process(process.pid)
        if abs(found.create_time() - process.created_s) >= _SAME_START_S:
            return None
        if found.status() == psutil.STATUS_ZOMBIE:
            _reap(process.pid)
            return None
    except psutil.Error:
        return None
    return found


def _reap(pid: int) -> None:
    with _children_lock:
        child = _children.get(pid)
        if child is not None and child.poll() is not None:
            del _children[pid]


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []

"""What a stack leaves behind when it is killed: shared memory, sockets, temporary files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import psutil

from cwm_jupyter.stack.processes import ProcessId

__all__ = ["SHM_DIR", "home_tag", "remove", "shm_segments", "sweep"]

SHM_DIR = Path("/dev/shm")  # noqa: S108 - the system's own name for it

# LMCache names the segments that it makes for one engine after that engine's process.
_OF_PROCESS = re.compile(r"lmcache_kv_(\d+)_")


def home_tag(home: Path) -> str:
    """Return the name by which shared memory of this home's stacks begins."""
    return f"cwm-{hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:8]}-"


def shm_segments(members: Iterable[ProcessId]) -> list[str]:
    """Return the paths of the shared-memory segments that these processes have mapped."""
    found: set[str] = set()
    for member in members:
        with contextlib.suppress(psutil.Error, AttributeError, NotImplementedError):
            maps = psutil.Process(member.pid).memory_maps()
            found |= {one.path for one in maps if one.path.startswith(f"{SHM_DIR}/")}
    # A segment can be mapped under a name that it had only while it was made.
    return sorted(path for path in found if Path(path).exists())


def remove(paths: Iterable[str]) -> None:
    """Remove files and folders; those that are gone already are no error."""
    for path in map(Path, paths):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def sweep(home: Path) -> None:
    """Remove shared memory of this home's earlier stacks and of dead engines.

    To be called while no stack of this home runs.
    """
    if not SHM_DIR.is_dir():
        return
    tag = home_tag(home)
    for path in SHM_DIR.iterdir():
        with contextlib.suppress(OSError):
            if path.stat().st_uid != os.geteuid():
                continue
            owner = _OF_PROCESS.match(path.name)
            dead_engine = owner is not None and not psutil.pid_exists(int(owner[1]))
            if dead_engine or tag in path.name:
                path.unlink()

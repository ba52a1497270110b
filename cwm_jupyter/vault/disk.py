"""The few ways in which the vault changes a disk. Durable means: it survives a power cut.

All calls end in `os`, so that tests can make the n-th of them fail, or the process die in it.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cwm_jupyter.core.portable import fsync_dir, patiently, remove, replace, sync_file

__all__ = [
    "add",
    "exists",
    "files",
    "opened",
    "remove",
    "replace",
    "sync",
    "temporary_files",
    "write_temporary",
]

_TEMPORARY = ".tmp"
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def write_temporary(folder: Path, parts: Sequence[bytes | memoryview]) -> Path:
    """Write a new file under a name of its own, durably, and return its path.

    Raises
    ------
    OSError
        Nothing is left of it.
    """
    path = folder / f"{os.getpid()}-{secrets.token_hex(8)}{_TEMPORARY}"
    handle = os.open(path, _FLAGS, 0o600)
    try:
        try:
            for part in parts:
                view = memoryview(part)
                while view:
                    view = view[os.write(handle, view) :]
            sync_file(handle)
        finally:
            os.close(handle)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return path


def add(folder: Path, target: Path, data: bytes) -> None:
    """Write a small file under its name; durable after `sync` of the target's folder."""
    temporary = write_temporary(folder, [data])
    try:
        replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def sync(folders: Iterable[Path]) -> None:
    """Make the names in these folders durable."""
    for folder in folders:
        fsync_dir(folder)


def opened(path: Path) -> io.FileIO:
    """Open a file for reading, without a buffer between."""
    return patiently(lambda: io.FileIO(path, "rb"))


def temporary_files(folder: Path, older_than_s: float) -> list[Path]:
    """Return the temporary files that no living writer can still be writing."""
    horizon = time.time() - older_than_s
    found = []
    for path, status in files(folder, _TEMPORARY):
        if status.st_mtime < horizon:
            found.append(path)
    return found


def files(folder: Path, ending: str = "") -> Iterator[tuple[Path, os.stat_result]]:
    """Go through the plain files in a folder whose names end so, in no order."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(ending):
                with contextlib.suppress(FileNotFoundError):  # just renamed or removed
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield Path(entry.path), status


def exists(path: Path) -> bool:
    """Say whether a file is there; one that cannot even be looked at is not."""
    try:
        path.stat()
    except OSError:
        return False
    return True

"""What systems do otherwise with files: Windows refuses what is open, macOS syncs in two ways.

Everything that writes goes through here or through `cwm_jupyter.core.files`, so that nothing else
has to know on which system it runs.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import TypeVar

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "WINDOWS",
    "extended",
    "fsync_dir",
    "long_path",
    "patiently",
    "read_bytes",
    "remove",
    "replace",
    "sync_file",
]

WINDOWS = os.name == "nt"
_BUSY_DELAYS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_EXTENDED = "\\\\?\\"
_T = TypeVar("_T")


def patiently(work: Callable[[], _T]) -> _T:
    """Do what Windows refuses for a moment, and return what it gives.

    There a file that somebody reads is neither replaced nor removed, and one that is just being
    replaced is not opened. Either takes milliseconds, so the work is tried again for two seconds.

    Raises
    ------
    PermissionError
        It is refused for good; elsewhere at once.
    """
    for delay_s in _BUSY_DELAYS_S if WINDOWS else ():
        with contextlib.suppress(PermissionError):
            return work()
        time.sleep(delay_s)
    return work()


def replace(source: Path, target: Path) -> None:
    """Give a file another name; what had that name before is gone. Durable after `fsync_dir`."""
    patiently(lambda: source.replace(target))


def remove(path: Path) -> bool:
    """Remove a file and return whether it was there."""
    try:
        patiently(path.unlink)
    except FileNotFoundError:
        return False
    return True


def read_bytes(path: Path) -> bytes:
    """Return the whole content of a file that others may be replacing."""
    return patiently(path.read_bytes)


def long_path(folder: Path) -> Path:
    r"""Return a folder as the system takes it, and all that lies below it, at any length.

    Windows refuses 260 characters and more unless a path is absolute and has ``\\?\`` before it;
    then it takes the path to the letter, so ``..`` is resolved first.
    """
    return Path(extended(folder, os.path.abspath)) if WINDOWS else folder


def extended(path: PurePath, absolute: Callable[[str], str]) -> str:
    """Return a path with the prefix, as text; `absolute` is the system's ``abspath``."""
    text = str(path)
    if text.startswith(_EXTENDED):
        return text
    text = absolute(text)
    return f"{_EXTENDED}UNC\\{text[2:]}" if text.startswith("\\\\") else _EXTENDED + text


def sync_file(handle: int) -> None:
    """Make what was written to a file durable.

    On macOS ``fsync`` leaves it in the drive's own memory; only ``F_FULLFSYNC`` does not, where
    the file system has it.
    """
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(handle, full)
            return
    os.fsync(handle)


def fsync_dir(folder: Path) -> None:
    """Make the names in `folder` durable, where the operating system has a way to."""
    if WINDOWS:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        sync_file(handle)
    finally:
        os.close(handle)

r"""A folder as Windows has it, for tests: what it refuses is refused here too.

Not emulated, as nothing here has it: how NTFS orders writes, sharing modes, ACLs, drive letters.
What is: a file that somebody has open is neither replaced, renamed nor removed; names differ by
more than case; reserved names, and names that end with a dot or a space, are refused; so is a path
of 260 characters without ``\\?\`` before it; a folder cannot be opened, permission bits mean
nothing, and a listing tells no inodes. Who has what open is asked of ``/proc``.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cwm_jupyter.core import portable

__all__ = ["WindowsDisk"]

EXTENDED = "\\\\?\\"
#: longest path without the prefix, and longest name
_MOST, _LONGEST = 259, 255
_REFUSED = re.compile(r'[<>:"|?*\x00-\x1f]|[. ]$')
_DEVICE = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?", re.IGNORECASE)
#: what `os` does not have on Windows, of all that something here might be tempted to use
_MISSING = ("chown", "geteuid", "getuid", "posix_fadvise", "preadv", "pwritev", "O_DIRECTORY")


class _Entry:
    """A `DirEntry` with the path by which the folder was listed."""

    def __init__(self, entry: os.DirEntry[str], folder: str) -> None:
        self._entry = entry
        self.name = entry.name
        self.path = f"{folder}/{entry.name}"
        self.is_dir, self.is_file, self.is_symlink = entry.is_dir, entry.is_file, entry.is_symlink

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        found = list(self._entry.stat(follow_symlinks=follow_symlinks))
        whole = self._entry.stat(follow_symlinks=follow_symlinks)
        found[1] = 0  # the inode
        names = ("st_atime", "st_mtime", "st_ctime", "st_atime_ns", "st_mtime_ns", "st_ctime_ns")
        return os.stat_result(found, {name: getattr(whole, name) for name in names})


class WindowsDisk:
    """Makes everything below a folder be as on Windows, for this process, between enter and exit.

    Parameters
    ----------
    root
        The folder; others are as they were.
    hard_links
        Whether its file system has them: NTFS does, FAT does not.
    """

    def __init__(self, root: Path, *, hard_links: bool = True) -> None:
        self._root, self._hard_links = str(root.resolve()), hard_links
        self._real: dict[str, Callable[..., Any]] = {}
        #: how often something was refused because somebody had it open
        self.refusals = 0

    def __enter__(self) -> WindowsDisk:
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(portable, "WINDOWS", True)
        self._patch.setitem(sys.modules, "pwd", None)
        self._patch.setenv("USERNAME", "me")
        for name in _MISSING:
            self._patch.delattr(os, name, raising=False)
        for name in ("stat", "lstat", "listdir", "rmdir", "truncate", "utime", "access", "statvfs"):
            if hasattr(os, name):
                self._one(name, self._path)
        for name in ("unlink", "remove"):
            self._one(name, self._closed)
        for name in ("replace", "rename"):
            self._two(name)
        self._one("mkdir", lambda path: self._path(path, new=True, most=_MOST - 12))
        self._set(os, "open", self._open)
        self._set(os, "link", self._link)
        self._set(os, "scandir", self._scandir)
        self._set(os, "chmod", lambda *args, **kwargs: None)
        self._set(io, "open", self._io_open)
        self._patch.setattr(builtins, "open", self._io_open)
        self._set(io, "FileIO", lambda path, *args: self._real["FileIO"](self._path(path), *args))
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    # Paths

    def _path(self, path: Any, *, new: bool = False, most: int = _MOST) -> Any:
        """Return the real path, or refuse it; what is not below the root is let through."""
        if not isinstance(path, (str, os.PathLike)):
            return path
        text = os.fspath(path)
        if not isinstance(text, str):
            return path
        # A prefixed path looks relative here, and may have been made absolute.
        extended = EXTENDED in text
        real = text.rpartition(EXTENDED)[2]
        if not real.startswith(self._root):
            return path
        if not extended and len(real) > most:
            raise FileNotFoundError(errno.ENOENT, "path too long", text)
        name = real.rpartition("/")[2]
        if new and (_REFUSED.search(name) or _DEVICE.fullmatch(name) or len(name) > _LONGEST):
            raise OSError(errno.EINVAL, "not a file name", text)
        return self._as_it_is_written(real)

    def _as_it_is_written(self, path: str) -> str:
        """Return the path of what differs by case alone, where there is that."""
        if len(path) <= len(self._root) or self._lexists(path):
            return path
        folder, _, name = path.rpartition("/")
        folder = self._as_it_is_written(folder)
        with contextlib.suppress(OSError):
            for other in self._real["listdir"](folder):
                if other.casefold() == name.casefold():
                    return f"{folder}/{other}"
        return f"{folder}/{name}"

    def _lexists(self, path: str) -> bool:
        try:
            self._real["lstat"](path)
        except OSError:
            return False
        return True

    def _closed(self, path: Any) -> Any:
        """Return the real path of a file that nobody has open."""
        real = self._path(path)
        with contextlib.suppress(FileNotFoundError):
            if (status := self._real["lstat"](real)) and self._is_open(status):
                self.refusals += 1
                raise PermissionError(errno.EACCES, "used by another process", str(path))
        return real

    def _is_open(self, wanted: os.stat_result) -> bool:
        for pid in _family():
            with contextlib.suppress(OSError):  # ended, or another user's
                for handle in self._real["listdir"](f"/proc/{pid}/fd"):
                    with contextlib.suppress(OSError):
                        found = self._real["stat"](f"/proc/{pid}/fd/{handle}")
                        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                            return True
        return False

    # Calls

    def _set(self, module: Any, name: str, call: Callable[..., Any]) -> None:
        self._real["io.open" if (module, name) == (io, "open") else name] = getattr(module, name)
        self._patch.setattr(module, name, call)

    def _one(self, name: str, translate: Callable[[Any], Any]) -> None:
        def call(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            return self._real[name](translate(path), *args, **kwargs)

        self._set(os, name, call)

    def _two(self, name: str) -> None:
        def call(source: Any, target: Any, **kwargs: Any) -> Any:
            before = self._closed(source)
            self._closed(target)
            # A name that is taken keeps its case on Windows; here it is enough that it is taken.
            return self._real[name](before, self._path(target, new=True), **kwargs)

        self._set(os, name, call)

    def _link(self, source: Any, target: Any, **kwargs: Any) -> None:
        if not self._hard_links:
            raise OSError(errno.EPERM, "no hard links", str(target))
        self._real["link"](self._path(source), self._path(target, new=True), **kwargs)

    def _open(self, path: Any, flags: int, mode: int = 0o777, **kwargs: Any) -> int:
        real = self._path(path, new=bool(flags & os.O_CREAT))
        if real is not path and os.path.isdir(real):  # noqa: PTH112 - no object in between
            raise PermissionError(errno.EACCES, "a folder", str(path))
        handle: int = self._real["open"](real, flags, mode, **kwargs)
        return handle

    def _io_open(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        new = any(letter in mode for letter in "wxa")
        return self._real["io.open"](self._path(file, new=new), mode, *args, **kwargs)

    @contextlib.contextmanager
    def _scandir(self, path: Any = ".") -> Iterator[Iterator[Any]]:
        real = self._path(path)
        with self._real["scandir"](real) as entries:
            yield (entries if real is path else (_Entry(e, os.fspath(path)) for e in entries))


def _family() -> list[int]:
    """This process, and where it is one of several workers the others and who started them."""
    parent = multiprocessing.parent_process()
    if parent is None and not multiprocessing.active_children():
        return [os.getpid()]
    first = psutil.Process(parent.pid if parent is not None else os.getpid())
    return [first.pid, *(child.pid for child in first.children(recursive=True))]

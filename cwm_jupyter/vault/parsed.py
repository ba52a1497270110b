"""The small files of a folder, each parsed once for as long as it stays what it is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from cwm_jupyter.vault import disk

__all__ = ["Parsed"]

#: a file that was written so recently is read anew each time
_NEW_S = 2.0
_T = TypeVar("_T")
#: time of change, size and inode of a file; Windows tells no inode in a listing
_Sign = tuple[int, int, int]


class Parsed(Generic[_T]):
    """What the files of a folder say, whoever writes them. Safe between threads.

    Parameters
    ----------
    folder
        The files in it that end in ``.json``.
    parse
        Reads one; what it returns is shared, and kept unless it is None.
    """

    def __init__(self, folder: Path, parse: Callable[[Path], _T | None]) -> None:
        self._folder, self._parse = folder, parse
        self._known: dict[str, tuple[_Sign, _T]] = {}

    def read(self) -> dict[str, _T]:
        """Return what the files say now, by their names without the ending.

        Costs a look at each file, and a read of those that are new or were replaced. What `parse`
        raises is raised, but that a file is gone.
        """
        known: dict[str, tuple[_Sign, _T]] = {}
        for path, status in disk.files(self._folder, ".json"):
            sign = status.st_mtime_ns, status.st_size, status.st_ino
            before = self._known.get(path.stem)
            # Of a file that is still new, the signs may be those of one that it replaced.
            new = time.time() - status.st_mtime < _NEW_S
            if before is not None and before[0] == sign and not new:
                known[path.stem] = before
                continue
            with contextlib.suppress(FileNotFoundError):  # just removed
                parsed = self._parse(path)
                if parsed is not None:
                    known[path.stem] = sign, parsed
        self._known = known
        return {name: parsed for name, (_, parsed) in known.items()}

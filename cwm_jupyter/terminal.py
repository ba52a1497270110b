"""The front end of a terminal: ``cwm``, and the magics in IPython."""

from __future__ import annotations

import getpass
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from cwm_jupyter.afterwards import Afterwards
from cwm_jupyter.core.job import Job, JobState
from cwm_jupyter.core.models import Reply
from cwm_jupyter.core.printable import printable
from cwm_jupyter.current import CurrentSession
from cwm_jupyter.errors import UsageError
from cwm_jupyter.present import footer, text
from cwm_jupyter.progress import Progress, ticking

__all__ = ["Terminal"]

_CLEAR = "\r\x1b[K"


class Terminal(Afterwards):
    """Results and answers go to one stream, all else to another.

    Parameters
    ----------
    out, err
        The streams, as a rule stdout and stderr. Progress is one line on `err` that rewrites
        itself; where `err` is no terminal, a line for each stage.
    current
        The session that is meant where none is named.
    """

    def __init__(self, out: TextIO, err: TextIO, current: CurrentSession) -> None:
        super().__init__()
        self._out, self._err = out, err
        self._current = current
        self._lock = threading.Lock()
        self._shown = ""

    @property
    def session(self) -> str:
        """The session that is meant where none is named."""
        return self._current.name

    def use(self, session: str) -> bool:
        """Make a session the one that is meant, see `CurrentSession.use`."""
        return self._current.use(session)

    def note(self, value: object) -> None:
        """Show something that is not the result."""
        with self._lock:
            self._clear()
            print(text(value), file=self._err, flush=True)

    def read(self) -> str:
        """Return standard input."""
        return sys.stdin.read()

    def secret(self, prompt: str) -> str:
        """Ask for a passphrase, which is not shown."""
        if not sys.stdin.isatty():
            raise UsageError(
                "There is no terminal to ask for the passphrase in.",
                hint="Name an environment variable that holds it: --passphrase-env VARIABLE.",
            )
        return getpass.getpass(prompt)

    @contextmanager
    def progress(self) -> Iterator[Callable[[JobState], None]]:
        """Show what a job does while the block runs; yields the job's watcher."""
        progress = Progress()
        try:
            with ticking(lambda: self._tick(progress)):
                yield progress.watch
        finally:
            with self._lock:
                self._clear()

    @contextmanager
    def answer(self) -> Iterator[Callable[[str], None]]:
        """Stream an answer; yields what takes its pieces."""
        last = ""

        def write(piece: str) -> None:
            nonlocal last
            with self._lock:
                self._clear()
                self._out.write(printable(piece))
                self._out.flush()
                last = piece

        progress = Progress()
        Job("say", progress.watch).stage("waiting for the first token")
        try:
            with ticking(lambda: None if last else self._tick(progress)):
                yield write
        finally:
            with self._lock:
                self._clear()
                if last and not last.endswith("\n"):
                    print(file=self._out, flush=True)

    def show(self, value: object) -> None:
        """Show a result; an answer has been streamed already, so of it only what it cost."""
        if isinstance(value, Reply):
            self.note(footer(value))
        else:
            print(text(value), file=self._out, flush=True)

    def _tick(self, progress: Progress) -> None:
        with self._lock:
            if self._err.isatty():
                self._rewrite(progress.line)
            elif progress.stage and progress.stage != self._shown:
                self._shown = progress.stage
                print(progress.stage, file=self._err, flush=True)

    def _rewrite(self, line: str) -> None:
        line = line[: shutil.get_terminal_size().columns - 1]
        if line != self._shown:
            self._err.write(_CLEAR + line)
            self._err.flush()
            self._shown = line

    def _clear(self) -> None:
        if self._shown and self._err.isatty():
            self._err.write(_CLEAR)
            self._err.flush()
            self._shown = ""

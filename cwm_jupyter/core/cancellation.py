"""Cancellation: one handle on all that a piece of work does, whatever it is made of.

Ctrl-C reaches the main thread alone. What runs on another one is cancelled through this: jobs and
the tasks of the background loop join the cancellation under which they are begun.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["Cancellation"]

_present: ContextVar[Cancellation | None] = ContextVar("cwm_cancellation", default=None)


class Cancellation:
    """Cancels what joined it, and at once what joins it later; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._joined: list[Callable[[], object]] = []

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Ask the work to stop; that it did is seen by its end."""
        with self._lock:
            self._cancelled = True
            joined, self._joined = self._joined, []
        for stop in joined:
            stop()

    @contextmanager
    def over(self) -> Iterator[None]:
        """Have what the block begins join."""
        token = _present.set(self)
        try:
            yield
        finally:
            _present.reset(token)

    @staticmethod
    def join(stop: Callable[[], object]) -> None:
        """Have `stop` called when the cancellation that is over the caller is; if there is one."""
        present = _present.get()
        if present is None:
            return
        with present._lock:
            if not present._cancelled:
                present._joined.append(stop)
                return
        stop()

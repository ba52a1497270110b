"""Afterwards: what a front end does once it has shown a result."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Afterwards"]


class Afterwards:
    """Keeps work until the result is shown, so that nobody waits for it to see the result."""

    def __init__(self) -> None:
        self._works: list[Callable[[], None]] = []

    def later(self, work: Callable[[], None]) -> None:
        """Do something once the result is shown; it tells the user itself what went wrong."""
        self._works.append(work)

    def finish(self) -> None:
        """Do it now: the result is shown."""
        works, self._works = self._works, []
        for work in works:
            work()

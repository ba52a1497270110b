"""Drawings: answers that take long to make and are the same for all who ask meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable

__all__ = ["Drawings"]

_KEPT = 64
#: what lies on the disk may change without the index
_FRESH_S = 30.0


class Drawings:
    """A small store of what was made last; it belongs to the server's event loop."""

    def __init__(self) -> None:
        self._made: OrderedDict[Hashable, tuple[float, asyncio.Future[str]]] = OrderedDict()

    async def get(self, key: Hashable, make: Callable[[], Awaitable[str]]) -> str:
        """Return what was made for a key, or make it; who asks meanwhile waits for the same.

        Parameters
        ----------
        key
            Of all that it is made of.
        make
            Makes it. What it raises is raised for all who wait, and not kept.
        """
        known = self._made.get(key)
        if known is not None and time.monotonic() - known[0] < _FRESH_S:
            # One who gives up must not take the others' answer away.
            return await asyncio.shield(known[1])
        task = asyncio.ensure_future(make())
        self._made[key] = time.monotonic(), task
        self._made.move_to_end(key)
        while len(self._made) > _KEPT:
            self._made.popitem(last=False)
        try:
            return await asyncio.shield(task)
        except Exception:
            self._made.pop(key, None)
            raise

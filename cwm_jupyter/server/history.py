"""History: the servers' figures over time, sampled only while somebody watches."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from cwm_jupyter.core.models import Value
from cwm_jupyter.core.statistics import Statistics
from cwm_jupyter.server.failures import ending

__all__ = ["History", "HistoryReport"]

_EVERY_S = 5.0
_KEPT = 720  # an hour
#: who asks this often watches
_WATCHED_S = 30.0
#: answers that are no older are shared: many clients ask, the servers are asked once
_FRESH_S = 1.0


class HistoryReport(Value, frozen=True, kw_only=True):
    """Figures over time, the oldest first; while nobody watched there are none."""

    every_s: float
    items: list[Statistics]

    @property
    def latest(self) -> str | None:
        """When the newest of them was taken."""
        return self.items[-1].at if self.items else None


class History:
    """A ring of figures. It belongs to the server's event loop.

    Parameters
    ----------
    ask
        Asks the servers for the figures of this moment.
    listeners
        Tells how many clients listen to events.
    tell
        Called with each sample.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[Statistics]],
        listeners: Callable[[], int],
        tell: Callable[[Statistics], None],
    ) -> None:
        self._ask, self._listeners, self._tell = ask, listeners, tell
        self._ring: deque[Statistics] = deque(maxlen=_KEPT)
        self._latest: tuple[float, Statistics] | None = None
        self._asking = asyncio.Lock()
        self._watched_until = 0.0
        self._sampler: asyncio.Task[None] | None = None
        self._closed = False

    async def now(self) -> Statistics:
        """Return the figures of this moment, or those of a moment ago."""
        async with self._asking:
            if self._latest is None or time.monotonic() - self._latest[0] > _FRESH_S:
                statistics = await self._ask()
                self._latest = time.monotonic(), statistics
            return self._latest[1]

    def report(self) -> HistoryReport:
        """Return what was sampled; who asks is one who watches."""
        self.watch()
        return HistoryReport(every_s=_EVERY_S, items=list(self._ring))

    def watch(self) -> None:
        """Sample for a while, or for as long as somebody listens.

        Raises
        ------
        RefusedError
            The server is ending.
        """
        if self._closed:
            raise ending()
        self._watched_until = time.monotonic() + _WATCHED_S
        if self._sampler is None or self._sampler.done():
            self._sampler = asyncio.create_task(self._sample())

    @property
    def sampling(self) -> bool:
        """Whether figures are being taken."""
        return self._sampler is not None and not self._sampler.done()

    async def _sample(self) -> None:
        while self._listeners() or time.monotonic() < self._watched_until:
            statistics = await self.now()
            self._ring.append(statistics)
            self._tell(statistics)
            await asyncio.sleep(_EVERY_S)

    def close(self) -> None:
        """Stop sampling for good."""
        self._closed = True
        if self._sampler is not None:
            self._sampler.cancel()

"""Hub: the one channel on which clients hear of changes, and the watcher that feeds it.

An event has a key; of one key a client gets the latest only, so a slow client misses nothing that
still matters, and what waits for it is bounded by the number of keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec

from cwm_jupyter.server.failures import RefusedError, ending

__all__ = ["Hub", "Subscription"]

_MAX_CLIENTS = 200
_LOOK_S = 0.5
#: a sign of life, which also finds out about clients that are gone
_BEAT_S = 15.0
_RETRY_MS = 3000


class Subscription:
    """One client: what waits for it, by key."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._waiting: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._closed = False

    def put(self, key: str, event: str) -> None:
        """Add an event in place of an older one of its key."""
        self._waiting.pop(key, None)
        self._waiting[key] = event
        self._wake.set()

    def close(self) -> None:
        """End the events."""
        self._closed = True
        self._wake.set()
        self._hub.leave(self)

    async def events(self) -> AsyncIterator[str]:
        """Give events as Server-Sent Events has them, and a comment where there are none."""
        yield f"retry: {_RETRY_MS}\n\n"
        while not self._closed:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _BEAT_S)
            self._wake.clear()
            waiting, self._waiting = self._waiting, {}
            if not self._closed:
                yield "".join(waiting.values()) or ": still here\n\n"


class Hub:
    """Passes events on. It belongs to the server's event loop.

    Parameters
    ----------
    generation
        Tells the index's generation; asked while somebody listens.
    """

    def __init__(self, generation: Callable[[], Awaitable[str]]) -> None:
        self._generation = generation
        self._subscriptions: set[Subscription] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def listeners(self) -> int:
        """How many clients there are."""
        return len(self._subscriptions)

    def subscribe(self) -> Subscription:
        """Let a client in; it hears the index's generation first.

        Raises
        ------
        RefusedError
            There are too many, or the server is ending.
        """
        if self._closed:
            raise ending()
        if len(self._subscriptions) >= _MAX_CLIENTS:
            raise RefusedError(503, f"{_MAX_CLIENTS} clients listen already; poll instead.")
        subscription = Subscription(self)
        self._subscriptions.add(subscription)
        if self._watcher is not None:
            self._watcher.cancel()  # a new one tells the newcomer at once
        self._watcher = asyncio.create_task(self._watch())
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Let a client go; nobody watches the index when the last one has gone."""
        self._subscriptions.discard(subscription)
        if not self._subscriptions and self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    def publish(self, kind: str, data: Any, key: str | None = None) -> None:
        """Tell all clients; `key` names what the event is about, without it its kind."""
        if self._subscriptions:
            text = msgspec.json.encode(data).decode()
            event = f"event: {kind}\ndata: {text}\n\n"
            for subscription in self._subscriptions:
                subscription.put(key or kind, event)

    async def _watch(self) -> None:
        known: str | None = None
        while True:
            generation = await self._generation()
            if generation != known:
                known = generation
                self.publish("index", {"generation": generation})
            await asyncio.sleep(_LOOK_S)

    def close(self) -> None:
        """Send all clients away, and let none in any more."""
        self._closed = True
        for subscription in list(self._subscriptions):
            subscription.close()

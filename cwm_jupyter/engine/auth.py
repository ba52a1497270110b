"""A key before an ASGI application. Needs nothing but the standard library.

vLLM asks for its own key only below some prefixes: who has none can have it answer through
``/invocations``, rescale it, and read its metrics. In the local stack, whose ports every user of
the machine can reach, `RequireEngineKey` stands before all of it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

__all__ = ["RequireEngineKey", "RequireKey", "has_key", "respond"]

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class RequireKey:
    """Middleware that answers 401 to every request without ``Authorization: Bearer KEY``.

    Parameters
    ----------
    app
        What is protected.
    key
        The key.
    """

    def __init__(self, app: App, key: str) -> None:
        self._app, self._key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "lifespan" or has_key(scope, self._key):
            await self._app(scope, receive, send)
        else:
            await respond(send, 401, b'{"error": "Unauthorized"}')


class RequireEngineKey(RequireKey):
    """`RequireKey` with the key in ``VLLM_API_KEY``, for vLLM's ``--middleware``."""

    def __init__(self, app: App) -> None:
        super().__init__(app, os.environ["VLLM_API_KEY"])


def has_key(scope: Scope, key: str) -> bool:
    """Return whether the request carries the key; takes the same time for every wrong one."""
    given = next((v for k, v in scope["headers"] if k.lower() == b"authorization"), b"")
    scheme, _, value = given.partition(b" ")
    same = hmac.compare_digest(
        hashlib.sha256(value).digest(), hashlib.sha256(key.encode()).digest()
    )
    return same and scheme.lower() == b"bearer"


async def respond(send: Send, status: int, body: bytes) -> None:
    """Send a JSON answer."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

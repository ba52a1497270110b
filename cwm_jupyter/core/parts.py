"""Parts: what the manager's collaborators share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cwm_jupyter.config import Settings
from cwm_jupyter.core.audit import Audit
from cwm_jupyter.core.chunks import ChunkStore
from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.library import Library

__all__ = ["Parts"]


@dataclass
class Parts:
    """What everything that a manager does works with.

    Parameters
    ----------
    library
        Where sessions and windows are kept.
    connect
        Gives the running stack, or raises `StackDownError`; asked for each piece of work.
    store
        The local chunks, for looks that need no running stack.
    settings
        Limits and timeouts. Replaced when the user changes them, so read them where they are used.
    audit
        Told of every change.
    """

    library: Library
    connect: Callable[[], Awaitable[ConnectedStack]]
    store: ChunkStore | None
    settings: Settings
    audit: Audit

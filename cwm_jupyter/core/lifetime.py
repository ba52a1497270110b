"""Lifetime: how long a session or window stays after its last use.

A time to live (TTL) counts from the last use, since that is what people mean by "unused for a
week": a turn or a freeze uses a session, a thaw a window. Each of them moves `expires_at` on.
"""

from __future__ import annotations

import time
from typing import TypeVar

from cwm_jupyter.core.models import Session, Window, rfc3339
from cwm_jupyter.core.query import duration_s
from cwm_jupyter.errors import StateTransitionError

__all__ = ["NEVER", "lasting", "overdue", "refuse_expired", "renewed", "ttl_s"]

_Entry = TypeVar("_Entry", Session, Window)

#: how a user says that something stays until it is removed
NEVER = "never"


def ttl_s(text: str | None) -> float | None:
    """Return a time to live in seconds, as in ``7d``; None for None and ``never``.

    Raises
    ------
    ValidationError
        It is neither a duration nor ``never``.
    """
    if text is None or text.strip().lower() == NEVER:
        return None
    return duration_s(text)


def lasting(entry: _Entry, ttl_s: float | None) -> _Entry:
    """Return the entry with another time to live, counted from now; None: it stays."""
    expires_at = None if ttl_s is None else rfc3339(time.time() + ttl_s)
    return entry.replace(ttl_s=ttl_s, expires_at=expires_at)


def renewed(entry: _Entry) -> _Entry:
    """Return the entry as used now: its time to live counts anew."""
    return entry if entry.ttl_s is None else lasting(entry, entry.ttl_s)


def overdue(entry: Session | Window, present: str) -> bool:
    """Return whether an entry's time was over at `present` (RFC 3339), pinned or not."""
    return entry.expires_at is not None and entry.expires_at <= present


def refuse_expired(session: Session) -> None:
    """Refuse to go on in a session that has expired: to be used it is brought back first.

    Raises
    ------
    StateTransitionError
        It has expired.
    """
    if session.state == "expired":
        raise StateTransitionError(
            f"The session {session.name!r} has expired.",
            hint=f"Bring it back first, with cwm rm -s {session.name} --undo.",
            session=session.name,
        )

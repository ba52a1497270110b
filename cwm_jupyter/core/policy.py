"""Freeze policies: when a session is frozen by itself, and under which name.

The rules alone; `cwm_jupyter.core.autofreeze` acts on them.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Container
from datetime import date
from typing import NoReturn

from cwm_jupyter.core.models import FreezePolicy, Session, Window
from cwm_jupyter.core.names import MAX_NAME_LENGTH, check_name, check_tag, name_key, numbered
from cwm_jupyter.errors import ValidationError

__all__ = ["check_policy", "is_due", "threshold_tokens", "window_name"]

_FIELDS = ("session", "turn", "n", "date")
_LONGEST_BYTES = 200  # what a name may have, see `cwm_jupyter.core.names`


def check_policy(policy: FreezePolicy, max_context_tokens: int | None = None) -> FreezePolicy:
    """Return a policy, its tags in the normal form, if a session can have it.

    Parameters
    ----------
    policy
        The policy.
    max_context_tokens
        The model's context; None: it is not known.

    Raises
    ------
    ValidationError
        It cannot; the message and the context's ``field`` name the field.
    """
    _check_when(policy, max_context_tokens)
    if policy.cooldown_tokens < 0:
        _refuse("cooldown_tokens", f"must be at least 0, not {policy.cooldown_tokens}")
    _check_pattern(policy.name)
    if policy.then not in ("continue", "fresh"):
        _refuse("then", f"must be continue or fresh, not {policy.then!r}")
    if policy.then == "fresh" and not (policy.summary or "").strip():
        _refuse("summary", "is needed with then=fresh: the fresh session begins with it")
    if policy.then == "continue" and policy.summary is not None:
        _refuse("summary", "is for then=fresh alone")
    try:
        return policy.replace(tags=[check_tag(tag) for tag in policy.tags])
    except ValidationError as error:
        _refuse("tags", f"has one that cannot be: {error.message}")


def _check_when(policy: FreezePolicy, max_context_tokens: int | None) -> None:
    at_tokens, at_share = policy.at_tokens, policy.at_share
    if (at_tokens is None) == (at_share is None):
        _refuse("at_tokens", "or at_share must be said, and not both")
    if at_share is not None and not 0 < at_share <= 1:
        _refuse("at_share", f"must be above 0 and at most 1, not {at_share:g}")
    if at_tokens is not None and at_tokens < 1:
        _refuse("at_tokens", f"must be at least 1, not {at_tokens}")
    if at_tokens is not None and at_tokens > (max_context_tokens or at_tokens):
        _refuse(
            "at_tokens",
            f"can never be reached: {at_tokens:,} tokens, and the model's context holds "
            f"{max_context_tokens:,}",
        )


def _check_pattern(pattern: str) -> None:
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        _refuse("name", f"is no pattern: {error}")
    for _, field, spec, conversion in parts:
        if field is not None and (field not in _FIELDS or spec or conversion):
            shown = ", ".join(f"{{{one}}}" for one in _FIELDS)
            _refuse("name", f"may have {shown} and no other braces, not {{{field}}}")
    try:
        check_name(_filled(pattern, session="session", turn=1, number=1, day=date(2026, 1, 1)))
    except ValidationError as error:
        _refuse("name", f"makes no window name: {error.message}")


def threshold_tokens(policy: FreezePolicy, max_context_tokens: int | None) -> int | None:
    """Return the tokens at which a policy triggers; None where the model's context is unknown."""
    if policy.at_tokens is not None:
        return policy.at_tokens
    if policy.at_share is None or max_context_tokens is None:
        return None
    return int(policy.at_share * max_context_tokens)


def is_due(session: Session, get_window: Callable[[str], Window | None]) -> bool:
    """Return whether a session is to be frozen now.

    Parameters
    ----------
    session
        With its policy, as it is after a turn.
    get_window
        Gives the window that it was last frozen in, by whomever, or thawed from: the cooldown
        counts from there.
    """
    if session.policy is None or session.state != "active":
        return False
    threshold = threshold_tokens(session.policy, session.max_context_tokens)
    if threshold is None or session.tokens < threshold:
        return False
    window = get_window(session.window_id) if session.window_id else None
    if window is None or window.tokens < threshold:
        return True
    # At least one more: a turn that was cut at once adds nothing.
    return session.tokens >= window.tokens + max(session.policy.cooldown_tokens, 1)


def window_name(policy: FreezePolicy, session: Session, taken: Container[str], day: date) -> str:
    """Return a free name for a session's next window.

    Parameters
    ----------
    policy, session
        Whose pattern is filled in, with what.
    taken
        The keys (`name_key`) of names that are not free.
    day
        For ``{date}``.
    """
    counts = "n" in {field for _, field, _, _ in string.Formatter().parse(policy.name)}
    number = 1
    while True:
        name = _filled(
            policy.name, session=session.name, turn=session.turns, number=number, day=day
        )
        if not counts and number > 1:
            name = numbered(name, number)
        if name_key(name) not in taken:
            return name
        number += 1


def _filled(pattern: str, *, session: str, turn: int, number: int, day: date) -> str:
    """Fill in a pattern; the session's name is cut short where the whole would be too long."""
    while True:
        name = pattern.format(session=session, turn=turn, n=number, date=day.isoformat())
        size_bytes = len(name.encode("utf-8", "replace"))
        if (len(name) <= MAX_NAME_LENGTH and size_bytes <= _LONGEST_BYTES) or not session:
            return name
        session = session[:-1]


def _refuse(field: str, reason: str) -> NoReturn:
    raise ValidationError(f"policy: {field} {reason}.", field=field)

"""Reports of going back and of asking many.

Apart from what makes them, since front ends load them to show them.
"""

from __future__ import annotations

from typing import Any

from cwm_jupyter.core.models import Reply, Restored, Session, Value

__all__ = ["Answered", "AskReport", "RewindReport"]


class RewindReport(Value, frozen=True, kw_only=True):
    """What a rewind made: `session` goes on from the end of `turn` of `source`, which stays."""

    session: Session
    source: Session
    turn: int


class Answered(Value, frozen=True, kw_only=True):
    """One question, and its answer or the error (`CWMError.to_dict`) that kept it from one."""

    question: str
    reply: Reply | None
    error: dict[str, Any] | None


class AskReport(Value, frozen=True, kw_only=True):
    """What was asked of a window, and what it cost in all.

    `restored` is what restoring it measured, `answers` are in the order of the questions. `ask_s`
    runs from the first question sent to the last answer's end.
    """

    restored: Restored
    answers: list[Answered]
    generated_tokens: int
    ask_s: float

"""References: how a place in a window is named.

``NAME`` is a window's end and ``NAME@3`` the end of its turn 3. ``NAME@v2`` is its second version,
which the index knows, and ``NAME@v2@3`` the end of turn 3 of that.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Reference"]

_AT_TURN = re.compile(r"(.+)@([0-9]{1,9})", re.ASCII | re.DOTALL)


class Reference(NamedTuple):
    """A window by its name or id, and the turn that is meant; None: its end."""

    window: str
    turn: int | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Return what a text refers to; what is no place in a window is the name of one."""
        found = _AT_TURN.fullmatch(text)
        return cls(text, None) if found is None else cls(found[1], int(found[2]))

    def __str__(self) -> str:
        return self.window if self.turn is None else f"{self.window}@{self.turn}"

"""Printable text: what people see is what is there, on a terminal, in a notebook, in a file."""

from __future__ import annotations

import unicodedata

__all__ = ["printable"]

#: embeddings, overrides and isolates of the bidirectional algorithm
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """Return text without the control characters that a terminal would obey.

    Nor those that turn the direction of all that follows: text could be made to look as what it is
    not. The marks that right-to-left scripts need stay.
    """
    return "".join(
        c
        if c in "\n\t" or not (unicodedata.category(c) == "Cc" or c in _TURNING)
        else "\N{REPLACEMENT CHARACTER}"
        for c in text.replace("\r\n", "\n")
    )

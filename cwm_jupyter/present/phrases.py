"""Phrases that several forms use."""

from __future__ import annotations

from collections.abc import Sequence

from cwm_jupyter.core.models import Session, Window
from cwm_jupyter.layout import Facts
from cwm_jupyter.units import count

__all__ = ["chunks", "excerpt", "facts", "many", "proof", "stays", "tail", "turns"]


def chunks(number: int) -> str:
    """Return a number of chunks, spelled."""
    return f"{count(number)} chunk{'' if number == 1 else 's'}"


def turns(number: int) -> str:
    """Return a number of turns, spelled."""
    return f"{count(number)} turn{'' if number == 1 else 's'}"


def tail(tokens: int) -> str:
    """Return what is said of a tail, nothing where there is none."""
    return f", tail of {count(tokens)} kept as tokens" if tokens else ""


def proof(window: Window) -> str:
    """Return what a window's proof says."""
    if window.proof.level == "verified":
        return "all verified on disk"
    return "all present in the remote store, whose files cannot be read from here"


def excerpt(content: str, length: int) -> str:
    """Return the beginning of a text, on one line."""
    line = " ".join(content.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def facts(pairs: Sequence[tuple[str, str]]) -> Facts:
    """Return the pairs that have a value."""
    return Facts([pair for pair in pairs if pair[1]])


def many(number: int, what: str) -> str:
    """Return a number and what is counted, in the plural where there is not just one."""
    return f"{count(number)} {what}{'' if number == 1 else 's'}"


def stays(entry: Session | Window) -> str:
    """Return how long a session or window stays, nothing where it does until it is removed."""
    until = ""
    if entry.expires_at is not None:
        until = f"until {entry.expires_at[:16].replace('T', ' ')} UTC, later if it is used"
    return f"pinned{f', else {until}' if until else ''}" if entry.pinned else until

"""What the panel shows, read from the manager: JSON-ready, and nothing secret."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anyio import to_thread

from cwm_jupyter.core.manager import Manager
from cwm_jupyter.core.models import Message, SessionStatus, Turn
from cwm_jupyter.core.query import Query
from cwm_jupyter.errors import CWMError
from cwm_jupyter.stack.state import current

__all__ = ["PAGE", "TREE", "family", "listing", "session", "stack"]

#: windows that are sent at once; the rest is told by number
PAGE = 100
#: windows of a family tree that are sent at once
TREE = 300
_EXCERPT = 90


async def listing(manager: Manager, query: Query) -> dict[str, Any]:
    """Return a page of windows, and the names that can be chosen from."""
    page = await manager.windows(query)
    sessions = await manager.sessions(Query(sort="-used", limit=PAGE))
    return {
        "windows": [
            {
                "name": window.known_as,
                "state": window.state,
                "tokens": window.tokens,
                "turns": window.turns,
                "size_bytes": window.size_bytes,
                "created_at": window.created_at,
                "used_at": window.used_at,
                "tags": window.tags,
                "note": window.note,
                "pinned": window.pinned,
            }
            for window in page.items
        ],
        "total": page.total,
        "offset": page.offset,
        "sessions": [one.name for one in sessions.items],
    }


async def session(manager: Manager, name: str) -> dict[str, Any] | None:
    """Return a session with its turns; None where there is none of this name."""
    if await manager.find_session(name) is None:
        return None
    try:
        status = await manager.status(session=name)
    except CWMError as error:  # it went meanwhile, or its transcript is damaged
        return {"name": name, "problem": error.message}
    assert isinstance(status, SessionStatus)  # noqa: S101  (for the type checker)
    found = status.session
    return {
        "name": found.name,
        "state": found.state,
        "tokens": found.tokens,
        "max_context_tokens": found.max_context_tokens,
        "turns": _turns(status.turns, status.messages),
    }


def _turns(turns: Sequence[Turn], messages: Sequence[Message]) -> list[dict[str, Any]]:
    given = len(messages) - 2 * len(turns)
    return [
        {
            "number": turn.number,
            "question": _excerpt(messages[given + 2 * i].content),
            "answer": _excerpt(messages[given + 2 * i + 1].content),
            "prompt_tokens": turn.prompt_end,
            "cached_tokens": turn.cached_tokens,
            "end_tokens": turn.end,
            "ttft_s": turn.ttft_s,
        }
        for i, turn in enumerate(turns)
    ]


def _excerpt(content: str) -> str:
    line = " ".join(content.split())
    return line if len(line) <= _EXCERPT else line[: _EXCERPT - 1].rstrip() + "…"


async def family(manager: Manager, window: str | None) -> dict[str, Any]:
    """Return the family tree of a window, or all where it is None or gone.

    Of a large tree it is the part around the window, or the beginning.
    """
    try:
        tree = await manager.branches.tree(window)
    except CWMError:
        tree = await manager.branches.tree()
    names = [node.name for node in tree.nodes]
    at = 0 if tree.window is None else names.index(tree.window)
    first = max(0, min(at - TREE // 2, len(tree.nodes) - TREE))
    return {
        "nodes": [node.to_dict() for node in tree.nodes[first : first + TREE]],
        "total": len(tree.nodes),
        "offset": first,
    }


async def stack(manager: Manager) -> dict[str, Any]:
    """Return whether a stack runs, without asking it."""
    state = await to_thread.run_sync(current, manager.settings.home)
    if state is None:
        return {"phase": "down", "model": None}
    return {"phase": state.phase, "model": state.served_model}

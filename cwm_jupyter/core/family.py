"""Families: windows as the tree in which each was made from another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from cwm_jupyter.core.kept import Share
from cwm_jupyter.core.models import Value, Window, WindowState

__all__ = ["Tree", "TreeNode", "family"]


class TreeNode(Value, frozen=True, kw_only=True):
    """One window in a tree.

    `level` counts from 0, at the root. `own_bytes` lie on the disk for this window alone,
    `shared_bytes` for others too; both are null where that cannot be told. Of a window that is
    ``gone`` for good only the id is known: it was purged, and its children are still here.
    """

    window_id: str
    name: str | None
    parent_window_id: str | None
    level: int
    state: WindowState | Literal["gone"]
    version: int | None = None
    lineage_id: str | None = None
    created_at: str | None = None
    tokens: int | None = None
    turns: int | None = None
    size_bytes: int | None = None
    own_bytes: int | None = None
    shared_bytes: int | None = None


class Tree(Value, frozen=True, kw_only=True):
    """One family, or all.

    `nodes` are in the order in which a tree is drawn: each after its parent, before its siblings
    that came later. They are a list, since a session that is frozen again and again makes families
    hundreds of levels deep. `window` is the one that was asked about, null for all families.
    """

    window: str | None
    nodes: list[TreeNode]


def family(
    windows: Sequence[Window], shares: Mapping[str, Share] | None, *, of: Window | None = None
) -> Tree:
    """Return the tree of all windows, or the one that a window is in.

    Deleted windows are left out, unless one that is not was made from them.

    Parameters
    ----------
    windows
        All that the index has, deleted and superseded ones too.
    shares
        What each keeps on the disk, by id; None: unknown.
    of
        One of them.
    """
    known = {window.id: window for window in windows}
    children: dict[str | None, list[str]] = defaultdict(list)
    for one in _shown(windows, known):
        parent = known[one].parent_window_id if one in known else None
        children[parent].append(one)
    roots = children[None] if of is None else [_root(of, known)]
    nodes: list[TreeNode] = []
    pending = [(0, one) for one in reversed(roots)]
    while pending:
        level, one = pending.pop()
        nodes.append(_node(one, level, known.get(one), shares))
        pending += [(level + 1, child) for child in reversed(children[one])]
    return Tree(window=of.known_as if of else None, nodes=nodes)


def _shown(windows: Sequence[Window], known: Mapping[str, Window]) -> list[str]:
    """Return the ids of the windows that are not deleted and of all that they came from.

    Older ones come first, and one that is gone before the first that was made from it.
    """
    shown: dict[str, None] = {}
    for window in sorted(windows, key=lambda w: (w.created_at, w.id)):
        if window.state == "deleted":
            continue
        line = []
        one: str | None = window.id
        while one is not None and one not in shown:
            line.append(one)
            one = known[one].parent_window_id if one in known else None
        shown |= dict.fromkeys(reversed(line))
    return list(shown)


def _root(window: Window, known: Mapping[str, Window]) -> str:
    one = window.id
    while one in known and (parent := known[one].parent_window_id) is not None:
        one = parent
    return one


def _node(
    window_id: str, level: int, window: Window | None, shares: Mapping[str, Share] | None
) -> TreeNode:
    if window is None:
        return TreeNode(
            window_id=window_id, name=None, parent_window_id=None, level=level, state="gone"
        )
    counted = shares is not None and window.proof.level == "verified"
    share = shares.get(window_id) if shares is not None and counted else None
    nothing = 0 if counted else None
    return TreeNode(
        window_id=window_id,
        name=window.known_as,
        parent_window_id=window.parent_window_id,
        level=level,
        state=window.state,
        version=window.version,
        lineage_id=window.lineage_id,
        created_at=window.created_at,
        tokens=window.tokens,
        turns=window.turns,
        size_bytes=window.size_bytes,
        own_bytes=share.exclusive_bytes if share else nothing,
        shared_bytes=share.held_bytes - share.exclusive_bytes if share else nothing,
    )

"""Branches: clone, tree, compare."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cwm_jupyter.core.comparison import Comparison
from cwm_jupyter.core.family import Tree
from cwm_jupyter.core.models import Window
from cwm_jupyter.workspace import get_workspace

__all__ = ["clone", "compare", "tree"]


def clone(name: str, new: str, *, tags: Sequence[str] = (), note: str = "") -> Window:
    """Make a window that has all that another has, under a name of its own.

    It shares the chunks, so it takes no room; thawed and continued it is a branch. Needs no running
    stack.

    Parameters
    ----------
    name
        Of the source, or ``NAME@vN``.
    new
        Of the clone; free.
    tags, note
        The clone's own.

    Raises
    ------
    WindowExistsError
        The new name is taken.
    WindowError
        The source is damaged: repair it first.
    KVStoreError
        The source's chunks are not all there.

    Examples
    --------
    >>> cwm.clone("paper", "paper-critical", tags=["review"])  # doctest: +SKIP
    """
    workspace = get_workspace()
    return workspace.run(partial(workspace.manager.branches.clone, name, new, tags=tags, note=note))


def tree(name: str | None = None) -> Tree:
    """Return which window was made from which: the family of one, or all."""
    workspace = get_workspace()
    return workspace.run(workspace.manager.branches.tree, name)


def compare(a: str, b: str) -> Comparison:
    """Return where two windows part, in messages and tokens, and how many bytes they share.

    Examples
    --------
    >>> cwm.compare("paper@v1", "paper").common_tokens  # doctest: +SKIP
    """
    workspace = get_workspace()
    return workspace.run(workspace.manager.branches.compare, a, b)

"""Verbs of branches: clone, tree, compare."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from cwm_jupyter.verbs.base import TAGS, WINDOW, FrontEnd, Verb, argument

if TYPE_CHECKING:
    from cwm_jupyter.core.comparison import Comparison
    from cwm_jupyter.core.family import Tree
    from cwm_jupyter.core.models import Window
    from cwm_jupyter.workspace import Workspace

__all__ = ["VERBS"]


def _clone(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> Window:
    return workspace.run(
        partial(
            workspace.manager.branches.clone,
            args.window,
            args.new,
            tags=args.tags,
            note=args.note,
        )
    )


def _tree(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> Tree:
    return workspace.run(workspace.manager.branches.tree, args.window)


def _compare(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> Comparison:
    return workspace.run(workspace.manager.branches.compare, args.window, args.other)


VERBS = (
    Verb(
        "clone",
        "make a window that shares all that another has, for a branch of its own",
        _clone,
        [
            WINDOW,
            argument("new", metavar="NEW", help="name of the clone"),
            TAGS,
            argument("--note", default="", metavar="TEXT", help="what it is about"),
        ],
        ["paper paper-critical", 'paper@v1 first-try --tag draft --note "before the review"'],
    ),
    Verb(
        "tree",
        "show which window was made from which",
        _tree,
        [
            argument(
                "window", nargs="?", metavar="WINDOW", help="only its family (default: all windows)"
            )
        ],
        ["", "paper"],
    ),
    Verb(
        "compare",
        "show where two windows part, and what they share",
        _compare,
        [
            argument("window", metavar="WINDOW", help="name of a window"),
            argument("other", metavar="WINDOW", help="name of another"),
        ],
        ["paper paper-critical", "paper@v1 paper"],
    ),
)

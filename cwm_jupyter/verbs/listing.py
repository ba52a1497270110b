"""The verb ``ls``: list windows, or sessions."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from cwm_jupyter.parsing import natural
from cwm_jupyter.verbs.base import FrontEnd, Verb, argument

if TYPE_CHECKING:
    from cwm_jupyter.core.models import Page
    from cwm_jupyter.workspace import Workspace

__all__ = ["LS"]


def _ls(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> Page:
    from cwm_jupyter.core.query import Query

    query = Query(
        text=" ".join(args.text),
        tags=args.tags,
        model=args.model,
        session=args.session,
        state=args.states,
        older_than=args.older_than,
        newer_than=args.newer_than,
        min_size=args.min_size,
        max_size=args.max_size,
        sort=args.sort,
        limit=args.limit,
        offset=args.offset,
        versions=args.versions,
    )
    manager = workspace.manager
    return workspace.run(partial(manager.sessions if args.sessions else manager.windows, query))


LS = Verb(
    "ls",
    "list windows, or sessions",
    _ls,
    [
        argument(
            "text",
            nargs="*",
            metavar="TEXT",
            help="only those with these words in name, note, tags",
        ),
        argument("--sessions", action="store_true", help="list sessions instead"),
        argument("--versions", action="store_true", help="list earlier versions too"),
        argument(
            "--tag",
            dest="tags",
            action="append",
            default=[],
            metavar="TAG",
            help="only those that have it; may be repeated",
        ),
        argument("--model", metavar="MODEL", help="only those of this model"),
        argument(
            "-s", "--session", metavar="SESSION", help="only windows that were frozen from it"
        ),
        argument(
            "--state",
            dest="states",
            action="append",
            default=[],
            metavar="STATE",
            help="only those in it; may be repeated (default: all that are not deleted)",
        ),
        argument(
            "--older-than", metavar="AGE", help="only those made before: 7d, 2026-01-31, or a time"
        ),
        argument("--newer-than", metavar="AGE", help="only those made after"),
        argument("--min-size", metavar="SIZE", help="only windows of at least this: 10MB, 1.5GB"),
        argument("--max-size", metavar="SIZE", help="only windows of at most this"),
        argument(
            "--sort",
            metavar="SORT",
            help="name, created, used, tokens or bytes; -created is the other way round",
        ),
        argument("--limit", type=natural, metavar="N", help="so many at most"),
        argument("--offset", type=int, default=0, metavar="N", help="leave out so many before"),
    ],
    ["", "--tag draft --limit 10", "chapter --older-than 7d --sort -bytes", "--sessions"],
)

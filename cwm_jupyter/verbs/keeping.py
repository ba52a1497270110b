"""Verbs of keeping and letting go: rm; edit, expire and policy under admin."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from cwm_jupyter.errors import ValidationError
from cwm_jupyter.verbs.base import DRY_RUN, FrontEnd, Verb, argument

if TYPE_CHECKING:
    from cwm_jupyter.core.models import Session, Window
    from cwm_jupyter.core.outcomes import ExpireReport
    from cwm_jupyter.core.reports import PurgeReport
    from cwm_jupyter.workspace import Workspace

__all__ = ["ADMIN", "VERBS"]


def _rm(
    workspace: Workspace, args: argparse.Namespace, _front: FrontEnd
) -> Window | Session | PurgeReport:
    _check_one(args)
    if args.undo and args.purge:
        raise ValidationError("What is purged cannot be brought back: --undo or --purge, not both.")
    manager = workspace.manager
    if args.session is None:
        works = manager.remove_window, manager.restore_window, manager.deletion.delete_window
    else:
        works = (
            manager.remove_session,
            manager.keeping.restore_session,
            manager.deletion.delete_session,
        )
    remove, restore, delete = works
    work = restore if args.undo else delete if args.purge else remove
    return workspace.run(work, args.session or args.window)


def _edit(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> Window | Session:
    _check_one(args)
    keeping = workspace.manager.keeping
    changes = {
        "name": args.name,
        "add_tags": args.tags,
        "remove_tags": args.untag,
        "ttl": args.ttl,
        "pinned": args.pinned,
    }
    if args.session is None:
        return workspace.run(partial(keeping.edit_window, args.window, note=args.note, **changes))
    if args.note is not None:
        raise ValidationError("A session has no note; a window has.")
    return workspace.run(partial(keeping.edit_session, args.session, **changes))


def _check_one(args: argparse.Namespace) -> None:
    if (args.window is None) == (args.session is None):
        raise ValidationError(
            "Name one window, or one session with -s"
            + (", not both." if args.window is not None else "; none was named.")
        )


def _expire(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> ExpireReport:
    return workspace.run(partial(workspace.manager.keeping.expire, dry_run=args.dry_run))


_ONE = (
    argument("window", nargs="?", metavar="WINDOW", help="name of a window"),
    argument("-s", "--session", metavar="SESSION", help="name of a session, instead"),
)
VERBS = (
    Verb(
        "rm",
        "delete a window or a session; it can be brought back",
        _rm,
        [
            *_ONE,
            argument("--undo", action="store_true", help="bring it back; an expired session too"),
            argument(
                "--purge",
                action="store_true",
                help="delete it for good, at once: its chunks go too, but for those that others "
                "have",
            ),
        ],
        ["paper", "paper --undo", "paper --purge", "-s main"],
    ),
)
ADMIN = (
    Verb(
        "edit",
        "rename a window or a session, or change tags, note and how long it stays",
        _edit,
        [
            *_ONE,
            argument("--name", metavar="NAME", help="a new name"),
            argument(
                "--tag",
                dest="tags",
                action="append",
                default=[],
                metavar="TAG",
                help="give it a tag; may be repeated",
            ),
            argument(
                "--untag",
                action="append",
                default=[],
                metavar="TAG",
                help="take a tag from it; may be repeated",
            ),
            argument("--note", metavar="TEXT", help="a new note; '' takes it away"),
            argument(
                "--ttl",
                metavar="TIME",
                help="how long it stays after its last use, as in 7d; never: for good",
            ),
            argument(
                "--pin",
                dest="pinned",
                action="store_const",
                const=True,
                help="keep it, whatever its --ttl says",
            ),
            argument(
                "--unpin",
                dest="pinned",
                action="store_const",
                const=False,
                help="undo --pin; its time counts anew",
            ),
        ],
        ["paper --name paper-2026 --tag done", "paper --ttl 30d", "-s main --pin"],
    ),
    Verb(
        "expire",
        "clean up what was not used for as long as it was to stay; it can be brought back",
        _expire,
        [DRY_RUN],
        ["", "--dry-run"],
    ),
)

"""Verbs of keeping and letting go: rm; edit, expire and policy under admin."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from cwm_jupyter.errors import CWMError, ValidationError
from cwm_jupyter.parsing import natural
from cwm_jupyter.verbs.base import DRY_RUN, SESSION, FrontEnd, Verb, argument

if TYPE_CHECKING:
    from cwm_jupyter.core.manager import Manager
    from cwm_jupyter.core.models import Session, Window
    from cwm_jupyter.core.outcomes import ExpireReport, PolicyReport
    from cwm_jupyter.core.reports import PurgeReport
    from cwm_jupyter.workspace import Workspace

__all__ = ["ADMIN", "VERBS", "freeze_by_itself"]


def _rm(
    workspace: Workspace, args: argparse.Namespace, front: FrontEnd
) -> Window | Session | PurgeReport:
    _check_one(args)
    if args.undo and args.purge:
        raise ValidationError("What is purged cannot be brought back: --undo or --purge, not both.")
    gone = workspace.run(_removing(workspace.manager, args), args.session or args.window)
    if args.session is None and not args.undo:
        heir = workspace.library.index.find_window(args.window)
        if heir is not None:
            front.note(f"{heir.name} is version {heir.version} again.")
    return gone


def _removing(
    manager: Manager, args: argparse.Namespace
) -> Callable[[str], Awaitable[Window | Session | PurgeReport]]:
    """Return what does it with a name."""
    if args.session is None:
        if args.purge:
            return manager.deletion.delete_window
        return manager.restore_window if args.undo else manager.remove_window
    if args.purge:
        return manager.deletion.delete_session
    return manager.keeping.restore_session if args.undo else manager.remove_session


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


def freeze_by_itself(workspace: Workspace, session_id: str, front: FrontEnd) -> None:
    """Freeze a session as its policy asks, and tell the user; nothing here fails the turn."""
    from cwm_jupyter.core.job import Job

    try:
        with front.progress() as watch:
            job = Job("freeze by itself", watch)
            report = workspace.run(partial(workspace.manager.autofreeze.run, session_id, job=job))
    except KeyboardInterrupt:
        front.note("Interrupted: the session is frozen by itself after its next turn, not now.")
    except CWMError as error:
        front.note(f"The session was not frozen by itself, and will be tried again: {error}")
    else:
        if report is not None:
            front.note(report)
            if report.fresh_session is not None:
                front.use(report.fresh_session)


def _policy(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> PolicyReport:
    autofreeze, session = workspace.manager.autofreeze, args.session or front.session
    changes = {name: getattr(args, name) for name in _POLICY if getattr(args, name) is not None}
    if args.at is not None:
        changes |= args.at
    if args.off:
        if changes:
            raise ValidationError("--off takes the policy away: nothing else can be said with it.")
        return workspace.run(autofreeze.set_policy, session, None)
    before = workspace.run(autofreeze.policy, session)
    if not changes:
        return before
    from cwm_jupyter.core.models import FreezePolicy

    if changes.get("then") == "continue":
        changes.setdefault("summary", None)
    present = before.policy or FreezePolicy()
    return workspace.run(autofreeze.set_policy, session, present.replace(**changes))


#: arguments that are fields of a policy
_POLICY = ("cooldown_tokens", "name", "tags", "then", "summary")


def _at(text: str) -> dict[str, int | float | None]:
    """Return the threshold of a policy: a share of the context, or a number of tokens."""
    if not text.endswith("%"):
        return {"at_tokens": natural(text), "at_share": None}
    try:
        return {"at_tokens": None, "at_share": float(text[:-1]) / 100}
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be as in 75% or 6000, not {text!r}") from None


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
    Verb(
        "policy",
        "freeze a session by itself, after a turn, once it is long enough; or show when",
        _policy,
        [
            SESSION,
            argument(
                "--at",
                type=_at,
                metavar="WHEN",
                help="a share of the model's context, as in 75%%, or a number of tokens",
            ),
            argument(
                "--cooldown",
                dest="cooldown_tokens",
                type=int,
                metavar="N",
                help="then not again before so many tokens more (default: 1024)",
            ),
            argument(
                "--name",
                metavar="PATTERN",
                help="of the windows, with {session}, {turn}, {n} and {date} "
                "(default: {session}-{n})",
            ),
            argument(
                "--tag",
                dest="tags",
                action="append",
                metavar="TAG",
                help="of the windows; may be repeated",
            ),
            argument(
                "--then",
                choices=("continue", "fresh"),
                help="go on, or in a fresh session that begins with the --summary "
                "(default: continue)",
            ),
            argument("--summary", metavar="TEXT", help="system message of the fresh session"),
            argument("--off", action="store_true", help="take the policy away"),
        ],
        ["-s main --at 75%", '--at 6000 --then fresh --summary "We read a paper."', "--off"],
    ),
)

"""Verbs of sessions and windows: say, freeze, thaw, ls, show."""

from __future__ import annotations

import argparse
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cwm_jupyter.errors import ValidationError
from cwm_jupyter.parsing import natural
from cwm_jupyter.verbs.base import PLACE, SAMPLING, SESSION, TAGS, FrontEnd, Verb, argument
from cwm_jupyter.verbs.keeping import freeze_by_itself
from cwm_jupyter.verbs.listing import LS

if TYPE_CHECKING:
    from cwm_jupyter.core.answers import RewindReport
    from cwm_jupyter.core.models import (
        FreezeReport,
        Reply,
        Session,
        ThawReport,
        Value,
    )
    from cwm_jupyter.workspace import Workspace

__all__ = ["VERBS"]


def _say(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> Reply:
    text = front.read() if args.text == ["-"] else " ".join(args.text)
    if not text.strip() and not args.files:
        raise ValidationError("There is nothing to say.", hint="Write a question.")
    manager, name = workspace.manager, args.session or front.session
    if args.edit is not None:
        branch = workspace.run(_edited, workspace, name, args.edit, args.system)
        name = branch.session.name
        front.note(branch)
    before = workspace.run(_opened, workspace, name, args.system)
    if front.use(name) and before.turns and args.edit is None:
        turns = f"{before.turns} turn{'' if before.turns == 1 else 's'}"
        front.note(f"Going on in session {name}: {turns}, {before.tokens:,} tokens.")
    try:
        with front.answer() as on_text:
            reply = workspace.run(
                partial(
                    manager.say,
                    name,
                    text,
                    files=args.files,
                    max_tokens=args.max_tokens,
                    temperature=args.temperature,
                    on_text=on_text,
                )
            )
    except KeyboardInterrupt:
        front.note(_kept(before, workspace.run(manager.session, before.id)))
        raise
    if reply.freeze_due:
        front.later(partial(freeze_by_itself, workspace, before.id, front))
    return reply


async def _opened(workspace: Workspace, name: str, system: str | None) -> Session:
    """Return the session of this name, begun here if there is none."""
    found = await workspace.manager.find_session(name)
    if found is None:
        return await workspace.manager.create_session(name, system=system)
    _check_system(found, system)
    return found


async def _edited(workspace: Workspace, name: str, turn: int, system: str | None) -> RewindReport:
    """Make the session in which a turn is asked otherwise; none where nobody can answer."""
    found = await workspace.manager.session(name)
    _check_system(found, system)
    if turn > found.turns:
        raise ValidationError(
            f"The session {name!r} has no turn {turn} to edit.",
            hint=f"See its turns with: cwm show -s {shlex.quote(name)}",
        )
    await workspace.connect()
    return await workspace.manager.turns.rewind(found.id, turn - 1)


def _check_system(session: Session, system: str | None) -> None:
    if system is not None:
        raise ValidationError(
            f"The session {session.name!r} has begun: its system message cannot change.",
            hint="Begin another one with -s NAME.",
        )


def _kept(before: Session, after: Session) -> str:
    if after.turns > before.turns:
        return f"Interrupted: what had been said is kept, as turn {after.turns} of {after.name}."
    return f"Interrupted: no answer had come yet, the session {after.name} is as it was."


def _freeze(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> FreezeReport:
    from cwm_jupyter.core.job import Job

    with front.progress() as watch:
        return workspace.run(
            partial(
                workspace.manager.freeze,
                args.name,
                args.session or front.session,
                tags=args.tags,
                note=args.note,
                ttl=args.ttl,
                update=args.update,
                on_plan=front.note,
                job=Job(f"freeze {args.name}", watch),
            )
        )


def _thaw(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> ThawReport:
    from cwm_jupyter.core.job import Job

    with front.progress() as watch:
        report = workspace.run(
            partial(
                workspace.manager.thaw,
                args.window,
                as_session=args.as_session,
                recompute=args.recompute,
                accept_engine=args.accept_engine,
                accept_unknown=args.accept_unknown,
                job=Job(f"thaw {args.window}", watch),
            )
        )
    front.use(report.session)
    return report


def _show(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> Value:
    return workspace.run(
        partial(workspace.manager.status, window=args.window, session=args.session)
    )


VERBS = (
    Verb(
        "say",
        "say something in a session; the session is begun if there is none",
        _say,
        [
            argument("text", nargs="*", metavar="TEXT", help="what to say; - reads standard input"),
            SESSION,
            *SAMPLING,
            argument("--system", metavar="TEXT", help="system message of a new session"),
            argument(
                "--edit",
                type=natural,
                metavar="TURN",
                help="ask this turn otherwise, in a new session that goes on from before it",
            ),
            argument(
                "--file",
                dest="files",
                action="append",
                default=[],
                type=Path,
                metavar="PATH",
                help="text file that goes before the text; may be repeated",
            ),
        ],
        ["What is a monad?", "-s paper --file paper.txt Summarise this in three sentences."],
    ),
    Verb(
        "freeze",
        "make a session's state durable under a name",
        _freeze,
        [
            argument("name", metavar="NAME", help="of the new window"),
            SESSION,
            TAGS,
            argument("--note", default="", metavar="TEXT", help="what it is about"),
            argument(
                "--ttl",
                metavar="TIME",
                help="how long it stays after its last use, as in 7d (default: for good)",
            ),
            argument(
                "--update",
                action="store_true",
                help="make a new version, where a window has the name; that is kept as NAME@vN",
            ),
        ],
        [
            "paper",
            'paper -s main --tag draft --note "before the second chapter"',
            "paper --update",
        ],
    ),
    Verb(
        "thaw",
        "restore a window into a new session, and measure it",
        _thaw,
        [
            PLACE,
            argument(
                "--as",
                dest="as_session",
                metavar="NAME",
                help="of the new session (default: the window's)",
            ),
            argument(
                "--recompute",
                action="store_true",
                help="compute the state anew from its tokens, where it does not fit this engine",
            ),
            argument(
                "--accept-engine",
                action="store_true",
                help="accept an engine whose versions or threads differ; the probe decides",
            ),
            argument(
                "--accept-unknown",
                action="append",
                default=[],
                metavar="FIELD",
                help="accept that this field of the engine is unknown; may be repeated",
            ),
        ],
        ["paper", "paper@3 --as second-try"],
    ),
    LS,
    Verb(
        "show",
        "show all there is to say about one window or one session",
        _show,
        [
            argument("window", nargs="?", metavar="WINDOW", help="name of a window"),
            argument("-s", "--session", metavar="SESSION", help="name of a session, instead"),
        ],
        ["paper", "-s main"],
    ),
)

"""Verbs of turns and questions: rewind and ask."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from cwm_jupyter.parsing import natural
from cwm_jupyter.verbs.base import PLACE, SAMPLING, SESSION, FrontEnd, Verb, argument

if TYPE_CHECKING:
    from cwm_jupyter.core.answers import AskReport, RewindReport
    from cwm_jupyter.workspace import Workspace

__all__ = ["VERBS"]


def _rewind(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> RewindReport:
    report = workspace.run(
        partial(
            workspace.manager.turns.rewind,
            args.session or front.session,
            args.turn,
            as_session=args.as_session,
        )
    )
    front.use(report.session.name)
    return report


def _ask(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> AskReport:
    from cwm_jupyter.core.job import Job

    questions = args.questions
    if questions == ["-"]:
        questions = [line for line in front.read().splitlines() if line.strip()]
    with front.progress() as watch:
        return workspace.run(
            partial(
                workspace.manager.questions.ask,
                args.window,
                questions,
                max_tokens=args.max_tokens,
                temperature=args.temperature,
                keep=args.keep,
                job=Job(f"ask {args.window}", watch),
            )
        )


def _turn(text: str) -> int:
    """Return a turn's number; 0 is the beginning."""
    return 0 if text == "0" else natural(text)


VERBS = (
    Verb(
        "rewind",
        "go on from the end of an earlier turn, in a session of its own",
        _rewind,
        [
            argument("turn", type=_turn, metavar="TURN", help="its number; 0 is the beginning"),
            SESSION,
            argument(
                "--as",
                dest="as_session",
                metavar="NAME",
                help="of the new session (default: the old one's, with a number)",
            ),
        ],
        ["3", "0 -s main --as fresh-start"],
    ),
    Verb(
        "ask",
        "put several questions to a window at once, each in a branch of its own",
        _ask,
        [
            PLACE,
            argument(
                "questions",
                nargs="*",
                metavar="QUESTION",
                help="one argument each; - reads standard input, a line each",
            ),
            *SAMPLING,
            argument(
                "--keep",
                metavar="NAME",
                help="keep the branches as sessions NAME-1, NAME-2 and so on",
            ),
        ],
        ['paper "What is new?" "What is missing?"', "paper@3 - --keep review"],
    ),
)

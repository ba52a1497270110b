"""Verbs that show what it is worth: demo and bench."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cwm_jupyter.parsing import Parser
from cwm_jupyter.verbs.base import FrontEnd, Verb, argument

if TYPE_CHECKING:
    from cwm_jupyter.core.models import Value
    from cwm_jupyter.workspace import Workspace

__all__ = ["VERBS"]


def _demo(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> Value:
    from cwm_jupyter.demo import run_demo

    with front.progress() as watch:
        return run_demo(workspace, args, job_watch=watch)


def _configure_demo(parser: Parser) -> None:
    from cwm_jupyter.demo import add_arguments

    add_arguments(parser)


def _bench(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> Value:
    from cwm_jupyter.bench import show  # noqa: F401  (says what the result looks like)
    from cwm_jupyter.bench.plan import FULL, QUICK
    from cwm_jupyter.bench.run import run_bench

    with front.progress() as watch:
        return run_bench(workspace, QUICK if args.quick else FULL, job_watch=watch)


VERBS = (
    Verb(
        "demo",
        "freeze, restart everything, thaw, and compare to the bit",
        _demo,
        configure=_configure_demo,
    ),
    Verb(
        "bench",
        "measure freeze and thaw against limits, on stacks of its own",
        _bench,
        [
            argument(
                "--quick",
                action="store_true",
                help="two short contexts and few repetitions, the vault alone: to try it",
            )
        ],
        ["", "--quick"],
    ),
)

"""Verbs of upkeep: verify and repair; du, gc, purge and rotate-key under admin."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from cwm_jupyter.errors import ValidationError
from cwm_jupyter.verbs.base import DRY_RUN, WINDOW, FrontEnd, Verb, argument

if TYPE_CHECKING:
    from cwm_jupyter.core.outcomes import DeletedReport
    from cwm_jupyter.core.reports import (
        DiskUsage,
        GarbageReport,
        PurgeReport,
        RepairReport,
        VerifyReport,
    )
    from cwm_jupyter.core.rotation import RotationReport
    from cwm_jupyter.workspace import Workspace

__all__ = ["ADMIN", "VERBS"]


def _verify(
    workspace: Workspace, args: argparse.Namespace, front: FrontEnd
) -> VerifyReport | DeletedReport:
    from cwm_jupyter.core.job import Job

    if args.deleted:
        if args.all:
            raise ValidationError("--deleted looks at all that was purged where nothing is named.")
        return workspace.run(workspace.manager.deletion.verify, args.window)
    if args.all == (args.window is not None):
        raise ValidationError(
            "Name one window, or say --all" + (", not both." if args.all else "; nothing was said.")
        )
    with front.progress() as watch:
        job = Job(f"verify {args.window or 'all windows'}", watch)
        return workspace.run(partial(workspace.manager.verify, args.window, job=job))


def _repair(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> RepairReport:
    from cwm_jupyter.core.job import Job

    with front.progress() as watch:
        return workspace.run(
            partial(
                workspace.manager.repair,
                args.window,
                accept_engine=args.accept_engine,
                job=Job(f"repair {args.window}", watch),
            )
        )


def _du(workspace: Workspace, _args: argparse.Namespace, _front: FrontEnd) -> DiskUsage:
    return workspace.run(workspace.manager.disk_usage)


def _gc(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> GarbageReport:
    return workspace.run(partial(workspace.manager.collect_garbage, dry_run=args.dry_run))


def _purge(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> PurgeReport:
    return workspace.run(partial(workspace.manager.purge, args.names, dry_run=args.dry_run))


def _rotate_key(workspace: Workspace, _args: argparse.Namespace, front: FrontEnd) -> RotationReport:
    from cwm_jupyter.core.job import Job

    with front.progress() as watch:
        return workspace.run(partial(workspace.manager.rotate_key, job=Job("rotate-key", watch)))


VERBS = (
    Verb(
        "verify",
        "read every chunk of a window, and say whether it is as frozen",
        _verify,
        [
            argument("window", nargs="?", metavar="WINDOW", help="name of a window"),
            argument("--all", action="store_true", help="all windows, instead"),
            argument(
                "--deleted",
                action="store_true",
                help="look whether anything is left of what was purged, or of the one named",
            ),
        ],
        ["paper", "--all", "--deleted", "--deleted paper"],
    ),
    Verb(
        "repair",
        "compute again what is damaged of a window",
        _repair,
        [
            WINDOW,
            argument(
                "--accept-engine",
                action="store_true",
                help="accept an engine whose versions or threads differ",
            ),
        ],
        ["paper"],
    ),
)
ADMIN = (
    Verb("du", "show what the windows take on disk, together and each alone", _du),
    Verb(
        "gc",
        "remove from the disk what nothing can use any more",
        _gc,
        [DRY_RUN],
        ["", "--dry-run"],
    ),
    Verb(
        "purge",
        "delete for good what was removed: it cannot be brought back then",
        _purge,
        [
            argument(
                "names",
                nargs="*",
                metavar="REMOVED",
                help="name of a window that was removed (default: all that was, sessions too)",
            ),
            DRY_RUN,
        ],
        ["", "paper", "--dry-run"],
    ),
    Verb(
        "rotate-key",
        "change the key of what is encrypted, and encrypt all that is not",
        _rotate_key,
    ),
)

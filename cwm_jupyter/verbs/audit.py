"""The audit log: ``cwm admin audit``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cwm_jupyter.errors import UsageError
from cwm_jupyter.verbs.base import FrontEnd, Verb, argument

if TYPE_CHECKING:
    from cwm_jupyter.core.audit import AuditReport
    from cwm_jupyter.workspace import Workspace

__all__ = ["ADMIN"]


def _audit(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> AuditReport:
    from cwm_jupyter.core.query import duration_s

    if args.last is not None and args.last < 1:
        raise UsageError(f"--last must be at least 1, not {args.last}.")
    return workspace.manager.audit.read(
        last=args.last,
        action=args.action,
        name=args.window,
        since_s=None if args.since is None else duration_s(args.since),
        verdict_only=args.check,
    )


ADMIN = (
    Verb(
        "audit",
        "show who changed what and when, and check that the log is as it was written",
        _audit,
        [
            argument("--last", type=int, metavar="N", help="only the last N"),
            argument("--action", metavar="ACTION", help="only this one, as in freeze"),
            argument("--window", metavar="NAME", help="only what has this name in it"),
            argument("--since", metavar="TIME", help="only what is no older, as in 7d"),
            argument("--check", action="store_true", help="only check it, and show no lines"),
        ],
        ["--last 20", "--window paper --since 7d", "--check"],
    ),
)

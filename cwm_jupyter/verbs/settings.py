"""The verb of settings: show them with their sources, change them, write them to a file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cwm_jupyter.errors import UsageError
from cwm_jupyter.verbs.base import FrontEnd, Verb, argument

if TYPE_CHECKING:
    from cwm_jupyter.config.report import SettingsReport
    from cwm_jupyter.workspace import Workspace

__all__ = ["ADMIN"]


def _config(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> SettingsReport:
    from cwm_jupyter import changes
    from cwm_jupyter.config.checks import Given
    from cwm_jupyter.config.files import project_file, user_file
    from cwm_jupyter.config.report import matching, report
    from cwm_jupyter.config.shared import get_layers
    from cwm_jupyter.workspace import opened_workspace

    if args.unset and (args.field is None or args.value is not None):
        raise UsageError("config: --unset takes a setting and no value.")
    if args.user and args.project:
        raise UsageError("config: --user or --project, not both.")
    if (args.user or args.project) and args.value is None and not args.unset:
        raise UsageError("config: --user and --project say where to write: what is the value?")
    names = matching(args.field)
    if args.value is None and not args.unset:
        return report(get_layers(), names)
    if args.field not in names:
        raise UsageError(
            f"config: {args.field} is a section.", hint=f"Name one of {', '.join(names)}."
        )
    # A command line ends with this verb: changing its own settings would be of no use.
    ends = workspace is not opened_workspace()
    if args.project or args.user or ends:
        file = project_file() if args.project else user_file()
        return changes.write(file, args.field, args.value)
    if args.unset:
        return changes.change({}, [args.field])
    given = Given(args.value, "%cwm config", from_text=True)
    return changes.change({args.field: given})


ADMIN = (
    Verb(
        "config",
        "show the settings and where they came from, or change one",
        _config,
        [
            argument("field", nargs="?", metavar="SETTING", help="as in limits.max_tokens"),
            argument("value", nargs="?", metavar="VALUE", help="what it shall be"),
            argument("--unset", action="store_true", help="take back what was set, instead"),
            argument(
                "--user",
                action="store_true",
                help="write it to your settings file (in a terminal: the default)",
            ),
            argument("--project", action="store_true", help="write it to the project's file"),
        ],
        ["", "limits", "limits.max_tokens 256", "limits.max_tokens --unset"],
    ),
)

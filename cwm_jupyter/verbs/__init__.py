"""The verbs of ``cwm VERB`` and ``%cwm VERB``: one table for both.

A verb is its arguments and a function from workspace, arguments and front end to a value. It
imports what it needs when it runs: the table is read when the notebook extension loads.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cwm_jupyter._version import __version__
from cwm_jupyter.errors import UsageError
from cwm_jupyter.parsing import HelpRequestError
from cwm_jupyter.verbs import (
    archive,
    audit,
    branches,
    keeping,
    measure,
    settings,
    stack,
    turns,
    upkeep,
    windows,
)
from cwm_jupyter.verbs.base import FrontEnd, Verb
from cwm_jupyter.verbs.stack import start_stack

if TYPE_CHECKING:
    from cwm_jupyter.workspace import Workspace

__all__ = ["VERBS", "FrontEnd", "Verb", "find", "overview", "parse", "start_stack"]

_ABOUT = "Context windows: freeze a model's KV cache under a name, thaw it another day."
#: an option that all verbs have, by what was typed
_EVERYWHERE = {
    "cwm": "--json, anywhere, prints one JSON document instead.",
    "%cwm": "-o VARIABLE keeps the result.",
}


def parse(arguments: Sequence[str], prog: str) -> tuple[Verb, argparse.Namespace]:
    """Return the verb and its arguments.

    Raises
    ------
    UsageError
        There is no such verb, or the arguments make no sense.
    HelpRequestError
        Help was asked for.
    """
    verb, path, rest = find(arguments, prog)
    return verb, verb.parser(path).parse(rest)


def find(arguments: Sequence[str], prog: str) -> tuple[Verb, str, Sequence[str]]:
    """Return the verb that is named, all that was typed to name it, and its arguments.

    Verbs below ``admin`` are found without it too.

    Raises as `parse` does.
    """
    if arguments[:1] == ["--version"]:
        raise HelpRequestError(f"cwm-jupyter {__version__}")
    verbs: Mapping[str, Verb] = VERBS
    about, rest = _ABOUT, arguments
    if rest and rest[0] not in VERBS and rest[0] in _ADMIN.verbs:
        rest = [_ADMIN.name, *rest]  # what is seldom used needs no overview to be found
    while True:
        if not rest or rest[0] in ("-h", "--help", "help"):
            raise HelpRequestError(overview(prog, verbs, about))
        if rest[0] not in verbs:
            close = difflib.get_close_matches(rest[0], verbs, n=2)
            meant = f"Did you mean {' or '.join(close)}?" if close else f"See {prog} -h."
            raise UsageError(f"{prog}: there is no verb {rest[0]!r}.", hint=meant)
        verb, prog, rest = verbs[rest[0]], f"{prog} {rest[0]}", rest[1:]
        if not verb.verbs:
            return verb, prog, rest
        verbs, about = verb.verbs, f"{verb.help[0].upper()}{verb.help[1:]}."


def overview(prog: str, verbs: Mapping[str, Verb] | None = None, about: str | None = None) -> str:
    """Return the help on all verbs, or on those below one."""
    verbs = VERBS if verbs is None else verbs
    width = max(map(len, verbs))
    lines = [f"  {verb.name:<{width}}  {verb.help}" for verb in verbs.values()]
    return "\n".join(
        [
            f"usage: {prog} VERB ...",
            "",
            about or _ABOUT,
            "",
            *lines,
            "",
            f"{prog} VERB -h tells more. {_EVERYWHERE.get(prog.split()[0], '')}".rstrip(),
        ]
    )


def _admin(_workspace: Workspace, _args: argparse.Namespace, _front: FrontEnd) -> None:
    """Never runs: it has verbs below it."""


_ADMIN = Verb(
    "admin",
    "look after what lies on disk",
    _admin,
    verbs={
        verb.name: verb
        for verb in (
            *keeping.ADMIN,
            *upkeep.ADMIN,
            *archive.ADMIN,
            *audit.ADMIN,
            *settings.ADMIN,
        )
    },
)
VERBS = {
    verb.name: verb
    for verb in (
        *stack.VERBS,
        *windows.VERBS,
        *turns.VERBS,
        *branches.VERBS,
        *keeping.VERBS,
        *upkeep.VERBS,
        *archive.VERBS,
        _ADMIN,
        *measure.VERBS,
    )
}

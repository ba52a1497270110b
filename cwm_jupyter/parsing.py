"""The argument parser of ``cwm`` and ``%cwm``: it raises instead of printing and exiting."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from typing import NoReturn

from cwm_jupyter.errors import UsageError

__all__ = ["HelpRequestError", "Parser", "natural"]


class HelpRequestError(Exception):
    """The user asked for help; the message is the help."""


class Parser(argparse.ArgumentParser):
    """A parser for the command line and for notebooks.

    Parameters
    ----------
    prog
        What the user typed so far, as in ``cwm freeze``.
    description
        What the command does.
    examples
        Arguments to show as examples.

    Raises
    ------
    UsageError
        From `parse`: the arguments make no sense.
    HelpRequestError
        From `parse`: ``-h`` is among them.
    """

    def __init__(self, prog: str, description: str, examples: Sequence[str] = ()) -> None:
        lines = [f"  {prog} {example}".rstrip().replace(" \n", "\n") for example in examples]
        super().__init__(
            prog,
            description=description,
            epilog="\n".join(["examples:", *lines]) if lines else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=False,
        )
        self.add_argument("-h", "--help", action="store_true", help="show this help")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Return the parsed arguments; options may stand anywhere."""
        # Asked for first: required arguments are then missing, and rightly so.
        if {"-h", "--help"} & set(itertools.takewhile(lambda a: a != "--", arguments)):
            raise HelpRequestError(self.format_help())
        if "--" in arguments:  # which intermixed parsing loses
            return self.parse_args(list(arguments))
        return self.parse_intermixed_args(self._joined(arguments))

    def _joined(self, arguments: Sequence[str]) -> list[str]:
        """Join options to values that begin with a dash, which argparse takes for options."""
        joined: list[str] = []
        options = self.options()
        for argument in arguments:
            before = joined[-1] if joined else ""
            value = argument.startswith("-") and argument.partition("=")[0] not in options
            if value and before.startswith("--") and options.get(before) is not None:
                joined[-1] = f"{before}={argument}"
            else:
                joined.append(argument)
        return joined

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`, where argparse would print and exit."""
        raise UsageError(f"{self.prog}: {message}.", hint=f"See {self.prog} -h.")

    def options(self) -> dict[str, str | None]:
        """Return every option string and what its value is called, None where it takes none."""
        return {
            option: action.metavar if isinstance(action.metavar, str) else None
            for action in self._actions
            for option in action.option_strings
        }

    def arguments(self) -> list[argparse.Action]:
        """Return all arguments, those by place first."""
        return sorted(self._actions, key=lambda action: bool(action.option_strings))

    def awaiting(self, words: Sequence[str]) -> list[argparse.Action]:
        """Return what the word after these may belong to: an option, or arguments by place."""
        options = {name: action for action in self._actions for name in action.option_strings}
        places = [action for action in self.arguments() if not action.option_strings]
        wants: argparse.Action | None = None
        given = 0  # words at the first of the places
        for word in words:
            if wants is not None:
                wants = None
            elif word in options:
                wants = options[word] if options[word].nargs != 0 else None
            elif not word.startswith("-") and places:
                given += 1
                if places[0].nargs not in ("*", "+"):
                    places, given = places[1:], 0
        if wants is not None:
            return [wants]
        return places[: 2 if given else 1]


def natural(text: str) -> int:
    """Return a whole number from 1; the type of arguments that count."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)

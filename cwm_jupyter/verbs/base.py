"""What a verb is, and what it asks of whoever runs it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cwm_jupyter.parsing import Parser, natural

if TYPE_CHECKING:
    from cwm_jupyter.core.job import JobState
    from cwm_jupyter.workspace import Workspace

__all__ = [
    "DRY_RUN",
    "PLACE",
    "SAMPLING",
    "SESSION",
    "TAGS",
    "WINDOW",
    "FrontEnd",
    "Verb",
    "argument",
]


class FrontEnd(Protocol):
    """What a verb asks of whoever runs it: a terminal or a notebook."""

    @property
    def session(self) -> str:
        """The session that is meant where none is named."""
        ...

    def use(self, session: str) -> bool:
        """Make a session the one that is meant; return whether the user should be told."""
        ...

    def note(self, value: object) -> None:
        """Show something that is not the result, at once."""
        ...

    def progress(self) -> AbstractContextManager[Callable[[JobState], None]]:
        """Show what a job does while the block runs; yields the job's watcher."""
        ...

    def answer(self) -> AbstractContextManager[Callable[[str], None]]:
        """Show an answer while it comes; yields what takes its pieces."""
        ...

    def later(self, work: Callable[[], None]) -> None:
        """Do something once the result is shown; it tells the user itself what went wrong."""
        ...

    def read(self) -> str:
        """Return the text that the user pipes in."""
        ...

    def secret(self, prompt: str) -> str:
        """Ask for a passphrase, which is not shown."""
        ...


Run = Callable[["Workspace", argparse.Namespace, FrontEnd], Any]


@dataclass(frozen=True)
class Verb:
    """One verb.

    Parameters
    ----------
    name, help
        As the overview shows them.
    run
        Does it and returns a value that `cwm_jupyter.present` can show.
    arguments
        What goes to `argparse.ArgumentParser.add_argument`.
    examples
        Arguments to show as examples.
    configure
        Adds arguments that are declared elsewhere.
    verbs
        Verbs below it: ``cwm admin du`` is ``du`` of ``admin``. It then does nothing itself.
    """

    name: str
    help: str
    run: Run
    arguments: Sequence[tuple[tuple[str, ...], dict[str, Any]]] = ()
    examples: Sequence[str] = ()
    configure: Callable[[Parser], None] | None = None
    verbs: Mapping[str, Verb] = field(default_factory=dict)

    def parser(self, prog: str) -> Parser:
        """Return the verb's parser; `prog` is what was typed, the verb included."""
        parser = Parser(prog, f"{self.help[0].upper()}{self.help[1:]}.", self.examples)
        for names, options in self.arguments:
            parser.add_argument(*names, **options)
        if self.configure is not None:
            self.configure(parser)
        return parser


def argument(*names: str, **options: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return what goes to `argparse.ArgumentParser.add_argument`."""
    return names, options


SAMPLING = (
    argument(
        "--max-tokens",
        type=natural,
        metavar="N",
        help="longest answer, in tokens (default: 512)",
    ),
    argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="how freely it chooses its words; 0 is greedy (default: 0)",
    ),
)
SESSION = argument(
    "-s", "--session", metavar="SESSION", help="the session (default: the present one, or main)"
)
WINDOW = argument("window", metavar="WINDOW", help="name of a window")
PLACE = argument(
    "window", metavar="WINDOW", help="name of a window, or NAME@TURN for the end of a turn"
)
TAGS = argument(
    "--tag",
    dest="tags",
    action="append",
    default=[],
    metavar="TAG",
    help="for finding it again; may be repeated",
)
DRY_RUN = argument("--dry-run", action="store_true", help="only tell what would be done")

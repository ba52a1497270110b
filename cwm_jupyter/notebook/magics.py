"""``%%cwm``, ``%cwm``, ``%freeze``, ``%thaw``: parse, call the verb, show what came back."""

from __future__ import annotations

import dataclasses
import keyword
import shlex
import sys
from argparse import SUPPRESS, ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class
from IPython.display import display

from cwm_jupyter.core import portable
from cwm_jupyter.errors import CWMError, UsageError
from cwm_jupyter.parsing import HelpRequestError, Parser
from cwm_jupyter.verbs import VERBS, Verb, find, overview

if TYPE_CHECKING:
    from cwm_jupyter.notebook.display import NotebookOutput
    from cwm_jupyter.terminal import Terminal

__all__ = ["CWMMagics", "Interrupted", "magic_parser", "split"]

#: verbs that may take long enough for one to go on meanwhile
_LONG = frozenset({"freeze", "thaw", "verify", "repair", "ask", "export", "import", "up"})
#: verbs of whose results there are pictures
_PICTURED = frozenset({"show", "tree", "thaw", "ls", "du"})


_BEGINNING = """Context windows: freeze a model's KV cache under a name, thaw it another day.

  %cwm up        start the stack, and then in cells of their own:
  %%cwm          say what stands below it
  %freeze NAME   keep the conversation's state under a name
  %thaw NAME     go on from there, tomorrow or in another notebook

All verbs, each with help of its own:"""


class Interrupted(KeyboardInterrupt):  # it is no error
    """Ctrl-C, shown in one line: what was kept has been said."""

    def _render_traceback_(self) -> list[str]:
        return ["Interrupted."]


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have Ctrl-C shown in one line, whenever in a magic it comes."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted from None


@magics_class
class CWMMagics(Magics):  # type: ignore[misc]  # IPython is untyped here
    """The magics; all that they do is in `cwm_jupyter.verbs`."""

    @line_cell_magic  # type: ignore[untyped-decorator]
    def cwm(self, line: str, cell: str | None = None) -> None:
        """Talk in a session (``%%cwm``), or run any verb (``%cwm VERB``)."""
        with _interruptible():
            arguments = split(line)
            if cell is None:
                self._verb("%cwm", arguments)
                return
            self._run(VERBS["say"], _cell_parser(), arguments, cell)

    @line_magic  # type: ignore[untyped-decorator]
    def freeze(self, line: str) -> None:
        """Make a session's state durable under a name."""
        with _interruptible():
            self._run(VERBS["freeze"], magic_parser(VERBS["freeze"], "%freeze"), split(line))

    @line_magic  # type: ignore[untyped-decorator]
    def thaw(self, line: str) -> None:
        """Restore a window into a new session, and measure it."""
        with _interruptible():
            self._run(VERBS["thaw"], magic_parser(VERBS["thaw"], "%thaw"), split(line))

    def _verb(self, prog: str, arguments: list[str]) -> None:
        try:
            verb, path, rest = find(arguments, prog)
        except HelpRequestError as request:
            print(request)  # noqa: T201
            return
        self._run(verb, magic_parser(verb, path), list(rest))

    def _run(
        self, verb: Verb, parser: Parser, arguments: list[str], cell: str | None = None
    ) -> None:
        try:
            parsed = parser.parse(arguments)
        except HelpRequestError as request:
            print(request)  # noqa: T201
            return
        if cell is not None:
            _take_cell(parsed, cell)
        from cwm_jupyter.workspace import get_workspace

        output = self._output()
        if getattr(parsed, "background", False):
            from cwm_jupyter.notebook.background import start

            self._keep(parsed, start(verb, get_workspace(), parsed, output))
            return
        try:
            value = verb.run(get_workspace(), parsed, output)
        except CWMError as error:
            # IPython prints a native traceback where an exception group led to an error.
            error.__context__ = None
            raise
        self._keep(parsed, value)
        output.show(value)
        output.finish()
        if getattr(parsed, "plot", False):
            from cwm_jupyter.api.pictures import plot

            display(plot(value))

    def _keep(self, parsed: Namespace, value: object) -> None:
        if parsed.output is not None:
            self.shell.user_ns[parsed.output] = value

    def _output(self) -> NotebookOutput | Terminal:
        from cwm_jupyter.current import shared

        if hasattr(self.shell, "kernel"):
            from cwm_jupyter.notebook.display import NotebookOutput

            return NotebookOutput(shared)
        from cwm_jupyter.terminal import Terminal

        return Terminal(sys.stdout, sys.stderr, shared)


def split(line: str) -> list[str]:
    """Return a magic's arguments, quoted as in a shell; on Windows a backslash is one.

    Raises
    ------
    UsageError
        A quotation is not closed.
    """
    try:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
        lexer.whitespace_split, lexer.commenters = True, ""
        if portable.WINDOWS:  # where paths have them
            lexer.escape = ""
        return list(lexer)
    except ValueError as error:
        raise UsageError(
            f"The line cannot be split into arguments: {error}.".replace("..", "."),
            hint='Put text with quotes or spaces into quotes, as in --note "what\'s new".',
        ) from None


def magic_parser(verb: Verb, prog: str) -> Parser:
    """Return a verb's parser with the options that only magics have."""
    parser = verb.parser(prog)
    parser.add_argument(
        "-o", "--output", type=_variable, metavar="VARIABLE", help="keep the result in a variable"
    )
    if verb.name not in _PICTURED | _LONG:
        return parser
    one_way = parser.add_mutually_exclusive_group()
    if verb.name in _PICTURED:
        one_way.add_argument("--plot", action="store_true", help="draw a picture of it, too")
    if verb.name in _LONG:
        one_way.add_argument(
            "--background",
            action="store_true",
            help="go on at once; -o then keeps a handle, to await, poll or cancel",
        )
    return parser


def _cell_parser() -> Parser:
    """Return the parser of ``%%cwm``, where what to say stands below."""
    say = VERBS["say"]
    cell = dataclasses.replace(
        say,
        help="say what stands below in a session; the session is begun if there is none",
        # Taken all the same, for the error to say where the text belongs.
        arguments=[
            (names, {**options, "help": SUPPRESS}) if names == ("text",) else (names, options)
            for names, options in say.arguments
        ],
        examples=["\n  What is a monad?", "-s paper --file paper.txt\n  Summarise this."],
    )
    return magic_parser(cell, "%%cwm")


def _variable(name: str) -> str:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ArgumentTypeError(f"must be the name of a variable, not {name!r}")
    return name


def _take_cell(parsed: Namespace, cell: str) -> None:
    if parsed.text:
        raise UsageError(
            f"%%cwm: what to do with {' '.join(parsed.text)!r}?",
            hint="Put the question under %%cwm, not beside it.",
        )
    parsed.text = [cell.strip()]


CWMMagics.cwm.__doc__ = f"{overview('%cwm', about=_BEGINNING)}\n\n{_cell_parser().format_help()}"
CWMMagics.freeze.__doc__ = magic_parser(VERBS["freeze"], "%freeze").format_help()
CWMMagics.thaw.__doc__ = magic_parser(VERBS["thaw"], "%thaw").format_help()

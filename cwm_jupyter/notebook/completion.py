"""Tab completion after the magics: verbs, options, names of windows and sessions."""

from __future__ import annotations

import shlex
from argparse import Action
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, get_args

from IPython.core.error import TryNext

from cwm_jupyter.errors import CWMError
from cwm_jupyter.notebook.magics import magic_parser
from cwm_jupyter.verbs import VERBS, Verb

if TYPE_CHECKING:
    from cwm_jupyter.core.index import Index
    from cwm_jupyter.core.models import Session, Window

__all__ = ["COMMANDS", "complete"]

#: what the completer is asked for, and the verb that follows from it
COMMANDS = {"%cwm": None, "%%cwm": "say", "%freeze": "freeze", "%thaw": "thaw"}


def complete(_shell: object, event: Any) -> list[str]:
    """Return what may come next; IPython keeps what begins like the word before the cursor.

    Nothing is asked of the stack, so this works, and is as fast, without one.
    """
    typed = event.text_until_cursor.split()
    if event.text_until_cursor[-1:].isspace():
        typed.append("")
    command, *before, word = typed if len(typed) > 1 else [*typed, ""]
    if word.startswith("--") and "=" in word:
        option, _, word = word.partition("=")
        before.append(option)
    try:
        found = _following(command, before, word)
    except (CWMError, OSError):
        return []
    # What IPython takes for the word is shorter where the name has an @ or a quote in it.
    passed = word.removesuffix(event.symbol)
    return [one[len(passed) :] for one in found if one.startswith(passed)]


def _following(command: str, before: list[str], word: str) -> list[str]:
    """Return what may follow a magic and the words `before`."""
    verbs: Mapping[str, Verb] = {**VERBS["admin"].verbs, **VERBS}
    name = COMMANDS.get(f"%{command}" if command[:1] != "%" else command)
    if name is None:
        if not before:
            return list(verbs)
        name, *before = before
    while name in verbs:
        verb = verbs[name]
        if not verb.verbs:
            return _arguments(verb, before, word)
        if not before:
            return list(verb.verbs)
        verbs, (name, *before) = verb.verbs, before
    return []


def _arguments(verb: Verb, before: list[str], word: str) -> list[str]:
    """Return what may follow the words `before` among a verb's arguments."""
    parser = magic_parser(verb, verb.name)
    awaited = parser.awaiting(before)
    found = [name for action in awaited for name in _values(action, before, word)]
    if not any(action.option_strings for action in awaited):
        found += parser.options()
    takes_file = any(action.metavar in ("PATH", "FILE") for action in awaited)
    if takes_file and not (word and any(name.startswith(word) for name in found)):
        raise TryNext  # IPython completes files itself
    return found


def _values(action: Action, before: list[str], word: str) -> list[str]:
    """Return what an argument may be, as far as that is known."""
    if action.choices is not None:
        return list(action.choices)
    metavar = str(action.metavar)
    if metavar == "WINDOW" and "--undo" in before:
        metavar = "REMOVED"
    elif metavar == "WINDOW" and "@" in word:
        metavar = "VERSION"
    return _names(metavar)


def _names(metavar: str) -> list[str]:
    """Return what an argument of this name takes."""
    from cwm_jupyter.core.models import SESSION_STATES, WindowState
    from cwm_jupyter.core.query import WINDOW_SORTS

    if metavar == "SETTING":
        from cwm_jupyter.config.schema import fields

        return list(fields())
    if metavar == "STATE":
        return list(dict.fromkeys([*get_args(WindowState), *SESSION_STATES]))
    if metavar == "SORT":
        return [*WINDOW_SORTS, *(f"-{sort}" for sort in WINDOW_SORTS)]
    index = _index() if metavar in _STORED else None
    return [] if index is None else [shlex.quote(n) for n in dict.fromkeys(_STORED[metavar](index))]


def _index() -> Index | None:
    """Return the index, None where there is no home; none is made for a completion."""
    from cwm_jupyter.config import get_settings
    from cwm_jupyter.core.index import Index

    home = get_settings().home
    return Index(home) if home.is_dir() else None


def _entries(index: Index) -> Iterator[Session | Window]:
    yield from index.windows(versions=True).items
    yield from index.sessions().items


#: by what an argument is called, what the index has for it
_STORED: dict[str, Callable[[Index], Iterable[str]]] = {
    "WINDOW": lambda index: (each.name for each in index.windows().items),
    "VERSION": lambda index: (each.known_as for each in index.windows(versions=True).items),
    "REMOVED": lambda index: (each.name for each in index.windows(state="deleted").items),
    "SESSION": lambda index: (each.name for each in index.sessions().items),
    "TAG": lambda index: (tag for each in _entries(index) for tag in each.tags),
    "MODEL": lambda index: (each.model for each in _entries(index)),
}

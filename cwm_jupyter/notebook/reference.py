"""What the documentation says of every magic, made from the verbs.

``python -m cwm_jupyter.notebook.reference`` prints the list that is in docs/magics.md.
"""

from __future__ import annotations

from argparse import Action
from collections.abc import Iterator, Mapping

from cwm_jupyter.notebook.magics import magic_parser
from cwm_jupyter.verbs import VERBS, Verb

__all__ = ["reference"]

#: verbs that have a magic of their own, and what it is
_OWN = {"say": "%%cwm", "freeze": "%freeze", "thaw": "%thaw"}
#: what all magics have is said once
_EVERYWHERE = ("help", "output")


def reference() -> str:
    """Return all verbs with their arguments, as Markdown."""
    return "\n".join(_verbs(VERBS, "%cwm")).rstrip() + "\n"


def _verbs(verbs: Mapping[str, Verb], above: str) -> Iterator[str]:
    for verb in verbs.values():
        typed = f"{above} {verb.name}"
        if verb.verbs:
            yield from _verbs(verb.verbs, "%cwm" if verb.name == "admin" else typed)
        else:
            yield from _verb(verb, typed)


def _verb(verb: Verb, typed: str) -> Iterator[str]:
    own = _OWN.get(verb.name) if typed == f"%cwm {verb.name}" else None
    yield f"### {f'`{own}`, ' if own else ''}`{typed}`"
    yield ""
    yield f"{verb.help[0].upper()}{verb.help[1:]}."
    yield ""
    actions = magic_parser(verb, typed).arguments()
    rows = [f"| {_name(one)} | {_help(one)} |" for one in actions if one.dest not in _EVERYWHERE]
    if rows:
        yield "| argument | what it is |"
        yield "|---|---|"
        yield from rows
        yield ""
    if verb.examples:
        # A question goes under %%cwm, and beside %cwm say.
        shown = own if own and not own.startswith("%%") else typed
        yield "```"
        yield from (f"{shown} {example}".rstrip() for example in verb.examples)
        yield "```"
        yield ""


def _name(action: Action) -> str:
    """Return an argument as one types it; what is optional by place is in brackets."""
    value = action.metavar or "|".join(action.choices or ())
    if action.option_strings:
        names = ", ".join(f"`{name}`" for name in action.option_strings)
        return names if action.nargs == 0 else f"{names} `{value}`"
    more = " …" if action.nargs in ("*", "+") else ""
    return f"`[{value}{more}]`" if action.nargs in ("?", "*") else f"`{value}{more}`"


def _help(action: Action) -> str:
    return (action.help or "").replace("%%", "%").replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201

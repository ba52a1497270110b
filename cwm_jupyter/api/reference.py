"""What the documentation says of the Python API, made from its code.

``python -m cwm_jupyter.api.reference`` prints the list that is in docs/python.md.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any, cast

from cwm_jupyter import api, errors
from cwm_jupyter.core.models import Value
from cwm_jupyter.notebook import panel
from cwm_jupyter.stack import doctor

__all__ = ["reference"]

#: what belongs together, in the order in which one meets it
_TOPICS: tuple[ModuleType, ...] = (
    api.stack,
    api.live,
    api.frozen,
    api.turns,
    api.branches,
    api.keeping,
    api.policies,
    api.archive,
    api.upkeep,
    api.pictures,
    api.configuration,
    api.audit,
)
#: imported where it is used, and so not found through `cwm_jupyter.api`
_LAZY: tuple[type[Value], ...] = (doctor.Finding,)
_SECTION = re.compile(r"^(Attributes|Parameters|Returns|Raises|Examples)\n-+\n", re.MULTILINE)
#: a name, or several, and below it what it means, indented
_ITEM = re.compile(r"^(\S.*)\n((?:    .*\n?|\n)+)", re.MULTILINE)
_TITLE = re.compile(r"\b[A-Z]\w+")
_WIDTH = 88


def reference() -> str:
    """Return all public names, what they return, and the errors, as Markdown."""
    lines: list[str] = []
    for topic in _TOPICS:
        lines += [f"## {_heading(topic)}", ""]
        for name in sorted(topic.__all__, key=lambda name: _line(getattr(topic, name))):
            value = getattr(topic, name)
            if isinstance(value, type):
                lines += _class(value)
            elif not _is_twin(name, vars(topic)):
                lines += _function("###", name, value, vars(topic))
    lines += ["## In a notebook", "", *_function("###", "panel", panel.panel, {})]
    returned = _returned(lines)
    lines += ["## What comes back", ""]
    for value in returned:
        lines += _value(value)
    lines += ["## Errors", "", "| error | code | what it says |", "|---|---|---|", *_errors()]
    return "\n".join(lines).rstrip() + "\n"


def _heading(topic: ModuleType) -> str:
    return (topic.__doc__ or "").partition("\n")[0].rstrip(".")


def _line(value: Any) -> int:
    return inspect.getsourcelines(value)[1]


def _is_twin(name: str, holder: Mapping[str, Any]) -> bool:
    """Return whether this is the awaited form of another."""
    return name.startswith("a") and isinstance(holder.get(name[1:]), FunctionType)


# Functions and classes


def _class(value: type) -> Iterator[str]:
    parts = _parts(value)
    yield from (f"### `{value.__name__}`", "", parts.pop(""), "")
    properties = [
        (name, inspect.getdoc(one) or "")
        for name, one in vars(value).items()
        if isinstance(one, property)
    ]
    yield from _table("attribute", [*_items(parts.get("Attributes", "")), *properties])
    yield from _example(parts)
    for name, one in vars(value).items():
        public = isinstance(one, FunctionType) and not name.startswith("_")
        if public and not _is_twin(name, vars(value)):
            yield from _function("####", name, one, vars(value), f"{value.__name__}.")


def _function(
    level: str, name: str, value: Any, holder: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    """Return a function's section; its awaited form, if `holder` has one, is named in it."""
    parts = _parts(value)
    yield from (f"{level} `{prefix}{name}`", "", "```python", *_signature(value), "```", "")
    yield from (parts.pop(""), "")
    yield from _table("parameter", _items(parts.get("Parameters", "")))
    if "Returns" in parts:
        said = " ".join(what for _, what in _items(parts["Returns"]))
        yield from (f"Returns: {said[0].lower()}{said[1:]}", "")
    yield from _table("error", _items(parts.get("Raises", "")))
    if isinstance(holder.get(f"a{name}"), FunctionType):
        yield from (f"Awaited: `{prefix}a{name}`, which takes the same.", "")
    yield from _example(parts)


def _signature(value: Any) -> list[str]:
    """Return the definition without its body, a parameter a line where it is long."""
    source = textwrap.dedent(inspect.getsource(value))
    node = cast(ast.FunctionDef, ast.parse(source).body[0])
    arguments = node.args
    arguments.args = [one for one in arguments.args if one.arg != "self"]
    said = ast.unparse(arguments).replace("'", '"').replace("=", " = ")
    returns = ast.unparse(node.returns) if node.returns else "None"
    line = f"def {node.name}({said}) -> {returns}: ..."
    if len(line) <= _WIDTH:
        return [line]
    each = re.split(r", (?![^\[(]*[\])])", said)  # not within brackets
    return [f"def {node.name}(", *(f"    {one}," for one in each), f") -> {returns}: ..."]


def _example(parts: Mapping[str, str]) -> Iterator[str]:
    if "Examples" in parts:
        shown = parts["Examples"].replace(">>> ", "").replace("  # doctest: +SKIP", "")
        yield from ("```python", shown.strip(), "```", "")


# Docstrings


def _parts(value: Any) -> dict[str, str]:
    """Return a docstring's sections by title; what is before the first has none."""
    pieces = _SECTION.split(inspect.getdoc(value) or "")
    parts = {"": _prose(pieces[0])}
    return parts | dict(zip(pieces[1::2], pieces[2::2], strict=True))


def _items(section: str) -> list[tuple[str, str]]:
    """Return what a section explains: names, and what is said of them."""
    return [(names, " ".join(what.split())) for names, what in _ITEM.findall(section + "\n")]


def _prose(text: str) -> str:
    """Return a docstring's text as Markdown, paragraph by paragraph."""
    return "\n\n".join(
        " ".join(part.split()) for part in text.replace("``", "`").split("\n\n") if part.strip()
    )


def _table(head: str, items: Iterable[tuple[str, str]]) -> Iterator[str]:
    rows = [
        f"| {', '.join(f'`{name}`' for name in names.split(', '))} | {_prose(what)} |"
        for names, what in items
    ]
    if rows:
        yield from (f"| {head} | {'when' if head == 'error' else 'what it is'} |", "|---|---|")
        yield from (*rows, "")


# What comes back


def _returned(lines: Iterable[str]) -> list[type[Value]]:
    """Return the values that are named in the lines, and those in their fields, by name."""
    values: list[type[Value]] = [*_below(Value), *_LAZY]
    known = {one.__name__: one for one in values}
    found: dict[str, type[Value]] = {}
    texts = [line for line in lines if line.startswith((")", "def "))]
    while texts:
        named = {name for text in texts for name in _TITLE.findall(text)} & (known.keys() - found)
        new = {name: known[name] for name in named}
        found |= new
        texts = [text for value in new.values() for text in _named_by(value)]
    return [found[name] for name in sorted(found)]


def _named_by(value: type[Value]) -> Iterator[str]:
    """Return the names of a value's base and of its fields' types."""
    yield value.__bases__[0].__name__
    yield from _fields(value).values()


def _below(value: type[Value]) -> Iterator[type[Value]]:
    for one in value.__subclasses__():
        yield from (one, *_below(one))


def _value(value: type[Value]) -> Iterator[str]:
    above = value.__bases__[0]
    base = "" if above is Value else f"({above.__name__})"
    yield from (f"### `{value.__name__}`", "", _parts(value)[""], "")
    yield from ("```python", f"class {value.__name__}{base}:")
    yield from (f"    {name}: {kind}" for name, kind in _fields(value).items())
    yield from ("```", "")
    computed = _computed(value)
    if computed:
        yield from (*(f"* `{name}`: {what}" for name, what in computed), "")


def _fields(value: type[Value]) -> dict[str, str]:
    """Return the types of what a value has beyond its base; what is computed comes last."""
    kinds = {name: value.__annotations__[name] for name in value.__annotations__}
    computed = {
        name: vars(value)[name].fget.__annotations__["return"] for name, _ in _computed(value)
    }
    return {name: kind.replace("'", '"') for name, kind in (kinds | computed).items()}


def _computed(value: type[Value]) -> list[tuple[str, str]]:
    """Return the properties of a value, and what they are."""
    return [
        (name, _prose(inspect.getdoc(one) or ""))
        for name, one in vars(value).items()
        if isinstance(one, property) and not name.startswith("_")
    ]


def _errors() -> Iterator[str]:
    for name, one in _tree(errors.CWMError):
        said = (inspect.getdoc(one) or "").partition("\n")[0]
        yield f"| {name} | `{one.code}` | {said} |"


def _tree(
    error: type[errors.CWMError], depth: int = 0
) -> Iterator[tuple[str, type[errors.CWMError]]]:
    yield f"{'&emsp;' * depth}`{error.__name__}`", error
    for one in error.__subclasses__():
        if one.__module__ == errors.__name__:
            yield from _tree(one, depth + 1)


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201

"""What the documentation says of every field, made from the schema.

``python -m cwm_jupyter.config.reference`` prints the list that is in docs/settings.md.
"""

from __future__ import annotations

import ast
import functools
import inspect
import os
from typing import Any

import msgspec

from cwm_jupyter.config import schema
from cwm_jupyter.config.checks import allowed
from cwm_jupyter.config.schema import Settings, fields

__all__ = ["CHANGES", "descriptions", "reference"]

#: when a field may change, by its rule
CHANGES = {
    "now": "at any time",
    "down": "while no stack runs",
    "start": "before the start",
}


@functools.cache
def descriptions() -> dict[str, str]:
    """Return the help on each field: the comment above it in the schema."""
    source = inspect.getsource(schema)
    lines = source.splitlines()
    by_class = {
        node.name: {
            item.target.id: _comment_above(lines, item.lineno)
            for item in node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        }
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }
    found = {}
    for name in fields():
        section, _, leaf = name.rpartition(".")
        owner = type(getattr(Settings(), section)) if section else Settings
        found[name] = by_class[owner.__name__][leaf]
    return found


def _comment_above(lines: list[str], line: int) -> str:
    """Return the ``#:`` comment that ends above a line, which counts from 1."""
    first = line - 1
    while lines[first - 1].lstrip().startswith("#:"):
        first -= 1
    return " ".join(text.strip().removeprefix("#:").strip() for text in lines[first : line - 1])


def reference() -> str:
    """Return the list of all settings, as Markdown."""
    rows = [
        "| setting | what it is | default | must be | may change | in a project's file |",
        "|---|---|---|---|---|---|",
    ]
    for name, field in fields().items():
        cells = (
            f"`{name}`",
            descriptions()[name].replace("``", "`"),
            _default(field.default),
            allowed(name),
            CHANGES[field.rule.changes],
            "yes" if field.rule.project else "",
        )
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _default(value: Any) -> str:
    if value is msgspec.NODEFAULT:
        return "by platform"
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{os.fspath(value) if isinstance(value, os.PathLike) else value}`"


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201

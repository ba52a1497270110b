"""Writing one field into a settings file, and nothing else: comments and order stay."""

from __future__ import annotations

import json
import os
import tomllib
from typing import Any

import msgspec

from cwm_jupyter.config.checks import flattened
from cwm_jupyter.config.parsing import toml_lines
from cwm_jupyter.errors import ConfigError

__all__ = ["edited"]


def edited(text: str, name: str, value: Any) -> str:
    """Return a TOML document in which one field is another, and all else is as it was.

    Parameters
    ----------
    text
        A document that can be read.
    name
        The field, with its section and a dot.
    value
        What `checked` returned; None takes the field out.

    Raises
    ------
    ConfigError
        The document is written in a way that this cannot change safely.
    """
    wanted = dict(flattened(tomllib.loads(text)))
    wanted.pop(name, None)
    if value is not None:
        value = list(value) if isinstance(value, tuple) else value
        value = wanted[name] = msgspec.to_builtins(value, enc_hook=os.fspath)
    lines = text.split("\n")
    number = toml_lines(text).get(name)
    if number is not None:
        kept = _line(lines[number - 1], value)
        lines[number - 1 : number] = kept
    elif value is not None:
        _insert(lines, name, value)
    result = "\n".join(lines)
    try:
        done = dict(flattened(tomllib.loads(result))) == wanted
    except tomllib.TOMLDecodeError:
        done = False
    if not done:
        raise ConfigError(
            f"{name} cannot be changed in the file without disturbing what else is there.",
            hint="Change it there by hand.",
            field=name,
        )
    return result


def _line(line: str, value: Any) -> list[str]:
    """Return a field's line with another value and the comment after it, or none at all."""
    if value is None:
        return []
    left, _, right = line.partition("=")
    return [f"{left.rstrip()} = {_literal(value)}{_comment(right)}"]


def _comment(right: str) -> str:
    """Return the comment after a value, with the space before it."""
    for at, character in enumerate(right):
        if character == "#" and _is_value(right[:at]):
            return right[len(right[:at].rstrip()) :].rstrip()
    return ""


def _is_value(text: str) -> bool:
    try:
        tomllib.loads(f"value ={text}")
    except tomllib.TOMLDecodeError:
        return False
    return True


def _insert(lines: list[str], name: str, value: Any) -> None:
    """Add a field to its section, which is made if need be; top-level fields come first."""
    section, _, leaf = name.rpartition(".")
    line = f"{leaf} = {_literal(value)}"
    if not section:
        lines.insert(0, line)
        return
    header = toml_lines("\n".join(lines)).get(section)
    if header is not None:
        lines.insert(header, line)
        return
    while lines and not lines[-1].strip():
        lines.pop()
    lines += ["", f"[{section}]", line, ""] if lines else [f"[{section}]", line, ""]


def _literal(value: Any) -> str:
    """Return a value as TOML: what JSON has of numbers, strings and lists is the same there."""
    return json.dumps(value, ensure_ascii=False)

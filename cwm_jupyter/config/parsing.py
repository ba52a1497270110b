"""TOML and YAML: what a settings file says, and on which lines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwm_jupyter.errors import ConfigError

if TYPE_CHECKING:
    import yaml

__all__ = ["MAX_BYTES", "parse", "toml_lines"]

#: in lines without the blanks around them; no two repetitions meet that match the same, as that
#: takes very long with many blanks
_HEADER = re.compile(r"\[([^\[\]]+)\]\s*(?:#.*)?$")
_KEY = re.compile(r"([^=#\[\]]+)=")
#: settings take a few kilobytes; reading what is much longer would take long
MAX_BYTES = 64_000


def parse(path: Path, text: bytes) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the values of a file, nested as they are there, and the lines of its fields.

    Parameters
    ----------
    path
        Its name says what it is.
    text
        Its content.

    Raises
    ------
    ConfigError
        It is too long, not TOML or YAML, or no table of settings.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(
            f"{path} is longer than {MAX_BYTES // 1000} kB.",
            hint="Keep in it what sets fields; see cwm config.",
            source=str(path),
        )
    read = _yaml if path.suffix == ".yaml" else _toml
    try:
        return read(text.decode("utf-8-sig"))
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise ConfigError(f"{path} cannot be understood: {reason}.", source=str(path))


def _toml(text: str) -> tuple[dict[str, Any], dict[str, int]]:
    import tomllib

    return tomllib.loads(text), toml_lines(text)


def toml_lines(text: str) -> dict[str, int]:
    """Return on which line of a TOML document each field is set, as far as that is easily seen."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if header := _HEADER.match(stripped):
            table = f"{_dotted(header[1])}."
            lines.setdefault(table[:-1], number)
        elif key := _KEY.match(stripped):
            lines.setdefault(table + _dotted(key[1]), number)
    return lines


def _dotted(key: str) -> str:
    return ".".join(part.strip(" \t\"'") for part in key.split("."))


def _yaml(text: str) -> tuple[dict[str, Any], dict[str, int]]:
    import yaml

    try:
        return _composed(_loader(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f" on line {mark.line + 1}"
        raise ValueError(f"{error.problem}{where}") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _loader(text: str) -> yaml.SafeLoader:
    """Return a loader of plain data that refuses what can make a small file a huge document."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.MarkedYAMLError(problem="aliases have no use here", problem_mark=mark)
            return super().compose_node(parent, index)

    return Loader(text)


def _composed(loader: yaml.SafeLoader) -> tuple[dict[str, Any], dict[str, int]]:
    import yaml

    lines: dict[str, int] = {}

    def table(node: yaml.MappingNode, prefix: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in values:
                raise ValueError(f"{prefix}{name} is there twice, on line {line} again")
            lines[f"{prefix}{name}"] = line
            if isinstance(value, yaml.MappingNode) and not prefix:
                values[name] = table(value, f"{name}.")
            else:
                values[name] = loader.construct_object(value, deep=True)
        return values

    try:
        root = loader.get_single_node()
        if root is None:  # an empty file
            return {}, {}
        if not isinstance(root, yaml.MappingNode):
            raise ValueError("it is no table of settings")
        return table(root, ""), lines
    finally:
        loader.dispose()

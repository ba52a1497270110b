"""What is shown of settings: values with where they came from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from cwm_jupyter.config.checks import allowed, shown, unknown
from cwm_jupyter.config.files import SettingsFile
from cwm_jupyter.config.layers import Layers
from cwm_jupyter.config.reference import descriptions
from cwm_jupyter.config.schema import fields, value_of
from cwm_jupyter.core.models import Value

__all__ = ["DEFAULT", "SettingView", "SettingsReport", "matching", "report"]

#: the source of what nobody gave
DEFAULT = "default"


class SettingView(Value, frozen=True, kw_only=True):
    """One setting. A secret's value is redacted; `changes` and `project` are its `Rule`."""

    name: str
    value: Any
    source: str
    changes: Literal["now", "down", "start"]
    project: bool
    allowed: str
    help: str


class SettingsReport(Value, frozen=True, kw_only=True):
    """Settings, the files that were read, and the one that was written.

    `wins_over` is what still decides about a field that was written to a file.
    """

    settings: list[SettingView]
    files: list[str]
    written: str | None = None
    overridden_by: str | None = None


def matching(name: str | None) -> list[str]:
    """Return the fields that a name means: itself, all of a section, or all.

    Raises
    ------
    ConfigError
        There is none.
    """
    found = [f for f in fields() if name is None or f == name or f.startswith(f"{name}.")]
    if not found:
        raise unknown(f"The setting {name!r}", str(name), fields())
    return found


def report(
    layers: Layers,
    names: Iterable[str],
    *,
    written: SettingsFile | None = None,
    overridden_by: str | None = None,
) -> SettingsReport:
    """Return what these fields are; raises nothing, since the layers are checked."""
    given, help_of = layers.given(), descriptions()
    return SettingsReport(
        settings=[
            SettingView(
                name=name,
                value=shown(name, plain(value_of(layers.settings, name))),
                source=given[name].source if name in given else DEFAULT,
                changes=fields()[name].rule.changes,
                project=fields()[name].rule.project,
                allowed=allowed(name),
                help=help_of[name],
            )
            for name in names
        ],
        files=[str(file.path) for file in layers.read],
        written=None if written is None else str(written.path),
        overridden_by=overridden_by,
    )


def plain(value: Any) -> Any:
    """Return a field's value as JSON has it."""
    return msgspec.to_builtins(value, enc_hook=os.fspath)

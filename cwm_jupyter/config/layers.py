"""Layers: what is given where, and which of it wins."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from cwm_jupyter.config.checks import Given, check_url, checked
from cwm_jupyter.config.schema import PREFIX, Settings, fields, variable
from cwm_jupyter.core.cipher import KEY_VARIABLE
from cwm_jupyter.errors import ConfigError

__all__ = ["load"]


def load(
    environ: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Return settings from all layers, checked.

    Parameters
    ----------
    environ
        Environment variables; the process's own by default.
    overrides
        Explicit values, which win: nested (``{"stack": {"chunk_tokens": 64}}``), dotted
        (``{"stack.chunk_tokens": 64}``) or both.

    Raises
    ------
    ConfigError
        A field is unknown, of the wrong type or out of range, or a URL is malformed. The message
        names the field, where its value came from, and what is allowed.
    SecurityError
        A URL would send conversations unencrypted to another machine.
    """
    environ = os.environ if environ is None else environ
    given = {**_from_environment(environ), **_from_mapping(overrides or {})}
    document: dict[str, Any] = {}
    for name, one in given.items():
        section, _, leaf = name.rpartition(".")
        target = document.setdefault(section, {}) if section else document
        target[leaf] = checked(name, one, environ)
    settings = msgspec.convert(document, Settings)
    for name, url in (("vllm.url", settings.vllm.url), ("lmcache.url", settings.lmcache.url)):
        if url is not None:
            check_url(url, settings, what=name)
    return settings


def _from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    names = {variable(name): name for name in fields()}
    given = {}
    for found in sorted(v for v in environ if v.startswith(PREFIX)):
        if found == KEY_VARIABLE:  # for the keyring alone: settings are shown and saved
            continue
        if found not in names:
            raise _unknown(f"The environment variable {found}", found, names)
        if environ[found]:
            given[names[found]] = Given(environ[found], found, from_text=True)
    return given


def _from_mapping(values: Mapping[str, Any]) -> dict[str, Given]:
    given = {}
    for name, value in _flatten(values):
        if name not in fields():
            raise _unknown(f"The setting {name!r}", name, fields())
        given[name] = Given(value, "argument", from_text=False)
    return given


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _unknown(subject: str, name: str, known: Mapping[str, Any]) -> ConfigError:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(known)}."
    return ConfigError(f"{subject} is not known.", hint=hint, field=name)

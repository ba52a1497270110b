"""Layers: what is given where, and which of it wins."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from cwm_jupyter.config.checks import (
    ARGUMENT,
    Given,
    check_url,
    checked,
    flattened,
    spoken,
    unknown,
)
from cwm_jupyter.config.files import SettingsFile, read_file
from cwm_jupyter.config.schema import PREFIX, Settings, fields, value_of, variable
from cwm_jupyter.errors import ConfigError

__all__ = ["Layers", "from_mapping", "load", "load_layers", "of_settings"]


class Layers(NamedTuple):
    """What was given, from the layer that loses to the one that wins, and what comes of it.

    The values are checked ones: a path is absolute, so that it stays the same where the working
    directory changes.
    """

    files: Mapping[str, Given]
    #: ``c.CWM`` in IPython's configuration
    configured: Mapping[str, Given]
    environment: Mapping[str, Given]
    #: by magics and arguments
    changes: Mapping[str, Given]
    #: for the paths in the values
    environ: Mapping[str, str]
    #: the files that were read
    read: Sequence[SettingsFile]
    settings: Settings

    def given(self) -> dict[str, Given]:
        """Return what wins, by field; where nothing was given the default holds."""
        return {**self.files, **self.configured, **self.environment, **self.changes}

    def with_files(self, files: Mapping[str, Given]) -> Layers:
        """Return these with other files; raises as `load` does."""
        return self._replace(files=self._checked(files))._resolved()

    def with_configured(self, values: Mapping[str, Given]) -> Layers:
        """Return these with more of IPython's configuration; raises as `load` does."""
        configured = {**self.configured, **self._checked(values)}
        return self._replace(configured=configured)._resolved()

    def with_changes(self, values: Mapping[str, Given], unset: Iterable[str] = ()) -> Layers:
        """Return these with more changes, and some taken back; raises as `load` does."""
        kept = {name: one for name, one in self.changes.items() if name not in set(unset)}
        return self._replace(changes={**kept, **self._checked(values)})._resolved()

    def _checked(self, given: Mapping[str, Given]) -> dict[str, Given]:
        return {
            name: one._replace(value=checked(name, one, self.environ), from_text=False)
            for name, one in given.items()
        }

    def _resolved(self) -> Layers:
        """Return these with the settings that come of them."""
        document: dict[str, Any] = {}
        given = self.given()
        for name, one in given.items():
            section, _, leaf = name.rpartition(".")
            target = document.setdefault(section, {}) if section else document
            target[leaf] = one.value
        settings = msgspec.convert(document, Settings)
        _check_servers(settings, given)
        return self._replace(settings=settings)


def load(
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    files: Sequence[SettingsFile] = (),
) -> Settings:
    """Return settings from all layers, checked.

    Parameters
    ----------
    environ
        Environment variables; the process's own by default.
    overrides
        Explicit values, which win: nested (``{"stack": {"chunk_tokens": 64}}``), dotted
        (``{"stack.chunk_tokens": 64}``) or both.
    files
        Settings files, the one that wins last; see `cwm_jupyter.config.files.find_files`.

    Raises
    ------
    ConfigError
        A field is unknown, of the wrong type or out of range, a URL is malformed, a file cannot be
        read, or what another field needs is missing. The message names the field, where its value
        came from, and what is allowed.
    SecurityError
        A URL would send conversations unencrypted to another machine, or a file sets what it may
        not.
    """
    return load_layers(environ, overrides, files).settings


def load_layers(
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    files: Sequence[SettingsFile] = (),
) -> Layers:
    """Return all layers; parameters and errors are those of `load`."""
    environ = os.environ if environ is None else environ
    bare = Layers({}, {}, {}, {}, environ, files, Settings())
    return bare._replace(
        files=bare._checked({n: one for file in files for n, one in read_file(file).items()}),
        environment=bare._checked(_from_environment(environ)),
        changes=bare._checked(from_mapping(overrides or {}, ARGUMENT)),
    )._resolved()


def of_settings(settings: Settings) -> Layers:
    """Return layers in which just these settings were given, as arguments."""
    default = Settings()
    given = {
        name: Given(value_of(settings, name), ARGUMENT)
        for name in fields()
        if value_of(settings, name) != value_of(default, name)
    }
    return Layers({}, {}, {}, given, {}, (), settings)


def from_mapping(values: Mapping[str, Any], source: str) -> dict[str, Given]:
    """Return what a program gave, dotted or nested; raises `ConfigError` for unknown names."""
    given = {}
    for name, value in flattened(values):
        if name not in fields():
            raise unknown(f"The setting {name!r}", name, fields())
        given[name] = Given(value, source)
    return given


def _from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    from cwm_jupyter.core.cipher import KEY_VARIABLE  # not yet when the schema alone is wanted

    names = {variable(name): name for name in fields()}
    given = {}
    for found in sorted(v for v in environ if v.startswith(PREFIX)):
        if found == KEY_VARIABLE:  # for the keyring alone: settings are shown and saved
            continue
        if found not in names:
            raise unknown(f"The environment variable {found}", found, names)
        if environ[found]:
            given[names[found]] = Given(environ[found], found, from_text=True)
    return given


def _check_servers(settings: Settings, given: Mapping[str, Given]) -> None:
    """Check the URLs, and that no LMCache is given without the engine whose KV it keeps."""
    for name, url in (("vllm.url", settings.vllm.url), ("lmcache.url", settings.lmcache.url)):
        if url is not None:
            check_url(url, settings, what=name)
    if settings.lmcache.url is not None and settings.vllm.url is None:
        raise ConfigError(
            f"vllm.url is missing: lmcache.url ({spoken(given['lmcache.url'].source)}) needs it.",
            hint=f"Set vllm.url, in a settings file or with {variable('vllm.url')}, to the engine "
            "that fills this LMCache.",
            field="vllm.url",
        )

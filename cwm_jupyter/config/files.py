"""Settings files: where they lie, what is in them, and what a project's file may not say.

The user's files are ``cwm.toml`` or ``cwm.yaml`` in Jupyter's configuration folders, a project's is
the nearest in the working directory or above it. Whoever opens a folder that somebody else made has
its file in force, so that one sets harmless fields alone.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cwm_jupyter.config.checks import Given, flattened, shown, unknown
from cwm_jupyter.config.parsing import MAX_BYTES, parse
from cwm_jupyter.config.schema import fields, sections, variable
from cwm_jupyter.errors import ConfigError, SecurityError

__all__ = [
    "SettingsFile",
    "check_mode",
    "find_files",
    "given_in",
    "project_file",
    "read_file",
    "user_file",
]

_NAMES = ("cwm.toml", "cwm.yaml")


class SettingsFile(NamedTuple):
    """A file, and whether it is a project's."""

    path: Path
    project: bool = False


def find_files() -> list[SettingsFile]:
    """Return the files that are in force here, the one that wins last.

    Raises
    ------
    ConfigError
        A folder has a TOML file and a YAML file.
    """
    from jupyter_core.paths import jupyter_config_path

    folders = [Path(folder) for folder in reversed(jupyter_config_path())]
    files = [SettingsFile(path) for path in map(_in_folder, folders) if path is not None]
    project = _nearest_project()
    if project is not None and project not in [file.path for file in files]:
        files.append(SettingsFile(project, project=True))
    return files


def user_file() -> SettingsFile:
    """Return the user's own file; it need not exist."""
    from jupyter_core.paths import jupyter_config_dir

    folder = Path(jupyter_config_dir())
    return SettingsFile(_in_folder(folder) or folder / _NAMES[0])


def project_file() -> SettingsFile:
    """Return the file of the project that the working directory is in; it need not exist."""
    return SettingsFile(_nearest_project() or Path.cwd() / _NAMES[0], project=True)


def _nearest_project() -> Path | None:
    """Look in the working directory and above it; the home directory is the user's, no project."""
    try:
        here, home = Path.cwd(), Path.home()
    except (OSError, RuntimeError):  # the directory is gone, or there is no home
        return None
    for folder in (here, *here.parents):
        if folder in (home, home.resolve()):
            return None
        found = _in_folder(folder)
        if found is not None:
            return found
    return None


def _in_folder(folder: Path) -> Path | None:
    found = []
    with contextlib.suppress(OSError):  # a folder that one may not look into
        found = [path for path in (folder / name for name in _NAMES) if path.is_file()]
    if len(found) > 1:
        raise ConfigError(
            f"{folder} has {' and '.join(_NAMES)}: which one is meant?", hint="Keep one of them."
        )
    return found[0] if found else None


def read_file(file: SettingsFile) -> dict[str, Given]:
    """Return what a file sets, not yet checked, by field.

    Raises
    ------
    ConfigError
        It cannot be read, is too long, is not TOML or YAML, or has a field that is unknown.
    SecurityError
        A project's file sets what it may not, others can change a file that may set everything, or
        they can read one with a secret.
    """
    try:
        with file.path.open("rb") as opened:
            text = opened.read(MAX_BYTES + 1)  # whatever its length: it is refused then
        mode = file.path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"{file.path} cannot be read: {error.strerror}.") from error
    given = given_in(file, text)
    if not file.project:
        check_mode(file.path, mode, given)
    return given


def given_in(file: SettingsFile, text: bytes) -> dict[str, Given]:
    """Return what a file of this content sets; raises as `read_file` does."""
    values, lines = parse(file.path, text)
    given: dict[str, Given] = {}
    for name, value in _leaves(values):
        line = lines.get(name, lines.get(name.partition(".")[0]))
        source = str(file.path) if line is None else f"{file.path}, line {line}"
        if name not in fields():
            raise unknown(f"The setting {name!r} ({source})", name, fields(), source=source)
        if name in given:
            raise ConfigError(
                f"{name} is set twice in {file.path}: see line {line}.", field=name, source=source
            )
        if file.project and not fields()[name].rule.project:
            raise SecurityError(
                f"{name} may not be set by a project ({source}).",
                hint=f"Set it in {user_file().path} or with {variable(name)}: a project's file, "
                "which others may have written, sets harmless fields alone.",
                field=name,
                source=source,
            )
        given[name] = Given(value, source, folder=file.path.parent)
    return given


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields; a section with nothing below it, which YAML reads as null, has none."""
    return flattened({k: {} if v is None and k in sections() else v for k, v in values.items()})


def check_mode(path: Path, mode: int, given: Mapping[str, Given]) -> None:
    """Raise `SecurityError` where others can change a user's file, or read a secret in it."""
    if os.name == "nt":  # where the mode says nothing
        return
    if mode & stat.S_IWOTH:
        raise SecurityError(
            f"Everybody can change {path}, which may set everything.", hint=f"chmod o-w {path}"
        )
    secrets = [name for name, one in given.items() if shown(name, one.value) != one.value]
    if secrets and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SecurityError(
            f"{secrets[0]} is a secret, and others can read {path}.",
            hint=f"chmod 600 {path}",
            field=secrets[0],
            source=str(path),
        )

"""Changing settings: of this process while it runs, or in a file for those that start later."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwm_jupyter.config.checks import Given, checked, shown
from cwm_jupyter.config.edit import edited
from cwm_jupyter.config.files import SettingsFile, check_mode, find_files, given_in, user_file
from cwm_jupyter.config.layers import Layers, load_layers
from cwm_jupyter.config.schema import Settings, fields, value_of, variable
from cwm_jupyter.config.shared import get_layers, set_layers
from cwm_jupyter.errors import ConfigError

if TYPE_CHECKING:
    from cwm_jupyter.config.report import SettingsReport
    from cwm_jupyter.workspace import Workspace

__all__ = ["change", "configure", "write"]

_lock = threading.Lock()
#: how long another process may take to write a file
_LOCK_S = 10.0


def change(values: Mapping[str, Given], unset: Iterable[str] = ()) -> SettingsReport:
    """Change settings of this process and of its workspace, from the next piece of work on.

    Where there is no workspace yet, everything may still change.

    Parameters
    ----------
    values
        By field.
    unset
        Fields whose earlier changes are taken back.

    Raises
    ------
    ConfigError
        A value is wrong, or the field may not change now; nothing was changed.
    SecurityError
        A URL would send conversations unencrypted to another machine.
    """
    from cwm_jupyter.config.report import report
    from cwm_jupyter.core.audit import Audit

    unset = tuple(unset)
    with _lock:
        workspace = _opened()
        layers = get_layers().with_changes(values, unset)
        _check_may_change(layers.settings, workspace)
        audit = workspace.manager.audit if workspace else Audit(layers.settings.home)
        with ExitStack() as entries:
            for name, one in values.items():
                noted = _noted(name, one.value)
                entries.enter_context(
                    audit.entry("settings", field=name, source=one.source, value=noted)
                )
            for name in unset:
                entries.enter_context(audit.entry("settings", field=name, source="unset"))
            _adopt(layers, workspace)
    return report(layers, (*values, *unset))


def configure(values: Mapping[str, Given]) -> None:
    """Take over IPython's configuration, which loses to the environment; raises as `change`."""
    with _lock:
        workspace = _opened()
        layers = get_layers().with_configured(values)
        _check_may_change(layers.settings, workspace)
        _adopt(layers, workspace)


def write(file: SettingsFile, name: str, text: str | None) -> SettingsReport:
    """Write a setting into a file; processes that run keep what they have.

    Parameters
    ----------
    file
        The user's or a project's.
    name
        The field.
    text
        Its value, None to take the field out of the file.

    Raises
    ------
    ConfigError
        The value is wrong, or the file is YAML or cannot be changed safely; it is as it was.
    SecurityError
        A project's file may not set it, or others can read the file and it is a secret.
    """
    from cwm_jupyter.config.report import report
    from cwm_jupyter.core.audit import Audit
    from cwm_jupyter.core.files import write_atomic

    path = file.path.resolve()  # a link, perhaps to a folder under version control, stays one
    layers = get_layers()
    value = None
    if text is not None:
        value = checked(name, Given(text, str(file.path), from_text=True), layers.environ)
    if path.suffix == ".yaml":
        raise ConfigError(
            f"{file.path} is YAML, which is only read here.",
            hint=f"Change {name} there by hand.",
            field=name,
        )
    with _one_writer(layers.settings.home):
        old = path.read_bytes().decode("utf-8-sig") if path.exists() else ""
        new = edited(old, name, value).encode()
        given = given_in(file, new)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644 if file.project else 0o600
        if not file.project:
            check_mode(path, mode, given)
        others = {n: one for n, one in layers.files.items() if n != name}
        layers.with_files({**others, **given})  # is it right together with what else is given?
        audit = Audit(layers.settings.home)
        noted = None if text is None else _noted(name, text)
        with audit.entry("settings", field=name, source=str(file.path), value=noted):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(path, new, mode)
    after = load_layers(files=find_files())
    winner = after.given().get(name)
    overridden = None if winner is None or winner in given.values() else winner.source
    return report(after, [name], written=file, overridden_by=overridden)


@contextmanager
def _one_writer(home: Path) -> Iterator[None]:
    """Keep other processes from writing settings meanwhile: what they wrote would be lost."""
    import filelock

    from cwm_jupyter.core.files import make_private_dir

    lock = filelock.FileLock(make_private_dir(home) / "settings.lock", timeout=_LOCK_S, mode=0o600)
    try:
        with lock:
            yield
    except filelock.Timeout:
        raise ConfigError(
            "Another process has been writing settings for a while.",
            hint="Try again when it has ended.",
        ) from None


def _opened() -> Workspace | None:
    # Who has not imported the workspace has not opened one; `%load_ext` does not.
    module = sys.modules.get("cwm_jupyter.workspace")
    return None if module is None else module.opened_workspace()


def _adopt(layers: Layers, workspace: Workspace | None) -> None:
    set_layers(layers)
    if workspace is not None:
        workspace.reconfigure(layers.settings)


def _check_may_change(new: Settings, workspace: Workspace | None) -> None:
    """Raise `ConfigError` for the first field that may not become what it is to be."""
    if workspace is None:
        return
    from cwm_jupyter.stack.state import current

    old = workspace.settings
    for name, field in fields().items():
        if value_of(new, name) == value_of(old, name) or field.rule.changes == "now":
            continue
        if field.rule.changes == "start":
            raise ConfigError(
                f"{name} is fixed for this process, which uses it already.",
                hint=f"Set it before the start: in {user_file().path}, or with {variable(name)}.",
                field=name,
            )
        if current(old.home) is not None:
            raise ConfigError(
                f"{name} is fixed while the stack runs.",
                hint="Stop the stack with cwm down, set it, and start again with cwm up.",
                field=name,
            )


def _noted(name: str, value: Any) -> str:
    """Return a value as the audit log has it."""
    value = shown(name, value)
    return value if isinstance(value, str) else json.dumps(value, default=str)

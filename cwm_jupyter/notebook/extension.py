"""Load and unload: magics, formatters and completion of one shell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cwm_jupyter.notebook.completion import COMMANDS, complete
from cwm_jupyter.notebook.configurable import CWM
from cwm_jupyter.notebook.magics import CWMMagics

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["load", "unload"]

_VALUES = ("cwm_jupyter.core.models", "Value")
_MAGICS = ("cwm", "freeze", "thaw")


def load(shell: InteractiveShell) -> None:
    """Register everything; nothing heavy is imported before it is used.

    Raises
    ------
    ConfigError
        What IPython's configuration says of ``c.CWM`` is wrong; nothing was registered.
    """
    shell.configurables.append(CWM(shell))
    shell.register_magics(CWMMagics(shell))
    formatters = shell.display_formatter.formatters
    # By name: the values' module is imported when there are values.
    formatters["text/plain"].for_type_by_name(*_VALUES, _pretty)
    formatters["text/html"].for_type_by_name(*_VALUES, _html)
    for command in COMMANDS:
        shell.set_hook("complete_command", complete, str_key=command)


def unload(shell: InteractiveShell) -> None:
    """Undo `load`."""
    shell.configurables[:] = [one for one in shell.configurables if not isinstance(one, CWM)]
    for magics in shell.magics_manager.magics.values():
        for name in _MAGICS:
            if isinstance(getattr(magics.get(name), "__self__", None), CWMMagics):
                del magics[name]
    for kind in ("text/plain", "text/html"):
        shell.display_formatter.formatters[kind].pop(".".join(_VALUES), None)
    for command in COMMANDS:
        shell.strdispatchers["complete_command"].strs.pop(command, None)


def _pretty(value: Any, printer: Any, _cycle: bool) -> None:
    from cwm_jupyter.present import text

    printer.text(text(value))


def _html(value: Any) -> str | None:
    from cwm_jupyter.present import has_form, html

    return html(value) if has_form(value) else None

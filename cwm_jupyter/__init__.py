"""Context windows for Jupyter: freeze a model's KV cache under a name, thaw it another day.

::

    import cwm_jupyter as cwm

    cwm.up()
    session = cwm.session("paper")
    session.say("Summarise this.", files=["paper.txt"])
    session.freeze("paper-read")
    cwm.thaw("paper-read")        # tomorrow, after everything was restarted

In a notebook ``%load_ext cwm_jupyter`` brings ``%%cwm``, ``%freeze`` and ``%thaw``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cwm_jupyter._version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from cwm_jupyter.api import (
        LiveSession,
        afreeze,
        arepair,
        asession,
        athaw,
        averify,
        collect_garbage,
        disk_usage,
        doctor,
        down,
        freeze,
        purge,
        remove,
        repair,
        restore,
        rotate_key,
        session,
        sessions,
        show,
        status,
        thaw,
        up,
        verify,
        windows,
    )
    from cwm_jupyter.errors import CWMError

__all__ = [
    "CWMError",
    "LiveSession",
    "__version__",
    "afreeze",
    "arepair",
    "asession",
    "athaw",
    "averify",
    "collect_garbage",
    "disk_usage",
    "doctor",
    "down",
    "freeze",
    "purge",
    "remove",
    "repair",
    "restore",
    "rotate_key",
    "session",
    "sessions",
    "show",
    "status",
    "thaw",
    "up",
    "verify",
    "windows",
]


def __getattr__(name: str) -> Any:
    """Import the public names on first use: the servers and ``%load_ext`` need none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cwm_jupyter import api, errors

    return getattr(errors if name == "CWMError" else api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Load the magics, for ``%load_ext cwm_jupyter``."""
    from cwm_jupyter.notebook.extension import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Undo `load_ipython_extension`, for ``%unload_ext cwm_jupyter``."""
    from cwm_jupyter.notebook.extension import unload

    unload(shell)

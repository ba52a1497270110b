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

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cwm_jupyter._version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from cwm_jupyter.api import (
        FrozenWindow,
        LiveSession,
        aexport_windows,
        afreeze,
        aimport_windows,
        arepair,
        asession,
        athaw,
        audit_log,
        autofreeze,
        averify,
        clone,
        collect_garbage,
        compare,
        configure,
        delete,
        disk_usage,
        distrust,
        doctor,
        down,
        edit,
        expire,
        export_text,
        export_windows,
        freeze,
        import_windows,
        plot,
        purge,
        remove,
        remove_session,
        repair,
        restore,
        restore_session,
        rewind,
        rotate_key,
        session,
        sessions,
        settings,
        show,
        statistics,
        status,
        thaw,
        tree,
        trust,
        trusted_signers,
        up,
        verify,
        verify_deleted,
        window,
        windows,
    )
    from cwm_jupyter.errors import CWMError
    from cwm_jupyter.notebook.panel import panel

__all__ = [
    "CWMError",
    "FrozenWindow",
    "LiveSession",
    "__version__",
    "aexport_windows",
    "afreeze",
    "aimport_windows",
    "arepair",
    "asession",
    "athaw",
    "audit_log",
    "autofreeze",
    "averify",
    "clone",
    "collect_garbage",
    "compare",
    "configure",
    "delete",
    "disk_usage",
    "distrust",
    "doctor",
    "down",
    "edit",
    "expire",
    "export_text",
    "export_windows",
    "freeze",
    "import_windows",
    "panel",
    "plot",
    "purge",
    "remove",
    "remove_session",
    "repair",
    "restore",
    "restore_session",
    "rewind",
    "rotate_key",
    "session",
    "sessions",
    "settings",
    "show",
    "statistics",
    "status",
    "thaw",
    "tree",
    "trust",
    "trusted_signers",
    "up",
    "verify",
    "verify_deleted",
    "window",
    "windows",
]


#: where public names are that are not in `cwm_jupyter.api`
_ELSEWHERE = {"CWMError": "cwm_jupyter.errors", "panel": "cwm_jupyter.notebook.panel"}


def __getattr__(name: str) -> Any:
    """Import the public names on first use: the servers and ``%load_ext`` need none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, "cwm_jupyter.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Tell a Jupyter server of the extension."""
    from cwm_jupyter.server.app import CWMServer

    return [{"module": "cwm_jupyter", "app": CWMServer}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Tell ``jupyter-builder develop`` of the JupyterLab extension."""
    return [{"src": "labextension", "dest": "cwm-jupyter"}]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Load the magics, for ``%load_ext cwm_jupyter``."""
    from cwm_jupyter.notebook.extension import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Undo `load_ipython_extension`, for ``%unload_ext cwm_jupyter``."""
    from cwm_jupyter.notebook.extension import unload

    unload(shell)

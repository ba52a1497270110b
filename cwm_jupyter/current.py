"""The session that is meant where none is named: one for each notebook, terminal or process."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from cwm_jupyter.errors import ValidationError

__all__ = ["CurrentSession", "default_session", "shared"]


class CurrentSession:
    """The name of the session that is meant where none is named.

    Parameters
    ----------
    name
        To begin with; None: `default_session`.
    tells
        Whether `use` asks for the user to be told.
    """

    def __init__(self, name: str | None = None, *, tells: bool = True) -> None:
        self._name = name
        self._tells = tells
        self._used: set[str] = set()

    @property
    def name(self) -> str:
        """The session that was used last."""
        return self._name or default_session()

    def use(self, name: str) -> bool:
        """Make a session the one that is meant.

        Returns
        -------
        bool
            Whether it is used here for the first time, so that the user should be told which one
            it is: a notebook of the same name may have begun it.
        """
        first = name not in self._used
        self._used.add(name)
        self._name = name
        return first and self._tells


def default_session() -> str:
    """Return the name that fits where this process runs.

    In a notebook its file's name where that is known, else ``notebook-`` and the beginning of the
    kernel's id; in IPython ``terminal``; in any other program ``main``.
    """
    shell = _shell()
    if shell is None:
        return "main"
    if not hasattr(shell, "kernel"):
        return "terminal"
    notebook = os.environ.get("JPY_SESSION_NAME", "")
    return _name_from(Path(notebook).stem) or f"notebook-{_kernel_id()[:8]}"


def _shell() -> object | None:
    # Who has not imported IPython is not in it.
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def _kernel_id() -> str:
    from ipykernel.connect import get_connection_file

    return Path(get_connection_file()).stem.removeprefix("kernel-")


def _name_from(stem: str) -> str | None:
    """Return a session name made from a file's, None where nothing is left of it."""
    from cwm_jupyter.core.names import check_name

    try:
        return check_name(re.sub(r"[^\w.+=()#^-]+", "-", stem).strip(" .-~")[:64], "session")
    except ValidationError:
        return None


#: of this process: magics and the Python API go on in the same session
shared = CurrentSession()

"""Toolbar: what JupyterLab's notebook toolbar shows of a kernel, which alone knows its session.

Lab asks with a user expression, between cells and silently, and only where ``cwm_jupyter`` has
been imported. Nothing is opened or begun for it: where no cell has used a workspace, there is no
session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cwm_jupyter.workspace import Workspace

__all__ = ["MIME_TYPE", "Facts", "facts"]

MIME_TYPE = "application/vnd.cwm.kernel+json"


class Facts:
    """Facts about this kernel, shown as JSON of the type `MIME_TYPE`.

    `document` has ``magics``, whether the magics are loaded; ``home``, the folder that the kernel
    looks at, None where it has opened none; and ``session``, None where nothing was said yet::

        {"name", "tokens", "max_context_tokens", "turns",
         "cached_tokens", "computed_tokens"}   the last turn's prompt; None: not known
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def _repr_mimebundle_(self, **_options: Any) -> dict[str, Any]:
        return {MIME_TYPE: self.document}


def facts() -> Facts:
    """Return what is known now; a failure is no reason to disturb the notebook."""
    from cwm_jupyter.workspace import opened_workspace

    workspace = opened_workspace()
    return Facts(
        {
            "magics": _has_magics(),
            "home": None if workspace is None else str(workspace.settings.home),
            "session": None if workspace is None else _session(workspace),
        }
    )


def _has_magics() -> bool:
    from IPython import get_ipython

    shell = get_ipython()
    return shell is not None and shell.find_line_magic("thaw") is not None


def _session(workspace: Workspace) -> dict[str, Any] | None:
    from cwm_jupyter.current import shared
    from cwm_jupyter.errors import CWMError

    try:
        found = workspace.library.index.find_session(shared.name)
        if found is None:
            return None
        turns = workspace.library.transcript(found).turns
    except CWMError:  # the next cell that uses the session tells
        return None
    last = turns[-1] if turns else None
    cached = None if last is None else last.cached_tokens
    return {
        "name": found.name,
        "tokens": found.tokens,
        "max_context_tokens": found.max_context_tokens,
        "turns": found.turns,
        "cached_tokens": cached,
        "computed_tokens": None if last is None or cached is None else last.prompt_end - cached,
    }

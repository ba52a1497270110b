"""The one workspace of a process, and its end.

A program that is over waits for its threads, and those of the background loop wait for work; so
somebody has to close the workspace when the main thread has ended, which is before that wait and
before anything registered with `atexit`.
"""

from __future__ import annotations

import functools
import threading

from cwm_jupyter.workspace import Workspace, get_workspace

__all__ = ["process_workspace"]


def process_workspace() -> Workspace:
    """Return the process's workspace; it is closed when the program ends."""
    workspace = get_workspace()
    _close_at_end(workspace)
    return workspace


@functools.cache
def _close_at_end(workspace: Workspace) -> None:
    def wait_and_close() -> None:
        threading.main_thread().join()
        workspace.close()

    threading.Thread(target=wait_and_close, name="cwm-close", daemon=True).start()

"""Service: what all requests to one server share, from the manager to the event channel.

The manager works in a background event loop of its own, so that nothing it does holds up the
server's, on which kernels and other extensions depend.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cwm_jupyter.core.portable import long_path
from cwm_jupyter.core.statistics import statistics
from cwm_jupyter.server.drawings import Drawings
from cwm_jupyter.server.failures import ending
from cwm_jupyter.server.history import History
from cwm_jupyter.server.hub import Hub
from cwm_jupyter.server.jobs import Jobs
from cwm_jupyter.workspace import Workspace

__all__ = ["Service"]

_T = TypeVar("_T")


class Service:
    """One server's manager, jobs, figures and events; made and used in its event loop."""

    def __init__(self) -> None:
        self._workspace: Workspace | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        self.hub = Hub(self.generation)
        self.drawings = Drawings()
        self.jobs = Jobs(
            self.run, lambda job: self.hub.publish("job", job.to_dict(), f"job {job.id}")
        )
        self.history = History(
            lambda: self.run(lambda workspace: statistics(workspace.manager.parts)),
            lambda: self.hub.listeners,
            lambda one: self.hub.publish("statistics", one.to_dict()),
        )

    async def workspace(self) -> Workspace:
        """Return the workspace, opened at the first request.

        A home or a setting that is not right so fails the requests, and not the Jupyter server.

        Raises
        ------
        RefusedError
            The server is ending: connections that are still open go on asking.
        """
        async with self._opening:
            if self._workspace is None and not self._closed:
                self._workspace = await asyncio.to_thread(Workspace)
            if self._workspace is None or self._closed:
                raise ending()
            return self._workspace

    async def run(self, work: Callable[[Workspace], Awaitable[_T]]) -> _T:
        """Await work with the workspace in the background event loop."""
        workspace = await self.workspace()
        return await workspace.arun(work, workspace)

    async def generation(self) -> str:
        """Return what names the index's present state: it is another one after each change."""
        path = (await self.workspace()).library.index.path

        def look() -> str:
            try:
                status = long_path(path).stat()
            except OSError:  # none was written yet, or reading it will say what is amiss
                return "none"
            facts = f"{status.st_ino} {status.st_mtime_ns} {status.st_size}"
            return hashlib.blake2s(facts.encode(), digest_size=8).hexdigest()

        return await asyncio.to_thread(look)

    async def close(self) -> None:
        """End everything, in order: clients, figures, jobs, and the manager at last."""
        self._closed = True  # work would begin a thread anew, and nobody would end it
        self.hub.close()
        self.history.close()
        await self.jobs.close()
        if self._workspace is not None:
            await asyncio.to_thread(self._workspace.close)

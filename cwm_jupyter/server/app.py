"""The extension: it adds the routes to a Jupyter server and ends with it."""

from __future__ import annotations

from jupyter_server.extension.application import ExtensionApp

from cwm_jupyter.server.handler import handlers
from cwm_jupyter.server.service import Service
from cwm_jupyter.server.table import TABLE

__all__ = ["CWMServer"]


class CWMServer(ExtensionApp):
    """Context windows over HTTP, below ``cwm/api/v1/``."""

    name = "cwm_jupyter"

    def initialize_handlers(self) -> None:
        """Add the routes. Nothing is opened yet: a Jupyter server starts without us, too."""
        self.service = Service()
        self.handlers.extend(handlers(TABLE, self.service))

    def current_activity(self) -> int | None:
        """Say that jobs run: a server that stops when idle then does not."""
        return self.service.jobs.running or None

    async def stop_extension(self) -> None:
        """End what is under way, in order."""
        await self.service.close()

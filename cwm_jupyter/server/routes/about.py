"""About this server: health, versions, settings, the audit log, and the API's description."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from cwm_jupyter._version import __version__
from cwm_jupyter.config.report import SettingsReport, matching, report
from cwm_jupyter.config.shared import get_layers
from cwm_jupyter.core.audit import AuditReport
from cwm_jupyter.core.query import duration_s
from cwm_jupyter.errors import CWMError
from cwm_jupyter.server.answers import Health, PartHealth, StackView, VersionView
from cwm_jupyter.server.operation import Asked, Operation
from cwm_jupyter.server.requests import AuditQuery
from cwm_jupyter.stack import launcher
from cwm_jupyter.stack.state import current
from cwm_jupyter.workspace import Workspace

__all__ = ["API_VERSION", "OPERATIONS"]

#: another one where clients of the earlier one would not work; the path has it too
API_VERSION = 1


async def health(asked: Asked) -> Health:
    """Say that the server lives, and which of its parts are ready."""
    parts = [await _index(asked)]
    if parts[0].ready:
        workspace = await asked.service.workspace()
        parts += await asyncio.to_thread(_servers, workspace)
    return Health(live=True, ready=all(part.ready for part in parts), parts=parts)


async def _index(asked: Asked) -> PartHealth:
    try:
        await asked.run(lambda w: w.manager.windows(limit=0))
    except CWMError as error:
        return PartHealth(name="index", ready=False, detail=error.message)
    return PartHealth(name="index", ready=True)


def _servers(workspace: Workspace) -> list[PartHealth]:
    status = launcher.status(workspace.settings)
    if not status.parts:
        down = "No stack is running."
        return [
            PartHealth(name="lmcache", ready=False, detail=down),
            PartHealth(name="vllm", ready=False, detail=down),
        ]
    return [
        PartHealth(
            name=part.name,
            ready=part.phase == "up",
            detail=None if part.phase == "up" else f"It is {part.phase}.",
        )
        for part in status.parts
    ]


async def version(asked: Asked) -> VersionView:
    """Say what answers here, and which home, index and stack it looks at."""
    workspace = await asked.service.workspace()
    stack = await asyncio.to_thread(current, workspace.settings.home)
    return VersionView(
        api_version=API_VERSION,
        package_version=__version__,
        home=str(workspace.settings.home),
        index=str(workspace.library.index.path),
        generation=await asked.service.generation(),
        stack=None
        if stack is None
        else StackView(
            kind=stack.kind,
            phase=stack.phase,
            engine_url=stack.engine_url,
            lmcache_url=stack.lmcache_url,
            model=stack.served_model,
            started_at=stack.started_at,
        ),
    )


async def settings(asked: Asked) -> SettingsReport:
    """Return the settings of this server and where they came from; secrets are redacted."""
    await asked.service.workspace()
    return await asyncio.to_thread(lambda: report(get_layers(), matching(None)))


async def audit(asked: Asked) -> AuditReport:
    """Return the last changes, and whether the log is as it was written."""
    query = asked.query
    workspace = await asked.service.workspace()
    read = partial(
        workspace.manager.audit.read,
        last=query.last,
        action=query.action,
        name=query.name,
        since_s=None if query.since is None else duration_s(query.since),
    )
    return await asyncio.to_thread(read)


async def description(_asked: Asked) -> dict[str, Any]:
    """Return the description of this API, OpenAPI 3.1."""
    from cwm_jupyter.server.openapi import describe
    from cwm_jupyter.server.table import TABLE

    return describe(TABLE)


OPERATIONS = (
    Operation("GET", "health", "cwm-health", health, Health),
    Operation("GET", "version", "cwm-version", version, VersionView),
    Operation("GET", "settings", "cwm-settings", settings, SettingsReport),
    Operation("GET", "audit", "cwm-audit", audit, AuditReport, query=AuditQuery),
    Operation("GET", "openapi.json", "cwm-version", description, dict),
)

"""The stack: what runs, start, stop, logs. Starting takes a minute, so it is a job."""

from __future__ import annotations

import asyncio

from anyio import to_thread

from cwm_jupyter.core.job import Job
from cwm_jupyter.server.answers import LogTail
from cwm_jupyter.server.jobs import JobView
from cwm_jupyter.server.operation import Asked, Operation
from cwm_jupyter.server.requests import LogsQuery, StartBody
from cwm_jupyter.stack import launcher
from cwm_jupyter.stack.state import StackStatus
from cwm_jupyter.verbs import start_stack
from cwm_jupyter.workspace import Workspace

__all__ = ["OPERATIONS"]


async def state(asked: Asked) -> StackStatus:
    """Return what runs now, server by server."""
    workspace = await asked.service.workspace()
    return await asyncio.to_thread(launcher.status, workspace.settings)


async def start(asked: Asked) -> JobView:
    """Start the local stack; the job's result is a StackStatus."""
    model = asked.body.model

    def up(workspace: Workspace, job: Job) -> StackStatus:
        start_stack(workspace.settings, job, model=model)
        return launcher.status(workspace.settings)

    return asked.start("start the stack", lambda w, job: to_thread.run_sync(up, w, job))


async def stop(asked: Asked) -> JobView:
    """Stop the stack once all chunks are stored; the job's result is a StackStatus."""

    def down(workspace: Workspace, job: Job) -> StackStatus:
        launcher.down(workspace.settings, job)
        return launcher.status(workspace.settings)

    return asked.start("stop the stack", lambda w, job: to_thread.run_sync(down, w, job))


async def logs(asked: Asked) -> LogTail:
    """Return the last lines that a server of the stack wrote."""
    workspace, query = await asked.service.workspace(), asked.query
    lines = await asyncio.to_thread(launcher.logs, workspace.settings, query.part, query.lines)
    return LogTail(part=query.part, lines=lines)


_R = "cwm-stack"

OPERATIONS = (
    Operation("GET", "stack", _R, state, StackStatus),
    Operation("POST", "stack/start", _R, start, JobView, body=StartBody, status=202),
    Operation("POST", "stack/stop", _R, stop, JobView, status=202),
    Operation("GET", "stack/logs", _R, logs, LogTail, query=LogsQuery),
)

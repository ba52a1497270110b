"""Windows: list, look, freeze, change, delete and undo, clone, verify, prefetch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from anyio import to_thread

from cwm_jupyter.core.job import Job
from cwm_jupyter.core.models import FreezeReport, ThawReport, Value, Window, WindowStatus
from cwm_jupyter.core.names import name_key
from cwm_jupyter.core.reports import RepairReport, VerifyReport
from cwm_jupyter.core.strip import ChunkStrip, strip
from cwm_jupyter.core.warm import WarmReport, warm
from cwm_jupyter.errors import WindowExistsError
from cwm_jupyter.server.answers import WindowListing
from cwm_jupyter.server.jobs import JobView
from cwm_jupyter.server.operation import Asked, Operation
from cwm_jupyter.server.requests import CloneBody, EditBody, FreezeBody, ThawBody, WindowsQuery
from cwm_jupyter.workspace import Workspace

__all__ = ["OPERATIONS", "REPORTS"]


async def listing(asked: Asked) -> WindowListing:
    """List windows, filtered, sorted and by pages."""
    generation = await asked.service.generation()
    page = await asked.run(lambda w: w.manager.windows(asked.query.query))
    return WindowListing.of(page, generation)


async def one(asked: Asked) -> Value:
    """Describe a window: its turns, messages, chunks and versions."""
    return await asked.run(lambda w: w.manager.status(window=asked.path["name"]))


async def freeze(asked: Asked) -> JobView:
    """Freeze a session under a name; the job's result is a FreezeReport."""
    body: FreezeBody = asked.body
    # What is plainly wrong is said at once, and not by a job.
    await asked.run(lambda w: _check_freeze(w, body))

    def work(workspace: Workspace, job: Job) -> Awaitable[Value]:
        return workspace.manager.freeze(
            body.name,
            body.session,
            tags=body.tags,
            note=body.note,
            ttl=body.ttl,
            update=body.update,
            job=job,
        )

    return asked.start(f"freeze {body.name}", work)


async def _check_freeze(workspace: Workspace, body: FreezeBody) -> None:
    await workspace.manager.session(body.session)
    index = workspace.library.index
    holder = await to_thread.run_sync(index.find_window, body.name)
    same = holder is not None and name_key(holder.name) == name_key(body.name)
    if holder is not None and not (body.update and same):
        raise WindowExistsError(
            f"There is a window {body.name!r} already.",
            hint="Choose another name, or keep it as an earlier version.",
            window=body.name,
            field="name",
        )


async def edit(asked: Asked) -> Window:
    """Change a window's name, tags, note, time to live, or pin it."""
    body: EditBody = asked.body
    return await asked.run(
        lambda w: w.manager.keeping.edit_window(
            asked.path["name"],
            name=body.name,
            add_tags=body.add_tags,
            remove_tags=body.remove_tags,
            note=body.note,
            ttl=body.ttl,
            pinned=body.pinned,
        )
    )


async def remove(asked: Asked) -> Window:
    """Delete a window softly; it can be brought back until it is purged."""
    return await asked.run(lambda w: w.manager.remove_window(asked.path["name"]))


async def undo(asked: Asked) -> Window:
    """Bring back the window of this name that was deleted last."""
    return await asked.run(lambda w: w.manager.restore_window(asked.path["name"]))


async def clone(asked: Asked) -> Window:
    """Make a window that has all that this one has, under another name."""
    body: CloneBody = asked.body
    return await asked.run(
        lambda w: w.manager.branches.clone(
            asked.path["name"], body.name, tags=body.tags, note=body.note
        )
    )


async def verify(asked: Asked) -> JobView:
    """Read every chunk of a window; the job's result is a VerifyReport."""
    window = await _found(asked)
    return asked.start(
        f"verify {window.known_as}", lambda w, job: w.manager.verify(window.known_as, job=job)
    )


async def prefetch(asked: Asked) -> JobView:
    """Load a window into LMCache's memory, to warm a thaw; the job's result is a WarmReport."""
    window = await _found(asked)
    return asked.start(
        f"prefetch {window.known_as}", lambda w, job: warm(w.manager.parts, window.id, job)
    )


async def thaw(asked: Asked) -> JobView:
    """Thaw a window into a new session; the job's result is a ThawReport."""
    body: ThawBody = asked.body
    name = asked.path["name"]
    await _found(asked)

    def work(workspace: Workspace, job: Job) -> Awaitable[Value]:
        return workspace.manager.thaw(
            name,
            as_session=body.as_session,
            recompute=body.recompute,
            accept_engine=body.accept_engine,
            accept_unknown=body.accept_unknown,
            job=job,
        )

    return asked.start(f"thaw {name}", work)


async def repair(asked: Asked) -> JobView:
    """Compute a window's damaged chunks again; the job's result is a RepairReport."""
    window = await _found(asked)
    return asked.start(
        f"repair {window.known_as}", lambda w, job: w.manager.repair(window.known_as, job=job)
    )


async def chunks(asked: Asked) -> ChunkStrip:
    """Tell where each of a window's chunks is."""
    return await asked.run(lambda w: strip(w.manager.parts, asked.path["name"]))


async def _found(asked: Asked) -> Window:
    """Return the window in the path, before a job is begun for it."""
    index = (await asked.service.workspace()).library.index
    return await asyncio.to_thread(index.require_window, asked.path["name"])


_R = "cwm-windows"
_ONE = "windows/{name}"

OPERATIONS = (
    Operation("GET", "windows", _R, listing, WindowListing, query=WindowsQuery, conditional=True),
    Operation("POST", "windows", _R, freeze, JobView, body=FreezeBody, status=202),
    Operation("GET", _ONE, _R, one, WindowStatus),
    Operation("PATCH", _ONE, _R, edit, Window, body=EditBody),
    Operation("DELETE", _ONE, _R, remove, Window),
    Operation("POST", f"{_ONE}/undo", _R, undo, Window),
    Operation("POST", f"{_ONE}/clone", _R, clone, Window, body=CloneBody, status=201),
    Operation("POST", f"{_ONE}/verify", _R, verify, JobView, status=202),
    Operation("POST", f"{_ONE}/prefetch", _R, prefetch, JobView, status=202),
    Operation("POST", f"{_ONE}/thaw", _R, thaw, JobView, body=ThawBody, status=202),
    Operation("POST", f"{_ONE}/repair", _R, repair, JobView, status=202),
    Operation("GET", f"{_ONE}/chunks", _R, chunks, ChunkStrip),
)
#: what the jobs that begin here end with
REPORTS = (FreezeReport, RepairReport, ThawReport, VerifyReport, WarmReport)

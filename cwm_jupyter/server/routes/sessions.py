"""Sessions: list, look, change, delete and undo."""

from __future__ import annotations

from cwm_jupyter.core.models import Session, SessionStatus, Value
from cwm_jupyter.server.answers import SessionListing
from cwm_jupyter.server.operation import Asked, Operation
from cwm_jupyter.server.requests import SessionEditBody, SessionsQuery

__all__ = ["OPERATIONS"]


async def listing(asked: Asked) -> SessionListing:
    """List sessions, filtered, sorted and by pages."""
    generation = await asked.service.generation()
    page = await asked.run(lambda w: w.manager.sessions(asked.query.query))
    return SessionListing.of(page, generation)


async def one(asked: Asked) -> Value:
    """Describe a session: its turns, messages, chunks and windows."""
    return await asked.run(lambda w: w.manager.status(session=asked.path["name"]))


async def edit(asked: Asked) -> Session:
    """Change a session's name, tags, time to live, or pin it."""
    body: SessionEditBody = asked.body
    return await asked.run(
        lambda w: w.manager.keeping.edit_session(
            asked.path["name"],
            name=body.name,
            add_tags=body.add_tags,
            remove_tags=body.remove_tags,
            ttl=body.ttl,
            pinned=body.pinned,
        )
    )


async def remove(asked: Asked) -> Session:
    """Delete a session softly; its windows stay."""
    return await asked.run(lambda w: w.manager.remove_session(asked.path["name"]))


async def undo(asked: Asked) -> Session:
    """Bring back the session of this name that was deleted or has expired."""
    return await asked.run(lambda w: w.manager.keeping.restore_session(asked.path["name"]))


_R = "cwm-sessions"

OPERATIONS = (
    Operation(
        "GET", "sessions", _R, listing, SessionListing, query=SessionsQuery, conditional=True
    ),
    Operation("GET", "sessions/{name}", _R, one, SessionStatus),
    Operation("PATCH", "sessions/{name}", _R, edit, Session, body=SessionEditBody),
    Operation("DELETE", "sessions/{name}", _R, remove, Session),
    Operation("POST", "sessions/{name}/undo", _R, undo, Session),
)

"""What the panel does: each action from the words of a message to a call of the manager."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from cwm_jupyter.core.job import Job
from cwm_jupyter.core.manager import Manager
from cwm_jupyter.current import CurrentSession
from cwm_jupyter.errors import ValidationError
from cwm_jupyter.present import text

__all__ = ["ACTIONS", "LONG"]

#: An action takes the manager, the notebook's session, the message and a job, and returns what to
#: tell the user.
Action = Callable[[Manager, CurrentSession, Mapping[str, Any], Job], Awaitable[str]]


def _text(message: Mapping[str, Any], field: str) -> str:
    value = message.get(field)
    if not isinstance(value, str) or not value.strip():
        raise ValidationError(f"{field} must be given.", field=field)
    return value.strip()


def _path(message: Mapping[str, Any]) -> Path:
    return Path(_text(message, "file")).expanduser()


def _tags(message: Mapping[str, Any], field: str) -> list[str]:
    value = message.get(field, [])
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise ValidationError(f"{field} must be a list of tags.", field=field)
    return value


async def _freeze(
    manager: Manager, current: CurrentSession, message: Mapping[str, Any], job: Job
) -> str:
    report = await manager.freeze(
        _text(message, "name"),
        str(message.get("session") or current.name),
        update=bool(message.get("update")),
        job=job,
    )
    return text(report)


async def _thaw(
    manager: Manager, current: CurrentSession, message: Mapping[str, Any], job: Job
) -> str:
    report = await manager.thaw(_text(message, "window"), job=job)
    current.use(report.session)
    return text(report)


async def _clone(
    manager: Manager, _current: CurrentSession, message: Mapping[str, Any], _job: Job
) -> str:
    window = await manager.branches.clone(_text(message, "window"), _text(message, "name"))
    return f"Cloned as {window.name}."


async def _rename(
    manager: Manager, _current: CurrentSession, message: Mapping[str, Any], _job: Job
) -> str:
    name = _text(message, "name")
    await manager.keeping.edit_window(_text(message, "window"), name=name)
    return f"Renamed to {name}."


async def _tag(
    manager: Manager, _current: CurrentSession, message: Mapping[str, Any], _job: Job
) -> str:
    window = await manager.keeping.edit_window(
        _text(message, "window"),
        add_tags=_tags(message, "add"),
        remove_tags=_tags(message, "remove"),
    )
    return f"Tags of {window.name}: {' '.join(window.tags) or 'none'}."


async def _delete(
    manager: Manager, _current: CurrentSession, message: Mapping[str, Any], _job: Job
) -> str:
    window = await manager.remove_window(_text(message, "window"))
    return f"Deleted {window.name}; undo brings it back."


async def _undo(
    manager: Manager, _current: CurrentSession, message: Mapping[str, Any], _job: Job
) -> str:
    return f"{(await manager.restore_window(_text(message, 'window'))).name} is back."


async def _export(
    manager: Manager, _current: CurrentSession, message: Mapping[str, Any], job: Job
) -> str:
    window, path = _text(message, "window"), _path(message)
    return text(await manager.archives.export([window], path, job=job))


async def _rewind(
    manager: Manager, current: CurrentSession, message: Mapping[str, Any], _job: Job
) -> str:
    report = await manager.turns.rewind(_text(message, "session"), int(message["turn"]))
    current.use(report.session.name)
    return text(report)


async def _freeze_turn(
    manager: Manager, _current: CurrentSession, message: Mapping[str, Any], job: Job
) -> str:
    """Freeze a session as it was at the end of a turn: from a branch of it, which then stays."""
    branch = await manager.turns.rewind(_text(message, "session"), int(message["turn"]))
    return text(await manager.freeze(_text(message, "name"), branch.session.name, job=job))


async def _use(
    manager: Manager, current: CurrentSession, message: Mapping[str, Any], _job: Job
) -> str:
    found = await manager.session(_text(message, "session"))
    current.use(found.name)
    return ""


ACTIONS: Mapping[str, Action] = {
    "freeze": _freeze,
    "thaw": _thaw,
    "clone": _clone,
    "rename": _rename,
    "tag": _tag,
    "delete": _delete,
    "undo": _undo,
    "export": _export,
    "rewind": _rewind,
    "freeze-turn": _freeze_turn,
    "use": _use,
}
#: those that are shown with a bar and can be cancelled
LONG = frozenset({"freeze", "thaw", "export", "freeze-turn"})

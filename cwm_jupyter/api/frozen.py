"""Windows: freeze, thaw, list, show, delete, verify, repair."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial

from cwm_jupyter.core.job import Job
from cwm_jupyter.core.models import (
    FreezeReport,
    Page,
    SessionStatus,
    ThawReport,
    Window,
    WindowStatus,
)
from cwm_jupyter.core.query import Query
from cwm_jupyter.core.reports import RepairReport, VerifyReport
from cwm_jupyter.current import shared
from cwm_jupyter.workspace import get_workspace

__all__ = [
    "afreeze",
    "arepair",
    "athaw",
    "averify",
    "freeze",
    "remove",
    "repair",
    "restore",
    "show",
    "thaw",
    "verify",
    "windows",
]


def freeze(
    name: str,
    session: str | None = None,
    *,
    tags: Sequence[str] = (),
    note: str = "",
    ttl: str | None = None,
    update: bool = False,
    job: Job | None = None,
) -> FreezeReport:
    """Make a session's state durable under a name.

    Parameters
    ----------
    name
        Of the new window.
    session
        None is the session that the magics use in this notebook, or ``main``.
    tags, note
        For finding it again.
    ttl
        How long it stays after its last use, as in ``7d``, or ``never``; None is the setting
        ``limits.window_ttl``.
    update
        Make a new version of the window that has the name, if there is one; that stays, as
        ``NAME@vN``.
    job
        Told of the stages; may be cancelled.

    Raises
    ------
    WindowExistsError
        The name is taken; that window is untouched.
    SessionEmptyError
        Nothing was said yet.
    KVStoreError
        The chunks could not be made durable; there is no window, the session is as before.

    Examples
    --------
    >>> cwm.freeze("paper", tags=["draft"])  # doctest: +SKIP
    """
    return get_workspace().run(_freezing(name, session, tags, note, ttl, update, job))


async def afreeze(
    name: str,
    session: str | None = None,
    *,
    tags: Sequence[str] = (),
    note: str = "",
    ttl: str | None = None,
    update: bool = False,
    job: Job | None = None,
) -> FreezeReport:
    """As `freeze`, awaited."""
    return await get_workspace().arun(_freezing(name, session, tags, note, ttl, update, job))


def _freezing(
    name: str,
    session: str | None,
    tags: Sequence[str],
    note: str,
    ttl: str | None,
    update: bool,
    job: Job | None,
) -> Callable[[], Awaitable[FreezeReport]]:
    return partial(
        get_workspace().manager.freeze,
        name,
        session or shared.name,
        tags=tags,
        note=note,
        ttl=ttl,
        update=update,
        job=job,
    )


def thaw(
    name: str,
    *,
    as_session: str | None = None,
    recompute: bool = False,
    accept_engine: bool = False,
    accept_unknown: Collection[str] = (),
    job: Job | None = None,
) -> ThawReport:
    """Restore a window into a new session and return what was measured.

    Parameters
    ----------
    name
        Of the window; ``NAME@3`` goes back to the end of its turn 3.
    as_session
        Name of the session; None is the window's, with a number where it is taken.
    recompute
        Compute the state anew from its tokens.
    accept_engine
        Accept an engine whose numeric fields differ; the probe decides.
    accept_unknown
        Fields of the engine that may be unknown.
    job
        Told of the stages; may be cancelled.

    Raises
    ------
    WindowNotFoundError
        There is none; the hint gives the nearest names.
    EngineMismatchError
        The engine is another one; the differences are in the message.
    ProbeError
        The restored state does not reproduce what was noted at freeze.

    Examples
    --------
    >>> report = cwm.thaw("paper")  # doctest: +SKIP
    >>> report.complete, report.cached_tokens  # doctest: +SKIP
    """
    return get_workspace().run(
        _thawing(name, as_session, recompute, accept_engine, accept_unknown, job)
    )


async def athaw(
    name: str,
    *,
    as_session: str | None = None,
    recompute: bool = False,
    accept_engine: bool = False,
    accept_unknown: Collection[str] = (),
    job: Job | None = None,
) -> ThawReport:
    """As `thaw`, awaited."""
    return await get_workspace().arun(
        _thawing(name, as_session, recompute, accept_engine, accept_unknown, job)
    )


def _thawing(
    name: str,
    as_session: str | None,
    recompute: bool,
    accept_engine: bool,
    accept_unknown: Collection[str],
    job: Job | None,
) -> Callable[[], Awaitable[ThawReport]]:
    return partial(
        get_workspace().manager.thaw,
        name,
        as_session=as_session,
        recompute=recompute,
        accept_engine=accept_engine,
        accept_unknown=accept_unknown,
        job=job,
    )


def windows(
    text: str | None = None,
    *,
    tags: Sequence[str] = (),
    model: str | None = None,
    session: str | None = None,
    state: str | Sequence[str] | None = None,
    older_than: str | None = None,
    newer_than: str | None = None,
    min_size: str | int | None = None,
    max_size: str | int | None = None,
    sort: str = "-created",
    limit: int | None = None,
    offset: int = 0,
    versions: bool = False,
) -> Page:
    """List windows; all that is asked must hold.

    Parameters
    ----------
    text
        Words that occur in name, note or tags.
    tags
        All of which they have.
    model, session
        The model, and the session that they were frozen from.
    state
        One or several; None: all that are not deleted.
    older_than, newer_than
        Made before or after: a duration back from now, ``7d``, or an RFC 3339 time.
    min_size, max_size
        As ``10MB``, or in bytes.
    sort
        ``name``, ``created``, ``used``, ``tokens`` or ``bytes``; with a ``-`` the other way round.
    limit, offset
        The page; None is all from `offset` on.
    versions
        Earlier versions too.

    Raises
    ------
    ValidationError
        Something is asked that cannot be.
    SessionNotFoundError
        There is no such session; the hint gives the nearest names.

    Examples
    --------
    >>> cwm.windows("paper", older_than="7d", sort="-bytes", limit=10)  # doctest: +SKIP
    """
    query = Query(
        text=text,
        tags=tags,
        model=model,
        session=session,
        state=state,
        older_than=older_than,
        newer_than=newer_than,
        min_size=min_size,
        max_size=max_size,
        sort=sort,
        limit=limit,
        offset=offset,
        versions=versions,
    )
    workspace = get_workspace()
    return workspace.run(partial(workspace.manager.windows, query))


def show(window: str | None = None, *, session: str | None = None) -> WindowStatus | SessionStatus:
    """Return all there is to say about one window or one session.

    Raises
    ------
    ValidationError
        Both or neither are given.
    """
    workspace = get_workspace()
    return workspace.run(partial(workspace.manager.status, window=window, session=session))


def remove(name: str) -> Window:
    """Delete a window; `restore` brings it back, until `purge` deletes it for good."""
    workspace = get_workspace()
    return workspace.run(workspace.manager.remove_window, name)


def restore(name: str) -> Window:
    """Bring back the window of this name that was deleted last."""
    workspace = get_workspace()
    return workspace.run(workspace.manager.restore_window, name)


def verify(name: str | None = None, *, job: Job | None = None) -> VerifyReport:
    """Read every chunk of a window and return whether it is as frozen; needs no running stack.

    Parameters
    ----------
    name
        Of the window; None is all windows.
    job
        Told of the bytes read; may be cancelled.

    Raises
    ------
    WindowNotFoundError
        There is none; the hint gives the nearest names.

    Examples
    --------
    >>> cwm.verify("paper").intact  # doctest: +SKIP
    """
    workspace = get_workspace()
    return workspace.run(partial(workspace.manager.verify, name, job=job))


async def averify(name: str | None = None, *, job: Job | None = None) -> VerifyReport:
    """As `verify`, awaited."""
    workspace = get_workspace()
    return await workspace.arun(partial(workspace.manager.verify, name, job=job))


def repair(name: str, *, accept_engine: bool = False, job: Job | None = None) -> RepairReport:
    """Compute again what is damaged of a window, in the shapes of its turns.

    Parameters
    ----------
    name
        Of the window.
    accept_engine
        Accept an engine whose numeric fields differ.
    job
        Told of the stages; may be cancelled.

    Raises
    ------
    StackDownError
        No stack is running.
    EngineMismatchError
        The engine is another one; the differences are in the message.
    KVStoreError
        What was computed did not become durable; the window is as it was.
    """
    workspace = get_workspace()
    return workspace.run(
        partial(workspace.manager.repair, name, accept_engine=accept_engine, job=job)
    )


async def arepair(
    name: str, *, accept_engine: bool = False, job: Job | None = None
) -> RepairReport:
    """As `repair`, awaited."""
    workspace = get_workspace()
    return await workspace.arun(
        partial(workspace.manager.repair, name, accept_engine=accept_engine, job=job)
    )

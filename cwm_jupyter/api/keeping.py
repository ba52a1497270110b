"""Keeping and letting go: edit, expire, remove sessions, delete for good."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cwm_jupyter.core.models import Session, Window
from cwm_jupyter.core.outcomes import DeletedReport, ExpireReport
from cwm_jupyter.core.reports import PurgeReport
from cwm_jupyter.errors import ValidationError
from cwm_jupyter.workspace import get_workspace

__all__ = ["delete", "edit", "expire", "remove_session", "restore_session", "verify_deleted"]


def edit(
    window: str | None = None,
    *,
    session: str | None = None,
    name: str | None = None,
    add_tags: Sequence[str] = (),
    remove_tags: Sequence[str] = (),
    note: str | None = None,
    ttl: str | None = None,
    pinned: bool | None = None,
) -> Window | Session:
    """Change what is said of a window or a session; None leaves a thing as it is.

    Parameters
    ----------
    window, session
        One of them.
    name
        A new name; all versions of a window get it.
    add_tags, remove_tags
        Tags to give and to take.
    note
        Of a window; empty takes it away.
    ttl
        How long it stays after its last use, as in ``7d``; ``never`` takes that away.
    pinned
        Whether it stays whatever `ttl` says.

    Raises
    ------
    WindowExistsError, SessionExistsError
        The new name is taken.
    ValidationError
        Nothing is to change, or something cannot be what it is to be.

    Examples
    --------
    >>> cwm.edit("paper", name="paper-2026", add_tags=["done"])  # doctest: +SKIP
    """
    _check_one(window, session)
    workspace = get_workspace()
    keeping = workspace.manager.keeping
    if session is None:
        return workspace.run(
            partial(
                keeping.edit_window,
                window or "",
                name=name,
                add_tags=add_tags,
                remove_tags=remove_tags,
                note=note,
                ttl=ttl,
                pinned=pinned,
            )
        )
    if note is not None:
        raise ValidationError("A session has no note; a window has.")
    return workspace.run(
        partial(
            keeping.edit_session,
            session,
            name=name,
            add_tags=add_tags,
            remove_tags=remove_tags,
            ttl=ttl,
            pinned=pinned,
        )
    )


def expire(*, dry_run: bool = False) -> ExpireReport:
    """Clean up what was not used for as long as it was to stay, or only tell what would go.

    Sessions expire and windows are deleted, softly: `restore_session` and `restore` bring them
    back.
    """
    workspace = get_workspace()
    return workspace.run(partial(workspace.manager.keeping.expire, dry_run=dry_run))


def remove_session(name: str) -> Session:
    """Delete a session; `restore_session` brings it back, until `purge` deletes it for good."""
    workspace = get_workspace()
    return workspace.run(workspace.manager.remove_session, name)


def restore_session(name: str) -> Session:
    """Bring back the session of this name that was deleted or has expired."""
    workspace = get_workspace()
    return workspace.run(workspace.manager.keeping.restore_session, name)


def delete(window: str | None = None, *, session: str | None = None) -> PurgeReport:
    """Delete a window or a session for good, at once: it cannot be brought back.

    Its chunks go from the vault and from the memory of the running stack, but for those that
    another window has. The windows of a session stay.

    Parameters
    ----------
    window, session
        One of them.

    Raises
    ------
    WindowNotFoundError, SessionNotFoundError
        There is none.
    SessionBusyError
        The session is being used.
    """
    _check_one(window, session)
    workspace = get_workspace()
    deletion = workspace.manager.deletion
    if session is None:
        return workspace.run(deletion.delete_window, window or "")
    return workspace.run(deletion.delete_session, session)


def verify_deleted(name: str | None = None) -> DeletedReport:
    """Look whether anything is left of what was deleted for good, or of one window or session.

    Raises
    ------
    WindowNotFoundError
        Nothing of this name was purged, or its receipt is gone.
    """
    workspace = get_workspace()
    return workspace.run(workspace.manager.deletion.verify, name)


def _check_one(window: str | None, session: str | None) -> None:
    if (window is None) == (session is None):
        raise ValidationError(
            "Name one window or one session"
            + (", not both." if window is not None else "; none was named.")
        )

"""Keeping: what is said of sessions and windows afterwards, and what is cleaned up by age.

Names, tags, notes, pins and times to live are changed in one transaction each: all of an edit
happens, or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

from anyio import to_thread

from cwm_jupyter.core.lifetime import lasting, overdue, renewed, ttl_s
from cwm_jupyter.core.models import Session, Window, now
from cwm_jupyter.core.names import check_tag, check_unicode, name_key
from cwm_jupyter.core.outcomes import ExpireReport, Expiry, ExpiryKind, ExpiryOutcome
from cwm_jupyter.core.parts import Parts
from cwm_jupyter.errors import SessionBusyError, SessionNotFoundError, ValidationError

__all__ = ["Keeping"]

_Entry = TypeVar("_Entry", Session, Window)
#: session states that can expire
_EXPIRES = ("active", "frozen", "thawed")


@dataclass(frozen=True)
class _Edit:
    """What is to change; None leaves a thing as it is."""

    name: str | None
    add_tags: Sequence[str]
    remove_tags: Sequence[str]
    note: str | None
    ttl: str | None
    pinned: bool | None

    def check(self) -> None:
        """Refuse what cannot be, before anything is looked up."""
        if not (self.add_tags or self.remove_tags) and {
            self.name,
            self.note,
            self.ttl,
            self.pinned,
        } == {None}:
            raise ValidationError(
                "Nothing was said that is to change.",
                hint="Say a new name, tags, a note, a time to live, or pin it.",
            )
        ttl_s(self.ttl)
        for tag in self.add_tags:
            check_tag(tag)
        check_unicode(self.note or "", "note")

    def of(self, entry: _Entry) -> _Entry:
        """Return the entry with the changes."""
        entry = entry.replace(tags=self._tags(entry))
        if self.name is not None:
            entry = entry.replace(name=self.name)
        if self.pinned is not None:
            entry = entry.replace(pinned=self.pinned)
        if self.ttl is not None:
            entry = lasting(entry, ttl_s(self.ttl))
        elif self.pinned is False:
            entry = renewed(entry)  # or it would be gone at the next clean-up
        return entry

    def _tags(self, entry: Session | Window) -> list[str]:
        had = {name_key(tag) for tag in entry.tags}
        gone = {name_key(tag) for tag in self.remove_tags}
        if gone - had:
            unknown = [tag for tag in self.remove_tags if name_key(tag) not in had]
            raise ValidationError(
                f"{entry.name} has no tag {', '.join(unknown)}.",
                hint=f"It has: {', '.join(entry.tags) or 'none'}.",
            )
        tags = {name_key(tag): tag for tag in entry.tags if name_key(tag) not in gone}
        for tag in map(check_tag, self.add_tags):
            tags.setdefault(name_key(tag), tag)
        return list(tags.values())


class Keeping:
    """Edits and expires what a home has.

    Parameters
    ----------
    parts
        What the manager works with.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def edit_window(
        self,
        window: str,
        *,
        name: str | None = None,
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
        note: str | None = None,
        ttl: str | None = None,
        pinned: bool | None = None,
    ) -> Window:
        """Change what is said of a window, and return it; None leaves a thing as it is.

        Parameters
        ----------
        window
            Its name or id.
        name
            A new name; all versions of the window get it.
        add_tags, remove_tags
            Tags to give and to take; one that it has already is no error.
        note
            A new note; empty takes it away.
        ttl
            How long it stays after its last use, as in ``7d``, counted from now; ``never`` takes
            that away.
        pinned
            Whether it stays whatever its time to live says.

        Raises
        ------
        WindowNotFoundError
            There is none.
        WindowExistsError
            The new name is taken.
        ValidationError
            Nothing is to change, or something cannot be what it is to be.
        """
        with self._parts.audit.entry("edit", window=window, new=name):
            edit = _Edit(name, add_tags, remove_tags, note, ttl, pinned)
            edit.check()
            return await to_thread.run_sync(self._edit_window, window, edit)

    def _edit_window(self, name: str, edit: _Edit) -> Window:
        def change(window: Window) -> Window:
            window = edit.of(window)
            return window if edit.note is None else window.replace(note=edit.note)

        with self._parts.library.index.transaction() as transaction:
            found = transaction.require_window(name)
            return transaction.update_window(found.id, change)

    async def edit_session(
        self,
        session: str,
        *,
        name: str | None = None,
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
        ttl: str | None = None,
        pinned: bool | None = None,
    ) -> Session:
        """Change what is said of a session, and return it; see `edit_window`.

        Raises
        ------
        SessionNotFoundError
            There is none.
        SessionExistsError
            The new name is taken.
        ValidationError
            Nothing is to change, or something cannot be what it is to be.
        """
        with self._parts.audit.entry("edit-session", session=session, new=name):
            edit = _Edit(name, add_tags, remove_tags, None, ttl, pinned)
            edit.check()
            return await to_thread.run_sync(self._edit_session, session, edit)

    def _edit_session(self, name: str, edit: _Edit) -> Session:
        with self._parts.library.index.transaction() as transaction:
            found = transaction.require_session(name)
            return transaction.update_session(found.id, edit.of)

    async def restore_session(self, name: str) -> Session:
        """Bring back the session of this name that was deleted or has expired.

        Where several were deleted it is the one that was used last. Its time to live counts anew.

        Raises
        ------
        SessionNotFoundError
            No such session was deleted or has expired.
        SessionExistsError
            Another session took its name meanwhile.
        """
        with self._parts.audit.entry("restore-session", session=name):
            return await to_thread.run_sync(self._restore_session, name)

    def _restore_session(self, name: str) -> Session:
        index = self._parts.library.index
        gone = [s for s in index.all_sessions() if s.state in ("deleted", "expired")]
        named = [s for s in gone if name == s.id or name_key(s.name) == name_key(name)]
        if not named:
            raise SessionNotFoundError(name, [s.name for s in gone])
        latest = max(named, key=lambda s: (name == s.id, s.updated_at))
        return index.update_session(latest.id, lambda s: renewed(s.to(s.previous_states[-1])))

    async def expire(self, *, dry_run: bool = False) -> ExpireReport:
        """Clean up what was not used for as long as it was to stay, or only look for it.

        Sessions expire and windows are deleted softly: both can be brought back until they are
        purged. What is pinned stays, and so does a session that is being used. That a session was
        thawed from a window does not keep the window: the session has all that it needs.
        """
        with nullcontext() if dry_run else self._parts.audit.entry("expire") as entry:
            report = await to_thread.run_sync(self._expire, dry_run)
            if entry is not None:
                gone = [one for one in report.entries if one.outcome == "expired"]
                entry.names["sessions"] = [one.name for one in gone if one.kind == "session"]
                entry.names["windows"] = [one.name for one in gone if one.kind == "window"]
            return report

    def _expire(self, dry_run: bool) -> ExpireReport:
        index, present = self._parts.library.index, now()
        entries = [
            _expiry("session", session, self._expired(session, present, dry_run))
            for session in index.all_sessions()
            if session.state in _EXPIRES and overdue(session, present)
        ]
        # In one write: hundreds may be over at once.
        with index.transaction() as transaction:
            for window in transaction.all_windows():
                if window.state == "deleted" or not overdue(window, present):
                    continue
                entries.append(_expiry("window", window, "pinned" if window.pinned else "expired"))
                if not (dry_run or window.pinned):
                    transaction.update_window(window.id, lambda w: w.to("deleted"))
        entries.sort(key=lambda entry: (entry.expires_at, entry.kind, entry.name))
        return ExpireReport(entries=entries, removed=not dry_run)

    def _expired(self, session: Session, present: str, dry_run: bool) -> ExpiryOutcome:
        """Let a session expire, unless it is pinned or being used."""
        if session.pinned:
            return "pinned"

        def change(found: Session) -> Session:
            over = found.state in _EXPIRES and overdue(found, present) and not found.pinned
            return found.to("expired") if over else found

        try:
            with self._parts.library.using(session):
                if not dry_run:
                    session = self._parts.library.index.update_session(session.id, change)
                    return "expired" if session.state == "expired" else "busy"
        except (SessionBusyError, SessionNotFoundError):
            return "busy"
        return "expired"


def _expiry(kind: ExpiryKind, entry: Session | Window, outcome: ExpiryOutcome) -> Expiry:
    name = entry.known_as if isinstance(entry, Window) else entry.name
    return Expiry(kind=kind, name=name, expires_at=entry.expires_at or "", outcome=outcome)

"""Turns: the end of each is a place to go back to, in a window as in a live session.

Going back makes a branch: a session of the same lineage with the transcript up to there. What it
came from stays as it is, and the chunks up to there are hit as before, since their keys depend on
lineage and tokens alone.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass

from anyio import to_thread

from cwm_jupyter.core.answers import RewindReport
from cwm_jupyter.core.index import Transaction
from cwm_jupyter.core.library import Library
from cwm_jupyter.core.lifetime import renewed
from cwm_jupyter.core.models import now
from cwm_jupyter.core.parts import Parts
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.core.unused import require_unused, unused_name
from cwm_jupyter.errors import CWMError, SessionNotFoundError, ValidationError

__all__ = ["Turns", "stem", "until"]


@dataclass(frozen=True)
class Turns:
    """Goes back in live sessions; needs no running stack.

    Parameters
    ----------
    parts
        What the manager works with.
    """

    parts: Parts

    async def rewind(
        self, session: str, turn: int, *, as_session: str | None = None
    ) -> RewindReport:
        """Make a session that goes on from the end of an earlier turn of another one.

        Parameters
        ----------
        session
            Name or id of the session to go back in; it stays as it is.
        turn
            0 is the beginning: what was there before the first question.
        as_session
            Names the new session; None is the old one's name with a number after it.

        Raises
        ------
        SessionNotFoundError
            With the nearest names.
        ValidationError
            The session has no such turn.
        SessionExistsError
            `as_session` is taken.
        """
        with self.parts.audit.entry("rewind", session=session, new=as_session) as entry:
            report = await to_thread.run_sync(self._rewind, session, turn, as_session)
            entry.names |= {"session": report.source.name, "new": report.session.name}
            return report

    def _rewind(self, session: str, turn: int, as_session: str | None) -> RewindReport:
        library = self.parts.library
        source = library.index.require_session(session)
        if as_session is None:
            name = unused_name(library.index, source.name)
        else:
            name = require_unused(library.index, as_session)
        whole = library.transcript(source)
        transcript = until(whole, turn, f"session {source.name!r}", first=0)
        branch = source.replace(
            id=uuid.uuid4().hex,
            name=name,
            state="active",
            previous_states=[],
            created_at=now(),
            updated_at=now(),
            tokens=len(transcript.token_ids),
            turns=len(transcript.turns),
            window_id=stem(library, source.window_id, transcript),
            pinned=False,
            expires_at=None,
        )
        branch = renewed(branch)

        def require_source(transaction: Transaction) -> None:
            if transaction.get_session(source.id) is None:  # purged meanwhile, with its secret
                raise SessionNotFoundError(source.name)

        library.add_session(branch, transcript, require_source)
        return RewindReport(session=branch, source=source, turn=turn)


def until(transcript: Transcript, turn: int, what: str, *, first: int = 1) -> Transcript:
    """Return a transcript up to the end of a turn.

    Parameters
    ----------
    transcript
        All of it.
    turn
        From 1; 0 leaves what was there before the first question.
    what
        Whose transcript it is, for the message.
    first
        The earliest turn that is allowed.

    Raises
    ------
    ValidationError
        There is no such turn, or it is earlier than `first`.
    """
    turns = transcript.turns
    if not first <= turn <= len(turns):
        allowed = f"{first} to {len(turns)}" if first < len(turns) else str(first)
        has = f"has {len(turns)} turn{'' if len(turns) == 1 else 's'}"
        beginning = " (0 is its beginning)" if first == 0 else ""
        raise ValidationError(
            f"The {what} {has}, so one cannot go back to the end of turn {turn}.",
            hint=f"The turn can be {allowed}{beginning}.",
            turn=turn,
            turns=len(turns),
        )
    if turn == len(turns):
        return transcript
    opening = len(transcript.messages) - 2 * len(turns)  # what was there before the first turn
    return Transcript(
        messages=transcript.messages[: opening + 2 * turn],
        token_ids=transcript.token_ids[: turns[turn - 1].end] if turn else [],
        turns=turns[:turn],
    )


def stem(library: Library, window_id: str | None, transcript: Transcript) -> str | None:
    """Return the id of the window that a transcript continues, None where there is none.

    That is the given one, or the nearest that it was made from, whose tokens `transcript` begins
    with: a branch from before a window's end does not continue that window.
    """
    while window_id is not None:
        window = library.index.get_window(window_id)
        if window is None:
            return None
        if window.tokens <= len(transcript.token_ids):
            with suppress(CWMError):  # whose manifest is damaged, say: then nobody knows
                token_ids = library.manifest(window).transcript.token_ids
                if token_ids == transcript.token_ids[: window.tokens]:
                    return window_id
        window_id = window.parent_window_id
    return None

"""Auto-freeze: freeze a session by itself where its policy asks for it, after a turn.

It never delays an answer: `Reply.freeze_due` says that it is time, and whoever shows the answer
calls `AutoFreeze.run` once it is shown. A turn that begins meanwhile waits for the freeze; one that
has begun already goes first, and is told in turn that it is time.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import anyio
from anyio import to_thread

from cwm_jupyter.core.job import Job
from cwm_jupyter.core.lifetime import lasting
from cwm_jupyter.core.models import FreezePolicy, FreezeReport, Message, Session, now
from cwm_jupyter.core.names import name_key, numbered
from cwm_jupyter.core.outcomes import AutoFreezeReport, PolicyReport
from cwm_jupyter.core.parts import Parts
from cwm_jupyter.core.policy import check_policy, is_due, threshold_tokens, window_name
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.errors import CWMError, SessionBusyError

__all__ = ["AutoFreeze"]

_LOG = logging.getLogger(__name__)


class _Freeze(Protocol):
    """`cwm_jupyter.core.manager.Manager.freeze`."""

    def __call__(
        self, name: str, session: str, *, tags: list[str], job: Job | None
    ) -> Awaitable[FreezeReport]:
        """Freeze a session under a name."""
        ...


@dataclass
class _Running:
    """A freeze that is going on, and the task that does it."""

    task: int
    ended: anyio.Event = field(default_factory=anyio.Event)


class AutoFreeze:
    """Sets policies and acts on them.

    Parameters
    ----------
    parts
        What the manager works with.
    freeze
        How the manager freezes.
    """

    def __init__(self, parts: Parts, freeze: _Freeze) -> None:
        self._parts = parts
        self._freeze = freeze
        #: by the session's id
        self._running: dict[str, _Running] = {}

    async def policy(self, session: str) -> PolicyReport:
        """Return a session's policy, and when it triggers.

        Raises
        ------
        SessionNotFoundError
            There is no such session.
        """
        index = self._parts.library.index
        return _policy_report(await to_thread.run_sync(index.require_session, session))

    async def set_policy(self, session: str, policy: FreezePolicy | None) -> PolicyReport:
        """Give a session a policy, or take it away; it counts from the next turn on.

        Raises
        ------
        SessionNotFoundError
            There is no such session.
        ValidationError
            The policy cannot be; the message names the field. The session's own stays.
        """
        with self._parts.audit.entry("policy", session=session):
            return _policy_report(await to_thread.run_sync(self._set_policy, session, policy))

    def _set_policy(self, name: str, policy: FreezePolicy | None) -> Session:
        with self._parts.library.index.transaction() as transaction:
            found = transaction.require_session(name)
            if policy is not None:
                policy = check_policy(policy, found.max_context_tokens)
            return transaction.update_session(found.id, lambda s: s.replace(policy=policy))

    async def run(self, session: str, *, job: Job | None = None) -> AutoFreezeReport | None:
        """Freeze a session if that is due, and do what its policy says is next.

        Parameters
        ----------
        session
            Its name or id.
        job
            Told of the stages; may be cancelled.

        Returns
        -------
        AutoFreezeReport or None
            None: it is not due any more, it is being done already, or the session is in its next
            turn.

        Raises
        ------
        CWMError
            As `Manager.freeze` does; the session is as it was, and it is due again after its next
            turn.
        """
        # Looked up without a wait between: what begins from here on finds it running.
        session_id = self._parts.library.index.require_session(session).id
        if session_id in self._running:
            return None
        running = self._running[session_id] = _Running(anyio.get_current_task().id)
        try:
            return await self._run(session_id, job)
        except SessionBusyError:
            return None
        finally:
            running.ended.set()
            del self._running[session_id]

    async def _run(self, session_id: str, job: Job | None) -> AutoFreezeReport | None:
        library = self._parts.library
        session = await to_thread.run_sync(library.index.require_session, session_id)
        policy = session.policy
        if policy is None or not await to_thread.run_sync(
            is_due, session, library.index.get_window
        ):
            return None
        wanted = await to_thread.run_sync(self._window_name, session, policy)
        report = await self._freeze(wanted, session.id, tags=policy.tags, job=job)
        fresh = None
        if policy.then == "fresh":
            fresh = (await to_thread.run_sync(self._begin, session, policy)).name
        return AutoFreezeReport(
            session=session.name,
            threshold_tokens=threshold_tokens(policy, session.max_context_tokens) or 0,
            freeze=report,
            fresh_session=fresh,
        )

    async def run_unattended(self, session: str) -> AutoFreezeReport | None:
        """Do as `run`, where nobody waits for it: what it did and why it failed is logged."""
        try:
            report = await self.run(session)
        except CWMError as error:
            _LOG.warning("The session %s was not frozen by itself: %s", session, error)
            raise
        if report is not None:
            _LOG.info("Froze the session %s by itself as %s", session, report.freeze.window.name)
        return report

    async def settled(self, session: Session) -> None:
        """Wait until a session is not being frozen by itself, unless this task does it."""
        running = self._running.get(session.id)
        if running is not None and running.task != anyio.get_current_task().id:
            await running.ended.wait()

    async def finished(self) -> None:
        """Wait until no session is being frozen by itself."""
        while self._running:
            await next(iter(self._running.values())).ended.wait()

    def _window_name(self, session: Session, policy: FreezePolicy) -> str:
        windows = self._parts.library.index.all_windows()
        taken = {name_key(window.name) for window in windows if window.state != "deleted"}
        return window_name(policy, session, taken, datetime.now(UTC).astimezone().date())

    def _begin(self, session: Session, policy: FreezePolicy) -> Session:
        """Begin the session that goes on with the summary, under the same rules."""
        library = self._parts.library
        fresh = Session(
            id=uuid.uuid4().hex,
            name=self._fresh_name(session.name),
            state="active",
            model=session.model,
            lineage_id=library.lineages.create(),
            created_at=now(),
            updated_at=now(),
            tags=session.tags,
            policy=policy,
        )
        summary = Message(role="system", content=policy.summary or "")
        library.add_session(lasting(fresh, session.ttl_s), Transcript(messages=[summary]))
        return fresh

    def _fresh_name(self, name: str) -> str:
        """Return the next free name: after ``chat`` comes ``chat-2``, and then ``chat-3``."""
        find = self._parts.library.index.find_session
        first, _, number = name.rpartition("-")
        if number.isdecimal() and first and find(first) is not None:
            name = first
        count = 2
        while find(numbered(name, count)) is not None:
            count += 1
        return numbered(name, count)


def _policy_report(session: Session) -> PolicyReport:
    policy, context = session.policy, session.max_context_tokens
    return PolicyReport(
        session=session.name,
        tokens=session.tokens,
        max_context_tokens=context,
        policy=policy,
        threshold_tokens=threshold_tokens(policy, context) if policy else None,
    )

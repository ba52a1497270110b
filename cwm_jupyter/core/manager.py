"""The manager: sessions and windows, from the first word to the thaw. Read this first.

It composes the parts: `conversation` adds a turn, `freeze` makes a state durable and proves it,
`thaw` restores and measures it, `library` keeps what must not be lost. Everything here is
asynchronous (anyio); front ends on other threads come through `cwm_jupyter.workspace`.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import to_thread

from cwm_jupyter.config import Settings
from cwm_jupyter.core import conversation
from cwm_jupyter.core.archive.archives import Archives
from cwm_jupyter.core.ask import Questions
from cwm_jupyter.core.audit import Audit
from cwm_jupyter.core.autofreeze import AutoFreeze
from cwm_jupyter.core.branches import Branches
from cwm_jupyter.core.chunks import ChunkStore
from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.deletion import Deletion
from cwm_jupyter.core.exchange import check_sampling
from cwm_jupyter.core.freeze import Freeze
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.keeping import Keeping
from cwm_jupyter.core.kept import kept
from cwm_jupyter.core.library import Library
from cwm_jupyter.core.lifetime import lasting, renewed, ttl_s
from cwm_jupyter.core.models import (
    FreezePlan,
    FreezeReport,
    Message,
    Page,
    Reply,
    Session,
    SessionStatus,
    ThawReport,
    Window,
    WindowStatus,
    now,
)
from cwm_jupyter.core.names import check_name, check_tag, check_unicode, name_key
from cwm_jupyter.core.parts import Parts
from cwm_jupyter.core.query import Query
from cwm_jupyter.core.reference import Reference
from cwm_jupyter.core.repair import Repair
from cwm_jupyter.core.reports import (
    DiskUsage,
    GarbageReport,
    PurgeReport,
    RepairReport,
    VerifyReport,
)
from cwm_jupyter.core.restore import Restore
from cwm_jupyter.core.rotation import RotationReport, rotate_key
from cwm_jupyter.core.status import Status
from cwm_jupyter.core.thaw import Thaw
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.core.turns import Turns
from cwm_jupyter.core.unused import require_unused, unused_name
from cwm_jupyter.core.upkeep import Upkeep
from cwm_jupyter.core.verify import Verify
from cwm_jupyter.errors import (
    KVStoreError,
    SessionExistsError,
    ValidationError,
    WindowExistsError,
    WindowNotFoundError,
)

if TYPE_CHECKING:
    from cwm_jupyter.core.cipher import Keyring

__all__ = ["Manager"]


class Manager:
    """What every front end calls.

    Parameters
    ----------
    library
        Where sessions and windows are kept.
    connect
        Gives the running stack, or raises `StackDownError`; asked for each piece of work.
    store
        The local chunks, for looks that need no running stack.
    settings
        Limits and timeouts.
    """

    def __init__(
        self,
        library: Library,
        connect: Callable[[], Awaitable[ConnectedStack]],
        store: ChunkStore | None,
        settings: Settings,
    ) -> None:
        self.library = library
        self.audit = Audit(library.home)
        self.parts = Parts(library, connect, store, settings, self.audit)
        self.archives = Archives(self.parts)
        self.branches = Branches(self.parts)
        self.keeping = Keeping(self.parts)
        self.autofreeze = AutoFreeze(self.parts, self.freeze)
        self.deletion = Deletion(self.parts)
        self._status = Status(self.parts)
        self.questions = Questions(self.parts)
        self.turns = Turns(self.parts)
        self._connect = connect
        self._store = store

    @property
    def settings(self) -> Settings:
        """Limits and timeouts; what is set here holds from the next piece of work on."""
        return self.parts.settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self.parts.settings = settings

    # Sessions

    async def create_session(
        self, name: str, *, system: str | None = None, messages: Sequence[Message] = ()
    ) -> Session:
        """Begin a session in a lineage of its own.

        Parameters
        ----------
        name
            Free among the live sessions.
        system
            The system message.
        messages
            A conversation to go on from; rendered and computed with the first turn.

        Raises
        ------
        SessionExistsError
            The name is taken.
        StackDownError
            No stack is running.
        """
        with self.audit.entry("create-session", session=name):
            name = check_name(name, "session")
            if system is not None:
                messages = [Message(role="system", content=system), *messages]
            for message in messages:
                check_unicode(message.content, f"{message.role} message")
            if await to_thread.run_sync(self.library.index.find_session, name) is not None:
                raise SessionExistsError(
                    f"There is a session {name!r} already.",
                    hint="Choose another name.",
                    session=name,
                )
            stack = await self._connect()
            return await to_thread.run_sync(
                self._create, name, stack.model, Transcript(messages=list(messages))
            )

    def _create(self, name: str, model: str, transcript: Transcript) -> Session:
        session = Session(
            id=uuid.uuid4().hex,
            name=name,
            state="active",
            model=model,
            lineage_id=self.library.lineages.create(),
            created_at=now(),
            updated_at=now(),
        )
        session = lasting(session, ttl_s(self.settings.limits.session_ttl))
        self.library.add_session(session, transcript)
        return session

    async def session(self, name: str) -> Session:
        """Return a live session by name or id, or raise `SessionNotFoundError`."""
        return await to_thread.run_sync(self.library.index.require_session, name)

    async def find_session(self, name: str) -> Session | None:
        """Return a live session by name or id, None where there is none."""
        return await to_thread.run_sync(self.library.index.find_session, name)

    async def sessions(self, query: Query | None = None, **asked: Any) -> Page:
        """List sessions, see `cwm_jupyter.core.index.Index.sessions`."""
        return await to_thread.run_sync(partial(self.library.index.sessions, query, **asked))

    async def remove_session(self, name: str) -> Session:
        """Delete a session softly: it is hidden, its name is free, its windows stay."""
        index = self.library.index
        with self.audit.entry("remove-session", session=name) as entry:
            session = await to_thread.run_sync(index.require_session, name)
            entry.names["session"] = session.name
            with self.library.using(session):  # or a turn that ends later would bring it back
                return await to_thread.run_sync(
                    index.update_session, session.id, lambda s: s.to("deleted")
                )

    async def say(
        self,
        session: str,
        text: str,
        *,
        files: Sequence[Path] = (),
        max_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply:
        """Say something in a session and return the answer, see `conversation.say`.

        `files` are text files that go before the text; `max_tokens` defaults to the setting
        ``limits.max_tokens``.
        """
        limits = self.settings.limits
        check_sampling(max_tokens, temperature)
        message = await to_thread.run_sync(
            partial(conversation.compose, text, files, max_bytes=limits.max_file_bytes)
        )
        found = await self.session(session)
        stack = await self._connect()
        await self.autofreeze.settled(found)
        with self.library.using(found):
            return await conversation.say(
                stack,
                self.library,
                await self.session(found.id),
                message,
                max_tokens=max_tokens or limits.max_tokens,
                temperature=temperature,
                seed=seed,
                on_text=on_text,
            )

    # Windows

    async def freeze(
        self,
        name: str,
        session: str,
        *,
        tags: Sequence[str] = (),
        note: str = "",
        ttl: str | None = None,
        update: bool = False,
        on_plan: Callable[[FreezePlan], None] | None = None,
        job: Job | None = None,
    ) -> FreezeReport:
        """Freeze a session under a name.

        Parameters
        ----------
        name
            Of the window; free, unless `update`.
        session
            Name or id.
        tags, note
            For finding it again.
        ttl
            How long the window stays after its last use, as in ``7d``, or ``never``; None: the
            setting ``limits.window_ttl``.
        update
            Make a new version of the window that has the name, if there is one; it stays, as
            ``NAME@vN``, and the setting ``limits.keep_versions`` says how many do.
        on_plan
            Told what will be stored, before anything is.
        job
            Told of the stages; may be cancelled until the window is in the index.

        Raises
        ------
        WindowExistsError
            The name is taken; that window is untouched.
        SessionEmptyError
            Nothing was said yet.
        KVStoreError
            The chunks could not be made durable; there is no window, the session is as before.
        """
        with self.audit.entry("freeze", window=name, session=session) as entry:
            name = check_name(name, "window")
            tags = [check_tag(tag) for tag in tags]
            check_unicode(note, "note")
            lasts_s = ttl_s(self.settings.limits.window_ttl if ttl is None else ttl)
            holder = await to_thread.run_sync(self.library.index.find_window, name)
            if holder is not None and not (update and name_key(holder.name) == name_key(name)):
                raise WindowExistsError(
                    f"There is a window {name!r} already.",
                    hint="Choose another name, or keep it as an earlier version with --update.",
                    window=name,
                )
            found = await self.session(session)
            entry.names["session"] = found.name
            stack = await self._connect()
            stack.keeper()
            await self.autofreeze.settled(found)
            with self.library.using(found):
                freeze = Freeze(
                    stack=stack,
                    library=self.library,
                    session=await self.session(found.id),
                    job=job or Job(f"freeze {name}"),
                    durable_timeout_s=self.settings.storage.durable_timeout_s,
                    probe_top=self.settings.limits.probe_top,
                    update=update,
                    keep_versions=self.settings.limits.keep_versions,
                    ttl_s=lasts_s,
                )
                plan = await freeze.plan()
                if on_plan is not None:
                    on_plan(plan)
                report = await freeze.commit(name, tags=tags, note=note)
                entry.size_bytes = report.window.size_bytes
                return report

    async def thaw(
        self,
        name: str,
        *,
        as_session: str | None = None,
        recompute: bool = False,
        accept_engine: bool = False,
        accept_unknown: Collection[str] = (),
        job: Job | None = None,
    ) -> ThawReport:
        """Restore a window into a new session, see `cwm_jupyter.core.restore.Restore.run`.

        Parameters
        ----------
        name
            Of the window; ``NAME@3`` goes back to the end of its turn 3.
        as_session
            Names the session; None is the window's name, with a number where a session has it.
        recompute, accept_engine, accept_unknown
            What to do where the engine is another one.
        job
            Told of the stages; may be cancelled.

        Raises
        ------
        WindowNotFoundError
            With the nearest names.
        SessionExistsError
            `as_session` is taken.
        """
        job = job or Job(f"thaw {name}")
        with self.audit.entry("thaw", window=name, session=as_session) as entry:
            place, index = Reference.parse(name), self.library.index
            window = await to_thread.run_sync(index.require_window, place.window)
            if as_session is None:
                session = await to_thread.run_sync(unused_name, index, window.name)
            else:
                session = await to_thread.run_sync(require_unused, index, as_session)
            thawed = str(place._replace(window=window.known_as))
            entry.names |= {"window": thawed, "session": session}
            stack = await self._connect()
            stack.keeper()
            restore = Restore(self.parts, stack, window, place.turn, job)
            report = await Thaw(restore).run(
                session,
                recompute=recompute,
                accept_engine=accept_engine,
                accept_unknown=accept_unknown,
            )
            entry.size_bytes = report.size_bytes
            return report

    async def windows(self, query: Query | None = None, **asked: Any) -> Page:
        """List windows, see `cwm_jupyter.core.index.Index.windows`."""
        return await to_thread.run_sync(partial(self.library.index.windows, query, **asked))

    async def status(
        self, *, window: str | None = None, session: str | None = None
    ) -> WindowStatus | SessionStatus:
        """Describe one window or one session.

        Raises
        ------
        ValidationError
            Both or neither are given.
        """
        if (window is None) == (session is None):
            raise ValidationError(
                "Name one window or one session"
                + (", not both." if window is not None else "; none was given.")
            )
        if window is not None:
            return await self._status.window(window)
        return await self._status.session(session or "")

    async def remove_window(self, name: str) -> Window:
        """Delete a window softly: it is hidden, its name is free, `restore_window` undoes it."""
        index = self.library.index
        with self.audit.entry("remove", window=name) as entry:
            window = await to_thread.run_sync(index.require_window, name)
            entry.names["window"] = window.name
            return await to_thread.run_sync(
                index.update_window, window.id, lambda w: w.to("deleted")
            )

    async def restore_window(self, name: str) -> Window:
        """Undo the latest soft delete of a window of this name.

        Raises
        ------
        WindowNotFoundError
            No deleted window has this name.
        WindowExistsError
            Another window took its name meanwhile.
        """
        with self.audit.entry("restore", window=name):
            return await to_thread.run_sync(self._restore_window, name)

    def _restore_window(self, name: str) -> Window:
        index = self.library.index
        deleted: list[Window] = index.windows(state="deleted").items
        wanted = name_key(name)
        found = [w for w in deleted if name == w.id or name_key(w.known_as) == wanted]
        if not found:
            raise WindowNotFoundError(name, [w.known_as for w in deleted])
        # Of one window's versions the newest is deleted first, so the oldest was deleted last.
        latest = min((w for w in found if w.series == found[0].series), key=lambda w: w.version)
        return index.update_window(latest.id, lambda w: renewed(w.to(w.previous_state or "intact")))

    # Upkeep

    async def verify(self, name: str | None = None, *, job: Job | None = None) -> VerifyReport:
        """Read every chunk of a window, or of all, and note which windows are damaged.

        Needs no running stack.

        Raises
        ------
        WindowNotFoundError
            With the nearest names.
        KVStoreError
            The window's chunks are in a remote store, whose files cannot be read from here.
        """
        index = self.library.index
        if name is None:
            everything = await to_thread.run_sync(index.all_windows)
            present = (window for window in everything if window.state != "deleted")
            windows = sorted(present, key=lambda w: (w.created_at, w.id), reverse=True)
        else:
            windows = [await to_thread.run_sync(index.require_window, name)]
        if self._store is None or (name is not None and windows[0].proof.level != "verified"):
            raise KVStoreError(
                "The chunks are in a remote store, whose files cannot be read from here.",
                hint="Thaw the window: that measures what comes back.",
            )
        verify = Verify(self.library, self._store, job or Job(f"verify {name or 'all windows'}"))
        return await verify.run(windows)

    async def repair(
        self, name: str, *, accept_engine: bool = False, job: Job | None = None
    ) -> RepairReport:
        """Compute again what is damaged of a window, see `cwm_jupyter.core.repair.Repair.run`."""
        with self.audit.entry("repair", window=name) as entry:
            window = await to_thread.run_sync(self.library.index.require_window, name)
            stack = await self._connect()
            stack.keeper()
            repair = Repair(
                stack=stack,
                library=self.library,
                window=window,
                job=job or Job(f"repair {name}"),
                durable_timeout_s=self.settings.storage.durable_timeout_s,
            )
            report = await repair.run(accept_engine=accept_engine)
            entry.size_bytes = report.window.size_bytes
            return report

    async def disk_usage(self) -> DiskUsage:
        """Count what the windows take on disk, together and each alone."""
        return await Upkeep(self.library, kept(self._store)).usage()

    async def collect_garbage(self, *, dry_run: bool = False) -> GarbageReport:
        """Remove what nothing can use any more, see `cwm_jupyter.core.upkeep.Upkeep.collect`."""
        upkeep = Upkeep(self.library, kept(self._store))
        if dry_run:
            return await upkeep.collect(dry_run=True)
        with self.audit.entry("gc") as entry:
            report = await upkeep.collect()
            entry.size_bytes = report.freed_bytes
            return report

    async def purge(self, names: Sequence[str] = (), *, dry_run: bool = False) -> PurgeReport:
        """Delete for good what was removed, see `cwm_jupyter.core.deletion.Deletion.purge`."""
        return await self.deletion.purge(names, dry_run=dry_run)

    async def rotate_key(self, *, job: Job | None = None) -> RotationReport:
        """Change the key of what is encrypted, see `cwm_jupyter.core.rotation.rotate_key`."""
        job = job or Job("rotate-key")
        store = kept(self._store)

        def contents(keyring: Keyring) -> int:
            job.stage("chunks", unit="files")
            return store.reseal(keyring, job.advance)

        with self.audit.entry("rotate-key"):
            job.stage("transcripts and manifests")
            report = await to_thread.run_sync(rotate_key, self.library, contents)
            job.finish()
            return report

"""The Python API: what the magics do, for programs and notebooks.

Plain functions block, and Ctrl-C cancels what they do; those that begin with ``a`` are awaited,
from any event loop. All of them use the process's settings, see `cwm_jupyter.config`.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

from cwm_jupyter.core.job import Job
from cwm_jupyter.core.models import (
    FreezeReport,
    Message,
    Page,
    Reply,
    Session,
    SessionStatus,
    ThawReport,
    Window,
    WindowStatus,
)
from cwm_jupyter.core.reports import (
    DiskUsage,
    GarbageReport,
    PurgeReport,
    RepairReport,
    VerifyReport,
)
from cwm_jupyter.core.rotation import RotationReport
from cwm_jupyter.current import shared
from cwm_jupyter.errors import CWMError, SessionExistsError, ValidationError
from cwm_jupyter.present import html, text
from cwm_jupyter.stack import launcher
from cwm_jupyter.stack.state import StackState, StackStatus
from cwm_jupyter.verbs import start_stack
from cwm_jupyter.workspace import get_workspace

if TYPE_CHECKING:
    from cwm_jupyter.stack.doctor import Finding

__all__ = [
    "LiveSession",
    "afreeze",
    "arepair",
    "asession",
    "athaw",
    "averify",
    "collect_garbage",
    "disk_usage",
    "doctor",
    "down",
    "freeze",
    "purge",
    "remove",
    "repair",
    "restore",
    "rotate_key",
    "session",
    "sessions",
    "show",
    "status",
    "thaw",
    "up",
    "verify",
    "windows",
]


# --- the stack ------------------------------------------------------------------------------------


def up(
    model: str | None = None, *, engine_args: Sequence[str] = (), job: Job | None = None
) -> StackState:
    """Start the local stack, or return the one that runs.

    Parameters
    ----------
    model
        A model's folder, or its name in the local Hugging Face cache; None is the setting, or
        SmolLM2-135M-Instruct.
    engine_args
        More arguments for vLLM.
    job
        Told of the stages; may be cancelled.

    Raises
    ------
    StackError
        It cannot be started, or one with another model is running; the subclass says what is amiss.

    Examples
    --------
    >>> import cwm_jupyter as cwm
    >>> cwm.up()  # doctest: +SKIP
    """
    settings = get_workspace().settings
    return start_stack(settings, job or Job("up"), model=model, engine_args=engine_args)


def down() -> None:
    """Stop the local stack, once all chunks are stored; a remote one is only let go."""
    launcher.down(get_workspace().settings)


def status() -> StackStatus:
    """Return whether the stack runs, server by server."""
    return launcher.status(get_workspace().settings)


def doctor() -> list[Finding]:
    """Return what would go wrong on this machine, and what is well."""
    from cwm_jupyter.stack.doctor import diagnose

    return diagnose(get_workspace().settings)


# --- sessions -------------------------------------------------------------------------------------


class LiveSession:
    """A conversation with the model; made by `session`.

    Parameters
    ----------
    name
        Of a session that exists.
    report
        What the thaw measured that made it.

    Examples
    --------
    >>> s = cwm.session("paper", system="Be brief.")  # doctest: +SKIP
    >>> s.say("What is a KV cache?").text  # doctest: +SKIP
    """

    def __init__(self, name: str, report: ThawReport | None = None) -> None:
        self.name = name
        self.report = report

    @property
    def record(self) -> Session:
        """The session's entry in the index, as it is now."""
        workspace = get_workspace()
        return workspace.run(workspace.manager.session, self.name)

    @property
    def messages(self) -> list[Message]:
        """What was said so far."""
        workspace = get_workspace()
        status = workspace.run(partial(workspace.manager.status, session=self.name))
        return status.messages

    def say(
        self,
        text: str,
        *,
        files: Sequence[str | Path] = (),
        max_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply:
        """Say something and return the answer.

        Parameters
        ----------
        text
            The question.
        files
            Text files that go before it.
        max_tokens
            Longest answer in tokens; None is the setting ``limits.max_tokens``.
        temperature
            0, the default, is greedy.
        seed
            For sampling that can be repeated.
        on_text
            Called with each piece of the answer as it comes, on another thread.

        Raises
        ------
        StackDownError
            No stack is running.
        ContextFullError
            The conversation would not fit into the model's context.
        """
        saying = self._saying(text, files, max_tokens, temperature, seed, on_text)
        return get_workspace().run(saying)

    async def asay(
        self,
        text: str,
        *,
        files: Sequence[str | Path] = (),
        max_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply:
        """As `say`, awaited."""
        saying = self._saying(text, files, max_tokens, temperature, seed, on_text)
        return await get_workspace().arun(saying)

    def _saying(
        self,
        text: str,
        files: Sequence[str | Path],
        max_tokens: int | None,
        temperature: float,
        seed: int | None,
        on_text: Callable[[str], None] | None,
    ) -> Callable[[], Awaitable[Reply]]:
        return partial(
            get_workspace().manager.say,
            self.name,
            text,
            files=[Path(file) for file in files],
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            on_text=on_text,
        )

    def freeze(self, name: str, *, tags: Sequence[str] = (), note: str = "") -> FreezeReport:
        """Freeze the session under a name, see `freeze`."""
        return freeze(name, self.name, tags=tags, note=note)

    async def afreeze(self, name: str, *, tags: Sequence[str] = (), note: str = "") -> FreezeReport:
        """As `freeze`, awaited."""
        return await afreeze(name, self.name, tags=tags, note=note)

    def __repr__(self) -> str:
        return f"<{self._shown(text)}>"

    def _repr_html_(self) -> str:
        return self._shown(html)

    def _shown(self, form: Callable[[object], str]) -> str:
        try:
            return form(self.record)
        except CWMError:  # removed meanwhile, for example: a repr never raises
            return form(f"Session {self.name}, not in the index")


def session(
    name: str | None = None,
    *,
    system: str | None = None,
    messages: Sequence[Message | Mapping[str, str]] = (),
    from_window: str | None = None,
) -> LiveSession:
    """Return a session; begin it if there is none of this name.

    A cell that does so may run again: a session that began in just this way is returned as it is.

    Parameters
    ----------
    name
        None is the session that the magics use in this notebook, or ``main``.
    system
        The system message.
    messages
        A conversation to go on from: `Message` or dicts with ``role`` and ``content``.
    from_window
        A window that the session is thawed from; what was measured is in `LiveSession.report`, and
        if less came from cache than was frozen there is a warning.

    Raises
    ------
    SessionExistsError
        There is one of this name, and it began otherwise.
    WindowNotFoundError
        There is no such window.

    Examples
    --------
    >>> s = cwm.session("paper", from_window="paper-read")  # doctest: +SKIP
    """
    return get_workspace().run(
        partial(_session, name, system=system, messages=messages, from_window=from_window)
    )


async def asession(
    name: str | None = None,
    *,
    system: str | None = None,
    messages: Sequence[Message | Mapping[str, str]] = (),
    from_window: str | None = None,
) -> LiveSession:
    """As `session`, awaited."""
    return await get_workspace().arun(
        partial(_session, name, system=system, messages=messages, from_window=from_window)
    )


async def _session(
    name: str | None,
    *,
    system: str | None,
    messages: Sequence[Message | Mapping[str, str]],
    from_window: str | None,
) -> LiveSession:
    manager = get_workspace().manager
    name = name or shared.name
    opening = [_message(m) for m in messages]
    if system is not None:
        opening.insert(0, Message(role="system", content=system))
    if opening and from_window is not None:
        raise ValidationError("A session begins with messages or from a window, not with both.")
    found = await manager.find_session(name)
    if found is not None:
        await _check_beginning(found, opening, from_window)
        return LiveSession(found.name)
    if from_window is None:
        return LiveSession((await manager.create_session(name, messages=opening)).name)
    report = await manager.thaw(from_window, as_session=name)
    if not report.complete:
        warnings.warn(text(report), stacklevel=2)
    return LiveSession(report.session, report)


async def _check_beginning(
    found: Session, opening: Sequence[Message], from_window: str | None
) -> None:
    """Refuse to take a session for another one."""
    if from_window is not None:
        index = get_workspace().library.index
        window = await to_thread.run_sync(index.require_window, from_window)
        same = found.window_id == window.id
    else:
        transcript = await to_thread.run_sync(get_workspace().library.transcript, found)
        said = transcript.messages
        same = said[: len(opening)] == list(opening)
    if not same:
        raise SessionExistsError(
            f"There is a session {found.name!r} already, and it began otherwise.",
            hint="Choose another name.",
            session=found.name,
        )


def _message(message: Message | Mapping[str, str]) -> Message:
    if isinstance(message, Message):
        return message
    if set(message) != {"role", "content"}:
        raise ValidationError(
            f"A message has role and content, not {', '.join(map(str, message)) or 'nothing'}."
        )
    return Message(role=message["role"], content=message["content"])


def sessions(*, state: str | None = None, limit: int | None = None, offset: int = 0) -> Page:
    """List sessions, oldest first; deleted and expired ones only where `state` asks."""
    workspace = get_workspace()
    return workspace.run(
        partial(workspace.manager.sessions, state=state, limit=limit, offset=offset)
    )


# --- windows --------------------------------------------------------------------------------------


def freeze(
    name: str,
    session: str | None = None,
    *,
    tags: Sequence[str] = (),
    note: str = "",
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
    return get_workspace().run(_freezing(name, session, tags, note, job))


async def afreeze(
    name: str,
    session: str | None = None,
    *,
    tags: Sequence[str] = (),
    note: str = "",
    job: Job | None = None,
) -> FreezeReport:
    """As `freeze`, awaited."""
    return await get_workspace().arun(_freezing(name, session, tags, note, job))


def _freezing(
    name: str, session: str | None, tags: Sequence[str], note: str, job: Job | None
) -> Callable[[], Awaitable[FreezeReport]]:
    manager = get_workspace().manager
    return partial(manager.freeze, name, session or shared.name, tags=tags, note=note, job=job)


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
        Of the window.
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


def windows(*, tags: Sequence[str] = (), limit: int | None = None, offset: int = 0) -> Page:
    """List windows that have all the tags, newest first."""
    workspace = get_workspace()
    return workspace.run(partial(workspace.manager.windows, tags=tags, limit=limit, offset=offset))


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


# --- upkeep ---------------------------------------------------------------------------------------


def disk_usage() -> DiskUsage:
    """Return what the windows take on disk, together and each alone."""
    workspace = get_workspace()
    return workspace.run(workspace.manager.disk_usage)


def collect_garbage(*, dry_run: bool = False) -> GarbageReport:
    """Remove from the disk what nothing can use any more, or only tell what there is of it."""
    workspace = get_workspace()
    return workspace.run(partial(workspace.manager.collect_garbage, dry_run=dry_run))


def purge(*names: str, dry_run: bool = False) -> PurgeReport:
    """Delete for good what was removed, or only tell what would go.

    Parameters
    ----------
    names
        Of windows that were removed; none: all windows and sessions that were.
    dry_run
        Delete nothing.

    Raises
    ------
    StateTransitionError
        A window of this name was not removed; nothing was deleted.
    WindowNotFoundError
        There is none of this name.
    """
    workspace = get_workspace()
    return workspace.run(partial(workspace.manager.purge, names, dry_run=dry_run))


def rotate_key() -> RotationReport:
    """Change the key of what is encrypted, and encrypt what is not.

    Raises
    ------
    ValidationError
        Encryption is off.
    """
    workspace = get_workspace()
    return workspace.run(workspace.manager.rotate_key)

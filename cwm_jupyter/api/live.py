"""Sessions: live conversations with the model."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path

from anyio import to_thread

from cwm_jupyter.api.frozen import afreeze, freeze
from cwm_jupyter.core.models import FreezeReport, Message, Page, Reply, Session, ThawReport, Window
from cwm_jupyter.core.outcomes import AutoFreezeReport
from cwm_jupyter.core.query import Query
from cwm_jupyter.core.reference import Reference
from cwm_jupyter.core.turns import until
from cwm_jupyter.current import shared
from cwm_jupyter.errors import CWMError, SessionExistsError, ValidationError
from cwm_jupyter.present import html, text
from cwm_jupyter.workspace import get_workspace

__all__ = ["LiveSession", "asession", "session", "sessions"]


class LiveSession:
    """A conversation with the model; made by `session`.

    Parameters
    ----------
    name
        Of a session that exists.
    report
        What the thaw measured that made it.

    Attributes
    ----------
    name
        Of the session; a policy may have begun a fresh one.
    report
        What the thaw measured that made the session; None where none did.
    freezing
        The future of the freeze that its policy began after the last answer; None before the first.

    Examples
    --------
    >>> s = cwm.session("paper", system="Be brief.")  # doctest: +SKIP
    >>> s.say("What is a KV cache?").text  # doctest: +SKIP
    """

    def __init__(self, name: str, report: ThawReport | None = None) -> None:
        self.name = name
        self.report = report
        self.freezing: Future[AutoFreezeReport | None] | None = None

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

        Where a policy says so (`autofreeze`), the session is frozen once it is returned, in the
        background: `freezing` is its future, and the next turn waits for it. A failure is logged.

        Parameters
        ----------
        text
            The question.
        files
            Text files (UTF-8) whose contents go before it.
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
        if self.freezing is not None:
            wait([self.freezing])
        self._go_on()
        saying = self._saying(text, files, max_tokens, temperature, seed, on_text)
        return self._said(get_workspace().run(saying))

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
        if self.freezing is not None:
            await asyncio.wait([asyncio.wrap_future(self.freezing)])
        self._go_on()
        saying = self._saying(text, files, max_tokens, temperature, seed, on_text)
        return self._said(await get_workspace().arun(saying))

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

    def _said(self, reply: Reply) -> Reply:
        """Return an answer; where the session is to be frozen by itself, that begins now."""
        if reply.freeze_due:
            workspace = get_workspace()
            self.freezing = workspace.start(workspace.manager.autofreeze.run_unattended, self.name)
        return reply

    def _go_on(self) -> None:
        """Go on in the fresh session, if a freeze has begun one."""
        freezing = self.freezing
        if freezing is None or freezing.cancelled() or freezing.exception() is not None:
            return
        report = freezing.result()
        if report is None or report.fresh_session is None or report.session != self.name:
            return
        if shared.name == self.name:
            shared.use(report.fresh_session)
        self.name = report.fresh_session

    def freeze(
        self, name: str, *, tags: Sequence[str] = (), note: str = "", update: bool = False
    ) -> FreezeReport:
        """Freeze the session under a name; parameters and errors are those of `freeze`."""
        return freeze(name, self.name, tags=tags, note=note, update=update)

    async def afreeze(
        self, name: str, *, tags: Sequence[str] = (), note: str = "", update: bool = False
    ) -> FreezeReport:
        """As `freeze`, awaited."""
        return await afreeze(name, self.name, tags=tags, note=note, update=update)

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
        A window that the session is thawed from, or ``NAME@3`` for the end of its turn 3; what was
        measured is in `LiveSession.report`, and if less came from cache than was frozen there is a
        warning.

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
        place = Reference.parse(from_window)
        window = await to_thread.run_sync(index.require_window, place.window)
        if place.turn is None:
            same = found.window_id == window.id
        else:
            same = await to_thread.run_sync(_came_from, found, window, place.turn)
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


def _came_from(found: Session, window: Window, turn: int) -> bool:
    """Return whether a session's tokens begin with those up to the end of a window's turn."""
    library = get_workspace().library
    manifest = library.manifest(window)
    wanted = until(manifest.transcript, turn, f"window {window.known_as!r}").token_ids
    said = library.transcript(found).token_ids
    return found.lineage_id == window.lineage_id and said[: len(wanted)] == wanted


def _message(message: Message | Mapping[str, str]) -> Message:
    if isinstance(message, Message):
        return message
    if set(message) != {"role", "content"}:
        raise ValidationError(
            f"A message has role and content, not {', '.join(map(str, message)) or 'nothing'}."
        )
    return Message(role=message["role"], content=message["content"])


def sessions(
    text: str | None = None,
    *,
    tags: Sequence[str] = (),
    model: str | None = None,
    state: str | Sequence[str] | None = None,
    older_than: str | None = None,
    newer_than: str | None = None,
    sort: str = "created",
    limit: int | None = None,
    offset: int = 0,
) -> Page:
    """List sessions; all that is asked must hold, as of `windows`.

    Parameters
    ----------
    text
        Words that occur in name or tags.
    tags
        All of which they have.
    model
        The model.
    state
        One or several; None: all that are not deleted.
    older_than, newer_than
        Begun before or after: a duration back from now, ``7d``, or an RFC 3339 time.
    sort
        ``name``, ``created``, ``used`` or ``tokens``; with a ``-`` the other way round.
    limit, offset
        The page; None is all from `offset` on.

    Raises
    ------
    ValidationError
        Something is asked that cannot be.
    """
    query = Query(
        text=text,
        tags=tags,
        model=model,
        state=state,
        older_than=older_than,
        newer_than=newer_than,
        sort=sort,
        limit=limit,
        offset=offset,
    )
    workspace = get_workspace()
    return workspace.run(partial(workspace.manager.sessions, query))

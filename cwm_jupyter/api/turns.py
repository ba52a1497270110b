"""Going back to the end of a turn, and asking many questions of one window."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import cast

from cwm_jupyter.api.frozen import athaw, show, thaw
from cwm_jupyter.api.live import LiveSession
from cwm_jupyter.core.answers import AskReport
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.models import ThawReport, Window, WindowStatus
from cwm_jupyter.core.reference import Reference
from cwm_jupyter.current import shared
from cwm_jupyter.errors import CWMError
from cwm_jupyter.present import html, text
from cwm_jupyter.workspace import get_workspace

__all__ = ["FrozenWindow", "rewind", "window"]


class FrozenWindow:
    """A window, or the end of one of its turns; made by `window`.

    Parameters
    ----------
    name
        Of the window, as in ``"paper"`` or ``"paper@3"``.

    Attributes
    ----------
    name
        As it was given.

    Examples
    --------
    >>> paper = cwm.window("paper")  # doctest: +SKIP
    >>> paper.ask(["What is new?", "What is missing?"])  # doctest: +SKIP
    >>> cwm.window("paper@3").thaw().say("And if it were false?")  # doctest: +SKIP
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def record(self) -> Window:
        """The window's entry in the index, as it is now."""
        index = get_workspace().library.index
        return index.require_window(Reference.parse(self.name).window)

    def ask(
        self,
        questions: Sequence[str],
        *,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        keep: str | None = None,
        job: Job | None = None,
    ) -> AskReport:
        """Put several questions to the window at once, each in a branch of its own.

        The window is restored once and all questions begin with its tokens. Since they are computed
        together, in other shapes than alone, the answers are right, but equality to the bit with
        asking one by one is not promised.

        Parameters
        ----------
        questions
            None sees another, or its answer.
        max_tokens
            Longest answer in tokens; None is the setting ``limits.max_tokens``.
        temperature
            0, the default, is greedy.
        keep
            Keep the branches as sessions, under this name with the question's number after it.
        job
            Told of the stages; may be cancelled.

        Raises
        ------
        ValidationError
            There are no questions.
        EngineMismatchError, ProbeError
            The window cannot be restored as it was.
        CWMError
            No question got an answer. Where one did, the others' errors are in the report.
        """
        return get_workspace().run(self._asking(questions, max_tokens, temperature, keep, job))

    async def aask(
        self,
        questions: Sequence[str],
        *,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        keep: str | None = None,
        job: Job | None = None,
    ) -> AskReport:
        """As `ask`, awaited."""
        asking = self._asking(questions, max_tokens, temperature, keep, job)
        return await get_workspace().arun(asking)

    def _asking(
        self,
        questions: Sequence[str],
        max_tokens: int | None,
        temperature: float,
        keep: str | None,
        job: Job | None,
    ) -> Callable[[], Awaitable[AskReport]]:
        return partial(
            get_workspace().manager.questions.ask,
            self.name,
            questions,
            max_tokens=max_tokens,
            temperature=temperature,
            keep=keep,
            job=job,
        )

    def thaw(self, as_session: str | None = None) -> LiveSession:
        """Restore the window into a new session, see `thaw`; what was measured is its `report`.

        If less came from cache than was frozen there is a warning.
        """
        return _live(thaw(self.name, as_session=as_session))

    async def athaw(self, as_session: str | None = None) -> LiveSession:
        """As `thaw`, awaited."""
        return _live(await athaw(self.name, as_session=as_session))

    def show(self) -> WindowStatus:
        """Return all there is to say about the window, see `show`."""
        return cast(WindowStatus, show(Reference.parse(self.name).window))

    def __repr__(self) -> str:
        return f"<{self._shown(text)}>"

    def _repr_html_(self) -> str:
        return self._shown(html)

    def _shown(self, form: Callable[[object], str]) -> str:
        try:
            return form(self.record)
        except CWMError:  # removed meanwhile, for example: a repr never raises
            return form(f"Window {self.name}, not in the index")


def _live(report: ThawReport) -> LiveSession:
    if not report.complete:
        warnings.warn(text(report), stacklevel=3)
    return LiveSession(report.session, report)


def window(name: str) -> FrozenWindow:
    """Return a window.

    Parameters
    ----------
    name
        Of the window; ``NAME@3`` is the end of its turn 3.

    Raises
    ------
    WindowNotFoundError
        There is none; the hint gives the nearest names.

    Examples
    --------
    >>> cwm.window("paper").ask(["What is new?", "What is missing?"])  # doctest: +SKIP
    """
    found = FrozenWindow(name)
    _ = found.record
    return found


def rewind(turn: int, session: str | None = None, *, as_session: str | None = None) -> LiveSession:
    """Return a new session that goes on from the end of an earlier turn; the old one stays.

    Parameters
    ----------
    turn
        Its number; 0 is the beginning.
    session
        None is the session that the magics use in this notebook, or ``main``.
    as_session
        Name of the new session; None is the old one's with a number after it.

    Raises
    ------
    ValidationError
        The session has no such turn.
    SessionExistsError
        `as_session` is taken.

    Examples
    --------
    >>> cwm.rewind(2, "paper").say("Put it another way.")  # doctest: +SKIP
    """
    workspace = get_workspace()
    report = workspace.run(
        partial(workspace.manager.turns.rewind, session or shared.name, turn, as_session=as_session)
    )
    return LiveSession(report.session.name)

"""The front end of a notebook: one output under the cell, rewritten while the work goes on."""

from __future__ import annotations

import getpass
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from IPython.display import DisplayHandle, display

from cwm_jupyter.afterwards import Afterwards
from cwm_jupyter.core.job import Job, JobState
from cwm_jupyter.core.models import FreezePlan
from cwm_jupyter.current import CurrentSession
from cwm_jupyter.errors import ValidationError
from cwm_jupyter.layout import Block, Line, Prose, draw_html, draw_text
from cwm_jupyter.present import html, text
from cwm_jupyter.progress import Progress, ticking

__all__ = ["NotebookOutput"]

_REFRESH_S = 0.05


class NotebookOutput(Afterwards):
    """Notes, then what is going on, then the result: all in one output, as HTML and as text.

    An answer is shown as it is while it comes, and as Markdown once it is complete, of which
    `cwm_jupyter.markdown` lets nothing through that a page would run or load.

    Parameters
    ----------
    current
        The session that is meant where none is named.
    """

    def __init__(self, current: CurrentSession) -> None:
        super().__init__()
        self._current = current
        self._lock = threading.RLock()
        self._notes: list[object] = []
        self._handle: DisplayHandle | None = None

    @property
    def session(self) -> str:
        """The session that is meant where none is named."""
        return self._current.name

    def use(self, session: str) -> bool:
        """Make a session the one that is meant, see `CurrentSession.use`."""
        return self._current.use(session)

    def note(self, value: object) -> None:
        """Show something that is not the result, above it."""
        with self._lock:
            self._notes.append(value)
            self._draw([])

    def going_on(self, line: str) -> None:
        """Say in a line what is going on; the result takes its place."""
        self._draw([Line(line, faint=True)])

    def read(self) -> str:
        """Refuse: a notebook has no standard input."""
        raise ValidationError("There is nothing to read.", hint="Put the text under %%cwm.")

    def secret(self, prompt: str) -> str:
        """Ask for a passphrase, which is not shown, nor kept in the notebook."""
        return getpass.getpass(prompt)

    @contextmanager
    def progress(self) -> Iterator[Callable[[JobState], None]]:
        """Show what a job does while the block runs; yields the job's watcher."""
        progress, shown = Progress(), ""

        def tick() -> None:
            nonlocal shown
            if progress.line != shown:
                shown = progress.line
                self._draw([Line(shown, faint=True)])

        try:
            with ticking(tick):
                yield progress.watch
        finally:
            if shown:
                self._draw([])

    @contextmanager
    def answer(self) -> Iterator[Callable[[str], None]]:
        """Show an answer while it comes; yields what takes its pieces."""
        pieces: list[str] = []
        drawn: tuple[int, str] = (0, "")
        progress = Progress()
        Job("say", progress.watch).stage("waiting for the first token")

        def tick() -> None:
            nonlocal drawn
            now = len(pieces), "" if pieces else progress.line
            if now != drawn:
                drawn = now
                self._draw([Prose("".join(pieces)) if pieces else Line(now[1], faint=True)])

        try:
            with ticking(tick, _REFRESH_S):
                yield pieces.append
        finally:
            tick()

    def show(self, value: object) -> None:
        """Show the result in place of what was going on."""
        # The report says what was done: what was planned is no longer of interest.
        self._notes = [note for note in self._notes if not isinstance(note, FreezePlan)]
        self.note(value)  # what is done afterwards is told below it

    def _draw(self, going_on: list[Block]) -> None:
        self._publish(draw_text(going_on), draw_html(going_on))

    def _publish(self, plain: str, rich: str) -> None:
        with self._lock:
            bundle: dict[str, Any] = {
                "text/plain": "\n".join([*map(text, self._notes), *([plain] if plain else [])]),
                "text/html": "".join([*map(html, self._notes), rich]),
            }
            if self._handle is None:
                self._handle = display(bundle, raw=True, display_id=True)
            else:
                self._handle.update(bundle, raw=True)

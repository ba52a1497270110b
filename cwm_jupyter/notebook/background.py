"""Work in the background: ``--background``, and the handle that it gives."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from argparse import Namespace
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from cwm_jupyter.core.cancellation import Cancellation
from cwm_jupyter.core.job import Job, JobState
from cwm_jupyter.errors import CancelledJobError, CWMError, UsageError
from cwm_jupyter.notebook.display import NotebookOutput
from cwm_jupyter.progress import describe

if TYPE_CHECKING:
    from cwm_jupyter.terminal import Terminal
    from cwm_jupyter.verbs import Verb
    from cwm_jupyter.workspace import Workspace

__all__ = ["Background", "start"]


class Background:
    """Work in the background: await it, poll it, or cancel it. Safe to use from any thread.

    Parameters
    ----------
    what
        The work in a few words.

    Examples
    --------
    >>> report = await handle  # doctest: +SKIP
    >>> handle.done, handle.state.stage  # doctest: +SKIP
    (False, 'storing chunks')
    >>> handle.cancel()  # doctest: +SKIP
    """

    def __init__(self, what: str) -> None:
        self._cancellation = Cancellation()
        self._future: Future[Any] = Future()
        self._future.set_running_or_notify_cancel()
        self._state = Job(what).state

    @property
    def done(self) -> bool:
        """Whether it has ended: with a result, with an error, or cancelled."""
        return self._future.done()

    @property
    def state(self) -> JobState:
        """What it said last of how far it is."""
        return self._state

    def cancel(self) -> None:
        """Ask it to stop; it first puts everything in order, as after Ctrl-C."""
        if not self.done:
            self._cancellation.cancel()

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for the end and return the result.

        Raises
        ------
        CancelledJobError
            It was cancelled.
        TimeoutError
            It has not ended in time; it goes on.
        """
        return self._future.result(timeout_s)

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.wrap_future(self._future).__await__()

    def __repr__(self) -> str:
        if not self.done:
            return f"<{_line(self)}>"
        error = self._future.exception()
        return f"<{self.state.what}: {'done' if error is None else _told(error)}>"


class _Behind:
    """The front end of work in the background: nothing is asked, and no session changed.

    Parameters
    ----------
    front
        Shows what there is to show.
    handle
        Told of the work's progress.
    """

    def __init__(self, front: NotebookOutput | Terminal, handle: Background) -> None:
        self._front, self._handle = front, handle
        #: as it was when the work began: what is meant must not change on the way
        self.session = front.session
        self.note, self.answer, self.later = front.note, front.answer, front.later

    def use(self, session: str) -> bool:
        """Tell how to go on in a session; the one that is meant is the user's to change."""
        self.note(f"To go on in it: %%cwm -s {session}")
        return False

    @contextmanager
    def progress(self) -> Iterator[Callable[[JobState], None]]:
        """Yield a watcher; a notebook shows what it sees, a terminal has its prompt to keep."""
        shown = self._front.progress() if isinstance(self._front, NotebookOutput) else None
        with shown or nullcontext(None) as show:

            def watch(state: JobState) -> None:
                self._handle._state = state
                if show is not None:
                    show(state)

            yield watch

    def read(self) -> str:
        """Refuse: nobody waits for the question."""
        raise UsageError("Work in the background reads no standard input.")

    def secret(self, prompt: str) -> str:
        """Refuse: nobody waits for the question."""
        raise UsageError(
            "Work in the background cannot ask for a passphrase.",
            hint="Name an environment variable that holds it: --passphrase-env VARIABLE.",
        )


def start(
    verb: Verb, workspace: Workspace, args: Namespace, front: NotebookOutput | Terminal
) -> Background:
    """Run a verb on a thread of its own and return at once.

    Parameters
    ----------
    verb, args
        What to do.
    workspace
        Where.
    front
        Shows what is going on, and the result or the error in its place.
    """
    handle = Background(verb.name)
    if isinstance(front, NotebookOutput):
        front.going_on(_line(handle))
    # In a copy of the caller's context, which is how a kernel knows the cell of the output.
    context = contextvars.copy_context()
    work = threading.Thread(
        target=context.run,
        args=(_work, handle, verb, workspace, args, front),
        name="cwm-background",
        daemon=True,
    )
    work.start()
    return handle


def _work(
    handle: Background,
    verb: Verb,
    workspace: Workspace,
    args: Namespace,
    front: NotebookOutput | Terminal,
) -> None:
    future, value = handle._future, None
    error: BaseException | None = None
    try:
        with handle._cancellation.over():
            value = verb.run(workspace, args, _Behind(front, handle))
    except CancelledJobError:
        error = CancelledJobError(f"Cancelled: {handle.state.what}.")
    except BaseException as raised:  # raised to whoever awaits the handle
        error = raised
        error.__context__ = None  # or IPython prints more than two lines of it
    try:
        front.show(value if error is None else _told(error))
    finally:
        future.set_result(value) if error is None else future.set_exception(error)
    front.finish()


def _told(error: BaseException) -> object:
    return error if isinstance(error, CWMError) else f"{type(error).__name__}: {error}"


def _line(handle: Background) -> str:
    return f"{describe(handle.state)} · in the background"

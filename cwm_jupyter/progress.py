"""Progress: what a job does, as one line, shown once the wait gets long."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cwm_jupyter.core.job import JobState
from cwm_jupyter.units import count, megabytes

__all__ = ["Progress", "describe", "ticking"]


def describe(state: JobState, stage_s: float | None = None) -> str:
    """Return a job's present stage as one line.

    Parameters
    ----------
    state
        What the job said last.
    stage_s
        How long the stage has taken so far (s).
    """
    parts = [state.what, state.stage]
    amount = megabytes if state.unit == "bytes" else count
    unit = "" if state.unit == "bytes" else f" {state.unit}".rstrip()
    if state.total:
        done = f"{amount(state.done)} of {amount(state.total)}{unit}"
        parts.append(f"{done} ({min(state.done / state.total, 1):.0%})")
    elif state.done:
        parts.append(f"{amount(state.done)}{unit}")
    if stage_s is not None and stage_s >= 1:
        parts.append(f"{stage_s:.0f} s")
    return " · ".join(part for part in parts if part)


class Progress:
    """The last that a job said, and whether it is time to show it.

    Parameters
    ----------
    delay_s
        Work that ends sooner shows nothing.
    """

    def __init__(self, delay_s: float = 0.5) -> None:
        self._show_from = time.monotonic() + delay_s
        self._seen: JobState | None = None
        self._stage = ("", 0.0)

    def watch(self, state: JobState) -> None:
        """Take in a job's state; this is the watcher that a `Job` wants."""
        if state.stage != self._stage[0]:
            self._stage = state.stage, time.monotonic()
        self._seen = state

    @property
    def stage(self) -> str:
        """The present stage, empty where there is nothing to show."""
        shown = self._seen is not None and time.monotonic() >= self._show_from
        return self._stage[0] if shown else ""

    @property
    def line(self) -> str:
        """The line to show now, empty where there is none."""
        if self._seen is None or not self.stage:
            return ""
        return describe(self._seen, time.monotonic() - self._stage[1])


@contextmanager
def ticking(tick: Callable[[], None], every_s: float = 0.1) -> Iterator[None]:
    """Call `tick` from a thread again and again, until the block has ended.

    The thread works in a copy of the caller's context, which is how a kernel knows the cell that
    its output belongs to.
    """
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(every_s):
            tick()

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="cwm-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

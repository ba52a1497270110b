"""Job: long work that can be watched and cancelled.

The one thing that magics, widgets, the command line and the server show while something takes
long. The work calls `stage` and `advance`; a watcher gets a `JobState` at each change and may
call `cancel`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from cwm_jupyter.core.cancellation import Cancellation
from cwm_jupyter.errors import CancelledJobError

__all__ = ["Job", "JobState", "StageTime"]


class StageTime(msgspec.Struct, frozen=True):
    """A finished stage and how long it took."""

    name: str
    seconds: float


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """What a watcher sees at one moment."""

    what: str
    stage: str
    unit: str
    done: int
    total: int | None
    elapsed_s: float
    cancelled: bool
    stages: tuple[StageTime, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the state as a JSON-ready dict."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]


class Job:
    """Progress of one piece of work, safe to use from any thread.

    Parameters
    ----------
    what
        The work in a few words, as in ``"freeze paper"``.
    watch
        Called with a `JobState` at each stage and advance, on the thread that works.
    """

    def __init__(self, what: str, watch: Callable[[JobState], None] | None = None) -> None:
        self.what = what
        self._watch = watch
        self._lock = threading.Lock()
        self._started = self._stage_started = time.perf_counter()
        self._stage, self._unit = "", ""
        self._done = 0
        self._total: int | None = None
        self._stages: list[StageTime] = []
        self._cancelled = threading.Event()
        Cancellation.join(self.cancel)

    def stage(self, name: str, *, total: int | None = None, unit: str = "") -> None:
        """Begin a stage and end the one before it.

        Parameters
        ----------
        name
            What is being done, as in ``"storing chunks"``.
        total
            How much of `unit` there is to do, where that is known.
        unit
            ``"bytes"``, ``"tokens"``, ``"chunks"`` or nothing.

        Raises
        ------
        CancelledJobError
            The job was cancelled.
        """
        self.check()
        with self._lock:
            self._end_stage()
            self._stage, self._unit, self._done, self._total = name, unit, 0, total
        self._notify()

    def advance(self, done: int, total: int | None = None) -> None:
        """Say how much of the stage is done by now (not how much more)."""
        self.check()
        with self._lock:
            self._done = done
            if total is not None:
                self._total = total
        self._notify()

    def finish(self) -> None:
        """End the last stage."""
        with self._lock:
            self._end_stage()
            self._stage = ""
        self._notify()

    def cancel(self) -> None:
        """Ask the work to stop at its next step."""
        self._cancelled.set()

    def check(self) -> None:
        """Raise `CancelledJobError` if the job was cancelled."""
        if self._cancelled.is_set():
            raise CancelledJobError(f"Cancelled: {self.what}.")

    def seconds(self, stage: str) -> float:
        """Return how long all finished stages of this name took, in seconds."""
        with self._lock:
            return sum(s.seconds for s in self._stages if s.name == stage)

    @property
    def state(self) -> JobState:
        """The job at this moment."""
        with self._lock:
            return JobState(
                what=self.what,
                stage=self._stage,
                unit=self._unit,
                done=self._done,
                total=self._total,
                elapsed_s=time.perf_counter() - self._started,
                cancelled=self._cancelled.is_set(),
                stages=tuple(self._stages),
            )

    def _end_stage(self) -> None:
        now = time.perf_counter()
        if self._stage:
            self._stages.append(StageTime(self._stage, now - self._stage_started))
        self._stage_started = now

    def _notify(self) -> None:
        if self._watch is not None:
            self._watch(self.state)

"""Jobs: long work that requests begin, and that others follow and cancel."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from cwm_jupyter.core.job import Job, JobState
from cwm_jupyter.core.models import Value, now
from cwm_jupyter.errors import CancelledJobError, CWMError
from cwm_jupyter.server import failures
from cwm_jupyter.server.failures import RefusedError
from cwm_jupyter.workspace import Workspace

__all__ = ["JobView", "Jobs"]

_LOG = logging.getLogger(__name__)
_MAX_RUNNING = 16
_MAX_KEPT = 100
#: how long jobs that were asked to stop may take, and once more when they are cancelled (s)
_STOP_S = 5.0
#: how often clients are told of progress, at most (s)
_TELL_S = 0.2

Work = Callable[[Workspace, Job], Awaitable[Value]]
Run = Callable[[Callable[[Workspace], Awaitable[Value]]], Awaitable[Value]]


class JobView(Value, frozen=True, kw_only=True):
    """A job at this moment.

    `done` of `total` `unit` of the present stage are done; `total` is null where it is unknown.
    `result` is the report of what it did, `error` the error in which it ended, as all errors are.
    """

    id: str
    what: str
    state: Literal["running", "done", "failed", "cancelled"]
    #: it was asked to stop, and does at its next step
    cancelling: bool
    stage: str
    unit: str
    done: int
    total: int | None
    elapsed_s: float
    stages_s: dict[str, float]
    started_at: str
    ended_at: str | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


@dataclass
class _Kept:
    """A job and what has become of it."""

    id: str
    job: Job
    started_at: str
    view: JobView | None = None
    told: bool = True


class Jobs:
    """The jobs of one server; it belongs to the server's event loop.

    Parameters
    ----------
    run
        Awaits work off the event loop.
    tell
        Called with a job's view when it has changed.
    """

    def __init__(self, run: Run, tell: Callable[[JobView], None]) -> None:
        self._run = run
        self._tell = tell
        self._kept: dict[str, _Kept] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def running(self) -> int:
        """How many have not ended."""
        return len(self._tasks)

    def start(self, what: str, work: Work) -> JobView:
        """Begin work and return at once.

        Parameters
        ----------
        what
            The work in a few words.
        work
            Gets the workspace, and the job to tell of its progress; returns a report.

        Raises
        ------
        RefusedError
            Too many are running, or the server is ending.
        """
        if self._closed:
            raise failures.ending()
        if self.running >= _MAX_RUNNING:
            raise RefusedError(429, f"{_MAX_RUNNING} jobs are running; wait until one has ended.")
        loop, id_ = asyncio.get_running_loop(), uuid.uuid4().hex[:16]

        def watch(_state: JobState) -> None:  # on the thread that works, maybe very often
            if kept.told:
                kept.told = False
                loop.call_soon_threadsafe(loop.call_later, _TELL_S, self._told, kept)

        kept = _Kept(id_, Job(what, watch), now())
        self._kept[id_] = kept
        self._forget_oldest()
        task = asyncio.create_task(self._finish(kept, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        view = _view(kept)
        self._tell(view)
        return view

    def all(self) -> list[JobView]:
        """Return all that are kept, the newest first."""
        return [_view(kept) for kept in reversed(self._kept.values())]

    def get(self, id_: str) -> JobView:
        """Return one, or refuse with 404."""
        return _view(self._require(id_))

    def cancel(self, id_: str) -> JobView:
        """Ask one to stop; one that has ended stays as it is."""
        kept = self._require(id_)
        if kept.view is None:
            kept.job.cancel()
        view = _view(kept)
        self._tell(view)
        return view

    async def close(self) -> None:
        """Ask all to stop and give them time to put everything in order; cancel the others."""
        self._closed = True
        for kept in self._kept.values():
            kept.job.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_STOP_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=_STOP_S)

    def _require(self, id_: str) -> _Kept:
        kept = self._kept.get(id_)
        if kept is None:
            raise RefusedError(404, "There is no such job; old ones are forgotten.", job=id_)
        return kept

    def _forget_oldest(self) -> None:
        ended = [id_ for id_, kept in self._kept.items() if kept.view is not None]
        for id_ in ended[: max(len(self._kept) - _MAX_KEPT, 0)]:
            del self._kept[id_]

    async def _finish(self, kept: _Kept, work: Work) -> None:
        """Await the work and keep how it ended."""
        try:
            report = await self._run(lambda workspace: work(workspace, kept.job))
            self._ended(kept, state="done", cancelling=False, result=report.to_dict())
        except CancelledJobError as error:
            self._ended(kept, state="cancelled", error=error.to_dict())
        except CWMError as error:
            self._ended(kept, state="failed", error=error.to_dict())
        except asyncio.CancelledError:
            cancelled = CancelledJobError(f"Cancelled: {kept.job.what}.")
            self._ended(kept, state="cancelled", error=cancelled.to_dict())
            raise
        except RefusedError as error:  # the server's end came before the work's beginning
            document = failures.document(error.status_code, error)
            self._ended(kept, state="cancelled", error=document)
        except Exception as error:
            _LOG.exception("%s failed", kept.job.what)
            self._ended(kept, state="failed", error=failures.document(500, error))

    def _ended(self, kept: _Kept, **how: Any) -> None:
        """Keep how a job ended, and tell it."""
        kept.view = _view(kept).replace(ended_at=now(), **how)
        self._tell(kept.view)

    def _told(self, kept: _Kept) -> None:
        kept.told = True
        if kept.view is None:  # else its end was told
            self._tell(_view(kept))


def _view(kept: _Kept) -> JobView:
    if kept.view is not None:
        return kept.view
    state = kept.job.state
    stages: dict[str, float] = {}
    for stage in state.stages:
        stages[stage.name] = stages.get(stage.name, 0.0) + stage.seconds
    return JobView(
        id=kept.id,
        what=state.what,
        state="running",
        cancelling=state.cancelled,
        stage=state.stage,
        unit=state.unit,
        done=state.done,
        total=state.total,
        elapsed_s=state.elapsed_s,
        stages_s=stages,
        started_at=kept.started_at,
    )

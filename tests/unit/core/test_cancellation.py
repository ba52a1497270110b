"""Cancellation: jobs and tasks that are begun under one, on any thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from cwm_jupyter.config import Settings
from cwm_jupyter.core.cancellation import Cancellation
from cwm_jupyter.core.job import Job
from cwm_jupyter.errors import CancelledJobError
from cwm_jupyter.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(Settings(home=tmp_path / "home"))
    yield workspace
    workspace.close()


def test_a_job_joins_what_is_over_it() -> None:
    cancellation = Cancellation()
    alone = Job("alone")
    with cancellation.over():
        job = Job("one")
    cancellation.cancel()
    with pytest.raises(CancelledJobError):
        job.check()
    alone.check()
    Job("after").check()
    with cancellation.over():
        late = Job("late")
    with pytest.raises(CancelledJobError):
        late.check()


def test_work_of_the_loop_is_cancelled_once_it_is_in_order(workspace: Workspace) -> None:
    cancellation, begun, tidied = Cancellation(), threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)
            tidied.set()

    def cancel() -> None:
        begun.wait()
        cancellation.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with cancellation.over(), pytest.raises(CancelledJobError):
        workspace.run(work)
    assert tidied.is_set()
    thread.join()


def test_work_that_was_cancelled_before_it_began_does_nothing(workspace: Workspace) -> None:
    cancellation, done = Cancellation(), []

    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        done.append(1)

    cancellation.cancel()
    assert cancellation.cancelled
    with cancellation.over(), pytest.raises(CancelledJobError):
        workspace.run(work)
    assert done == []


def test_work_that_ends_all_the_same_gives_its_result(workspace: Workspace) -> None:
    cancellation = Cancellation()

    async def work() -> int:
        cancellation.cancel()
        return 7

    with cancellation.over():
        assert workspace.run(work) == 7

"""Job: stages, progress, cancelling, from any thread."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.core import job as job_module
from cwm_jupyter.core.job import Job, JobState
from cwm_jupyter.errors import CancelledJobError


class Clock:
    """A perf_counter that moves when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(job_module.time, "perf_counter", clock)
    return clock


def test_a_new_job_has_no_stage() -> None:
    state = Job("freeze paper").state
    assert (state.what, state.stage, state.done, state.total) == ("freeze paper", "", 0, None)
    assert state.stages == ()
    assert not state.cancelled


def test_stages_are_timed_one_after_the_other(clock: Clock) -> None:
    job = Job("freeze paper")
    clock.now += 1  # before the first stage: no stage's time
    job.stage("storing")
    clock.now += 2
    job.stage("checking")
    clock.now += 3
    job.stage("storing")
    clock.now += 4
    job.finish()
    assert [(s.name, s.seconds) for s in job.state.stages] == [
        ("storing", 2),
        ("checking", 3),
        ("storing", 4),
    ]
    assert job.seconds("storing") == 6
    assert job.seconds("never") == 0
    assert job.state.elapsed_s == 10
    assert job.state.stage == ""


def test_finish_twice_counts_once(clock: Clock) -> None:
    job = Job("x")
    job.stage("a")
    clock.now += 1
    job.finish()
    clock.now += 1
    job.finish()
    assert [(s.name, s.seconds) for s in job.state.stages] == [("a", 1)]


def test_a_stage_starts_from_nothing_done() -> None:
    job = Job("x")
    job.stage("a", total=10, unit="bytes")
    job.advance(7)
    assert (job.state.done, job.state.total, job.state.unit) == (7, 10, "bytes")
    job.stage("b")
    assert (job.state.done, job.state.total, job.state.unit) == (0, None, "")


def test_the_total_may_become_known_later() -> None:
    job = Job("x")
    job.stage("a")
    job.advance(1, total=4)
    job.advance(2)
    assert (job.state.done, job.state.total) == (2, 4)


def test_the_watcher_sees_each_change_on_the_working_thread() -> None:
    seen: list[tuple[str, int, int]] = []

    def watch(state: JobState) -> None:
        seen.append((state.stage, state.done, threading.get_ident()))

    job = Job("x", watch)
    job.stage("a")
    job.advance(1)
    job.finish()
    here = threading.get_ident()
    assert seen == [("a", 0, here), ("a", 1, here), ("", 1, here)]


def test_a_cancelled_job_stops_at_its_next_step() -> None:
    job = Job("freeze paper")
    job.stage("storing")
    job.cancel()
    assert job.state.cancelled
    for step in (lambda: job.stage("b"), lambda: job.advance(1), job.check):
        with pytest.raises(CancelledJobError, match=r"Cancelled: freeze paper\."):
            step()
    assert (job.state.stage, job.state.done) == ("storing", 0)
    job.finish()  # tidying up is still allowed


def test_a_watcher_may_cancel() -> None:
    job = Job("x", lambda state: job.cancel() if state.done == 2 else None)
    job.stage("a")
    job.advance(1)
    job.advance(2)
    with pytest.raises(CancelledJobError):
        job.advance(3)
    assert job.state.done == 2


def test_cancel_from_another_thread() -> None:
    job = Job("x")
    started = threading.Event()

    def work() -> None:
        job.stage("a")
        started.set()
        while True:
            job.advance(1)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        assert started.wait(10)
        job.cancel()
        assert isinstance(running.exception(timeout=10), CancelledJobError)


def test_the_state_is_json_ready() -> None:
    job = Job("x")
    job.stage("a", total=2, unit="chunks")
    job.stage("b")
    document = json.loads(json.dumps(job.state.to_dict()))
    assert document["what"] == "x"
    assert document["stage"] == "b"
    assert [stage["name"] for stage in document["stages"]] == ["a"]
    assert document["elapsed_s"] >= document["stages"][0]["seconds"] >= 0


@given(st.lists(st.sampled_from("abc"), max_size=20))
def test_stage_times_never_exceed_the_whole(names: list[str]) -> None:
    job = Job("x")
    for name in names:
        job.stage(name)
    job.finish()
    state = job.state
    assert [s.name for s in state.stages] == names
    assert sum(s.seconds for s in state.stages) <= state.elapsed_s + 1e-9
    assert sum(job.seconds(name) for name in set(names)) == pytest.approx(
        sum(s.seconds for s in state.stages)
    )

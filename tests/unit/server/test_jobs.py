"""Jobs, events and the stack over HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from cwm_jupyter.core.job import Job
from cwm_jupyter.core.models import Value
from cwm_jupyter.core.statistics import Statistics
from cwm_jupyter.errors import StackStartError
from cwm_jupyter.server import history, hub, jobs
from cwm_jupyter.server.failures import RefusedError
from cwm_jupyter.stack import launcher


async def _when(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


class Done(Value, frozen=True, kw_only=True):
    what: str = "done"


async def _until_cancelled(_workspace: Any, job: Job) -> Done:
    job.stage("wait", total=10, unit="chunks")
    job.advance(3)
    while True:
        await asyncio.sleep(0.01)
        job.check()


async def test_a_job_is_followed_and_cancelled(call: Any, service: Any, kept: Any) -> None:
    begun = service.jobs.start("wait", _until_cancelled)
    while not (seen := (await call("GET", f"jobs/{begun.id}")).document)["done"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert (seen["state"], seen["stage"], seen["done"], seen["total"]) == (
        "running",
        "wait",
        3,
        10,
    )
    assert (await call("DELETE", f"jobs/{begun.id}")).document["cancelling"]
    ended = await kept.ended(seen)
    assert (ended["state"], ended["error"]["code"]) == ("cancelled", "job.cancelled")
    # It has ended: asking again changes nothing.
    assert (await call("DELETE", f"jobs/{begun.id}")).document == ended


async def test_an_unknown_job_is_not_found(call: Any) -> None:
    for method in ("GET", "DELETE"):
        answer = await call(method, "jobs/nothing")
        assert (answer.status, answer.document["code"]) == (404, "http.not_found")


async def test_a_job_tells_how_it_failed(call: Any, service: Any, kept: Any) -> None:
    async def refused(_workspace: Any, _job: Job) -> Done:
        raise StackStartError("vLLM died.")

    async def broken(_workspace: Any, _job: Job) -> Done:
        raise RuntimeError("secret")

    first = await kept.ended(service.jobs.start("up", refused).to_dict())
    assert (first["state"], first["error"]["code"]) == ("failed", "stack.start")
    second = await kept.ended(service.jobs.start("up", broken).to_dict())
    assert second["state"] == "failed"
    assert "secret" not in str(second)
    listed = (await call("GET", "jobs")).document["items"]
    assert [job["id"] for job in listed] == [second["id"], first["id"]]


async def test_jobs_are_bounded(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_MAX_RUNNING", 2)
    monkeypatch.setattr(jobs, "_MAX_KEPT", 3)

    async def quick(_workspace: Any, _job: Job) -> Done:
        return Done()

    begun = [service.jobs.start("wait", _until_cancelled) for _ in range(2)]
    with pytest.raises(RefusedError, match="2 jobs are running") as refused:
        service.jobs.start("wait", _until_cancelled)
    assert refused.value.status_code == 429
    for job in begun:
        service.jobs.cancel(job.id)
    await _when(lambda: not service.jobs.running)
    for _ in range(5):
        service.jobs.start("quick", quick)
        await _when(lambda: not service.jobs.running)
    assert len(service.jobs.all()) == 3


async def test_a_server_with_jobs_is_not_idle(jp_serverapp: Any, service: Any) -> None:
    extensions = jp_serverapp.extension_manager
    assert not extensions.any_activity()
    service.jobs.start("wait", _until_cancelled)
    assert extensions.any_activity()
    await service.jobs.close()
    assert not extensions.any_activity()


async def test_a_job_that_does_not_stop_is_cancelled(
    call: Any, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_STOP_S", 0.05)
    begun, ended = threading.Event(), threading.Event()

    async def deaf(_workspace: Any, _job: Job) -> Done:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()
        return Done()

    started = service.jobs.start("wait", deaf)
    await _when(begun.is_set)
    await service.close()
    assert ended.is_set()
    job = (await call("GET", f"jobs/{started.id}")).document
    assert (job["state"], job["error"]["code"]) == ("cancelled", "job.cancelled")


async def test_a_job_that_the_end_overtakes_is_not_begun(call: Any, service: Any) -> None:
    started = service.jobs.start("wait", _until_cancelled)
    await service.close()
    job = (await call("GET", f"jobs/{started.id}")).document
    assert (job["state"], job["error"]["code"]) == ("cancelled", "http.service_unavailable")


async def test_a_job_that_cannot_be_cancelled_keeps_no_server_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "_STOP_S", 0.01)
    stubborn = asyncio.Event()

    async def run(_work: Any) -> Done:
        while not stubborn.is_set():
            with suppress(asyncio.CancelledError):
                await stubborn.wait()
        return Done()

    some = jobs.Jobs(run, lambda _view: None)
    some.start("wait", _until_cancelled)
    await some.close()
    assert some.running == 1
    stubborn.set()
    await _when(lambda: not some.running)


async def test_after_its_end_nothing_is_begun(call: Any, kept: Any, service: Any) -> None:
    await kept.talk("paper")
    await service.close()
    for method, path, document in (
        ("GET", "windows", None),
        ("GET", "events", None),
        ("GET", "history", None),
        ("POST", "windows", {"name": "read", "session": "paper"}),
    ):
        answer = await call(method, path, document)
        assert (answer.status, answer.document["code"]) == (503, "http.service_unavailable"), path
        assert "is ending" in answer.document["message"]
    for begin in (
        lambda: service.jobs.start("wait", _until_cancelled),
        service.hub.subscribe,
        service.history.watch,
    ):
        with pytest.raises(RefusedError, match="is ending"):
            begin()
    assert not [thread for thread in threading.enumerate() if thread.name == "cwm"]


async def test_the_stack_is_started_and_stopped(
    call: Any, kept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def down(_settings: Any, job: Job) -> None:
        threads.append(threading.current_thread())
        job.stage("stop")
        job.finish()

    def up(_settings: Any, _job: Job) -> None:
        raise StackStartError("vLLM died.")

    monkeypatch.setattr(launcher, "down", down)
    monkeypatch.setattr(launcher, "up", up)
    stopped = await kept.ended((await call("POST", "stack/stop")).document)
    assert (stopped["state"], stopped["result"]["phase"]) == ("done", "down")
    assert threads != [threading.main_thread()]
    begun = await call("POST", "stack/start", {"model": "m"})
    assert begun.status == 202
    assert (await kept.ended(begun.document))["error"]["code"] == "stack.start"
    assert (await call("POST", "stack/start", {"model": 3})).document["context"]["field"] == "model"


async def test_the_stack_is_looked_at(call: Any, service: Any) -> None:
    assert (await call("GET", "stack")).document["phase"] == "down"
    none = await call("GET", "stack/logs")
    assert (none.status, none.document["code"]) == (503, "stack.down")
    folder = (await service.workspace()).settings.run_dir / "logs"
    folder.mkdir(parents=True)
    (folder / "lmcache.log").write_text("a\nb\nc\n")
    logs = await call("GET", "stack/logs", params={"part": "lmcache", "lines": 2})
    assert logs.document == {"part": "lmcache", "lines": ["b", "c"]}
    for wrong in ({"part": "../../etc"}, {"lines": "0"}, {"lines": "2001"}):
        assert (await call("GET", "stack/logs", params=wrong)).status == 400


class Listener:
    """A client of the event channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int, token: str) -> Listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"GET /a%40b/cwm/api/v1/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        writer.write(f"{head}Authorization: token {token}\r\n\r\n".encode())
        return cls(reader, writer)

    async def until(self, text: str) -> str:
        """Read until something was said, and return all of it."""
        heard = ""
        while text not in heard:
            part = await self._reader.read(4096)
            assert part, heard
            heard += part.decode()
        return heard

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


@pytest.fixture
async def listener(jp_serverapp: Any, http_server_client: Any) -> Any:
    port = http_server_client.get_http_port()
    listener = await Listener.open(port, jp_serverapp.identity_provider.token)
    yield listener
    await listener.close()


async def test_clients_hear_of_jobs_and_of_the_index(
    call: Any, kept: Any, service: Any, listener: Listener
) -> None:
    head = await listener.until("event: index")
    assert "text/event-stream" in head
    assert "X-Accel-Buffering: no" in head
    assert "retry: 3000" in head
    await kept.talk("paper")
    begun = await call("POST", "windows", {"name": "read", "session": "paper"})
    heard = await listener.until('"state":"done"')
    assert begun.document["id"] in heard
    await listener.until(await service.generation())
    assert service.hub.listeners == 1
    assert service.history.sampling
    await listener.close()
    await _when(lambda: not service.hub.listeners)
    assert service.hub._watcher is None


async def test_a_client_that_goes_is_no_error(
    listener: Listener, service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await listener.until("event: index")
    await listener.close()
    await _when(lambda: not service.hub.listeners)
    await asyncio.sleep(0)  # the handler ends
    assert [line.getMessage() for line in caplog.records if line.levelname == "ERROR"] == []


async def test_a_stream_ends_with_the_server(listener: Listener, service: Any) -> None:
    await listener.until("event: index")
    await service.close()
    await listener.until("0\r\n\r\n")  # the last chunk
    assert service.hub.listeners == 0


async def test_too_many_clients_are_sent_to_poll(
    call: Any, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    await listener.until("event: index")
    monkeypatch.setattr(hub, "_MAX_CLIENTS", 1)
    assert (await call("GET", "events")).status == 503


async def test_a_slow_client_gets_the_latest_of_each() -> None:
    async def generation() -> str:
        return "g"

    channel = hub.Hub(generation)
    slow = channel.subscribe()
    events = slow.events()
    await anext(events)
    for number in range(1000):
        channel.publish("job", {"n": number}, "job a")
        channel.publish("statistics", {"n": number})
    await asyncio.sleep(0)
    heard = await anext(events)
    assert heard.count("event: job") == heard.count("event: statistics") == 1
    assert heard.count('{"n":999}') == 2
    slow.close()
    assert [event async for event in events] == []


async def test_a_quiet_channel_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    async def generation() -> str:
        return "g"

    monkeypatch.setattr(hub, "_BEAT_S", 0.01)
    channel = hub.Hub(generation)
    events = channel.subscribe().events()
    heard = [await anext(events) for _ in range(4)]
    assert heard[-1].startswith(":")
    channel.close()


async def test_figures_are_sampled_while_somebody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_EVERY_S", 0.01)
    monkeypatch.setattr(history, "_FRESH_S", 0.0)
    listening, asked, told = 0, 0, []

    async def ask() -> Statistics:
        nonlocal asked
        asked += 1
        return Statistics(at=str(asked), running=False)

    ring = history.History(ask, lambda: listening, told.append)
    assert not ring.sampling
    monkeypatch.setattr(history, "_WATCHED_S", 0.05)
    assert ring.report().items == []
    await _when(lambda: not ring.sampling)
    assert 1 <= asked == len(told)
    # Who listens watches for as long as it does.
    listening = 1
    ring.watch()
    before = asked
    await _when(lambda: asked >= before + 10)
    listening = 0
    await _when(lambda: not ring.sampling)
    assert [one.at for one in ring.report().items] == [str(n + 1) for n in range(asked)]
    ring.close()


async def test_many_askers_are_one_question() -> None:
    asked = 0

    async def ask() -> Statistics:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return Statistics(at="t", running=False)

    ring = history.History(ask, lambda: 0, lambda _: None)
    await asyncio.gather(*(ring.now() for _ in range(50)))
    assert asked == 1

"""What only real sockets show: pools, limits, broken connections, aborted streams."""

from __future__ import annotations

import time
from contextlib import aclosing

import pytest

from cwm_jupyter.clients import (
    CacheFigures,
    Delta,
    EngineFigures,
    LMCacheClient,
    VLLMClient,
    figures_text,
)
from cwm_jupyter.errors import (
    KVStoreConnectionError,
    KVStoreTimeoutError,
    VLLMConnectionError,
    VLLMTimeoutError,
)

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


@pytest.mark.covers("UC-004")
async def test_health_is_down_where_nothing_listens(nowhere):
    async with VLLMClient(nowhere) as vllm, LMCacheClient(nowhere) as lmcache:
        assert await vllm.health() is False
        assert await lmcache.health() is False


@pytest.mark.covers("UC-018")
async def test_a_refused_connection_names_the_url(nowhere, salt):
    async with VLLMClient(nowhere, model="m", retries=1) as vllm, LMCacheClient(nowhere) as lmcache:
        with pytest.raises(VLLMConnectionError, match=nowhere) as caught:
            await vllm.complete([1], cache_salt=salt, max_tokens=1)
        assert caught.value.context["url"] == nowhere
        assert "cwm up" in str(caught.value)
        with pytest.raises(KVStoreConnectionError, match=nowhere):
            await lmcache.status()


@pytest.mark.covers("CS-001")
async def test_figures_without_a_server_are_unavailable(nowhere):
    async with VLLMClient(nowhere) as vllm, LMCacheClient(nowhere) as lmcache:
        engine, cache = await vllm.metrics(), await lmcache.figures()
    assert engine == EngineFigures()
    assert cache == CacheFigures()
    for figures in (engine, cache):
        assert set(figures.to_dict().values()) == {None}
        lines = figures_text(figures).splitlines()
        assert len(lines) == len(figures.to_dict())
        assert all(line.endswith("  unavailable") for line in lines)


@pytest.mark.covers("UC-007")
@pytest.mark.parametrize("way", ["hang", "drip"])
async def test_a_slow_server_ends_in_time(loopback, salt, way):
    loopback.reply = loopback.hang() if way == "hang" else loopback.drip()
    async with VLLMClient(loopback.url, model="m", request_timeout_s=0.2) as client:
        started = time.perf_counter()
        with pytest.raises(VLLMTimeoutError, match=r"within 0\.2 s"):
            await client.complete([1], cache_salt=salt, max_tokens=1)
        assert 0.2 <= time.perf_counter() - started < 2
    assert loopback.requests == 1
    await loopback.all_closed()


@pytest.mark.covers("UC-007")
async def test_a_stream_that_falls_silent_ends_in_time(loopback, salt, pieces, sse):
    loopback.reply = loopback.hang(STREAM_HEAD + sse(pieces[0], done=False))
    async with VLLMClient(loopback.url, model="m", request_timeout_s=0.2) as client:
        stream = client.stream([1], cache_salt=salt, max_tokens=9)
        assert (await anext(stream)).token_ids == [359]
        with pytest.raises(VLLMTimeoutError, match=r"within 0\.2 s"):
            await anext(stream)


async def test_health_of_a_server_that_hangs(loopback):
    loopback.reply = loopback.hang()
    async with VLLMClient(loopback.url, request_timeout_s=0.1) as client:
        assert await client.health() is False


async def test_lmcache_that_hangs_ends_in_time(loopback):
    loopback.reply = loopback.hang()
    async with LMCacheClient(loopback.url, request_timeout_s=0.1) as client:
        with pytest.raises(KVStoreTimeoutError, match=r"within 0\.1 s"):
            await client.status()


@pytest.mark.covers("UC-008")
async def test_broken_connections_are_retried_and_raised(loopback):
    loopback.reply = loopback.cut()
    async with VLLMClient(loopback.url, retries=2) as client:
        with pytest.raises(VLLMConnectionError, match=f"{loopback.url} broke the connection"):
            await client.version()
    assert loopback.requests == loopback.accepted == 3


@pytest.mark.covers("UC-008")
async def test_an_answer_cut_in_the_middle_is_retried(loopback):
    whole = loopback.answer({"version": "0.32.0"})
    half = loopback.cut(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")

    async def reply(server, reader, writer):
        await (half if server.requests == 1 else whole)(server, reader, writer)

    loopback.reply = reply
    async with VLLMClient(loopback.url, retries=1) as client:
        assert await client.version() == "0.32.0"
    assert loopback.requests == 2


async def test_a_stream_cut_after_its_start_is_not_repeated(loopback, salt, pieces, sse, drain):
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n")
    event = sse(pieces[0], done=False)
    loopback.reply = loopback.cut(head + b"%x\r\n%b\r\n" % (len(event), event))
    async with VLLMClient(loopback.url, model="m") as client:
        got: list[Delta] = []
        with pytest.raises(VLLMConnectionError, match=loopback.url):
            await drain(client.stream([1], cache_salt=salt, max_tokens=9), got)
    assert [d.token_ids for d in got] == [[359]]
    assert loopback.requests == 1


@pytest.mark.covers("UC-010")
async def test_one_connection_serves_many_calls(loopback, salt, pieces, sse, drain, completion):
    events = sse(*pieces)
    streamed = STREAM_HEAD.replace(
        b"\r\n\r\n", b"\r\ncontent-length: %d\r\n\r\n%b" % (len(events), events)
    )

    async def reply(server, reader, writer):
        if server.requests % 2:
            await loopback.answer(completion)(server, reader, writer)
        else:
            writer.write(streamed)
            await writer.drain()

    loopback.reply = reply
    async with VLLMClient(loopback.url, model="m") as client:
        for _ in range(3):
            await client.complete([1], cache_salt=salt, max_tokens=1)
            assert len(await drain(client.stream([1], cache_salt=salt, max_tokens=9))) == 3
    assert loopback.requests == 6
    assert loopback.accepted == 1


@pytest.mark.covers("UC-011")
async def test_sockets_are_closed_after_an_error(loopback, salt):
    loopback.reply = loopback.answer({"version": "0.32.0"})

    async def fail() -> None:
        async with VLLMClient(loopback.url) as client:
            await client.version()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert loopback.accepted == 1
    await loopback.all_closed()


@pytest.mark.covers("UC-011")
async def test_sockets_are_closed_after_a_refusal(loopback):
    loopback.reply = loopback.answer({"detail": "no"}, status="400 Bad Request")
    async with VLLMClient(loopback.url) as client:
        with pytest.raises(Exception, match=r"refused \(400\)"):
            await client.version()
    await loopback.all_closed()


async def test_leaving_a_stream_early_closes_its_connection(loopback, salt, pieces, sse):
    loopback.reply = loopback.hang(STREAM_HEAD + sse(pieces[0], done=False))
    async with VLLMClient(loopback.url, model="m") as client:
        async with aclosing(client.stream([1], cache_salt=salt, max_tokens=9)) as stream:
            async for _ in stream:
                break
        await loopback.all_closed()  # while the client is still open: the engine stops generating


async def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    loopback, nowhere, monkeypatch
):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, nowhere)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    loopback.reply = loopback.answer({"version": "0.32.0"})
    async with VLLMClient(loopback.url) as client:
        assert await client.version() == "0.32.0"

"""The LMCache client, against a scripted transport."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwm_jupyter.clients import (
    CacheFigures,
    CacheLayout,
    DeleteResult,
    LMCacheClient,
    PrefetchResult,
    RegisteredEngine,
)
from cwm_jupyter.core.chunks import ChunkKey, chunk_keys
from cwm_jupyter.errors import (
    ConfigError,
    KVStoreConnectionError,
    KVStoreError,
    KVStoreTimeoutError,
)

URL = "http://cache.test:8080"
PREFETCHES = "/cache/prefetches"
SUBMITTED = {"request_id": "r1", "chunks": 2, "status": "submitted"}
PENDING = {"request_id": "r1", "status": "pending"}
DONE = {"request_id": "r1", "status": "completed", "found_keys": 1, "total_keys": 2}


@pytest.fixture
async def client(wire) -> AsyncIterator[LMCacheClient]:
    async with LMCacheClient(URL, transport=wire.transport) as client:
        yield client


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The waits between polls, which take no time here."""
    slept: list[float] = []

    async def sleep(delay: float) -> None:
        slept.append(delay)
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr("cwm_jupyter.clients.lmcache.anyio.sleep", sleep)
    return slept


def keys(count: int, salt: str) -> list[ChunkKey]:
    hashes = [i.to_bytes(32, "big") for i in range(count)]
    return chunk_keys(hashes, model_name="smollm2", world_size=1, cache_salt=salt)


async def prefetch(client: LMCacheClient, salt: str, **more: float) -> PrefetchResult:
    return await client.prefetch(
        (1, 2, 3), model_name="smollm2", world_size=1, cache_salt=salt, **more
    )


def test_malformed_url(wire):
    with pytest.raises(ConfigError, match=r"lmcache\.url"):
        LMCacheClient("cache:8080", transport=wire.transport)


# --- the server -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (404, False)])
async def test_health(wire, client, status, healthy):
    wire.on("GET", "/healthcheck", httpx2.Response(status, json={"status": "?"}))
    assert await client.health() is healthy


async def test_status_and_layout(wire, client, lmcache_status):
    wire.on("GET", "/status", lmcache_status)
    assert (await client.status())["engine_type"] == "MPCacheServer"
    assert await client.layout() == CacheLayout(
        chunk_tokens=128,
        hash_algorithm="blake3",
        engines=[RegisteredEngine(model_name="smollm2", world_size=1, block_size_tokens=128)],
    )


async def test_layout_with_an_engine_on_a_gpu(wire, client, lmcache_status):
    lmcache_status["cache_context_meta"] = {
        "7": {"model_name": "large", "world_size": 2, "kv_cache_layout": {}}
    }
    wire.on("GET", "/status", lmcache_status)
    assert RegisteredEngine(model_name="large", world_size=2) in (await client.layout()).engines


@pytest.mark.parametrize("field", ["chunk_size", "hash_algorithm"])
async def test_layout_without_a_field(wire, client, lmcache_status, field):
    del lmcache_status[field]
    wire.on("GET", "/status", lmcache_status)
    with pytest.raises(KVStoreError, match=field):
        await client.layout()


async def test_figures(wire, client, lmcache_status, lmcache_metrics):
    wire.on("GET", "/status", lmcache_status)
    wire.on("GET", "/metrics", httpx2.Response(200, text=lmcache_metrics))
    figures = await client.figures()
    assert figures.l1_total_bytes == 2**31
    assert figures.lookup_hit_tokens == 7936


async def test_figures_where_metrics_are_shut(wire, client, lmcache_status):
    wire.on("GET", "/status", lmcache_status)
    figures = await client.figures()
    assert figures.l1_total_bytes == 2**31
    assert figures.lookup_tokens is None
    assert figures.hit_rate is None


async def test_figures_of_something_else(wire, client):
    wire.on("GET", "/status", httpx2.Response(200, text="hello"))
    assert await client.figures() == CacheFigures()


# --- prefetch -------------------------------------------------------------------------------------


async def test_prefetch_polls_gently_until_done(wire, client, salt, waits):
    wire.on("POST", PREFETCHES, httpx2.Response(202, json=SUBMITTED))
    wire.on("GET", f"{PREFETCHES}/r1", *[PENDING] * 10, DONE)
    assert await prefetch(client, salt) == PrefetchResult(found=1, total=2)
    assert wire.bodies == [
        {"model_name": "smollm2", "world_size": 1, "token_ids": [1, 2, 3], "cache_salt": salt}
    ]
    assert waits[0] == 0.005
    assert waits == sorted(waits)
    assert max(waits) == waits[-1] == 0.02


async def test_prefetch_of_less_than_a_chunk(wire, client, salt):
    wire.on("POST", PREFETCHES, httpx2.Response(202, json={"chunks": 0, "status": "noop"}))
    assert await prefetch(client, salt) == PrefetchResult(found=0, total=0)
    assert len(wire.requests) == 1


async def test_prefetch_before_the_engine_has_registered(wire, client, salt):
    detail = "no layout registered for model_name='smollm2' world_size=1; the model has not"
    wire.on("POST", PREFETCHES, httpx2.Response(503, json={"detail": detail}))
    with pytest.raises(KVStoreConnectionError, match="registers when it starts") as caught:
        await prefetch(client, salt)
    assert "No engine has registered" in caught.value.message
    assert len(wire.requests) == 1


async def test_prefetch_that_never_ends(wire, client, salt):
    wire.on("POST", PREFETCHES, httpx2.Response(202, json=SUBMITTED))
    wire.on("GET", f"{PREFETCHES}/r1", PENDING)
    with pytest.raises(KVStoreTimeoutError, match=r"within 0\.05 s"):
        await prefetch(client, salt, timeout_s=0.05)
    assert 2 <= len(wire.requests) < 20


async def test_prefetch_has_a_limit_of_its_own(wire, salt):
    wire.on("POST", PREFETCHES, httpx2.Response(202, json=SUBMITTED))
    wire.on("GET", f"{PREFETCHES}/r1", PENDING)
    async with LMCacheClient(URL, prefetch_timeout_s=0.02, transport=wire.transport) as client:
        with pytest.raises(KVStoreTimeoutError, match=r"within 0\.02 s"):
            await prefetch(client, salt)


@pytest.mark.parametrize("status", [400, 422, 500, 503])
async def test_salts_are_in_no_message(wire, client, salt, status):
    detail = f"cache_salt must not contain frozenset({{'@'}}) (got '{salt}')"
    wire.on("POST", PREFETCHES, httpx2.Response(status, json={"detail": detail}))
    with pytest.raises(KVStoreError) as caught:
        await prefetch(client, salt)
    assert salt not in f"{caught.value} {caught.value.to_dict()} {caught.value.to_log_dict()}"


async def test_broken_connections_are_not_retried(wire, client, salt):
    wire.on("POST", PREFETCHES, httpx2.ReadError("reset"))
    with pytest.raises(KVStoreConnectionError, match=URL):
        await prefetch(client, salt)
    assert len(wire.requests) == 1


# --- chunks ---------------------------------------------------------------------------------------


async def test_delete_sends_the_whole_key(wire, client, salt):
    wire.on("DELETE", "/cache/objects", {"deleted": 1, "skipped": 1, "ok": True})
    result = await client.delete(keys(2, salt), tier="all", force=True)
    assert result == DeleteResult(deleted=1, skipped=1)
    first = {
        "chunk_hash_hex": "00" * 32,
        "model_name": "smollm2",
        "kv_rank": 0x01000100,
        "object_group_id": 0,
        "cache_salt": salt,
    }
    sent = wire.bodies[0]
    assert (sent["tier"], sent["force"]) == ("all", True)
    assert sent["keys"] == [first, first | {"chunk_hash_hex": "00" * 31 + "01"}]


@pytest.mark.parametrize(("count", "batches"), [(0, []), (10_000, [10_000]), (10_001, [10_000, 1])])
async def test_delete_keeps_to_the_servers_limit(wire, client, salt, count, batches):
    wire.on("DELETE", "/cache/objects", {"deleted": 3, "skipped": 0, "ok": True})
    result = await client.delete(keys(count, salt))
    assert [len(body["keys"]) for body in wire.bodies] == batches
    assert result.deleted == 3 * len(batches)


async def test_delete_that_fails_in_l2(wire, client, salt):
    answer = {"deleted": 0, "skipped": 0, "ok": False, "error": f"disk on fire at {salt}"}
    wire.on("DELETE", "/cache/objects", answer)
    with pytest.raises(KVStoreError, match=r"disk on fire at \[redacted\]"):
        await client.delete(keys(1, salt))


async def test_clear_memory_leaves_l2_and_what_is_in_use(wire, client):
    wire.on("POST", "/cache/clear", {"status": "ok", "cleared": {"tier": "l1"}})
    await client.clear_memory()
    assert wire.bodies == [{"tier": "l1", "force": False}]


async def test_lists_page_by_page(wire, client, salt):
    key = keys(1, salt)[0]
    entry = {
        "size_bytes": 2949120,
        "key": {
            "chunk_hash_hex": key.chunk_hash.hex(),
            "model_name": key.model_name,
            "kv_rank": key.kv_rank,
            "object_group_id": key.object_group_id,
            "cache_salt": salt,
        },
    }
    page = {"adapter": "plugin", "shared": False, "entries": [entry], "next_page_token": "p2"}
    wire.on("GET", "/cache/objects", page, page | {"entries": [], "next_page_token": None})
    first = await client.list_page(model_name="smollm2", limit=1)
    second = await client.list_page(limit=1, cursor=first.cursor)
    assert (first.keys, first.cursor) == ([key], "p2")
    assert (second.keys, second.cursor) == ([], None)
    assert [dict(r.url.params) for r in wire.requests] == [
        {"page_size": "1", "model_name": "smollm2"},
        {"page_size": "1", "page_token": "p2"},
    ]


async def test_a_listing_with_a_hash_that_is_none(wire, client):
    entry = {"key": {"chunk_hash_hex": "xyz", "model_name": "m", "kv_rank": 1}}
    wire.on("GET", "/cache/objects", {"entries": [entry]})
    with pytest.raises(KVStoreError, match="chunk_hash_hex"):
        await client.list_page()


async def test_an_adapter_that_cannot_list(wire, client):
    detail = "L2 adapter 'fs' does not support listing"
    wire.on("GET", "/cache/objects", httpx2.Response(503, json={"detail": detail}))
    with pytest.raises(KVStoreConnectionError, match="does not support listing"):
        await client.list_page()


@settings(deadline=None)
@given(
    st.builds(
        ChunkKey,
        chunk_hash=st.binary(min_size=1, max_size=32),
        model_name=st.text(min_size=1),
        kv_rank=st.integers(0, 2**32 - 1),
        object_group_id=st.integers(0, 7),
        cache_salt=st.text(),
    )
)
async def test_what_is_deleted_is_what_was_listed(new_wire, key):
    """A key survives the way through the wire form and back."""
    wire = new_wire().on("DELETE", "/cache/objects", {"deleted": 1, "skipped": 0})
    async with LMCacheClient(URL, transport=wire.transport) as client:
        await client.delete([key])
        wire.on("GET", "/cache/objects", {"entries": [{"key": wire.bodies[0]["keys"][0]}]})
        assert (await client.list_page()).keys == [key]

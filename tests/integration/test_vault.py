"""The vault inside the real LMCache: its tiers, and LMCache's own surface over it."""

from __future__ import annotations

import httpx2
import pytest

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.freeze import settle
from cwm_jupyter.core.job import Job
from cwm_jupyter.stack.state import StackState

pytestmark = pytest.mark.stack


async def stored(driver, salt: str, start: int = 0) -> tuple[list[int], list[ChunkKey]]:
    """Have the engine compute a prompt, wait until it is stored, and return it with its keys."""
    stack = await driver.workspace.connect()
    prompt = await stack.engine.tokenize_text(f"{salt} {driver.text(1500, start)}")
    if len(prompt) % stack.chunk_tokens == 0:  # all but one token of it could be had then
        prompt.pop()
    await stack.engine.complete(prompt, cache_salt=salt, max_tokens=1)
    keys = stack.keys(prompt, salt)
    await settle(stack, stack.store, keys, prompt, salt, job=Job("test"), timeout_s=20)
    return prompt, keys


async def counters(driver) -> dict[str, int]:
    """The vault's own counters, as LMCache's status shows them."""
    stack = await driver.workspace.connect()
    (adapter,) = (await stack.cache.status())["storage_manager"]["l2_adapters"]
    return adapter["counters"]


@pytest.mark.covers("KV-002", "KV-017", "KV-029", "IL-005")
async def test_the_disk_serves_what_memory_has_dropped_and_memory_serves_it_then(
    driver, name
) -> None:
    stack = await driver.workspace.connect()
    prompt, keys = await stored(driver, name)
    before = await counters(driver)
    for loads in (1, 0):  # once from the disk, then from memory
        if loads:
            await stack.cache.delete(keys, tier="l1", force=True)
        await driver.forget_in_engine()
        again = await stack.engine.complete(prompt, cache_salt=name, max_tokens=1)
        assert again.cached_tokens == len(keys) * stack.chunk_tokens
    after = await counters(driver)
    assert after["hits"] - before["hits"] == len(keys)
    assert after["misses"] == before["misses"]


@pytest.mark.covers("KV-012", "KV-028")
async def test_a_look_up_falls_from_memory_to_the_disk(driver, name) -> None:
    """Half in memory alone, half on the disk alone: each has been where it is not looked for."""
    stack = await driver.workspace.connect()
    prompt, keys = await stored(driver, name)
    assert await stack.store.delete(keys[:2]) == 2
    await stack.cache.delete(keys[2:], tier="l1", force=True)
    warm = await stack.cache.prefetch(
        prompt, model_name=stack.kv_model_name, world_size=1, cache_salt=name
    )
    assert (warm.found, warm.total) == (len(keys), len(keys))
    await driver.forget_in_engine()
    again = await stack.engine.complete(prompt, cache_salt=name, max_tokens=1)
    assert again.cached_tokens == len(keys) * stack.chunk_tokens


@pytest.mark.covers("KV-018", "KV-021", "KV-023")
async def test_lmcache_lists_and_deletes_what_is_in_the_vault(driver, name) -> None:
    stack = await driver.workspace.connect()
    _, keys = await stored(driver, name)
    listed: list[ChunkKey] = []
    cursor = None
    while True:
        page = await stack.cache.list_page(limit=3, cursor=cursor)
        assert len(page.keys) <= 3
        listed += [key for key in page.keys if key.cache_salt == name]
        if (cursor := page.cursor) is None:
            break
    assert sorted(key.chunk_hash for key in listed) == sorted(key.chunk_hash for key in keys)
    await stack.cache.delete(keys[:1], tier="l2")
    assert [stat is None for stat in await stack.store.stat(keys)] == [True] + [False] * (
        len(keys) - 1
    )


async def test_lmcache_cannot_delete_what_a_window_holds(driver, name) -> None:
    stack = await driver.workspace.connect()
    await driver.talk(name, f"{name} {driver.text(1500)}")
    await driver.manager.freeze(name, name)
    held = await driver.held(name)
    await stack.cache.delete(held.keys, tier="all", force=True)
    assert None not in await stack.store.stat(held.keys)
    await driver.forget_in_engine()
    report = await driver.manager.thaw(name)
    assert (report.complete, report.chunks_read) == (True, report.chunks_expected)
    again = await driver.manager.thaw(name)
    assert (again.complete, again.chunks_read) == (True, 0)  # LMCache has them in memory now


@pytest.mark.covers("KV-025", "KV-027")
async def test_usage_and_status_are_those_of_the_disk(driver, name, stack: StackState) -> None:
    connected = await driver.workspace.connect()
    _, keys = await stored(driver, name)
    assert await connected.store.healthy()
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    async with httpx2.AsyncClient(trust_env=False, headers=headers) as client:
        quota = (await client.get(f"{stack.lmcache_url}/quota/{name}")).json()
    stored_bytes = len(keys) * await driver.chunk_bytes()
    assert round(quota["current_usage_gb"] * 2**30) == stored_bytes
    (adapter,) = (await connected.cache.status())["storage_manager"]["l2_adapters"]
    assert (adapter["type"], adapter["codec"]) == ("VaultAdapter", "raw")
    assert adapter["counters"]["stored"] >= len(keys)


@pytest.mark.covers("KV-015")
async def test_one_document_in_several_sessions_is_stored_once(driver, name) -> None:
    """Other lineages have other keys; the bytes of the same tokens are the same content."""
    stack = await driver.workspace.connect()
    prompt = await stack.engine.tokenize_text(f"{name} {driver.text(1500)}")
    contents = []
    for salt in (f"{name}-a", f"{name}-b"):
        answer = await stack.engine.complete(prompt, cache_salt=salt, max_tokens=1)
        assert answer.cached_tokens == 0
        keys = stack.keys(prompt, salt)
        await settle(stack, stack.store, keys, prompt, salt, job=Job("t"), timeout_s=20)
        contents.append([stat.digest for stat in await stack.store.stat(keys)])
    assert contents[0] == contents[1]

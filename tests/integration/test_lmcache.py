"""The real LMCache: memory, disk, keys and hashes."""

from __future__ import annotations

import anyio
import pytest

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.freeze import settle
from cwm_jupyter.core.job import Job

pytestmark = pytest.mark.stack


async def prompt_of(driver, salt: str, characters: int = 2000) -> tuple[list[int], list[ChunkKey]]:
    """Have the engine compute a prompt, wait until it is stored, and return it with its keys."""
    stack = await driver.workspace.connect()
    prompt = await stack.engine.tokenize_text(driver.text(characters))
    await stack.engine.complete(prompt, cache_salt=salt, max_tokens=1)
    keys = stack.keys(prompt, salt)
    await settle(stack, stack.store, keys, prompt, salt, job=Job("test"), timeout_s=20)
    return prompt, keys


@pytest.mark.covers("IL-001")
async def test_connects(driver) -> None:
    stack = await driver.workspace.connect()
    assert await stack.cache.health()
    status = await stack.cache.status()
    assert status["chunk_size"] == stack.chunk_tokens == 128


@pytest.mark.covers("IL-003", "KV-004", "KV-005")
async def test_chunks_are_stored_to_disk(driver, name) -> None:
    stack = await driver.workspace.connect()
    _, keys = await prompt_of(driver, name)
    assert keys
    sizes = {stat.size_bytes for stat in await stack.store.stat(keys)}
    facts = await stack.facts()
    assert sizes == {facts.kv_bytes_per_token * stack.chunk_tokens}


@pytest.mark.covers("IL-002", "IL-004", "KV-001")
async def test_chunks_are_held_in_memory_and_served_from_there(driver, name) -> None:
    stack = await driver.workspace.connect()
    prompt, keys = await prompt_of(driver, name)
    assert await stack.store.delete(keys) == len(keys)  # so that only memory has them
    await driver.forget_in_engine()
    again = await stack.engine.complete(prompt, cache_salt=name, max_tokens=1)
    assert again.cached_tokens == len(keys) * stack.chunk_tokens


@pytest.mark.covers("KV-009")
async def test_what_is_missing_shortens_the_hit_to_the_prefix_before_it(driver, name) -> None:
    stack = await driver.workspace.connect()
    prompt, keys = await prompt_of(driver, name, characters=3000)
    assert len(keys) >= 4
    await stack.cache.delete([keys[2]], tier="all", force=True)
    await driver.forget_in_engine()
    again = await stack.engine.complete(prompt, cache_salt=name, max_tokens=1)
    assert again.cached_tokens == 2 * stack.chunk_tokens


@pytest.mark.covers("KV-008", "KV-009")
async def test_a_missing_chunk_is_a_clean_miss(driver, name) -> None:
    stack = await driver.workspace.connect()
    prompt, keys = await prompt_of(driver, name)
    await stack.cache.delete(keys[1:2], tier="all", force=True)
    found = [stat is not None for stat in await stack.store.stat(keys)]
    assert found == [True, False] + [True] * (len(keys) - 2)
    warm = await stack.cache.prefetch(
        prompt, model_name=stack.kv_model_name, world_size=1, cache_salt=name
    )
    assert (warm.found, warm.total) == (len(keys) - 1, len(keys))


@pytest.mark.covers("IL-006", "KV-010")
async def test_our_keys_are_lmcaches(driver, name) -> None:
    """The files that LMCache wrote for a salt are exactly those that we computed."""
    stack = await driver.workspace.connect()
    prompt, keys = await prompt_of(driver, name, characters=4000)
    listed: list[ChunkKey] = []
    cursor = None
    while True:
        page = await stack.store.list(limit=50, cursor=cursor)
        listed += [key for key in page.keys if key.cache_salt == name]
        if (cursor := page.cursor) is None:
            break
    assert set(listed) == set(keys)
    await driver.forget_in_engine()
    again = await stack.engine.complete(prompt, cache_salt=name, max_tokens=1)
    assert again.cached_tokens == len(keys) * stack.chunk_tokens


@pytest.mark.covers("KV-007")
async def test_what_is_loaded_is_stored_again_byte_for_byte(driver, name) -> None:
    """From the disk into the engine and back to the disk: the same bytes."""
    stack = await driver.workspace.connect()
    prompt, keys = await prompt_of(driver, name)
    before = await driver.stored(keys)
    await stack.cache.delete(keys, tier="l1", force=True)
    await driver.forget_in_engine()
    loaded = await stack.engine.complete(prompt, cache_salt=name, max_tokens=1)
    assert loaded.cached_tokens == len(keys) * stack.chunk_tokens
    await stack.cache.delete(keys, tier="all", force=True)
    assert await stack.store.stat(keys) == [None] * len(keys)
    await settle(stack, stack.store, keys, prompt, name, job=Job("test"), timeout_s=20)
    assert await driver.stored(keys) == before


@pytest.mark.covers("CS-002")
async def test_live_figures(driver, name) -> None:
    stack = await driver.workspace.connect()
    await prompt_of(driver, name)
    engine, cache = await stack.engine.metrics(), await stack.cache.figures()
    assert engine.block_size_tokens == 128
    assert engine.prefix_query_tokens > 0
    assert 0 < cache.l1_used_bytes <= cache.l1_total_bytes


async def test_concurrent_prompts_under_two_salts_stay_apart(driver, name) -> None:
    stack = await driver.workspace.connect()
    prompt = await stack.engine.tokenize_text(driver.text(1500))
    cached: dict[str, int | None] = {}

    async def ask(salt: str) -> None:
        answer = await stack.engine.complete(prompt, cache_salt=salt, max_tokens=1)
        cached[salt] = answer.cached_tokens

    async with anyio.create_task_group() as group:
        for salt in (f"{name}-a", f"{name}-b"):
            group.start_soon(ask, salt)
    assert cached == {f"{name}-a": 0, f"{name}-b": 0}

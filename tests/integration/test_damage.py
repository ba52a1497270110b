"""Damage to the vault of a running stack: never a wrong answer, never a hang."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import anyio
import pytest

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.errors import KVStoreError
from cwm_jupyter.stack import launcher
from cwm_jupyter.stack.state import StackState

pytestmark = pytest.mark.stack

#: nats between a prompt's log-probabilities computed in two shapes, see docs/how-it-works.md
TOLERANCE = 0.5
#: a likeliest token by so much is the likeliest in any shape
CLEAR = 2 * TOLERANCE


def content(stack: ConnectedStack, key: ChunkKey) -> Path:
    """The file that a chunk is read from."""
    vault = stack.store.vault
    return vault.folder.content(vault.record(key).content)


def flip(paths: Iterable[Path], at: int = 1_000_000) -> None:
    """Flip one bit of each file."""
    for path in paths:
        data = bytearray(path.read_bytes())
        data[at] ^= 0x40
        path.write_bytes(data)


async def frozen(
    driver, name: str, characters: int = 2000
) -> tuple[ConnectedStack, list[ChunkKey]]:
    """Freeze a session that nobody else has the contents of, and return its keys."""
    await driver.talk(name, f"{name}: {driver.text(characters)}")
    await driver.manager.freeze(name, name)
    return await driver.workspace.connect(), (await driver.held(name)).keys


async def cold(driver, stack: ConnectedStack, name: str, salt: str) -> dict[int, float]:
    """The likeliest next tokens, everything computed anew."""
    token_ids = (await driver.held(name)).transcript.token_ids
    answer = await stack.engine.complete(token_ids, cache_salt=salt, max_tokens=1, top_logprobs=5)
    assert answer.cached_tokens == 0
    return answer.top[0]


@pytest.mark.covers("TT-005", "KV-035")
@pytest.mark.parametrize("which", ["one", "all"])
async def test_corrupt_contents_are_computed_anew_and_healed(driver, name, which: str) -> None:
    stack, keys = await frozen(driver, name)
    assert len(keys) >= 4
    damaged = keys[1:2] if which == "one" else keys
    flip(content(stack, key) for key in damaged)
    assert await stack.forget(keys)

    report = await driver.manager.thaw(name)
    assert (report.chunks_corrupt, report.complete) == (len(damaged), False)
    assert report.cached_tokens == (128 if which == "one" else 0)  # what comes before the damage
    assert report.probe.passed
    assert report.probe.tolerance > 0
    assert report.probe.max_abs_logprob_diff <= TOLERANCE
    right = await cold(driver, stack, name, f"{name}-cold")
    session = await driver.go_on(report.session, tokens=1)
    likeliest, other = sorted(right, key=right.get, reverse=True)[:2]
    if right[likeliest] - right[other] > CLEAR:
        assert session.token_ids == [likeliest]
    assert abs(session.logprobs[0] - right[session.token_ids[0]]) <= TOLERANCE

    later = await driver.manager.thaw(name)
    assert (later.chunks_corrupt, later.chunks_missing) == (0, 0)
    assert later.cached_tokens == later.expected_cached_tokens
    # Computed in the shapes of the turns, it may even be the frozen bytes again.
    assert (later.probe.tolerance == 0) == (later.chunks_recomputed == 0)


async def test_without_a_thaw_a_flipped_bit_is_a_miss_too(driver, name) -> None:
    """A session that goes on after the engine has dropped its blocks reads the vault as well."""
    stack, keys = await frozen(driver, name)
    flip([content(stack, keys[2])])
    assert await stack.forget(keys)
    held = await driver.held(name)
    answer = await stack.engine.complete(
        held.transcript.token_ids, cache_salt=held.salt, max_tokens=1, top_logprobs=1
    )
    assert answer.cached_tokens == 2 * stack.chunk_tokens


async def test_a_load_that_fails_in_part_and_references_that_are_cut(driver, name) -> None:
    """Looked up and found, then not to be had: the engine computes what is not there."""
    stack, keys = await frozen(driver, name)
    vault = stack.store.vault
    truncated, gone = content(stack, keys[3]), vault.folder.record(vault.name(keys[2]))
    os.truncate(truncated, 1000)
    gone.unlink()
    assert await stack.forget(keys)
    report = await driver.manager.thaw(name)
    assert (report.chunks_missing, report.chunks_corrupt) == (1, 1)
    assert report.cached_tokens == 2 * stack.chunk_tokens
    assert report.probe.passed
    assert await stack.engine.health()


async def test_a_vault_that_is_gone_is_an_error_and_no_hang(driver, name) -> None:
    """As if the disk were taken away and brought back."""
    stack, keys = await frozen(driver, name)
    contents = stack.store.vault.folder.contents
    aside = contents.with_name("aside")
    contents.rename(aside)
    try:
        assert await stack.forget(keys)
        with anyio.fail_after(120):
            report = await driver.manager.thaw(name, as_session=f"{name}-without")
        assert report.chunks_missing == report.chunks_expected
        assert (report.cached_tokens, report.complete) == (0, False)
        assert report.probe.passed
        with anyio.fail_after(120), pytest.raises(KVStoreError):
            await driver.manager.freeze(f"{name}-b", f"{name}-without")
    finally:
        contents.mkdir(mode=0o700, exist_ok=True)
        for path in contents.iterdir():
            path.replace(aside / path.name)
        contents.rmdir()
        aside.rename(contents)
    assert await stack.forget(keys)
    assert (await driver.manager.thaw(name, as_session=f"{name}-back")).complete
    # LMCache tells of what it could not store, and not by what salt.
    said = "\n".join(launcher.logs(driver.workspace.settings, "lmcache", 10_000))
    assert "failed for keys: " in said
    assert keys[0].cache_salt not in said


async def test_an_lmcache_that_hangs_is_an_error_in_time_and_the_engine_survives(
    driver, name, stack: StackState
) -> None:
    connected, keys = await frozen(driver, name)
    assert await connected.forget(keys)
    pid = stack.parts["lmcache"].pid
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    try:
        with pytest.raises(KVStoreError):
            await driver.manager.thaw(name)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert time.monotonic() - started < 60
    assert await connected.engine.health()
    # The engine notices at its next heartbeat that the cache is back; until then it computes.
    with anyio.fail_after(90):
        while not (report := await driver.manager.thaw(name)).complete:
            assert (report.cached_tokens, report.probe.passed) == (0, True)
            assert await connected.forget(keys)
    assert report.probe.passed


async def test_an_lmcache_that_hangs_hangs_nobody(driver, name, stack: StackState) -> None:
    """A turn ends with an error in time; the engine itself goes on without its cache."""
    connected, keys = await frozen(driver, name, characters=800)
    assert await connected.forget(keys)
    held = await driver.held(name)
    pid = stack.parts["lmcache"].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with anyio.fail_after(60), pytest.raises(KVStoreError, match="did not answer within"):
            await driver.manager.say(name, "Go on.", max_tokens=4)
        with anyio.fail_after(150):
            answer = await connected.engine.complete(
                held.transcript.token_ids, cache_salt=held.salt, max_tokens=1
            )
    finally:
        os.kill(pid, signal.SIGCONT)
    assert answer.cached_tokens == 0
    assert (await driver.manager.session(name)).turns == 1
    assert (await driver.manager.say(name, "Go on.", max_tokens=4)).turn.number == 2
    assert await connected.engine.health()

"""Freeze: a window exists if and only if everything of it is durable."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import blake3
import httpx2
import msgspec
import pytest
from bench import QUESTION, Bench
from fake_stack import FakeStack

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.index import Transaction
from cwm_jupyter.core.job import Job, JobState
from cwm_jupyter.core.models import FreezePlan, Session
from cwm_jupyter.errors import (
    CancelledJobError,
    CWMError,
    KVStoreConnectionError,
    KVStoreError,
    KVStoreTimeoutError,
    ModelError,
    ResourceExhaustedError,
    SessionBusyError,
    SessionEmptyError,
    SessionNotFoundError,
    StateTransitionError,
    ValidationError,
    WindowExistsError,
)


def lost_once() -> Callable[[ChunkKey], bool]:
    """Lose each chunk the first time."""
    seen: set[ChunkKey] = set()

    def store(key: ChunkKey) -> bool:
        known = key in seen
        seen.add(key)
        return known

    return store


def short_of_time(bench: Bench, timeout_s: float = 0.2) -> None:
    storage = msgspec.structs.replace(bench.settings.storage, durable_timeout_s=timeout_s)
    bench.manager.settings = msgspec.structs.replace(bench.settings, storage=storage)


async def assert_nothing_happened(bench: Bench, session: Session) -> None:
    """There is no window, nothing is left of one, and the session is as before."""
    assert (await bench.manager.windows()).items == []
    assert bench.manifests() == []
    assert await bench.manager.session(session.id) == session
    with bench.library.using(session):
        pass


@pytest.mark.covers("TF-001", "SR-019")
async def test_a_window_holds_all_that_the_session_has(bench: Bench) -> None:
    session = await bench.talk("talk")
    report = await bench.manager.freeze("paper", "talk", tags=["eu"], note="for later")
    window = report.window
    assert bench.window("paper") == window
    transcript = bench.transcript(session)
    manifest = bench.library.manifest(window)
    assert manifest.transcript == transcript
    assert {ref.size_bytes for ref in manifest.refs} == {128}
    assert [ref.digest for ref in manifest.refs] == [
        blake3.blake3(data, key=bench.stack.vault.folder.secret).hexdigest()
        for data in bench.stack.engine_cache.values()
    ][: len(manifest.refs)]
    assert bench.stack.vault.holds()[window.id].contents == sorted(
        ref.digest for ref in manifest.refs
    )
    assert window.tokens == session.tokens
    assert window.chunks == len(manifest.refs) == (session.tokens - 1) // 16
    assert (window.size_bytes, window.proof.size_bytes) == (window.chunks * 128,) * 2
    assert (window.proof.level, window.proof.chunks) == ("verified", window.chunks)
    assert (window.tags, window.note, window.state) == (["eu"], "for later", "intact")
    assert (window.session_id, window.lineage_id) == (session.id, session.lineage_id)
    assert (window.parent_window_id, window.depth) == (None, 0)
    after = await bench.manager.session("talk")
    assert (after.state, after.window_id) == ("frozen", window.id)
    assert report.tail_tokens == session.tokens - window.chunks * 16
    assert report.already_stored_bytes + report.newly_stored_bytes == window.size_bytes
    assert set(report.stages_s) == {"look", "store", "verify", "probe", "index"}


async def test_the_plan_is_told_before_anything_is_stored(bench: Bench) -> None:
    bench.stack.store = lambda key: False
    session = await bench.talk("talk")
    plans: list[tuple[FreezePlan, int]] = []

    def told(plan: FreezePlan) -> None:
        plans.append((plan, len(bench.stack.prompts)))
        bench.stack.store = lambda key: True
        bench.stack.restart()

    await bench.manager.freeze("paper", "talk", on_plan=told)
    chunks = (session.tokens - 1) // 16
    assert plans == [
        (
            FreezePlan(
                session="talk",
                tokens=session.tokens,
                chunks=chunks,
                tail_tokens=session.tokens - chunks * 16,
                size_bytes=chunks * 128,
                already_stored_bytes=0,
            ),
            1,
        )
    ]


async def test_a_plan_can_be_refused(bench: Bench) -> None:
    session = await bench.talk("talk")

    def refuse(plan: FreezePlan) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await bench.manager.freeze("paper", "talk", on_plan=refuse)
    await assert_nothing_happened(bench, session)


@pytest.mark.covers("TF-002")
async def test_a_frozen_session_goes_on_and_is_frozen_again(bench: Bench) -> None:
    first = await bench.frozen("one")
    await bench.talk("one", "And then?")
    report = await bench.manager.freeze("two", "one")
    second = report.window
    assert (second.parent_window_id, second.depth) == (first.id, 1)
    refs = [bench.library.manifest(window).refs for window in (first, second)]
    assert refs[1][: len(refs[0])] == refs[0]
    again = await bench.manager.freeze("three", "one")
    assert again.newly_stored_bytes == 0
    assert again.window.parent_window_id == second.id
    assert (await bench.manager.session("one")).state == "frozen"


@pytest.mark.covers("TF-003")
@pytest.mark.parametrize("name", ["one", "ONE"])
async def test_a_taken_name_is_refused_and_the_first_is_untouched(bench: Bench, name: str) -> None:
    first = await bench.frozen("one")
    await bench.talk("other")
    before = bench.manifests()
    with pytest.raises(WindowExistsError, match=f"'{name}' already"):
        await bench.manager.freeze(name, "other")
    assert bench.window("one") == first
    assert bench.manifests() == before
    assert (await bench.manager.session("other")).state == "active"


async def test_a_name_taken_while_freezing_is_refused_too(bench: Bench) -> None:
    """The first look at the names is not the last."""
    first = await bench.frozen("one")
    session = await bench.talk("other")

    def watch(state: JobState) -> None:
        if state.stage == "index":
            bench.library.index.update_window(first.id, lambda w: w.replace(name="paper"))

    with pytest.raises(WindowExistsError):
        await bench.manager.freeze("paper", "other", job=Job("freeze", watch))
    assert len(bench.manifests()) == 1
    assert await bench.manager.session("other") == session


@pytest.mark.covers("TF-004")
@pytest.mark.parametrize(
    ("name", "tags"), [("", []), ("a/b", []), (".", []), ("nul", []), ("ok", ["a,b"])]
)
async def test_names_and_tags_are_checked(bench: Bench, name: str, tags: list[str]) -> None:
    session = await bench.talk("talk")
    with pytest.raises(ValidationError):
        await bench.manager.freeze(name, "talk", tags=tags)
    await assert_nothing_happened(bench, session)


async def test_what_cannot_be_frozen(bench: Bench) -> None:
    session = await bench.manager.create_session("empty")
    with pytest.raises(SessionEmptyError, match="'empty' is empty"):
        await bench.manager.freeze("paper", "empty")
    with pytest.raises(SessionNotFoundError):
        await bench.manager.freeze("paper", "nobody")
    await assert_nothing_happened(bench, session)


@pytest.mark.parametrize("before_that", ["active", "frozen"])
async def test_an_expired_session_is_refused_before_anything_is_stored(
    bench: Bench, before_that: Literal["active", "frozen"]
) -> None:
    session = await bench.talk("talk")
    index = bench.library.index
    index.update_session(session.id, lambda s: s.replace(state=before_that))
    expired = index.update_session(session.id, lambda s: s.to("expired"))
    asked = len(bench.stack.calls)
    with pytest.raises(StateTransitionError, match="has expired"):
        await bench.manager.freeze("paper", "talk")
    assert len(bench.stack.calls) == asked
    await assert_nothing_happened(bench, expired)


async def test_a_session_in_use_is_busy(bench: Bench) -> None:
    session = await bench.talk("talk")
    with bench.library.using(session), pytest.raises(SessionBusyError):
        await bench.manager.freeze("paper", "talk")
    await assert_nothing_happened(bench, session)


async def test_a_model_that_cannot_be_kept_exactly_is_refused(bench: Bench) -> None:
    session = await bench.talk("talk")
    bench.stack.told = {**(bench.stack.told or {}), "exact": False, "why_inexact": "LoRA"}
    with pytest.raises(ModelError, match="LoRA"):
        await bench.manager.freeze("paper", "talk")
    await assert_nothing_happened(bench, session)


@pytest.mark.covers("TF-005")
async def test_failing_at_any_request_leaves_nothing_and_the_next_freeze_works(
    tmp_path: Path, impatient: None
) -> None:
    failed = step = 0
    while True:
        bench = Bench(tmp_path / f"{step}")
        bench.stack.store = lost_once()
        session = await bench.talk("talk")
        left = [step]

        def fail(call: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise httpx2.ReadError("the server died")

        bench.stack.before = fail
        try:
            await bench.manager.freeze("paper", "talk")
        except CWMError:
            failed += 1
            await assert_nothing_happened(bench, session)
            bench.stack.before = lambda call: None
            await bench.manager.freeze("paper", "talk")
        await bench.reconnect()
        if left[0] >= 0:  # there were not so many requests
            break
        step += 1
    assert failed >= 5  # the facts, the status, a deletion, a request to store, the probe


async def test_a_lost_store_is_made_good(bench: Bench, impatient: None) -> None:
    bench.stack.store = lost_once()
    session = await bench.talk("talk")
    assert bench.stack.files() == []
    window = (await bench.manager.freeze("paper", "talk")).window
    assert len(bench.stack.files()) == window.chunks
    assert bench.stack.calls.count("DELETE /cache/objects") == 1
    assert bench.stack.prompts[1:] == [bench.transcript(session).token_ids] * 2  # store, probe


async def test_an_engine_that_has_forgotten_computes_and_stores_again(
    bench: Bench, impatient: None
) -> None:
    bench.stack.store = lost_once()
    await bench.talk("talk")
    bench.stack.restart()
    window = (await bench.manager.freeze("paper", "talk")).window
    assert len(bench.stack.files()) == window.chunks


async def test_stores_under_way_are_waited_for(bench: Bench) -> None:
    loop = asyncio.get_running_loop()

    def late(key: ChunkKey) -> bool:
        loop.call_later(0.05, bench.stack.write, key)
        return False

    bench.stack.store = late
    await bench.talk("talk")
    await bench.manager.freeze("paper", "talk")
    assert "DELETE /cache/objects" not in bench.stack.calls
    assert len(bench.stack.prompts) == 2


@pytest.mark.covers("TF-005")
async def test_chunks_that_are_never_stored_are_no_window(bench: Bench, impatient: None) -> None:
    bench.stack.store = lambda key: False
    short_of_time(bench)
    session = await bench.talk("talk")
    with pytest.raises(KVStoreTimeoutError, match=r"did not reach the disk within 0\.2 s"):
        await bench.manager.freeze("paper", "talk")
    await assert_nothing_happened(bench, session)


@pytest.mark.covers("TF-005")
async def test_a_full_disk_is_no_window(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await bench.talk("talk")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ResourceExhaustedError, match="No space left"):
            await bench.manager.freeze("paper", "talk")
    await assert_nothing_happened(bench, session)
    await bench.manager.freeze("paper", "talk")


@pytest.mark.covers("TF-005")
async def test_what_the_store_says_of_its_failures_is_told(bench: Bench, impatient: None) -> None:
    bench.stack.store = lambda key: False
    bench.stack.store_failure = "No space left on device"
    session = await bench.talk("talk")
    with pytest.raises(KVStoreError, match="did not reach the disk: No space left on device"):
        await bench.manager.freeze("paper", "talk")
    await assert_nothing_happened(bench, session)
    assert bench.stack.vault.holds() == {}


@pytest.mark.parametrize("size", [0, 127, 300])
async def test_a_damaged_chunk_is_stored_again(bench: Bench, impatient: None, size: int) -> None:
    await bench.talk("talk")
    torn = bench.stack.files()[1]
    whole = torn.read_bytes()
    torn.write_bytes((whole + bytes(100))[:size])
    await bench.manager.freeze("paper", "talk")
    assert torn.read_bytes() == whole


@pytest.mark.parametrize("stage", ["look", "store", "verify", "probe"])
async def test_cancelling_leaves_nothing(bench: Bench, stage: str) -> None:
    session = await bench.talk("talk")

    def watch(state: JobState) -> None:
        if state.stage == stage:
            job.cancel()

    job = Job("freeze paper", watch)
    with pytest.raises(CancelledJobError, match="freeze paper"):
        await bench.manager.freeze("paper", "talk", job=job)
    await assert_nothing_happened(bench, session)


async def test_an_aborted_task_leaves_nothing(bench: Bench) -> None:
    bench.stack.store = lambda key: False
    session = await bench.talk("talk")
    waiting = asyncio.Event()

    def watch(state: JobState) -> None:
        if state.stage == "store":
            waiting.set()

    freeze = asyncio.create_task(bench.manager.freeze("paper", "talk", job=Job("f", watch)))
    await waiting.wait()
    freeze.cancel()
    with pytest.raises(asyncio.CancelledError):
        await freeze
    await assert_nothing_happened(bench, session)


async def test_a_failure_after_the_window_is_in_the_index_takes_nothing_from_it(
    bench: Bench,
) -> None:
    await bench.talk("talk")

    def watch(state: JobState) -> None:
        if not state.stage:
            raise RuntimeError("the progress bar is gone")

    with pytest.raises(RuntimeError):
        await bench.manager.freeze("paper", "talk", job=Job("f", watch))
    assert bench.library.manifest(bench.window("paper")).refs
    bench.stack.restart()
    assert (await bench.manager.thaw("paper")).complete


async def test_an_index_that_cannot_be_written_leaves_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await bench.talk("talk")
    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "add_window", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await bench.manager.freeze("paper", "talk")
    await assert_nothing_happened(bench, session)


async def test_a_probe_that_does_not_take_the_window_s_chunks_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await bench.talk("talk")
    monkeypatch.setattr(bench.stack, "_in_memory", lambda key: False)

    def forget(call: str) -> None:
        bench.stack.engine_cache.clear()
        bench.stack._engine_blocks.clear()

    bench.stack.before = forget
    with pytest.raises(KVStoreError, match="takes 0 tokens from cache where the window has"):
        await bench.manager.freeze("paper", "talk")
    await assert_nothing_happened(bench, session)


async def test_an_engine_that_does_not_tell_what_it_took_from_cache(bench: Bench) -> None:
    bench.stack.tells_cached = False
    await bench.frozen("paper")


@pytest.mark.parametrize("world_size", [2])
async def test_every_rank_s_part_counts(bench: Bench, tmp_path: Path, world_size: int) -> None:
    await bench.reconnect(FakeStack(tmp_path / "vault", world_size=world_size))
    window = await bench.frozen("paper")
    assert window.proof.chunks == world_size * window.chunks == len(bench.stack.files())
    assert window.size_bytes == world_size * window.chunks * 128
    bench.stack.restart()
    report = await bench.manager.thaw("paper")
    assert (report.complete, report.cached_tokens) == (True, window.chunks * 16)


async def test_without_lmcache_nothing_can_be_frozen(bench: Bench) -> None:
    bench.cache = False
    session = await bench.talk("talk")
    with pytest.raises(KVStoreConnectionError, match="no LMCache"):
        await bench.manager.freeze("paper", "talk")
    await assert_nothing_happened(bench, session)


async def test_where_files_cannot_be_seen_the_proof_is_what_comes_back(bench: Bench) -> None:
    bench.readable = False
    await bench.talk("talk")
    report = await bench.manager.freeze("paper", "talk")
    window = report.window
    assert (window.proof.level, window.proof.chunks) == ("present", window.chunks)
    assert (report.already_stored_bytes, report.newly_stored_bytes) == (None, None)
    calls = [call for call in bench.stack.calls if call.endswith(("/objects", "/prefetches"))]
    assert calls == ["DELETE /cache/objects", "POST /cache/prefetches"]
    bench.stack.restart()
    assert (await bench.manager.thaw("paper")).complete


async def test_where_files_cannot_be_seen_memory_alone_is_no_proof(bench: Bench) -> None:
    bench.readable = False
    bench.stack.store = lambda key: False
    short_of_time(bench)
    session = await bench.talk("talk")
    with pytest.raises(KVStoreTimeoutError, match="keeps only 0 of"):
        await bench.manager.freeze("paper", "talk")
    await assert_nothing_happened(bench, session)


async def test_a_window_shorter_than_a_chunk(bench: Bench) -> None:
    bench.stack.answer_tokens = 3
    window = await bench.frozen("short", "Hi")
    assert (window.chunks, window.size_bytes, bench.stack.files()) == (0, 0, [])
    bench.stack.restart()
    report = await bench.manager.thaw("short")
    assert (report.complete, report.expected_cached_tokens, report.probe.passed) == (True, 0, True)


async def test_blocks_smaller_than_chunks(bench: Bench) -> None:
    """The live engine then takes more from its own cache than a restored one can."""
    bench.stack.block_tokens = 8
    bench.stack.told = {**(bench.stack.told or {}), "block_tokens": 8}
    bench.stack.answer_tokens = 3
    session = await bench.talk("talk", "x" * 40)
    assert (session.tokens - 1) // 8 * 8 > (session.tokens - 1) // 16 * 16
    await bench.manager.freeze("paper", "talk")
    bench.stack.restart()
    report = await bench.manager.thaw("paper")
    assert (report.complete, report.probe.passed) == (True, True)
    assert report.probe.tolerance == 0.5
    assert report.probe.max_abs_logprob_diff


async def test_no_secret_is_in_a_window(bench: Bench) -> None:
    session = await bench.talk("talk", QUESTION)
    report = await bench.manager.freeze("paper", "talk")
    facts = await (await bench.connect()).facts()
    salt = bench.library.lineages.salt(session.lineage_id, facts.fingerprint)
    status = await bench.manager.status(window="paper")
    for document in (report, status, bench.library.manifest(report.window)):
        assert salt not in str(document.to_dict())

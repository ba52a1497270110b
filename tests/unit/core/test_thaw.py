"""Thaw: what was frozen, bit for bit, or a report that says what was not; never a wrong answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from bench import Bench
from damage import keys_of

from cwm_jupyter.core.job import Job, JobState
from cwm_jupyter.core.models import Window
from cwm_jupyter.errors import (
    CancelledJobError,
    EngineMismatchError,
    IndexCorruptError,
    KVStoreConnectionError,
    KVStoreError,
    ProbeError,
    SessionExistsError,
    ValidationError,
    VLLMError,
    WindowNotFoundError,
)
from cwm_jupyter.vault.store import VaultStore

NEXT = "And what else is there to see?"


def chunk(bench: Bench, window: Window, number: int) -> Path:
    """The content of a window's chunk, counted from its start."""
    return content(bench, bench.library.manifest(window).refs[number].digest)


def content(bench: Bench, digest: str) -> Path:
    """The file of a content."""
    return bench.stack.vault.folder.content(digest)


async def answer(bench: Bench, session: str) -> list[int]:
    """What the model says next in a session."""
    reply = await bench.manager.say(session, NEXT)
    transcript = bench.transcript(await bench.manager.session(session))
    return transcript.token_ids[reply.turn.prompt_end :]


async def sessions(bench: Bench) -> list[str]:
    return [session.name for session in (await bench.manager.sessions()).items]


def tell(bench: Bench, **facts: Any) -> None:
    bench.stack.told = {**(bench.stack.told or {}), **facts}


@pytest.mark.covers("TT-001", "TT-002")
@pytest.mark.parametrize("restarted", [True, False])
async def test_an_intact_window_is_restored_to_the_bit(bench: Bench, restarted: bool) -> None:
    window = await bench.frozen("paper")
    if restarted:
        bench.stack.restart()
    report = await bench.manager.thaw("paper")
    assert (report.window, report.session) == ("paper", "paper-2")
    assert (report.tokens, report.size_bytes) == (window.tokens, window.size_bytes)
    assert (report.chunks_expected, report.chunks_found) == (window.chunks, window.chunks)
    assert (report.chunks_missing, report.chunks_corrupt, report.chunks_recomputed) == (0, 0, 0)
    assert report.expected_cached_tokens == report.cached_tokens == window.chunks * 16
    assert report.recomputed_tokens == window.tokens - window.chunks * 16
    assert report.complete
    assert not report.recompute
    assert (report.probe.passed, report.probe.max_abs_logprob_diff) == (True, 0.0)
    assert (report.probe.tolerance, report.probe.repeated) == (0.0, False)
    thawed, old = await bench.manager.session("paper-2"), await bench.manager.session("paper")
    assert thawed.id != old.id
    assert (thawed.state, thawed.lineage_id) == ("thawed", old.lineage_id)
    assert (thawed.window_id, thawed.tokens, thawed.turns) == (window.id, window.tokens, 1)
    assert bench.transcript(thawed) == bench.transcript(old)
    after = bench.window("paper")
    assert after.thaws == 1
    assert after.used_at is not None


async def test_what_was_read_from_the_disk_is_told_from_what_was_in_memory(bench: Bench) -> None:
    """Only what was read was checked; the rest LMCache had in its memory."""
    window = await bench.frozen("paper")
    assert (await bench.manager.thaw("paper")).chunks_read == 0
    bench.stack.restart()
    assert (await bench.manager.thaw("paper")).chunks_read == window.chunks
    assert (await bench.manager.thaw("paper")).chunks_read == 0
    del bench.stack.memory[next(iter(bench.stack.memory))]
    assert (await bench.manager.thaw("paper")).chunks_read == 1
    assert (await bench.manager.thaw("paper", recompute=True)).chunks_read is None
    bench.readable = False
    await bench.reconnect()
    report = await bench.manager.thaw("paper")
    assert (report.complete, report.chunks_read) == (True, None)


async def test_continuing_after_a_thaw_equals_continuing_without(bench: Bench) -> None:
    await bench.frozen("paper")
    expected = await answer(bench, "paper")
    bench.stack.restart()
    report = await bench.manager.thaw("paper")
    assert await answer(bench, report.session) == expected


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "last bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "truncated": lambda data: data[:-1],
    "empty": lambda data: b"",
    "extended": lambda data: data + b"\0",
}


@pytest.mark.covers("TT-005", "KV-035")
@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_corrupt_chunk_is_found_computed_again_and_healed(
    bench: Bench, impatient: None, damage: str
) -> None:
    window = await bench.frozen("paper")
    expected = await answer(bench, "paper")
    path = chunk(bench, window, 1)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    bench.stack.restart()

    report = await bench.manager.thaw("paper", as_session="first")
    assert (report.chunks_corrupt, report.chunks_missing) == (1, 0)
    assert report.chunks_found == window.chunks - 1
    assert report.cached_tokens == 16
    assert not report.complete
    assert (report.probe.passed, report.probe.tolerance) == (True, 0.5)
    assert await answer(bench, "first") == expected
    assert content(bench, bench.library.manifest(bench.window("paper")).refs[1].digest).exists()

    bench.stack.restart()
    report = await bench.manager.thaw("paper", as_session="second")
    assert (report.chunks_corrupt, report.chunks_recomputed, report.complete) == (0, 1, True)
    assert (report.probe.passed, report.probe.tolerance) == (True, 0.5)
    assert await answer(bench, "second") == expected
    assert bench.window("paper").state == "intact"
    assert len(bench.manifests()) == 2  # the one before stays for a day


@pytest.mark.covers("KV-009", "TT-005")
async def test_a_missing_chunk_ends_the_prefix_that_is_found(bench: Bench, impatient: None) -> None:
    window = await bench.frozen("paper")
    expected = await answer(bench, "paper")
    chunk(bench, window, 2).unlink()
    bench.stack.restart()
    report = await bench.manager.thaw("paper")
    assert (report.chunks_missing, report.chunks_corrupt) == (1, 0)
    assert report.cached_tokens == 2 * 16
    assert report.recomputed_tokens == window.tokens - 2 * 16
    assert not report.complete
    assert await answer(bench, report.session) == expected


async def test_chunks_in_each_other_s_place_are_corrupt(bench: Bench, impatient: None) -> None:
    window = await bench.frozen("paper")
    expected = await answer(bench, "paper")
    one, other = chunk(bench, window, 0), chunk(bench, window, 1)
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)
    bench.stack.restart()
    report = await bench.manager.thaw("paper")
    assert (report.chunks_corrupt, report.cached_tokens) == (2, 0)
    assert await answer(bench, report.session) == expected


async def test_a_chunk_computed_again_to_the_same_bytes_is_as_frozen(
    bench: Bench, impatient: None
) -> None:
    """The first chunk missing: everything is computed in the shape of the first time."""
    window = await bench.frozen("paper")
    chunk(bench, window, 0).unlink()
    bench.stack.restart()
    await bench.manager.thaw("paper")
    assert bench.library.manifest(bench.window("paper")).recomputed == []
    bench.stack.restart()
    report = await bench.manager.thaw("paper")
    assert (report.complete, report.probe.tolerance) == (True, 0.0)


async def test_healing_one_window_heals_those_that_share_the_chunk(
    bench: Bench, impatient: None
) -> None:
    window = await bench.frozen("paper")
    await bench.talk("paper", NEXT)
    await bench.manager.freeze("longer", "paper")
    await bench.manager.freeze("hidden", "paper")
    await bench.manager.remove_window("hidden")
    path = chunk(bench, window, 1)
    path.write_bytes(DAMAGE["flipped"](path.read_bytes()))
    bench.stack.restart()
    assert (await bench.manager.thaw("paper")).chunks_corrupt == 1
    healed = chunk(bench, bench.window("paper"), 1)
    await bench.manager.restore_window("hidden")
    for name in ("longer", "hidden", "paper"):
        bench.stack.restart()
        report = await bench.manager.thaw(name)
        assert (report.chunks_corrupt, report.chunks_recomputed) == (0, 1)
        assert report.probe.passed
    assert chunk(bench, bench.window("longer"), 1) == healed != path


async def test_where_healing_fails_the_window_is_damaged_until_it_works(
    bench: Bench, impatient: None
) -> None:
    window = await bench.frozen("paper")
    chunk(bench, window, 1).unlink()
    bench.stack.restart()
    bench.stack.store = lambda key: False
    storage = msgspec.structs.replace(bench.settings.storage, durable_timeout_s=0.1)
    bench.manager.settings = msgspec.structs.replace(bench.settings, storage=storage)
    report = await bench.manager.thaw("paper")
    assert report.chunks_missing == 1
    assert bench.window("paper").state == "damaged"

    bench.stack.store = lambda key: True
    bench.stack.restart()
    await bench.manager.thaw("paper")
    assert bench.window("paper").state == "intact"


@pytest.mark.covers("TT-004")
@pytest.mark.parametrize(
    ("field", "value"), [("dtype", "float16"), ("block_tokens", 8), ("weights_digest", "w2")]
)
async def test_another_layout_is_refused_and_nothing_is_touched(
    bench: Bench, field: str, value: Any
) -> None:
    window = await bench.frozen("paper")
    bench.stack.restart()
    before = {path: path.read_bytes() for path in bench.stack.files()}
    asked = len(bench.stack.prompts)
    tell(bench, **{field: value})
    with pytest.raises(EngineMismatchError, match=f"{field}: frozen with") as caught:
        await bench.manager.thaw("paper", accept_engine=True, accept_unknown=[field])
    assert "--recompute" in (caught.value.hint or "")
    assert len(bench.stack.prompts) == asked
    assert {path: path.read_bytes() for path in bench.stack.files()} == before
    assert bench.window("paper") == window
    assert await sessions(bench) == ["paper"]


async def test_recompute_builds_anew_in_a_lineage_of_its_own(bench: Bench) -> None:
    window = await bench.frozen("paper")
    expected = await answer(bench, "paper")
    before = {name for name, _ in bench.stack.vault.records()}
    tell(bench, dtype="float16")
    report = await bench.manager.thaw("paper", recompute=True)
    assert (report.cached_tokens, report.expected_cached_tokens) == (0, 0)
    assert (report.recompute, report.complete) == (True, False)
    assert report.recomputed_tokens == window.tokens
    assert report.accepted_differences == ["dtype: frozen with bfloat16, the engine has float16"]
    session = await bench.manager.session(report.session)
    assert session.lineage_id != window.lineage_id
    assert await answer(bench, report.session) == expected
    assert before < {name for name, _ in bench.stack.vault.records()}


async def test_what_is_other_words_for_the_engine_is_not_recomputed(bench: Bench) -> None:
    await bench.frozen("paper")
    told = bench.stack.told
    asked = len(bench.stack.prompts)
    tell(bench, tokenizer_digest="other")
    with pytest.raises(EngineMismatchError, match="another tokenizer"):
        await bench.manager.thaw("paper", recompute=True)
    assert len(bench.stack.prompts) == asked
    assert await sessions(bench) == ["paper"]
    bench.stack.told = told  # which does not tell everything: what is unknown is no reason
    tell(bench, tokenizer_digest=None)
    assert (await bench.manager.thaw("paper", recompute=True)).recompute


async def test_recompute_needs_neither_the_secret_nor_the_chunks(bench: Bench) -> None:
    window = await bench.frozen("paper")
    (bench.home / "keys" / f"{window.lineage_id}.secret").unlink()
    for path in bench.stack.files():
        path.unlink()
    bench.stack.restart()
    with pytest.raises(KVStoreError, match="secret"):
        await bench.manager.thaw("paper")
    report = await bench.manager.thaw("paper", recompute=True)
    assert report.recomputed_tokens == window.tokens


async def test_numeric_differences_are_accepted_only_on_request(bench: Bench) -> None:
    await bench.frozen("paper")
    bench.stack.restart()
    tell(bench, threads=8)
    with pytest.raises(EngineMismatchError, match="threads: frozen with 2, the engine has 8"):
        await bench.manager.thaw("paper")
    report = await bench.manager.thaw("paper", accept_engine=True)
    assert report.accepted_differences == ["threads: frozen with 2, the engine has 8"]
    assert report.probe.tolerance == 0.5
    assert report.complete


async def test_unknown_fields_are_accepted_only_by_name(bench: Bench) -> None:
    tell(bench, cpu_isa=None, lora=None)
    await bench.frozen("paper")
    bench.stack.restart()
    with pytest.raises(EngineMismatchError, match=r"lora: unknown") as caught:
        await bench.manager.thaw("paper", accept_unknown=["cpu_isa"])
    assert "cpu_isa" not in caught.value.message
    report = await bench.manager.thaw("paper", accept_unknown=["cpu_isa", "lora"])
    assert report.complete


async def test_a_state_that_differs_is_refused_and_the_window_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = await bench.frozen("paper")
    bench.stack.restart()
    asked = len(bench.stack.prompts)
    with monkeypatch.context() as patch:
        patch.setattr(bench.stack, "_judge", lambda prompt, used: (b"wrong", 0.0))
        with pytest.raises(ProbeError, match="likeliest next tokens differ") as caught:
            await bench.manager.thaw("paper")
    assert len(bench.stack.prompts) == asked + 2  # it was asked again
    assert caught.value.context["report"]["probe"]["repeated"] is True
    assert "--recompute" in (caught.value.hint or "")
    assert bench.window("paper") == window
    assert await sessions(bench) == ["paper"]
    assert (await bench.manager.thaw("paper")).complete


async def test_a_difference_that_quiet_ends_passes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other requests change the shapes of batches, and with them the last digits."""
    await bench.frozen("paper")
    bench.stack.restart()
    bench.stack.running_requests = 1
    judge, measures = bench.stack._judge, []

    def busy(prompt: list[int], used: list[bytes]) -> tuple[bytes, float]:
        wrong, shift = judge(prompt, used)
        return wrong, shift + 1e-6 * bench.stack.running_requests

    def before(call: str) -> None:
        if call == "GET /metrics":
            measures.append(call)
            if len(measures) == 2:
                bench.stack.running_requests = 0

    monkeypatch.setattr(bench.stack, "_judge", busy)
    bench.stack.before = before
    report = await bench.manager.thaw("paper")
    assert (report.probe.passed, report.probe.repeated) == (True, True)
    assert len(measures) == 2


async def test_a_differing_last_digit_is_a_difference(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cwm_jupyter.core.restore._QUIET_S", 0.1)
    await bench.frozen("paper")
    bench.stack.restart()
    bench.stack.running_requests = 1
    judge = bench.stack._judge

    def nudged(prompt: list[int], used: list[bytes]) -> tuple[bytes, float]:
        wrong, shift = judge(prompt, used)
        return wrong, shift + 1e-9

    monkeypatch.setattr(bench.stack, "_judge", nudged)
    with pytest.raises(ProbeError, match="by up to 1e-09 nats"):
        await bench.manager.thaw("paper")


async def test_tokens_from_cache_that_are_not_told_are_unavailable(bench: Bench) -> None:
    await bench.frozen("paper")
    bench.stack.restart()
    bench.stack.tells_cached = False
    report = await bench.manager.thaw("paper")
    assert (report.cached_tokens, report.recomputed_tokens) == (None, None)
    assert not report.complete
    assert report.probe.tolerance == 0.5


async def test_without_sight_of_the_files_the_missing_are_those_not_loaded(bench: Bench) -> None:
    window = await bench.frozen("paper")
    path = chunk(bench, window, 1)
    path.unlink()
    bench.stack.restart()
    bench.readable = False
    await bench.reconnect()
    report = await bench.manager.thaw("paper")
    assert (report.chunks_found, report.chunks_missing) == (1, window.chunks - 1)
    assert (report.cached_tokens, report.complete) == (16, False)


@pytest.mark.covers("TT-003")
async def test_an_unknown_window(bench: Bench) -> None:
    await bench.frozen("paper")
    with pytest.raises(WindowNotFoundError, match="'papr'") as caught:
        await bench.manager.thaw("papr")
    assert "paper" in (caught.value.hint or "")


async def test_every_thaw_makes_a_session_of_its_own(bench: Bench) -> None:
    await bench.frozen("paper")
    names = [(await bench.manager.thaw("paper")).session for _ in range(2)]
    names.append((await bench.manager.thaw("paper", as_session="branch")).session)
    assert names == ["paper-2", "paper-3", "branch"]
    assert bench.window("paper").thaws == 3


@pytest.mark.parametrize(
    ("name", "error"), [("paper", SessionExistsError), ("a/b", ValidationError)]
)
async def test_a_name_that_cannot_be_is_refused_first(
    bench: Bench, name: str, error: type[Exception]
) -> None:
    await bench.frozen("paper")
    asked = len(bench.stack.calls)
    with pytest.raises(error):
        await bench.manager.thaw("paper", as_session=name)
    assert len(bench.stack.calls) == asked


async def test_a_name_with_no_room_for_a_number_is_shortened(bench: Bench) -> None:
    await bench.frozen("x" * 128)
    report = await bench.manager.thaw("x" * 128)
    assert len(report.session) <= 128
    assert report.session.endswith("x-2")


async def test_a_name_taken_meanwhile_leaves_no_session(bench: Bench) -> None:
    await bench.frozen("paper")
    other = await bench.talk("other")
    before = set((bench.home / "sessions").glob("*.json"))

    def watch(state: JobState) -> None:
        if state.stage == "session":
            bench.library.index.update_session(other.id, lambda s: s.replace(name="mine"))

    with pytest.raises(SessionExistsError):
        await bench.manager.thaw("paper", as_session="mine", job=Job("thaw", watch))
    assert set((bench.home / "sessions").glob("*.json")) == before
    assert bench.window("paper").thaws == 0


async def test_an_lmcache_that_is_gone_is_a_plain_error(bench: Bench) -> None:
    window = await bench.frozen("paper")
    bench.stack.restart()

    def gone(call: str) -> None:
        if call == "POST /cache/prefetches":
            raise httpx2.ConnectError("refused")

    bench.stack.before = gone
    with pytest.raises(KVStoreConnectionError, match="cannot be reached"):
        await bench.manager.thaw("paper")
    assert bench.window("paper") == window
    assert await sessions(bench) == ["paper"]


@pytest.mark.parametrize("stage", ["check", "load", "take into the engine"])
async def test_cancelling_leaves_no_session(bench: Bench, stage: str) -> None:
    window = await bench.frozen("paper")
    bench.stack.restart()

    def watch(state: JobState) -> None:
        if state.stage == stage:
            job.cancel()

    job = Job("thaw paper", watch)
    with pytest.raises(CancelledJobError):
        await bench.manager.thaw("paper", job=job)
    assert bench.window("paper") == window
    assert await sessions(bench) == ["paper"]


async def test_failing_at_any_request_keeps_the_window(bench: Bench) -> None:
    await bench.frozen("paper")
    asked = len(bench.stack.calls)
    bench.stack.restart()
    assert (await bench.manager.thaw("paper", as_session="whole")).complete
    requests = len(bench.stack.calls) - asked
    assert requests >= 5  # facts, status, two of the prefetch, the probe
    window = bench.window("paper")
    for step in range(requests):
        bench.stack.restart()
        left = [step]

        def fail(call: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise httpx2.ReadError("the server died")

        bench.stack.before = fail
        with pytest.raises((KVStoreError, VLLMError)):
            await bench.manager.thaw("paper")
        assert bench.window("paper") == window
        assert await sessions(bench) == ["paper", "whole"]


async def test_a_damaged_manifest_is_refused(bench: Bench) -> None:
    await bench.frozen("paper")
    (path,) = (bench.home / "windows").iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(IndexCorruptError):
        await bench.manager.thaw("paper")
    assert await sessions(bench) == ["paper"]


async def test_a_manifest_whose_chunks_are_not_its_tokens_is_refused(bench: Bench) -> None:
    manifest = bench.library.manifest(await bench.frozen("paper"))
    short = manifest.replace(refs=manifest.refs[:-1])
    bench.library.replace_manifest(short, lambda w: w)
    with pytest.raises(IndexCorruptError, match="other chunks than its tokens"):
        await bench.manager.thaw("paper")


async def test_a_crash_while_healing_leaves_a_window_that_thaws(
    bench: Bench, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the new manifest and the index: the old one is still the window's."""
    window = await bench.frozen("paper")
    chunk(bench, window, 1).unlink()
    bench.stack.restart()
    with monkeypatch.context() as patch:
        patch.setattr(Window, "replace", lambda self, **changes: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await bench.manager.thaw("paper")
    assert bench.window("paper") == window
    assert bench.library.manifest(window).recomputed == []
    bench.stack.restart()
    report = await bench.manager.thaw("paper")
    assert (report.chunks_corrupt, report.chunks_missing) == (0, 0)
    assert (report.chunks_recomputed, report.probe.passed) == (1, True)  # it has other bytes now


def after_sealing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, work: Callable[[], Awaitable[object]]
) -> None:
    """Do something between the proof of healed chunks and the hold."""
    seal = VaultStore.seal

    async def sealed(*arguments: Any) -> Any:
        refs = await seal(*arguments)
        await work()
        return refs

    monkeypatch.setattr(VaultStore, "seal", sealed)


async def test_healing_a_window_that_is_purged_meanwhile_leaves_nothing(
    bench: Bench, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = await bench.frozen("paper")
    keys = keys_of(bench, window)
    chunk(bench, window, 1).unlink()
    bench.stack.restart()

    async def purge() -> None:
        store = VaultStore(bench.stack.vault)
        stored = await store.read(keys[1])
        await bench.manager.remove_window("paper")
        await bench.manager.purge(["paper"])
        await store.write({keys[1]: stored})  # which a store under way would do

    after_sealing(bench, monkeypatch, purge)
    with pytest.raises(WindowNotFoundError):
        await bench.manager.thaw("paper", as_session="back")
    assert await sessions(bench) == ["paper"]
    assert bench.stack.vault.holds() == {}
    assert bench.stack.vault.lookup([keys[1]]) == [None]


async def test_healing_keeps_frozen_contents_whose_records_are_lost(
    bench: Bench, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = await bench.frozen("paper")
    keys, refs = keys_of(bench, window), bench.library.manifest(window).refs
    chunk(bench, window, 1).unlink()
    bench.stack.restart()
    vault = bench.stack.vault

    async def lose() -> None:
        vault.folder.record(vault.name(keys[0])).unlink()

    after_sealing(bench, monkeypatch, lose)
    await bench.manager.thaw("paper")
    assert {ref.digest for ref in refs} <= set(vault.holds()[window.id].contents)
    await bench.manager.collect_garbage()
    assert content(bench, refs[0].digest).exists()
    assert (await bench.manager.verify("paper")).windows[0].chunks_relinked == 1

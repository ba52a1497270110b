"""Repair: what was damaged is computed again, what was not is left alone."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest
from bench import Bench
from damage import damage, keys_of, refs_of
from fake_stack import FakeStack
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.core.job import Job, JobState
from cwm_jupyter.core.models import Turn, Window
from cwm_jupyter.core.replay import Plan
from cwm_jupyter.errors import (
    CancelledJobError,
    CWMError,
    EngineMismatchError,
    KVStoreError,
    StackDownError,
    WindowError,
    WindowNotFoundError,
)

MORE = ("And then? Tell me all that there is to say about it.", "Why?")


def salts(bench: Bench) -> set[str]:
    """The salts of all records in the vault."""
    return {record.cache_salt for _, record in bench.stack.vault.records()}


async def assert_nothing_is_left(bench: Bench, window: Window) -> None:
    """Of a replay: no chunk, no hold, no secret."""
    assert salts(bench) == {key.cache_salt for key in keys_of(bench, bench.window(window.name))}
    assert set(bench.stack.vault.holds()) == {w.id for w in (await bench.manager.windows()).items}
    assert len(bench.library.lineages.ids()) == 1


@pytest.mark.parametrize("chunks", [[0], [2], [-1], [0, 3]])
async def test_what_is_computed_in_the_same_shapes_is_bit_equal(
    bench: Bench, chunks: list[int]
) -> None:
    window = await bench.frozen("paper")
    refs = refs_of(bench, window)
    damage(bench, window, *chunks)
    bench.stack.restart()
    report = await bench.manager.repair("paper")
    bad = {chunk % window.chunks for chunk in chunks}
    assert report.outcomes == [
        "bit-equal" if chunk in bad else "intact" for chunk in range(window.chunks)
    ]
    assert (report.chunks_bit_equal, report.chunks_intact) == (len(bad), window.chunks - len(bad))
    assert (report.turns_replayed, report.turns_differed) == (1, 0)
    assert report.window == bench.window("paper") == window
    assert refs_of(bench, window) == refs
    assert (await bench.manager.verify("paper")).intact
    await assert_nothing_is_left(bench, window)
    bench.stack.restart()
    thawed = await bench.manager.thaw("paper")
    assert (thawed.complete, thawed.probe.tolerance, thawed.probe.max_abs_logprob_diff) == (
        True,
        0,
        0,
    )


async def test_only_the_turns_that_are_needed_are_replayed(bench: Bench) -> None:
    await bench.talk("paper", "x" * 70, *MORE)
    window = (await bench.manager.freeze("paper", "paper")).window
    turns = bench.library.manifest(window).transcript.turns
    chunk = turns[1].prompt_end // 16  # of the second of three
    damage(bench, window, chunk)
    bench.stack.restart()
    bench.stack.prompts.clear()
    states: list[JobState] = []
    report = await bench.manager.repair("paper", job=Job("repair", states.append))
    assert report.outcomes[chunk] == "bit-equal"
    assert (report.chunks_bit_equal, report.turns_replayed) == (1, 1)
    assert [len(prompt) for prompt in bench.stack.prompts] == [turns[1].prompt_end]
    assert report.computed_tokens == turns[1].end - (turns[1].start - 1) // 16 * 16
    computed = [(s.done, s.total) for s in states if s.stage == "compute"]
    assert computed[-1] == (report.computed_tokens, report.computed_tokens)
    assert (await bench.manager.verify("paper")).intact


async def test_all_chunks_of_several_turns(bench: Bench) -> None:
    await bench.talk("paper", "x" * 70, *MORE)
    window = (await bench.manager.freeze("paper", "paper")).window
    damage(bench, window, *range(window.chunks))
    bench.stack.restart()
    report = await bench.manager.repair("paper")
    assert (report.chunks_bit_equal, report.turns_replayed) == (window.chunks, 3)
    bench.stack.restart()
    assert (await bench.manager.thaw("paper")).probe.max_abs_logprob_diff == 0


async def test_a_sampled_turn_is_recomputed_and_the_manifest_says_so(bench: Bench) -> None:
    window = await bench.frozen("paper")
    refs = refs_of(bench, window)
    bench.stack.answer_tokens = 7  # the engine would answer otherwise now
    last = window.chunks - 1
    damage(bench, window, 0, last)
    bench.stack.restart()
    report = await bench.manager.repair("paper")
    assert report.turns_differed == 1
    assert report.outcomes[0] == "bit-equal"  # the prompt is computed as it was
    assert report.outcomes[last] == "recomputed"
    now = bench.window("paper")
    manifest = bench.library.manifest(now)
    assert now.state == "intact"
    assert manifest.recomputed == [refs[last].chunk_hash]
    assert manifest.refs[:last] == refs[:last]
    assert manifest.refs[last].digest != refs[last].digest
    held = bench.stack.vault.holds()[window.id]
    assert {ref.digest for ref in manifest.refs} <= set(held.contents)
    check = (await bench.manager.verify("paper")).windows[0]
    assert (check.state, check.chunks_intact, check.chunks_recomputed) == ("intact", now.chunks, 1)
    await assert_nothing_is_left(bench, window)
    bench.stack.restart()
    thawed = await bench.manager.thaw("paper")
    assert (thawed.complete, thawed.chunks_recomputed, thawed.probe.passed) == (True, 1, True)


async def test_a_repair_heals_every_window_that_shares_the_chunk(bench: Bench) -> None:
    window = await bench.frozen("one")
    bench.stack.answer_tokens = 7
    await bench.talk("one", "And then?")
    await bench.manager.freeze("two", "one")
    damage(bench, window, 1, window.chunks - 1)
    bench.stack.restart()
    report = await bench.manager.repair("one")
    assert (report.chunks_bit_equal, report.chunks_recomputed) == (1, 1)
    report_of_all = await bench.manager.verify()
    assert report_of_all.intact
    assert [check.chunks_recomputed for check in report_of_all.windows] == [1, 1]


async def test_windows_that_were_damaged_with_it_are_intact_again(bench: Bench) -> None:
    """Those all of whose chunks are, and no others; also in another lineage."""
    await bench.frozen("one")
    await bench.talk("one", *MORE)
    two = (await bench.manager.freeze("two", "one")).window
    twin = await bench.frozen("twin")  # the same text, and so the same contents
    damage(bench, two, 0, two.chunks - 1)
    bench.stack.restart()
    states = {c.window: c.state for c in (await bench.manager.verify()).windows}
    assert set(states.values()) == {"damaged"}
    report = await bench.manager.repair("one")
    assert report.also_intact == ["twin"]  # two lacks another chunk still
    assert bench.window("twin") == twin
    assert bench.window("two").state == "damaged"
    assert (await bench.manager.repair("two")).also_intact == []
    assert (await bench.manager.verify()).intact


async def test_a_window_without_its_manifest_keeps_nobody_from_a_repair(bench: Bench) -> None:
    window = await bench.frozen("paper")
    torn = await bench.frozen("torn")
    for path in (bench.home / "windows").glob(f"{torn.id}.*"):
        path.write_bytes(b"{")
    damage(bench, window, 0)
    await bench.manager.verify()
    assert bench.window("torn").state == "damaged"
    report = await bench.manager.repair("paper")
    assert (report.window.state, report.also_intact) == ("intact", [])
    assert bench.window("torn").state == "damaged"


async def test_stale_kv_in_memory_is_not_served_after_a_repair(bench: Bench) -> None:
    window = await bench.frozen("paper")
    keys = keys_of(bench, window)
    damage(bench, window, 1)
    assert keys[1] in bench.stack.memory
    await bench.manager.repair("paper")
    assert keys[1] not in bench.stack.memory
    assert not bench.stack.engine_cache


async def test_nothing_to_do(bench: Bench) -> None:
    window = await bench.frozen("paper")
    bench.library.index.update_window(window.id, lambda w: w.to("damaged"))
    bench.stack.prompts.clear()
    report = await bench.manager.repair("paper")
    assert set(report.outcomes) == {"intact"}
    assert (report.turns_replayed, report.computed_tokens, bench.stack.prompts) == (0, 0, [])
    assert bench.window("paper").state == "intact"


async def test_a_lost_record_needs_no_engine(bench: Bench) -> None:
    window = await bench.frozen("paper")
    vault = bench.stack.vault
    vault.folder.record(vault.name(keys_of(bench, window)[2])).unlink()
    bench.stack.prompts.clear()
    report = await bench.manager.repair("paper")
    assert (report.outcomes[2], report.chunks_relinked, bench.stack.prompts) == ("relinked", 1, [])


async def test_several_ranks(bench: Bench) -> None:
    await bench.reconnect(FakeStack(bench.home.parent / "vault", world_size=2))
    window = await bench.frozen("paper")
    damage(bench, window, 3)  # the second part of chunk 1
    bench.stack.restart()
    report = await bench.manager.repair("paper")
    assert (len(report.outcomes), report.outcomes[1]) == (window.chunks, "bit-equal")
    assert report.chunks_intact == window.chunks - 1
    assert (await bench.manager.verify("paper")).intact


async def test_a_window_shorter_than_a_chunk(bench: Bench) -> None:
    bench.stack.answer_tokens = 3
    await bench.frozen("short", "Hi")
    assert (await bench.manager.repair("short")).outcomes == []


# --- failures -------------------------------------------------------------------------------------


def refuse(call: str) -> Callable[[str], httpx2.Response | None]:
    def before(name: str) -> httpx2.Response | None:
        return httpx2.Response(500, json={"error": {"message": "no"}}) if name == call else None

    return before


async def assert_as_before(bench: Bench, window: Window) -> None:
    """Damaged, with its manifest, and nothing is left of the attempt."""
    assert bench.window("paper").replace(state="intact") == window
    assert bench.window("paper").state == "damaged"
    assert len(bench.manifests()) == 1
    await assert_nothing_is_left(bench, window)


@pytest.mark.parametrize("call", ["POST /v1/completions", "DELETE /cache/objects"])
async def test_a_repair_that_fails_leaves_the_window_as_it_was(bench: Bench, call: str) -> None:
    window = await bench.frozen("paper")
    damage(bench, window, 1)
    bench.stack.restart()
    bench.stack.before = refuse(call)
    with pytest.raises(CWMError):
        await bench.manager.repair("paper")
    await assert_as_before(bench, window)
    bench.stack.before = lambda name: None
    assert (await bench.manager.repair("paper")).chunks_bit_equal <= 1
    assert (await bench.manager.verify("paper")).intact


@pytest.mark.usefixtures("impatient")
async def test_chunks_that_do_not_become_durable(bench: Bench) -> None:
    window = await bench.frozen("paper")
    damage(bench, window, 1)
    bench.stack.restart()
    bench.stack.store, bench.stack.store_failure = lambda key: False, "No space left on device"
    with pytest.raises(KVStoreError, match="No space left"):
        await bench.manager.repair("paper")
    await assert_as_before(bench, window)


async def test_a_cancelled_repair_leaves_nothing(bench: Bench) -> None:
    window = await bench.frozen("paper")
    damage(bench, window, 1)
    bench.stack.restart()

    def watch(state: JobState) -> None:
        if state.stage == "compute" and state.done > window.tokens // 2:
            job.cancel()

    job = Job("repair", watch)
    with pytest.raises(CancelledJobError):
        await bench.manager.repair("paper", job=job)
    await assert_as_before(bench, window)


async def test_a_window_that_changed_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = await bench.frozen("paper")
    damage(bench, window, 1)
    bench.stack.restart()

    def watch(state: JobState) -> None:
        if state.stage == "adopt":
            bench.library.index.update_window(
                window.id, lambda w: w.replace(manifest_digest="ab" * 32)
            )

    with pytest.raises(WindowError, match="was changed"):
        await bench.manager.repair("paper", job=Job("repair", watch))


async def test_a_window_that_was_purged_meanwhile_keeps_nothing(bench: Bench) -> None:
    window = await bench.frozen("paper")
    keys = keys_of(bench, window)
    damage(bench, window, 1)
    bench.stack.restart()

    def watch(state: JobState) -> None:
        if state.stage == "adopt" and bench.library.index.get_window(window.id):
            bench.library.index.remove_window(window.id)

    with pytest.raises(WindowNotFoundError):
        await bench.manager.repair("paper", job=Job("repair", watch))
    assert bench.stack.vault.holds() == {}
    assert bench.stack.vault.lookup([keys[1]]) == [None]


async def test_another_engine_is_refused(bench: Bench) -> None:
    window = await bench.frozen("paper")
    damage(bench, window, 1)
    bench.stack.restart()
    bench.stack.told = {**(bench.stack.told or {}), "threads": 8}
    with pytest.raises(EngineMismatchError, match="threads") as refused:
        await bench.manager.repair("paper")
    assert "--accept-engine" in str(refused.value)
    report = await bench.manager.repair("paper", accept_engine=True)
    assert report.accepted_differences == ["threads: frozen with 2, the engine has 8"]
    bench.stack.told = {**bench.stack.told, "dtype": "float32"}
    with pytest.raises(EngineMismatchError, match="dtype"):
        await bench.manager.repair("paper", accept_engine=True)


async def test_what_cannot_be_repaired(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WindowNotFoundError):
        await bench.manager.repair("paper")
    await bench.frozen("paper")
    bench.readable = False
    await bench.reconnect()
    with pytest.raises(KVStoreError, match="not in a vault of ours"):
        await bench.manager.repair("paper")

    async def down() -> None:
        raise StackDownError("No stack is running.")

    monkeypatch.setattr(bench.manager, "_connect", down)
    with pytest.raises(StackDownError):
        await bench.manager.repair("paper")


# --- the plan -------------------------------------------------------------------------------------


def turn(number: int, start: int, prompt_end: int, end: int) -> Turn:
    return Turn(
        number=number,
        start=start,
        prompt_end=prompt_end,
        end=end,
        cached_tokens=None,
        ttft_s=None,
        total_s=0,
        finish_reason="stop",
        created_at="2026",
    )


@given(st.data())
def test_a_plan_covers_what_is_wanted_and_takes_nothing_of_it_as_it_is(data: st.DataObject) -> None:
    turns, at = [], 0
    for number in range(data.draw(st.integers(1, 6))):
        prompt, answer = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
        turns.append(turn(number, at, at + prompt, at + prompt + answer))
        at += prompt + answer
    chunks = (at - 1) // 8
    if not chunks:
        return
    wanted = sorted(data.draw(st.sets(st.integers(0, chunks - 1), min_size=1)))
    plan = Plan.of(turns, wanted, 8)
    assert plan.first_chunk <= wanted[0]
    assert (wanted[-1] + 1) * 8 <= plan.end_tokens - 1
    assert plan.turns == turns[turns.index(plan.turns[0]) :][: len(plan.turns)]
    # The first turn found just the chunks that are taken, and no shorter plan would do.
    assert plan.first_chunk == max(plan.turns[0].start - 1, 0) // 8
    after = turns.index(plan.turns[0]) + 1
    if after < len(turns):
        assert (turns[after].start - 1) // 8 > wanted[0]

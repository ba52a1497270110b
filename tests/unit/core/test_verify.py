"""Verify: what is wrong with a window's chunks is found, said, and noted; nothing else is."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from bench import Bench
from damage import flip, keys_of, refs_of

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.job import Job, JobState
from cwm_jupyter.core.models import Proof
from cwm_jupyter.errors import CancelledJobError, KVStoreError, WindowNotFoundError
from cwm_jupyter.vault.files import Item
from cwm_jupyter.vault.store import VaultStore

pytestmark = pytest.mark.every_system


async def test_an_intact_window(bench: Bench) -> None:
    window = await bench.frozen("paper")
    bench.stack.restart()
    calls = len(bench.stack.calls)
    report = await bench.manager.verify("paper")
    assert len(bench.stack.calls) == calls  # no server was asked
    assert report.intact
    [check] = report.windows
    assert (check.window, check.state, check.problem, check.faults) == ("paper", "intact", None, [])
    assert check.chunks == check.chunks_intact == window.chunks
    assert check.size_bytes == report.size_bytes == window.size_bytes
    assert (check.chunks_missing, check.chunks_corrupt, check.chunks_relinked) == (0, 0, 0)
    assert bench.window("paper") == window


async def test_what_is_wrong_is_told_chunk_by_chunk_and_noted(bench: Bench) -> None:
    window = await bench.frozen("paper")
    refs = refs_of(bench, window)
    content = bench.stack.vault.folder.content
    flip(content(refs[1].digest))
    content(refs[3].digest).unlink()
    report = await bench.manager.verify("paper")
    assert not report.intact
    [check] = report.windows
    assert check.state == bench.window("paper").state == "damaged"
    assert [(fault.chunk, fault.rank, fault.state) for fault in check.faults] == [
        (1, 0, "corrupt"),
        (3, 0, "missing"),
    ]
    assert all(fault.reason for fault in check.faults)
    assert (check.chunks_corrupt, check.chunks_missing) == (1, 1)
    assert check.chunks_intact == window.chunks - 2


async def test_a_lost_record_is_linked_again(bench: Bench) -> None:
    window = await bench.frozen("paper")
    vault = bench.stack.vault
    keys = keys_of(bench, window)
    vault.folder.record(vault.name(keys[0])).unlink()
    flip(vault.folder.record(vault.name(keys[2])))
    vault.point(keys[4], refs_of(bench, window)[5].digest, window.size_bytes // window.chunks)
    report = await bench.manager.verify("paper")
    assert report.intact
    [check] = report.windows
    assert (check.chunks_intact, check.chunks_relinked) == (window.chunks, 3)
    assert [(fault.chunk, fault.state) for fault in check.faults] == [
        (0, "relinked"),
        (2, "relinked"),
        (4, "relinked"),
    ]
    assert not (await bench.manager.verify("paper")).windows[0].faults
    bench.stack.restart()
    assert (await bench.manager.thaw("paper")).complete


async def test_the_state_goes_back_when_the_chunks_do(bench: Bench) -> None:
    window = await bench.frozen("paper")
    path = bench.stack.vault.folder.content(refs_of(bench, window)[0].digest)
    backup = path.read_bytes()
    path.unlink()
    assert (await bench.manager.verify("paper")).windows[0].state == "damaged"
    path.write_bytes(backup)
    assert (await bench.manager.verify("paper")).windows[0].state == "intact"
    assert bench.window("paper") == window


async def test_all_windows_and_each_shared_chunk_once(bench: Bench) -> None:
    one = await bench.frozen("one")
    await bench.talk("one", "And then?")
    two = (await bench.manager.freeze("two", "one")).window
    await bench.frozen("other", "Something else altogether, and not a short text either.")
    states: list[JobState] = []
    report = await bench.manager.verify(job=Job("verify", states.append))
    assert [check.window for check in report.windows] == ["other", "two", "one"]
    by_name = {check.window: check for check in report.windows}
    assert by_name["two"].size_bytes == two.size_bytes
    assert by_name["one"].size_bytes == 0  # all that it has, two has too
    assert by_name["one"].chunks_intact == one.chunks
    told = [(state.done, state.total) for state in states if state.stage == "verify"]
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (report.size_bytes, report.size_bytes)
    shared = refs_of(bench, one)[0]
    flip(bench.stack.vault.folder.content(shared.digest))
    report = await bench.manager.verify()
    assert {c.window: c.state for c in report.windows} == {
        "one": "damaged",
        "two": "damaged",
        "other": "intact",
    }


async def test_no_windows_are_all_intact(bench: Bench) -> None:
    report = await bench.manager.verify()
    assert (report.windows, report.intact, report.size_bytes) == ([], True, 0)


async def test_a_window_without_its_secret_or_manifest_is_damaged(bench: Bench) -> None:
    lost = await bench.frozen("lost")
    torn = await bench.frozen("torn")
    await bench.frozen("fine")
    bench.library.lineages.path(lost.lineage_id).unlink()
    for path in (bench.home / "windows").glob(f"{torn.id}.*"):
        path.write_bytes(b"{")
    report = await bench.manager.verify()
    assert {c.window: (c.state, bool(c.problem)) for c in report.windows} == {
        "lost": ("damaged", True),
        "torn": ("damaged", True),
        "fine": ("intact", False),
    }


async def test_a_window_of_a_remote_store_is_not_judged(bench: Bench) -> None:
    window = await bench.frozen("far")
    proof = Proof(level="present", chunks=window.chunks, size_bytes=None, checked_at="2026")
    bench.library.index.update_window(window.id, lambda w: w.replace(proof=proof))
    report = await bench.manager.verify()
    assert report.intact
    [check] = report.windows
    assert (check.state, check.chunks_intact) == ("intact", 0)
    assert "remote" in (check.problem or "")
    with pytest.raises(KVStoreError, match="remote"):
        await bench.manager.verify("far")


async def test_unknown_windows_and_cancelling(bench: Bench) -> None:
    await bench.frozen("paper")
    with pytest.raises(WindowNotFoundError, match="papr"):
        await bench.manager.verify("papr")
    job = Job("verify")
    job.cancel()
    with pytest.raises(CancelledJobError):
        await bench.manager.verify("paper", job=job)
    assert bench.window("paper").state == "intact"


async def test_a_chunk_is_as_bad_as_the_worst_of_its_ranks(bench: Bench) -> None:
    from fake_stack import FakeStack

    await bench.reconnect(FakeStack(bench.home.parent / "vault", world_size=2))
    window = await bench.frozen("paper")
    refs = refs_of(bench, window)
    assert len(refs) == 2 * window.chunks
    bench.stack.vault.folder.content(refs[3].digest).unlink()
    [check] = (await bench.manager.verify("paper")).windows
    assert (check.chunks, check.chunks_intact, check.chunks_missing) == (
        window.chunks,
        window.chunks - 1,
        1,
    )
    assert [(fault.chunk, fault.rank) for fault in check.faults] == [(1, 1)]


@pytest.mark.covers("KV-006")
@pytest.mark.parametrize("lost", ["gone", "damaged", "of another window", "half"])
async def test_a_lost_hold_is_put_back_and_nothing_of_the_window_goes(
    bench: Bench, lost: str
) -> None:
    window = await bench.frozen("paper")
    await bench.frozen("other", "Something else altogether, and not a short text either.")
    vault, keys = bench.stack.vault, keys_of(bench, window)
    path = vault.folder.hold(window.id)
    if lost == "gone":
        path.unlink()
    elif lost == "damaged":
        path.write_bytes(b"{")
    else:
        vault.hold(window.id, keys[:1] if lost == "half" else keys_of(bench, bench.window("other")))
    report = await bench.manager.verify()
    assert report.intact
    assert {c.window: c.hold for c in report.windows} == {"paper": "renewed", "other": "kept"}
    hold = vault.holds()[window.id]
    assert set(hold.records) == set(map(vault.name, keys))
    assert set(hold.contents) == {ref.digest for ref in refs_of(bench, window)}
    # What would take it now takes nothing of it.
    vault.room.quota_bytes = vault.room.stored_bytes()
    room_for = ChunkKey(chunk_hash=b"1" * 32, model_name="m", kv_rank=0)
    [refused] = vault.store([Item(key=room_for, raw=memoryview(bytes(500)))])
    assert refused.state == "failed"
    assert vault.delete(keys) == [False] * len(keys)
    assert not (await bench.manager.collect_garbage()).contents
    assert (await bench.manager.verify()).intact
    assert {c.hold for c in (await bench.manager.verify()).windows} == {"kept"}


async def test_the_hold_of_a_damaged_window_is_put_back_too(bench: Bench) -> None:
    """So that what is left of it stays, and what heals it later."""
    window = await bench.frozen("paper")
    vault, refs = bench.stack.vault, refs_of(bench, window)
    vault.folder.content(refs[1].digest).unlink()
    vault.folder.hold(window.id).unlink()
    [check] = (await bench.manager.verify("paper")).windows
    assert (check.state, check.hold) == ("damaged", "renewed")
    assert set(vault.holds()[window.id].records) == set(map(vault.name, keys_of(bench, window)))
    assert (await bench.manager.verify("paper")).windows[0].hold == "kept"


async def test_a_hold_that_cannot_be_put_back_is_told_and_the_rest_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = await bench.frozen("paper")
    bench.stack.vault.folder.hold(window.id).unlink()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("cwm_jupyter.vault.disk.sync_file", full)
    [check] = (await bench.manager.verify("paper")).windows
    assert (check.state, check.hold) == ("intact", "lost")


async def test_a_window_that_is_purged_meanwhile_leaves_no_hold(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = await bench.frozen("paper")
    real = VaultStore.verify

    async def verify(self: VaultStore, *args: Any) -> Any:
        checked = await real(self, *args)
        await bench.manager.remove_window("paper")
        await bench.manager.purge(["paper"])
        return checked

    monkeypatch.setattr(VaultStore, "verify", verify)
    await bench.manager.verify("paper")
    assert window.id not in bench.stack.vault.holds()

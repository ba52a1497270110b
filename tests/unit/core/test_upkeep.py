"""Purge, garbage, and what lies where: deleting one window takes nothing from another."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from bench import QUESTION, Bench
from damage import damage, keys_of, refs_of

from cwm_jupyter.core.going import Going
from cwm_jupyter.core.kept import Freed
from cwm_jupyter.core.models import Proof, Window
from cwm_jupyter.core.purge import Purge
from cwm_jupyter.core.receipts import Receipts
from cwm_jupyter.errors import (
    IndexBusyError,
    IndexCorruptError,
    KVStoreConnectionError,
    KVStoreError,
    ResourceExhaustedError,
    StackDownError,
    StateTransitionError,
    WindowNotFoundError,
)
from cwm_jupyter.vault.files import Vault
from cwm_jupyter.vault.fs import FsStore
from cwm_jupyter.vault.store import VaultStore

pytestmark = pytest.mark.every_system

OTHER = "Something else altogether, and not a short text either: not one chunk is the same."


def contents(bench: Bench) -> set[str]:
    return {path.stem for path in bench.stack.vault.folder.contents.iterdir()}


def records(bench: Bench) -> set[str]:
    return {path.stem for path in bench.stack.vault.folder.records.iterdir()}


def digests(bench: Bench, window: Window) -> set[str]:
    return {ref.digest for ref in refs_of(bench, window)}


def names(bench: Bench, window: Window) -> set[str]:
    return {bench.stack.vault.name(key) for key in keys_of(bench, window)}


def everything(bench: Bench) -> bytes:
    """All bytes below home and vault, names of files included; receipts are to be there."""
    found = [
        path
        for path in bench.home.parent.rglob("*")
        if path.is_file() and path.parent.name != "purged"
    ]
    return b"".join(str(path).encode() + path.read_bytes() for path in found)


async def two_windows(bench: Bench) -> tuple[Window, Window]:
    """The second has all chunks of the first, and more."""
    one = await bench.frozen("one")
    await bench.talk("one", "And then?")
    return one, (await bench.manager.freeze("two", "one")).window


async def down() -> None:
    raise StackDownError("No stack is running.")


# --- listing and clearing -------------------------------------------------------------------------


@pytest.mark.covers("KV-022")
async def test_the_chunks_of_one_window_or_session_are_listed(bench: Bench) -> None:
    window, longer = await two_windows(bench)
    other = await bench.frozen("other", OTHER)
    store = VaultStore(bench.stack.vault)
    for each in (window, longer, other):
        page = await store.list(owner=each.id)
        assert set(page.keys) == set(keys_of(bench, each))
    salt = keys_of(bench, other)[0].cache_salt
    assert set(keys_of(bench, other)) <= set((await store.list(salt=salt)).keys)
    assert {key.cache_salt for key in (await store.list(salt=salt)).keys} == {salt}
    assert (await store.list(owner="nobody")).keys == []


@pytest.mark.covers("KV-024")
async def test_one_session_s_chunks_are_cleared_and_no_other_s(bench: Bench) -> None:
    kept = await bench.frozen("kept", OTHER)
    await bench.talk("gone", QUESTION)
    facts = await (await bench.connect()).facts()
    gone = await bench.manager.session("gone")
    salt = bench.library.lineages.salt(gone.lineage_id, facts.fingerprint)
    store = VaultStore(bench.stack.vault)
    cleared = await store.clear(salt=salt)
    assert cleared == len(bench.transcript(gone).token_ids[:-1]) // 16
    assert (await store.list(salt=salt)).keys == []
    assert (await bench.manager.verify()).intact
    assert await store.clear(salt=keys_of(bench, kept)[0].cache_salt) == 0  # a window holds them
    bench.stack.restart()
    assert (await bench.manager.thaw("kept")).complete


# --- purge ----------------------------------------------------------------------------------------


@pytest.mark.covers("TD-003")
async def test_what_no_other_window_uses_is_freed_and_what_is_shared_stays(bench: Bench) -> None:
    one, two = await two_windows(bench)
    only = digests(bench, two) - digests(bench, one)
    only_names = names(bench, two) - names(bench, one)
    assert only
    await bench.manager.remove_window("two")
    before = contents(bench)
    assert (await bench.manager.verify("one")).intact
    looked = await bench.manager.purge(dry_run=True)
    assert not looked.removed
    assert (contents(bench), bench.library.index.get_window(two.id) is None) == (before, False)
    report = await bench.manager.purge(["two"])
    assert report.removed
    assert (report.windows, report.sessions, report.secrets) == (["two"], [], 0)
    assert (report.chunks, report.memory_cleared) == (len(only), True)
    assert report.freed_bytes == looked.freed_bytes > 0
    assert before - contents(bench) == only
    assert not only_names & records(bench)
    assert names(bench, one) <= records(bench)
    assert bench.library.index.get_window(two.id) is None
    assert not list((bench.home / "windows").glob(f"{two.id}*"))
    assert set(bench.stack.vault.holds()) == {one.id}
    assert (await bench.manager.verify()).intact
    bench.stack.restart()
    assert (await bench.manager.thaw("one")).complete


async def test_the_shorter_of_two_takes_nothing_from_the_longer(bench: Bench) -> None:
    await two_windows(bench)
    await bench.manager.remove_window("one")
    before = contents(bench)
    report = await bench.manager.purge()
    assert (report.chunks, report.freed_bytes, contents(bench)) == (0, 0, before)
    bench.stack.restart()
    thawed = await bench.manager.thaw("two")
    assert (thawed.complete, thawed.probe.max_abs_logprob_diff) == (True, 0)


async def test_a_removed_window_s_share_counts_until_it_is_purged(bench: Bench) -> None:
    one, two = await two_windows(bench)
    for name in ("one", "two"):
        await bench.manager.remove_window(name)
    await bench.manager.purge(["two"])
    assert (await bench.manager.restore_window("one")).state == "intact"
    assert (await bench.manager.verify("one")).intact
    assert two.id not in bench.stack.vault.holds()
    assert one.id in bench.stack.vault.holds()


async def test_equal_content_of_another_lineage_stays(bench: Bench) -> None:
    one = await bench.frozen("one")
    other = await bench.frozen("other")
    assert digests(bench, one) == digests(bench, other)
    await bench.manager.remove_window("one")
    report = await bench.manager.purge()
    assert (report.chunks, report.freed_bytes) == (one.chunks, 0)
    assert (await bench.manager.verify("other")).intact
    assert names(bench, other) == records(bench)


async def test_nothing_is_left_of_a_lineage_once_its_session_is_gone_too(bench: Bench) -> None:
    one, two = await two_windows(bench)
    digest = {*digests(bench, one), *digests(bench, two)}
    record = {*names(bench, one), *names(bench, two)}
    damage(bench, two, 0, two.chunks - 1)  # what was damaged lies in quarantine
    assert not (await bench.manager.verify()).intact
    session = await bench.manager.remove_session("one")
    for name in ("one", "two"):
        await bench.manager.remove_window(name)
    report = await bench.manager.purge()
    assert (set(report.windows), report.sessions, report.secrets) == ({"one", "two"}, ["one"], 1)
    left = everything(bench)
    for gone in (*digest, *record, one.id, two.id, session.id, session.lineage_id, "France"):
        assert gone.encode() not in left
    assert not bench.stack.memory
    assert (await bench.manager.disk_usage()).stored_bytes == 0


async def test_a_secret_stays_while_its_session_can_go_on_or_come_back(bench: Bench) -> None:
    window = await bench.frozen("paper")
    await bench.manager.remove_window("paper")
    assert (await bench.manager.purge(["paper"])).secrets == 0
    assert bench.library.lineages.ids() == [window.lineage_id]
    await bench.manager.say("paper", "And then?")
    await bench.manager.remove_session("paper")
    assert (await bench.manager.purge()).secrets == 1
    assert bench.library.lineages.ids() == []
    assert not records(bench)  # what the session went on to say is not left either


async def test_what_was_not_removed_is_not_purged(bench: Bench) -> None:
    await bench.frozen("paper")
    with pytest.raises(StateTransitionError, match="was not removed") as refused:
        await bench.manager.purge(["paper"])
    assert "cwm rm" in str(refused.value)
    with pytest.raises(WindowNotFoundError):
        await bench.manager.purge(["papr"])
    await bench.frozen("other")
    await bench.manager.remove_window("other")
    with pytest.raises(StateTransitionError):
        await bench.manager.purge(["other", "paper"])
    assert bench.library.index.windows(state="deleted").total == 1
    assert (await bench.manager.purge()).windows == ["other"]
    assert (await bench.manager.purge()).windows == []
    assert (await bench.manager.verify("paper")).intact


async def test_a_window_brought_back_meanwhile_is_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = await bench.frozen("paper")
    removed = await bench.manager.remove_window("paper")
    await bench.manager.restore_window("paper")
    page = bench.library.index.windows(state="deleted").replace(items=[removed])
    with monkeypatch.context() as patch:
        patch.setattr(bench.library.index, "windows", lambda **options: page)
        with pytest.raises(StateTransitionError, match="brought back"):
            await bench.manager.purge()
    assert bench.window("paper") == window
    assert (await bench.manager.verify("paper")).intact


async def test_purging_without_a_stack_and_with_one_that_hangs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.frozen("one")
    await bench.frozen("two", OTHER)
    await bench.manager.remove_window("one")
    await bench.manager.remove_window("two")
    with monkeypatch.context() as patch:
        patch.setattr(bench.manager.parts, "connect", down)
        assert (await bench.manager.purge(["one"])).memory_cleared is None
    bench.stack.before = lambda call: (
        httpx2.Response(500, json={"error": "no"}) if call == "DELETE /cache/objects" else None
    )
    report = await bench.manager.purge(["two"])
    assert (report.memory_cleared, report.windows, records(bench)) == (False, ["two"], set())


async def test_a_window_whose_manifest_or_secret_is_lost_is_purged_by_its_hold(
    bench: Bench,
) -> None:
    torn, lost = await bench.frozen("torn"), await bench.frozen("lost", OTHER)
    for path in (bench.home / "windows").glob(f"{torn.id}.*"):
        path.write_bytes(b"{")
    bench.library.lineages.path(lost.lineage_id).unlink()
    for name in ("torn", "lost"):
        await bench.manager.remove_window(name)
    report = await bench.manager.purge()
    assert report.chunks == torn.chunks + lost.chunks
    # Which chunks LMCache should drop cannot be told; the engine drops all that it has.
    assert (report.memory_cleared, report.engine_cleared) == (False, True)
    assert contents(bench) == set()
    assert bench.stack.engine_cache == {}


async def go_remote(bench: Bench) -> None:
    """Let only the servers reach the store from now on; the vault here is another one."""
    bench.readable = False
    vault = VaultStore(Vault(bench.home.parent / "here"))
    bench.manager.parts.store = bench.manager._store = vault
    await bench.reconnect()


async def remote_windows(bench: Bench) -> tuple[Window, Window]:
    """As `two_windows`, in a remote store; their session is purged."""
    await go_remote(bench)
    one, two = await two_windows(bench)
    await bench.manager.deletion.delete_session("one")
    assert (one.proof.level, two.proof.level) == ("present", "present")
    return one, two


async def test_chunks_in_a_remote_store_are_deleted_there(bench: Bench) -> None:
    one, two = await remote_windows(bench)
    shared, gone = names(bench, one), names(bench, two) - names(bench, one)
    assert gone < records(bench)
    report = await bench.manager.deletion.delete_window("two")
    assert (report.remote_cleared, report.memory_cleared) == (True, True)
    assert shared <= records(bench)
    assert not gone & records(bench)
    assert (await bench.manager.deletion.delete_window("one")).secrets == 1
    assert not shared & records(bench)
    assert (await bench.manager.deletion.verify()).gone


@pytest.mark.parametrize("other", ["none", "local", "another model"])
async def test_a_remote_window_is_not_purged_by_another_stack(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    one, _ = await remote_windows(bench)
    if other == "none":
        monkeypatch.setattr(bench.manager.parts, "connect", down)
    if other == "local":
        bench.readable = True
    if other == "another model":
        bench.stack.model = "another"
    await bench.reconnect()
    before = records(bench)
    with pytest.raises(KVStoreConnectionError, match="remote store") as refused:
        await bench.manager.deletion.delete_window("one")
    assert "cwm admin purge one" in str(refused.value)
    assert records(bench) == before
    assert [r.windows for r in Receipts(bench.home).all()] == [[]]  # the session's
    assert (await bench.manager.restore_window("one")) == one


async def test_a_remote_store_that_fails_is_told_and_the_secret_stays(bench: Bench) -> None:
    one, _ = await remote_windows(bench)
    await bench.manager.deletion.delete_window("two")
    bench.stack.before = lambda call: (
        httpx2.Response(500, json={"error": "no"}) if call == "DELETE /cache/objects" else None
    )
    report = await bench.manager.deletion.delete_window("one")
    assert (report.remote_cleared, report.memory_cleared, report.secrets) == (False, False, 0)
    age(bench.home)
    await bench.manager.collect_garbage()
    assert bench.library.lineages.ids() == [one.lineage_id]
    [check] = (await bench.manager.deletion.verify(one.id)).checks
    assert (check.gone, check.remote_cleared) == (False, False)


async def test_a_remote_window_of_a_damaged_manifest_is_not_said_to_be_gone(bench: Bench) -> None:
    one, two = await remote_windows(bench)
    chunks = names(bench, one)
    for path in (bench.home / "windows").glob(f"{two.id}.*"):
        path.write_bytes(b"{")
    report = await bench.manager.deletion.delete_window("one")  # what the other has is unknown
    assert (report.remote_cleared, chunks <= records(bench)) == (False, True)
    assert (await bench.manager.deletion.delete_window("two")).remote_cleared is False


async def test_what_a_session_has_stays_in_a_remote_store(bench: Bench) -> None:
    """It may be freezing: holds, which would show that, are not known there."""
    await go_remote(bench)
    chunks = names(bench, await bench.frozen("paper"))
    assert (await bench.manager.deletion.delete_window("paper")).remote_cleared
    assert chunks <= records(bench)


async def test_what_came_meanwhile_stays_in_a_remote_store(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await remote_windows(bench)
    await bench.manager.deletion.delete_window("two")
    real = Purge._free

    async def clone_meanwhile(self: Purge, going: Going, *, dry_run: bool = False) -> Freed:
        if dry_run:  # what goes has been chosen, and is not gone yet
            await bench.manager.restore_window("one")
            await bench.manager.branches.clone("one", "other")
            await bench.manager.remove_window("one")
        return await real(self, going, dry_run=dry_run)

    monkeypatch.setattr(Purge, "_free", clone_meanwhile)
    await bench.manager.deletion.delete_window("one")
    assert names(bench, bench.window("other")) <= records(bench)


# --- crashes and garbage --------------------------------------------------------------------------


def age(*folders: Path) -> None:
    """Make all files there two days old."""
    old = time.time() - 2 * 86400
    for folder in folders:
        for path in folder.rglob("*"):
            os.utime(path, (old, old))


@pytest.mark.parametrize("step", ["_leave_index", "_clear_memory", "_forget"])
async def test_what_a_purge_that_died_has_left_gc_finishes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Either nothing has happened, or the index speaks of nothing that is gone."""
    gone = await bench.frozen("gone")
    stays = await bench.frozen("stays", OTHER)
    await bench.manager.remove_window("gone")
    await bench.manager.remove_session("gone")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"cwm_jupyter.core.purge.Purge.{step}", die)
        with pytest.raises(KeyboardInterrupt):
            await bench.manager.purge()
    if step == "_leave_index":
        assert (await bench.manager.restore_window("gone")) == gone
        assert (await bench.manager.verify()).intact
        return
    assert bench.library.index.get_window(gone.id) is None
    looked = await bench.manager.collect_garbage(dry_run=True)
    report = await bench.manager.collect_garbage()
    assert report.leftovers == looked.leftovers == 3  # manifest, transcript, secret
    assert (looked.removed, report.removed) == (False, True)
    assert records(bench) == names(bench, stays)
    assert contents(bench) == digests(bench, stays)
    assert bench.library.lineages.ids() == [stays.lineage_id]
    assert gone.id.encode() not in everything(bench)
    assert (await bench.manager.verify()).intact
    assert (await bench.manager.deletion.verify()).gone


async def test_a_file_without_an_entry_may_be_of_a_freeze_under_way(bench: Bench) -> None:
    await bench.frozen("paper")
    (bench.home / "windows" / "freezing.0123456789abcdef.json").write_bytes(b"{}")
    assert (await bench.manager.collect_garbage()).leftovers == 0
    age(bench.home)
    assert (await bench.manager.collect_garbage()).leftovers == 1


async def purge_and_fail(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Purge what was removed, while the vault deletes nothing."""
    purge = VaultStore.purge

    async def fail(*arguments: Any, dry_run: bool = False, **options: Any) -> Freed:
        if not dry_run:
            raise ResourceExhaustedError("The disk of the vault refused.")
        return await purge(*arguments, dry_run=True, **options)

    with monkeypatch.context() as patch:
        patch.setattr(VaultStore, "purge", fail)
        with pytest.raises(ResourceExhaustedError):
            await bench.manager.purge()


@pytest.mark.parametrize("old", [False, True])
async def test_a_purge_whose_store_failed_is_finished_though_siblings_keep_the_lineage(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    one, two = await two_windows(bench)
    session = await bench.talk("one", "And what became of it afterwards, in the end?")
    await bench.manager.remove_window("two")
    await bench.manager.remove_session("one")
    await purge_and_fail(bench, monkeypatch)
    assert bench.library.index.get_window(two.id) is None
    assert names(bench, two) < records(bench)
    if old:
        age(bench.home, bench.stack.vault.folder.path)
    report = await bench.manager.collect_garbage()
    assert report.chunks
    assert records(bench) == names(bench, one)
    assert contents(bench) == digests(bench, one)
    assert set(bench.stack.vault.holds()) == {one.id}
    for gone in (two.id, session.id):
        assert not list(bench.home.glob(f"*/{gone}*"))
    [check] = (await bench.manager.deletion.verify()).checks
    assert check.gone
    assert check.purged_at is not None
    assert (check.memory_cleared, check.engine_cleared) == (False, False)
    assert (await bench.manager.verify()).intact


async def test_the_hold_of_a_purge_that_died_tells_what_no_secret_does(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = await bench.frozen("paper")
    await bench.manager.remove_window("paper")
    bench.library.lineages.path(window.lineage_id).unlink()
    await purge_and_fail(bench, monkeypatch)
    age(bench.home, bench.stack.vault.folder.path)
    assert (await bench.manager.collect_garbage()).chunks == window.chunks
    assert (records(bench), contents(bench)) == (set(), set())


async def test_garbage_waits_for_a_receipt_that_cannot_be_read(bench: Bench) -> None:
    await bench.frozen("paper")
    await bench.manager.deletion.delete_window("paper")
    [path] = (bench.home / "purged").iterdir()
    path.write_bytes(b"{")
    with pytest.raises(IndexCorruptError):
        await bench.manager.collect_garbage()


async def test_a_copy_of_the_index_that_cannot_be_cleared_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = names(bench, await bench.frozen("paper"))

    def busy(*_: object) -> None:
        raise IndexBusyError("Another process has held the index.")

    with monkeypatch.context() as patch:
        patch.setattr("cwm_jupyter.core.index.Index.forget_previous", busy)
        report = await bench.manager.deletion.delete_window("paper")
    assert (report.removed, report.copies_cleared, report.memory_cleared) == (True, False, True)
    assert not chunks & records(bench)
    [check] = (await bench.manager.deletion.verify()).checks
    assert (check.purged_at, check.files) == (None, ["index.prev.json"])
    await bench.manager.collect_garbage()
    [check] = (await bench.manager.deletion.verify()).checks
    assert (check.gone, check.memory_cleared) == (True, True)


async def test_chunks_of_a_purge_that_died_in_between_are_found_by_their_salt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.frozen("gone")
    await bench.manager.remove_window("gone")
    await bench.manager.remove_session("gone")

    purge = VaultStore.purge

    async def die(*arguments: Any, dry_run: bool = False, **options: Any) -> Freed:
        if not dry_run:
            raise KeyboardInterrupt
        return await purge(*arguments, dry_run=True, **options)

    with monkeypatch.context() as patch:
        patch.setattr(VaultStore, "purge", die)
        with pytest.raises(KeyboardInterrupt):
            await bench.manager.purge()
    assert contents(bench)
    age(bench.home, bench.stack.vault.folder.path)
    report = await bench.manager.collect_garbage()
    assert report.leftovers == 3
    assert report.chunks
    assert (records(bench), contents(bench)) == (set(), set())


async def test_garbage_takes_nothing_that_somebody_has(bench: Bench) -> None:
    await two_windows(bench)
    await bench.talk("live", OTHER)
    await bench.manager.remove_window("two")
    age(bench.home, bench.stack.vault.folder.path)
    before = contents(bench), records(bench)
    report = await bench.manager.collect_garbage()
    assert (report.contents, report.records, report.holds, report.chunks) == (0, 0, 0, 0)
    assert (report.leftovers, report.freed_bytes) == (0, 0)
    assert (contents(bench), records(bench)) == before
    await bench.manager.restore_window("two")
    assert (await bench.manager.verify()).intact


# --- what lies where ------------------------------------------------------------------------------


async def test_disk_usage(bench: Bench) -> None:
    one, two = await two_windows(bench)
    await bench.talk("live", OTHER)
    await bench.manager.remove_window("one")
    usage = await bench.manager.disk_usage()
    sizes = {path.stem: path.stat().st_size for path in bench.stack.vault.folder.contents.iterdir()}
    by_name = {row.window: row for row in usage.windows}
    assert set(by_name) == {"one", "two"}
    assert by_name["one"].held_bytes == sum(sizes[d] for d in digests(bench, one))
    assert (by_name["one"].exclusive_bytes, by_name["one"].state) == (0, "deleted")
    assert by_name["two"].held_bytes == sum(sizes[d] for d in digests(bench, two))
    only = digests(bench, two) - digests(bench, one)
    assert by_name["two"].exclusive_bytes == sum(sizes[d] for d in only)
    assert by_name["two"].size_bytes == two.size_bytes
    assert usage.stored_bytes == sum(sizes.values())
    assert usage.raw_bytes == 128 * len(sizes)
    held = digests(bench, one) | digests(bench, two)
    assert usage.unfrozen_bytes == sum(size for d, size in sizes.items() if d not in held) > 0
    assert (usage.other_bytes, usage.quarantined, usage.quota_bytes) == (0, 0, None)
    assert usage.free_bytes > 0
    damage(bench, two, 0)
    await bench.manager.verify("two")
    await VaultStore(bench.stack.vault).hold("a-freeze", keys_of(bench, one))
    usage = await bench.manager.disk_usage()
    assert (usage.quarantined, usage.quarantined_bytes) == (1, 256)
    assert usage.other_bytes == 256 * (one.chunks - 1)


async def test_windows_that_are_elsewhere_have_no_figures(bench: Bench) -> None:
    window = await bench.frozen("far")
    proof = Proof(level="present", chunks=1, size_bytes=None, checked_at="2026")
    await VaultStore(bench.stack.vault).release(window.id)
    bench.library.index.update_window(window.id, lambda w: w.replace(proof=proof))
    [row] = (await bench.manager.disk_usage()).windows
    assert (row.held_bytes, row.exclusive_bytes) == (None, None)


async def test_lmcache_s_own_store_cannot_be_looked_after(bench: Bench) -> None:
    bench.manager.parts.store = bench.manager._store = FsStore(bench.stack.vault.folder.path)
    for work in (bench.manager.disk_usage, bench.manager.collect_garbage, bench.manager.purge):
        with pytest.raises(KVStoreError, match="not in a vault of ours"):
            await work()

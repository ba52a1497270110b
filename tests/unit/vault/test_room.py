"""Room: quota, eviction by age of use, what is kept, garbage."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from vaults import SIZE, content_path, get, keys, names, noise, put, record_path

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.vault import room
from cwm_jupyter.vault.content import HEADER_BYTES
from cwm_jupyter.vault.files import Item, Vault

pytestmark = pytest.mark.every_system

ONE = SIZE + HEADER_BYTES


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """A vault with room for four chunks."""
    vault = Vault(tmp_path / "vault", quota_bytes=4 * ONE)
    yield vault
    vault.close()


def fill(vault: Vault, chunk_keys: list[ChunkKey]) -> None:
    """Store chunks, each used a minute after the one before it."""
    for i, key in enumerate(chunk_keys):
        assert put(vault, {key: noise(i)}) == ["stored"]
        used = time.time() - 3600 + 60 * i
        os.utime(content_path(vault, key), (used, used))


def there(vault: Vault, chunk_keys: list[ChunkKey]) -> list[int]:
    return [i for i, key in enumerate(chunk_keys) if vault.check(key).state == "intact"]


@pytest.mark.covers("KV-006", "KV-011")
def test_the_quota_evicts_what_was_used_longest_ago(vault: Vault) -> None:
    chunk_keys = keys(6)
    fill(vault, chunk_keys[:4])
    assert get(vault, chunk_keys[0]) == noise(0)  # so it is the newest
    assert put(vault, {chunk_keys[4]: noise(4)}) == ["stored"]
    assert there(vault, chunk_keys) == [0, 3, 4]  # a little more than is needed
    assert vault.counters.evicted == 2
    assert vault.room.usage().stored_bytes <= 4 * ONE
    assert len(names(vault.folder.records)) == 3


@pytest.mark.covers("KV-006", "KV-011")
def test_what_is_held_is_never_evicted(vault: Vault) -> None:
    chunk_keys = keys(8)
    fill(vault, chunk_keys[:4])
    vault.hold("window", chunk_keys[:3])
    assert put(vault, {chunk_keys[4]: noise(4)}) == ["stored"]
    assert there(vault, chunk_keys) == [0, 1, 2, 4]
    vault.hold("another", [chunk_keys[4]])
    (outcome,) = vault.store([room_item(chunk_keys[5], 5)])
    assert outcome.state == "failed"
    assert outcome.reason is not None
    assert "quota" in outcome.reason
    assert there(vault, chunk_keys) == [0, 1, 2, 4]
    assert not list(vault.folder.path.rglob("*.tmp"))
    vault.release("window")
    assert put(vault, {chunk_keys[5]: noise(5)}) == ["stored"]
    assert there(vault, chunk_keys)[-2:] == [4, 5]


def room_item(key: ChunkKey, number: int) -> Item:
    return Item(key=key, raw=memoryview(noise(number)))


@pytest.mark.covers("KV-006")
def test_of_a_call_that_is_too_large_something_is_stored(vault: Vault) -> None:
    """LMCache stores as many chunks a call as a prompt has."""
    chunk_keys = keys(7)
    fill(vault, chunk_keys[:2])
    vault.hold("window", chunk_keys[:2])
    states = put(vault, {key: noise(i) for i, key in enumerate(chunk_keys)})
    assert states[:2] == ["skipped", "skipped"]
    assert states.count("stored") >= 2
    assert {0, 1} <= set(there(vault, chunk_keys))
    assert vault.room.usage().stored_bytes <= 4 * ONE


def test_what_is_being_read_is_not_evicted(vault: Vault) -> None:
    chunk_keys = keys(6)
    fill(vault, chunk_keys[:4])
    pinned = [content_path(vault, key).stem for key in chunk_keys[:2]]
    vault.room.pin(pinned)
    vault.room.pin(pinned)
    vault.room.unpin(pinned)
    assert put(vault, {chunk_keys[4]: noise(4)}) == ["stored"]
    assert there(vault, chunk_keys) == [0, 1, 4]
    vault.room.unpin([*pinned, "never pinned"])
    assert put(vault, {chunk_keys[5]: noise(5), chunk_keys[3]: noise(3)}) == ["stored", "stored"]
    assert 0 not in there(vault, chunk_keys)


def test_a_quota_that_is_lowered_holds_from_the_next_store_on(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault")
    chunk_keys = keys(10)
    fill(vault, chunk_keys[:8])
    vault.room.quota_bytes = 3 * ONE
    put(vault, {chunk_keys[8]: noise(8)})
    assert vault.room.usage().stored_bytes <= 3 * ONE
    assert get(vault, chunk_keys[8]) == noise(8)
    vault.close()


@pytest.mark.covers("KV-027")
def test_usage_is_counted_on_the_disk(vault: Vault) -> None:
    first, second, third = keys(3)
    put(vault, {first: noise(1), second: noise(1), third: noise(3)})
    vault.hold("window", [first])
    content_path(vault, third).write_bytes(b"damaged")
    get(vault, third)
    usage = Vault(vault.folder.path).room.usage()
    assert usage.to_dict() == {
        "contents": 1,
        "records": 3,
        "holds": 1,
        "stored_bytes": ONE,
        "raw_bytes": 3 * SIZE,
        "held_bytes": ONE,
        "quarantined": 1,
        "quarantined_bytes": 7,
        "quota_bytes": None,
    }
    assert vault.room.stored_bytes() == ONE


def test_garbage_is_what_nobody_can_use(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, free, dangling = keys(3)
    put(vault, {kept: noise(1), free: noise(2), dangling: noise(3)})
    vault.hold("window", [kept])
    vault.hold("freezing", [free])
    vault.hold("gone", [free])
    old = time.time() - 2 * 24 * 3600
    os.utime(vault.folder.hold("gone"), (old, old))
    content_path(vault, dangling).unlink()
    (vault.folder.contents / f"{'ab' * 32}.kv").write_bytes(b"12345")
    (vault.folder.quarantine / "1-x.kv").write_bytes(b"123")
    (vault.folder.quarantine / "folder").mkdir()
    for where, age_s in ((vault.folder.contents, 7200), (vault.folder.records, 60)):
        (where / "1-2.tmp").write_bytes(b"12")
        os.utime(where / "1-2.tmp", (time.time() - age_s,) * 2)
    before = set(vault.folder.path.rglob("*"))
    found = vault.room.collect({"window"}, dry_run=True)
    assert set(vault.folder.path.rglob("*")) == before
    wanted = {"contents": 1, "records": 1, "holds": 1, "temporary_files": 1, "quarantined": 1}
    assert found.to_dict() == {**wanted, "freed_bytes": 10, "removed": False}
    assert vault.room.collect({"window"}) == found.replace(removed=True)
    assert not vault.room.collect({"window"}).freed_bytes
    assert sorted(vault.holds()) == ["freezing", "window"]
    assert (get(vault, kept), get(vault, free)) == (noise(1), noise(2))
    assert (vault.folder.records / "1-2.tmp").exists()  # somebody may be writing it


def test_a_record_that_somebody_holds_stays_without_its_content(vault: Vault) -> None:
    (key,) = keys(1)
    put(vault, {key: noise(1)})
    vault.hold("window", [key])
    content_path(vault, key).unlink()
    assert vault.room.collect(None).records == 0
    assert record_path(vault, key).exists()


def test_the_newest_damaged_files_are_kept_to_be_looked_at(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_QUARANTINED", 3)
    (key,) = keys(1)
    for i in range(5):
        put(vault, {key: noise(1)})
        content_path(vault, key).write_bytes(b"damaged %d" % i)
        assert get(vault, key) is None
    kept = {path.read_bytes() for path in vault.folder.quarantine.iterdir()}
    assert kept == {b"damaged 2", b"damaged 3", b"damaged 4"}


def test_holds_of_other_processes_are_seen_at_once(vault: Vault) -> None:
    """Also those written within one tick of the clock, over a file with the same inode."""
    chunk_keys = keys(3)
    put(vault, {key: noise(i) for i, key in enumerate(chunk_keys)})
    other = Vault(vault.folder.path)
    for i in range(30):
        held = chunk_keys[i % 3]
        other.hold("window", [held])
        assert vault.holds()["window"].records == [vault.name(held)]
    other.release("window")
    assert not vault.holds()
    other.close()


def test_old_holds_are_parsed_once(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    vault.hold("window", keys(1))
    old = time.time() - 60
    os.utime(vault.folder.hold("window"), (old, old))
    assert list(vault.holds()) == ["window"]
    monkeypatch.setattr(room, "open_checked", None)
    assert list(vault.holds()) == ["window"]


def backdated(path: Path, data: bytes, time_s: float) -> None:
    """Put a file in another's place, as old as it likes."""
    new = path.with_suffix(".new")
    new.write_bytes(data)
    os.utime(new, (time_s, time_s))
    new.replace(path)


@pytest.mark.parametrize("differs", ["time", "size", "neither, but it is new"])
def test_a_hold_that_was_replaced_is_read_anew(vault: Vault, differs: str) -> None:
    """By whatever its file shows, and where that shows nothing by how new it is."""
    first, second = keys(2)
    path = vault.folder.hold("window")
    vault.hold("window", [second])
    other = path.read_bytes()
    vault.hold("window", [first, first] if differs == "size" else [first])
    if differs == "size":
        vault.hold("window", keys(2))
    # In the future, and so new for as long as the test may take.
    when = time.time() + (30 if differs == "neither, but it is new" else -60)
    mine = path.read_bytes()
    backdated(path, mine, when)
    assert vault.name(first) in vault.holds()["window"].records
    if differs == "neither, but it is new":  # in place, so the inode is the same too
        assert len(other) == len(mine)
        path.write_bytes(other)
        os.utime(path, (when, when))
    else:
        backdated(path, other, when - (1 if differs == "time" else 0))
    assert vault.holds()["window"].records == [vault.name(second)]


def test_bytes_by_salt_are_those_of_the_disk(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever deletes, and after a restart; what stays as it is is not read again."""
    mine, others = keys(3, "mine"), keys(2, "others")
    chunks = {key: noise(i) for i, key in enumerate([*mine, *others[:1]])}
    assert vault.room.raw_bytes_by_salt() == {}
    put(vault, chunks)
    assert vault.room.raw_bytes_by_salt() == {"mine": 3 * SIZE, "others": SIZE}
    other = Vault(vault.folder.path)
    assert other.room.raw_bytes_by_salt() == {"mine": 3 * SIZE, "others": SIZE}
    assert other.delete(mine[:1]) == [True]
    assert vault.room.raw_bytes_by_salt() == {"mine": 2 * SIZE, "others": SIZE}
    put(other, {others[1]: noise(9)})
    old = time.time() - 60
    for path in vault.folder.records.iterdir():
        os.utime(path, (old, old))
    wanted = {"mine": 2 * SIZE, "others": 2 * SIZE}
    assert vault.room.raw_bytes_by_salt() == wanted
    read: list[str] = []
    record_named = vault.record_named

    def note(name: str) -> object:
        read.append(name)
        return record_named(name)

    monkeypatch.setattr(vault, "record_named", note)
    assert vault.room.raw_bytes_by_salt() == wanted
    assert not read
    record_path(vault, mine[1]).write_bytes(b"damaged")
    assert vault.room.raw_bytes_by_salt() == {"mine": SIZE, "others": 2 * SIZE}
    assert read == [vault.name(mine[1])]
    other.close()


def test_files_that_are_not_the_vault_s_are_left_alone(vault: Vault) -> None:
    (key,) = keys(1)
    put(vault, {key: noise(1)})
    foreign = vault.folder.contents / "notes.kv"
    foreign.write_bytes(b"mine")
    assert vault.room.usage().contents == 1
    assert vault.room.stored_bytes() == ONE
    assert not vault.room.collect(set()).contents
    vault.room.quota_bytes = ONE
    put(vault, {keys(2)[1]: noise(2)})
    assert foreign.read_bytes() == b"mine"
    assert vault.counters.evicted == 1


def test_looking_at_holds_from_many_threads(vault: Vault) -> None:
    errors: list[Exception] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            try:
                vault.holds()
                vault.room.usage()
            except Exception as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(40):
        vault.hold(f"window{i % 4}", keys(2))
        vault.release(f"window{(i + 1) % 4}")
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors


def test_holds_of_other_homes_are_nobody_s_garbage(vault: Vault) -> None:
    """Two machines may have a home of the same path; older releases noted that."""
    path, old = vault.folder.path, time.time() - 2 * 24 * 3600
    homes = {"mine": "ab" * 16, "theirs": "cd" * 16, "older": "/home/me", "oldest": ""}
    for owner, home in homes.items():
        Vault(path, home=home).hold(owner, keys(1))
        os.utime(vault.folder.hold(owner), (old, old))
    assert Vault(path, home="ab" * 16).room.collect(set()).holds == 1
    assert sorted(vault.holds()) == ["older", "oldest", "theirs"]


def test_a_hold_keeps_contents_that_its_keys_do_not_mean(vault: Vault) -> None:
    one, other = keys(2)
    put(vault, {one: noise(1), other: noise(2)})
    kept = content_path(vault, other)
    vault.hold("window", [one], [kept.stem])
    record_path(vault, other).unlink()
    assert vault.room.collect(None).contents == 0
    assert set(vault.holds()["window"].contents) == {content_path(vault, one).stem, kept.stem}
    vault.hold("window", [one])
    assert vault.room.collect(None).contents == 1
    assert not kept.exists()

"""The vault's files: storing, reading, keeping, listing."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from vaults import SIZE, content_path, get, keys, kv, names, noise, put, record_path, stored

from cwm_jupyter.core.cipher import Keyring
from cwm_jupyter.core.files import seal_document
from cwm_jupyter.errors import CWMError, KVStoreError, KVStoreTimeoutError, ValidationError
from cwm_jupyter.vault import disk, folder
from cwm_jupyter.vault.files import Vault
from cwm_jupyter.vault.records import RECORD, SCHEMA

pytestmark = pytest.mark.every_system


@pytest.fixture(params=["plain", "encrypted"])
def keyring(request: pytest.FixtureRequest, tmp_path: Path) -> Keyring | None:
    return Keyring.load_or_create(tmp_path / "home", {}) if request.param == "encrypted" else None


@pytest.fixture
def vault(tmp_path: Path, keyring: Keyring | None) -> Iterator[Vault]:
    vault = Vault(tmp_path / "vault", keyring=keyring)
    yield vault
    vault.close()


@pytest.mark.covers("KV-002", "KV-014", "KV-027")
def test_chunks_outlive_the_process_that_stored_them(
    tmp_path: Path, keyring: Keyring | None
) -> None:
    chunks = {key: noise(i, 100 + i) for i, key in enumerate(keys(5))}
    vault = Vault(tmp_path / "vault", keyring=keyring)
    assert put(vault, chunks) == ["stored"] * 5
    vault.hold("window", list(chunks)[:2])
    before = [vault.record(key) for key in chunks]
    usage = vault.room.usage()
    vault.close()
    vault = Vault(tmp_path / "vault", keyring=keyring)
    assert {key: get(vault, key) for key in chunks} == chunks
    assert [vault.record(key) for key in chunks] == before
    assert vault.room.usage() == usage
    assert list(vault.holds()) == ["window"]
    vault.close()


@pytest.mark.covers("KV-013")
def test_packed_chunks_are_smaller_and_read_by_who_packs_nothing(tmp_path: Path) -> None:
    (key,) = keys(1)
    packing = Vault(tmp_path / "vault", codec="planes")
    (outcome,) = stored(packing, {key: kv(1)})
    assert outcome.stored_bytes < 0.9 * outcome.raw_bytes
    assert content_path(packing, key).stat().st_size == outcome.stored_bytes
    packing.close()
    vault = Vault(tmp_path / "vault")
    assert get(vault, key) == kv(1)
    vault.close()


@pytest.mark.covers("KV-015")
def test_equal_content_is_stored_once(vault: Vault) -> None:
    """In one call and in several, whatever key it comes under."""
    first, second, third = (keys(1, salt)[0] for salt in ("one", "two", "three"))
    outcomes = stored(vault, {first: noise(1), second: noise(1)})
    assert [one.state for one in outcomes] == ["stored", "stored"]
    assert sorted(one.stored_bytes > 0 for one in outcomes) == [False, True]
    (outcome,) = stored(vault, {third: noise(1)})
    assert (outcome.state, outcome.stored_bytes) == ("stored", 0)
    assert len(names(vault.folder.contents)) == 1
    assert {get(vault, key) for key in (first, second, third)} == {noise(1)}
    assert vault.delete([first, second]) == [True, True]
    assert get(vault, third) == noise(1)
    assert vault.delete([third]) == [True]
    assert not names(vault.folder.contents)


@pytest.mark.covers("KV-017", "KV-036")
def test_counts_are_exact(vault: Vault) -> None:
    first, second, absent = keys(3)
    assert vault.counters.hit_rate is None
    put(vault, {first: noise(1), second: noise(2)})
    put(vault, {first: noise(1)})
    for key in (first, first, second, absent):
        get(vault, key)
    counters = vault.counters
    assert (counters.hits, counters.misses, counters.hit_rate) == (3, 1, 0.75)
    assert (counters.stored, counters.skipped, counters.failed) == (2, 1, 0)
    assert (counters.raw_bytes, counters.loaded_bytes) == (2 * SIZE, 3 * SIZE)
    assert counters.stored_bytes == sum(
        path.stat().st_size for path in vault.folder.contents.iterdir()
    )
    vault.lookup([first, absent])
    vault.check(first)
    assert vault.counters == counters
    content_path(vault, first).write_bytes(b"damaged")
    assert get(vault, first) is None
    assert put(vault, {first: noise(1)}) == ["stored"]
    assert get(vault, first) == noise(1)
    counters = vault.counters
    assert (counters.hits, counters.misses, counters.corrupt, counters.healed) == (4, 2, 1, 1)


def test_a_damaged_content_is_healed_for_all_that_mean_it(vault: Vault) -> None:
    first, second = (keys(1, salt)[0] for salt in ("one", "two"))
    put(vault, {first: noise(1), second: noise(1)})
    content_path(vault, first).write_bytes(b"damaged")
    assert get(vault, first) is None
    assert put(vault, {second: noise(1)}) == ["stored"]
    assert get(vault, first) == noise(1)
    (aside,) = vault.folder.quarantine.iterdir()
    assert aside.read_bytes() == b"damaged"


@pytest.mark.covers("KV-019")
def test_a_lookup_reads_nothing(vault: Vault) -> None:
    first, absent, gone = keys(3)
    put(vault, {first: noise(1), gone: noise(2)})
    content_path(vault, gone).unlink()
    content_path(vault, first).write_bytes(b"damaged")
    found = vault.lookup([first, absent, gone])
    assert found == [content_path(vault, first).stem, None, None]


@pytest.mark.covers("KV-018")
def test_deleting_says_what_was_there_and_takes_nothing_that_is_held(vault: Vault) -> None:
    held, free, absent = keys(3)
    put(vault, {held: noise(1), free: noise(2)})
    vault.hold("window", [held, absent])
    assert vault.delete([held, free, absent, free]) == [False, True, False, False]
    assert (get(vault, held), get(vault, free)) == (noise(1), None)
    assert vault.release("window")
    assert not vault.release("window")
    assert vault.delete([held]) == [True]
    assert not names(vault.folder.contents) | names(vault.folder.records)


def test_a_held_content_outlives_the_records_of_others(vault: Vault) -> None:
    mine, other = (keys(1, salt)[0] for salt in ("one", "two"))
    put(vault, {mine: noise(1), other: noise(1)})
    vault.hold("window", [mine])
    assert vault.delete([other]) == [True]
    record_path(vault, mine).unlink()
    put(vault, {other: noise(1)})
    assert vault.delete([other]) == [True]
    assert vault.examine(vault.holds()["window"].contents[0]).state == "intact"


def test_chunks_may_be_held_before_they_are_stored(vault: Vault) -> None:
    (key,) = keys(1)
    vault.hold("window", [key])
    put(vault, {key: noise(1)})
    vault.room.collect({"window"})
    assert vault.delete([key]) == [False]
    assert get(vault, key) == noise(1)


@pytest.mark.parametrize("owner", ["", "..", "a/b", "a\\b", "x" * 101, ".hidden", "a\0b"])
def test_an_owner_s_name_is_no_path(vault: Vault, owner: str) -> None:
    with pytest.raises(ValidationError):
        vault.hold(owner, [])
    with pytest.raises(ValidationError):
        vault.release(owner)


@pytest.mark.covers("KV-026")
@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_all_of_it_is_the_owner_s_alone(vault: Vault) -> None:
    (key,) = keys(1)
    put(vault, {key: noise(1)})
    vault.hold("window", [key])
    content_path(vault, key).write_bytes(b"damaged")
    get(vault, key)
    put(vault, {key: noise(1)})
    paths = [vault.folder.path, *vault.folder.path.rglob("*")]
    modes = {path: path.stat().st_mode & 0o777 for path in paths}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {path.name for path, mode in modes.items() if path.is_file() and mode != 0o600} == set()


def test_no_name_and_no_log_line_tells_a_salt(
    vault: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (key,) = keys(1, salt="5ecret5alt")
    put(vault, {key: noise(1)})
    vault.hold("window", [key])
    record_path(vault, key).write_bytes(b"damaged")
    get(vault, key)
    put(vault, {key: noise(1)})
    content_path(vault, key).write_bytes(b"damaged")
    get(vault, key)
    text = "\n".join([str(path) for path in vault.folder.path.rglob("*")]) + caplog.text
    assert "damaged" in text
    assert "5ecret5alt" not in text + repr(vault.record(key))
    if vault.keyring is not None:
        everything = [path.read_bytes() for path in vault.folder.path.rglob("*") if path.is_file()]
        assert all(b"5ecret5alt" not in data for data in everything)


@pytest.mark.covers("KV-021", "KV-022", "KV-023")
def test_listing_by_pages_by_window_and_by_salt(vault: Vault) -> None:
    mine, others = keys(5, "mine"), keys(4, "others")
    put(vault, {key: noise(i) for i, key in enumerate([*mine, *others])})
    vault.hold("window", mine[:2])
    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        records, cursor = vault.page(limit=4, cursor=cursor)
        assert len(records) <= 4
        seen += [record.key for record in records]
        pages += 1
    assert pages == 3
    assert len(seen) == 9
    assert set(seen) == {*mine, *others}
    by_owner, _ = vault.page(limit=10, owner="window")
    assert {record.key for record in by_owner} == set(mine[:2])
    assert vault.page(limit=10, owner="nobody") == ([], None)
    by_salt, _ = vault.page(limit=10, salt="others")
    assert {record.key for record in by_salt} == set(others)
    assert vault.page(limit=10, model_name="another") == ([], None)


@pytest.mark.covers("KV-020", "KV-033")
def test_all_there_is_to_say_about_a_chunk(vault: Vault) -> None:
    (key,) = keys(1)
    put(vault, {key: noise(1)})
    vault.hold("b", [key])
    vault.hold("a", [key])
    record = vault.record(key)
    assert record is not None
    info = vault.describe(vault.name(key), record)
    assert info.owners == ["a", "b"]
    assert info.size_bytes == SIZE
    assert info.stored_bytes == content_path(vault, key).stat().st_size
    assert info.chunk_hash == key.chunk_hash.hex()
    assert info.digest == record.content
    assert info.used_at is not None
    assert info.used_at.endswith("Z")
    assert type(info).from_dict(info.to_dict()) == info
    content_path(vault, key).unlink()
    info = vault.describe(vault.name(key), record)
    assert (info.stored_bytes, info.used_at) == (None, None)


@pytest.mark.parametrize("keyring", ["plain"], indirect=True)  # the fault looks at the bytes
def test_one_chunk_that_cannot_be_stored_fails_alone(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = keys(3)
    real = disk.write_temporary

    def write(where: Path, parts: list[bytes]) -> Path:
        if noise(2) in [bytes(part) for part in parts]:
            raise RuntimeError("a bug")
        return real(where, parts)

    monkeypatch.setattr(disk, "write_temporary", write)
    twin = keys(1, salt="twin")[0]
    outcomes = stored(vault, {first: noise(1), second: noise(2), third: noise(3), twin: noise(2)})
    assert [one.state for one in outcomes] == ["stored", "failed", "stored", "failed"]
    assert outcomes[1].reason == "RuntimeError: a bug"
    assert vault.counters.failed == 2
    assert not list(vault.folder.path.rglob("*.tmp"))


@pytest.mark.every_system("here")  # Windows syncs no folders
def test_nothing_is_called_stored_before_it_is_synced(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes before names, contents before the records that mean them, names before 'stored'."""
    events: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def what(handle: int) -> str:
        for where in (vault.folder.contents, vault.folder.records):
            if os.fstat(handle).st_ino == where.stat().st_ino:
                return where.name
        return "file"

    def fsync(handle: int) -> None:
        real_fsync(handle)
        events.append(f"sync {what(handle)}")

    def replace(source: Path, target: Path) -> None:
        events.append(f"name in {Path(target).parent.name}")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    put(vault, {key: noise(i) for i, key in enumerate(keys(2))})
    assert events == [
        *["sync file"] * 4,
        *["name in contents"] * 2,
        "sync contents",
        *["name in records"] * 2,
        "sync records",
    ]
    events.clear()
    put(vault, {keys(1)[0]: noise(0)})  # somebody else may have named it, and not synced yet
    assert events == ["sync contents", "sync records"]


def test_a_chunk_that_another_stored_meanwhile_is_not_touched(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And if this store then fails, what the other one was promised stays."""
    (key,) = keys(1)
    other = Vault(vault.folder.path, keyring=vault.keyring)
    real = disk.write_temporary

    def write(where: Path, parts: list[bytes]) -> Path:
        if where == vault.folder.records:
            monkeypatch.setattr(disk, "write_temporary", real)
            assert put(other, {key: noise(1)}) == ["stored"]
        return real(where, parts)

    monkeypatch.setattr(disk, "write_temporary", write)
    assert put(vault, {key: noise(2)}) == ["skipped"]
    assert get(vault, key) == noise(1)
    other.close()


def test_the_secret_is_guarded(tmp_path: Path) -> None:
    """With another one no chunk would be found, and nothing would say why."""
    path = tmp_path / "vault"
    vault = Vault(path)
    put(vault, {keys(1)[0]: noise(1)})
    vault.close()
    good = (path / "secret").read_bytes()
    for bad in (good[:-1], bytes([good[0] ^ 1]) + good[1:], b""):
        (path / "secret").write_bytes(bad)
        with pytest.raises(KVStoreError, match="secret") as caught:
            Vault(path)
        assert "backup" in (caught.value.hint or "")
    (path / "secret").unlink()
    with pytest.raises(KVStoreError, match="is gone"):
        Vault(path)
    (path / "secret").write_bytes(good)
    vault = Vault(path)
    assert get(vault, keys(1)[0]) == noise(1)
    vault.close()


def test_a_record_of_a_newer_release_is_left_alone(vault: Vault) -> None:
    (key,) = keys(1)
    put(vault, {key: noise(1)})
    path = record_path(vault, key)
    good = path.read_bytes()
    path.write_bytes(seal_document(RECORD, SCHEMA + 1, {}))
    assert get(vault, key) is None
    with pytest.raises(CWMError):
        vault.room.collect(None)
    path.write_bytes(good)
    assert get(vault, key) == noise(1)


@pytest.mark.parametrize("content", ["../../etc/passwd", "", "AB" * 32, "ab" * 32 + "\n"])
def test_a_record_names_no_path(vault: Vault, content: str) -> None:
    (key,) = keys(1)
    put(vault, {key: noise(1)})
    path = record_path(vault, key)
    record = vault.record(key)
    assert record is not None
    path.write_bytes(seal_document(RECORD, SCHEMA, record.replace(content=content)))
    assert vault.lookup([key]) == [None]
    assert not path.exists()


def test_pointing_a_key_at_what_is_there(vault: Vault) -> None:
    first, second = keys(2)
    put(vault, {first: noise(1)})
    content = content_path(vault, first).stem
    vault.point(second, content, SIZE)
    assert get(vault, second) == noise(1)
    with pytest.raises(KVStoreError, match="no content"):
        vault.point(second, "ab" * 32, SIZE)
    assert get(vault, second) == noise(1)


def test_who_hangs_with_the_lock_is_named(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    (key,) = keys(1)
    put(vault, {key: noise(1)})
    other = Vault(vault.folder.path, keyring=vault.keyring)
    monkeypatch.setattr("cwm_jupyter.vault.files._ASIDE_S", 0.05)
    content_path(vault, key).write_bytes(b"damaged")
    with other.folder.locked():
        with pytest.raises(KVStoreTimeoutError, match="has held the lock"), vault.folder.locked(0):
            pass
        assert get(vault, key) is None  # and is not put aside
    assert get(vault, key) is None
    assert put(vault, {key: noise(1)}) == ["stored"]

    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with vault.folder.locked():
            taken.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(10)
    with pytest.raises(KVStoreTimeoutError), vault.folder.locked(0.01):
        pass
    done.set()
    thread.join()
    other.close()


def test_a_closed_vault_says_so(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault")
    vault.close()
    with pytest.raises(KVStoreError, match="closed"):
        put(vault, {keys(1)[0]: noise(1)})


def test_what_is_missing_in_memory_is_a_miss(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    (key,) = keys(1)
    put(vault, {key: noise(1)})

    def none(*args: object, **kwargs: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("cwm_jupyter.vault.files.read_into", none)
        assert vault.check(key).state == "unreadable"
        assert get(vault, key) is None
    assert get(vault, key) == noise(1)
    found = vault.load(key, memoryview(bytearray(3)))
    assert (found.state, found.reason) == ("missing", f"{SIZE} bytes where 3 are wanted")
    assert get(vault, key) == noise(1)


def test_health_is_tried(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vault.writable()
    assert not names(vault.folder.contents)

    def refuse(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    assert not vault.writable()
    assert not names(vault.folder.contents)


def test_lost_keys_lose_nothing(tmp_path: Path) -> None:
    """What is encrypted is a miss without its key, and there again with it."""
    (key,) = keys(1)
    keyring = Keyring.load_or_create(tmp_path / "home", {})
    vault = Vault(tmp_path / "vault", keyring=keyring)
    put(vault, {key: kv(1)})
    vault.hold("window", [key])
    vault.close()
    for wrong in (None, Keyring.load_or_create(tmp_path / "other", {})):
        vault = Vault(tmp_path / "vault", keyring=wrong)
        assert get(vault, key) is None
        assert vault.counters.unreadable
        assert not vault.counters.corrupt
        with pytest.raises(CWMError, match="encrypted"):
            vault.room.collect(None)
        vault.close()
    vault = Vault(tmp_path / "vault", keyring=keyring)
    assert get(vault, key) == kv(1)
    assert not names(vault.folder.quarantine)
    vault.close()


def test_a_key_that_changes_while_chunks_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who changes it drops the old one once it has been through what has a name."""
    keyring = Keyring.load_or_create(tmp_path / "home", {})
    vault = Vault(tmp_path / "vault", keyring=keyring)
    real, changed = folder.Folder.locked, []

    def locked(self: folder.Folder, timeout_s: float = 60) -> object:
        if not changed:
            changed.append(keyring.renew())
        return real(self, timeout_s)

    monkeypatch.setattr(folder.Folder, "locked", locked)
    (key,) = keys(1)
    assert put(vault, {key: kv(1)}) == ["stored"]
    assert changed == [True]
    keyring.forget_older()
    assert get(vault, key) == kv(1)
    vault.close()

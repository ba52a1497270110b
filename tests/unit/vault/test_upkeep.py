"""Looking after a vault: pointing keys, sharing, purging, another key for all of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import flip

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.cipher import Keyring
from cwm_jupyter.core.files import key_of
from cwm_jupyter.errors import DecryptError, IndexCorruptError
from cwm_jupyter.vault.files import Item, Vault
from cwm_jupyter.vault.rekey import reseal
from cwm_jupyter.vault.store import VaultStore
from cwm_jupyter.vault.upkeep import point, purge, renew_hold, shares

pytestmark = pytest.mark.every_system


def key(number: int, salt: str = "s" * 32) -> ChunkKey:
    return ChunkKey(
        chunk_hash=number.to_bytes(32, "big"), model_name="m", kv_rank=16777472, cache_salt=salt
    )


def data(number: int) -> bytes:
    return bytes([number % 251]) * (1000 + number)


def fill(vault: Vault, *numbers: int, salt: str = "s" * 32) -> list[ChunkKey]:
    keys = [key(number, salt) for number in numbers]
    items = [
        Item(key=k, raw=memoryview(data(number))) for k, number in zip(keys, numbers, strict=True)
    ]
    assert {one.state for one in vault.store(items)} <= {"stored"}
    return keys


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "vault")


def content(vault: Vault, k: ChunkKey) -> str:
    record = vault.record(k)
    assert record is not None
    return record.content


# --- point ----------------------------------------------------------------------------------------


def test_a_key_is_pointed_only_to_what_is_there_and_intact(vault: Vault) -> None:
    one, other = fill(vault, 1, 2)
    wanted = content(vault, one)
    assert point(vault, other, wanted)
    assert vault.read(other)[1] == data(1)
    path = vault.folder.content(wanted)
    path.write_bytes(path.read_bytes()[:-1])
    assert not point(vault, key(3), wanted)
    assert not point(vault, key(3), "ab" * 32)
    assert vault.record(key(3)) is None


# --- holds ----------------------------------------------------------------------------------------


def test_a_hold_is_renewed_where_it_is_lost_damaged_or_of_other_chunks(vault: Vault) -> None:
    a, b, c = fill(vault, 1, 2, 3)
    contents = [content(vault, k) for k in (a, b)]
    path = vault.folder.hold("one")
    assert renew_hold(vault, "one", [a, b], contents)  # there was none
    good = path.read_bytes()
    assert not renew_hold(vault, "one", [b, a], contents[:1])
    assert path.read_bytes() == good
    for spoil in (
        path.unlink,
        lambda: path.write_bytes(b"{"),
        lambda: vault.hold("one", [a]),
        lambda: vault.hold("one", [a, b, c]),
    ):
        spoil()
        assert renew_hold(vault, "one", [a, b], contents)
        hold = vault.holds()["one"]
        assert set(hold.records) == {vault.name(a), vault.name(b)}
        assert set(hold.contents) == set(contents)
    vault.hold("one", [a, key(9)])  # as a freeze holds what is not stored yet
    fill(vault, 9)
    assert renew_hold(vault, "one", [a, key(9)], [content(vault, a), content(vault, key(9))])


def test_a_hold_whose_key_is_not_here_is_left_alone(tmp_path: Path, keyring: Keyring) -> None:
    vault = Vault(tmp_path / "vault", keyring=keyring)
    [a] = fill(vault, 1)
    vault.hold("one", [a])
    before = vault.folder.hold("one").read_bytes()
    plain = Vault(tmp_path / "vault")
    with pytest.raises(DecryptError):
        renew_hold(plain, "one", [a], [])
    assert vault.folder.hold("one").read_bytes() == before


# --- shares ---------------------------------------------------------------------------------------


def test_what_is_shared_is_nobody_s_own(vault: Vault) -> None:
    a, b, c, d = fill(vault, 1, 2, 3, 4)
    vault.hold("one", [a, b])
    vault.hold("two", [b, c])
    size = {k: vault.folder.content(content(vault, k)).stat().st_size for k in (a, b, c, d)}
    found = shares(vault)
    assert found.owners["one"].to_dict() == {
        "held_bytes": size[a] + size[b],
        "exclusive_bytes": size[a],
    }
    assert found.owners["two"].exclusive_bytes == size[c]
    assert found.unheld_bytes == size[d]
    assert (found.contents, found.stored_bytes) == (4, sum(size.values()))
    assert found.raw_bytes == sum(len(data(n)) for n in (1, 2, 3, 4))


# --- purge ----------------------------------------------------------------------------------------


def test_purging_takes_what_nobody_else_holds_or_means(vault: Vault) -> None:
    a, b, c = fill(vault, 1, 2, 3)
    [same_as_a] = fill(vault, 1, salt="t" * 32)
    vault.hold("one", [a, b, c])
    vault.hold("two", [b])
    looked = purge(vault, ["one"], dry_run=True)
    assert (looked.chunks, sorted(vault.holds())) == (2, ["one", "two"])
    before = content(vault, c)
    assert purge(vault, ["one"]) == looked
    assert [vault.record(k) is not None for k in (a, b, c, same_as_a)] == [False, True, False, True]
    assert not vault.folder.content(before).exists()
    assert vault.read(same_as_a)[1] == data(1)  # another key meant the same content
    assert list(vault.holds()) == ["two"]


def test_purging_by_salt_and_by_key(vault: Vault) -> None:
    a, b = fill(vault, 1, 2)
    c, d = fill(vault, 3, 4, salt="t" * 32)
    assert purge(vault, [], keys=[a]).chunks == 1
    vault.hold("one", [c])
    assert purge(vault, [], salts=["t" * 32]).chunks == 1
    assert [vault.record(k) is not None for k in (a, b, c, d)] == [False, True, True, False]


def test_what_was_damaged_goes_only_where_it_is_asked_for(vault: Vault) -> None:
    [a] = fill(vault, 1)
    vault.hold("one", [a])
    path = vault.folder.content(content(vault, a))
    path.write_bytes(b"x" * path.stat().st_size)
    assert vault.check(a).state == "corrupt"
    assert purge(vault, ["nobody"]).freed_bytes == 0
    assert len(list(vault.folder.quarantine.iterdir())) == 1
    assert purge(vault, ["one"], damaged=True).freed_bytes > 0
    assert not list(vault.folder.quarantine.iterdir())


def test_nothing_is_purged_where_a_hold_cannot_be_read(vault: Vault) -> None:
    [a] = fill(vault, 1)
    vault.hold("one", [a])
    vault.hold("two", [a])
    vault.folder.hold("two").write_bytes(b"{")
    with pytest.raises(IndexCorruptError):
        purge(vault, ["one"])
    assert vault.read(a)[1] == data(1)


@pytest.mark.parametrize("n", range(6))
def test_a_purge_that_dies_leaves_only_garbage(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    a, b, c = fill(vault, 1, 2, 3)
    vault.hold("gone", [a, b])
    vault.hold("stays", [c])
    removed: list[Path] = []
    unlink = Path.unlink

    def dies(path: Path, *args: object, **options: object) -> None:
        if len(removed) == n:
            raise KeyboardInterrupt
        removed.append(path)
        unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dies)
        try:
            purge(vault, ["gone"])
        except KeyboardInterrupt:
            assert n < 5
    for path in vault.folder.holds.iterdir():
        os.utime(path, (0, 0))
    vault.room.collect(["stays"])
    purge(vault, [], keys=[a, b])
    left = {path.stem for path in vault.folder.contents.iterdir()}
    assert left == {content(vault, c)}
    assert vault.read(c)[1] == data(3)
    assert list(vault.holds()) == ["stays"]


# --- another key ----------------------------------------------------------------------------------


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    (tmp_path / "home").mkdir()
    return Keyring.load_or_create(tmp_path / "home")


def files(vault: Vault) -> dict[Path, bytes]:
    folders = (vault.folder.contents, vault.folder.records, vault.folder.holds)
    return {path: path.read_bytes() for folder in folders for path in folder.iterdir()}


def test_a_plain_vault_is_encrypted_and_the_old_key_opens_nothing(
    tmp_path: Path, keyring: Keyring
) -> None:
    plain = Vault(tmp_path / "vault")
    keys = fill(plain, 1, 2, 3)
    plain.hold("one", keys)
    plain.close()
    vault = Vault(tmp_path / "vault", keyring=keyring)
    times = {path: path.stat().st_mtime_ns for path in vault.folder.contents.iterdir()}
    told: list[int] = []
    assert reseal(vault, keyring, told.append) == 7
    assert told == list(range(1, 8))
    assert {path: path.stat().st_mtime_ns for path in vault.folder.contents.iterdir()} == times
    encrypted = files(vault)
    assert not any(data(n)[:64] in one for one in encrypted.values() for n in (1, 2, 3))
    assert reseal(vault, keyring) == 0
    assert files(vault) == encrypted
    with keyring.rotating():
        keyring.renew()
        assert reseal(vault, keyring) == 7
        keyring.forget_older()
    for path, one in files(vault).items():
        if path.suffix == ".json":
            assert key_of(one) == keyring.current_id.hex()
    again = Vault(tmp_path / "vault", keyring=Keyring.load(tmp_path / "home", encrypts=True))
    assert [again.read(k)[1] for k in keys] == [data(n) for n in (1, 2, 3)]
    assert list(again.holds()) == ["one"]
    assert Vault(tmp_path / "vault").read(keys[0])[1] is None
    for one in (vault, again):
        one.close()


@pytest.mark.parametrize("codec", ["raw", "planes"])
def test_the_codec_stays(tmp_path: Path, keyring: Keyring, codec: str) -> None:
    vault = Vault(tmp_path / "vault", codec=codec, keyring=keyring)  # type: ignore[arg-type]
    [k] = fill(vault, 1)
    before = vault.folder.content(content(vault, k)).stat().st_size
    keyring.renew()
    assert reseal(vault, keyring) == 2
    assert vault.folder.content(content(vault, k)).stat().st_size == before
    assert vault.read(k)[1] == data(1)


def test_what_is_damaged_is_put_aside_and_the_rest_goes_on(
    tmp_path: Path, keyring: Keyring
) -> None:
    vault = Vault(tmp_path / "vault", keyring=keyring)
    a, b, c = fill(vault, 1, 2, 3)
    flip(vault.folder.content(content(vault, a)))
    vault.folder.record(vault.name(b)).write_bytes(b"{")
    keyring.renew()
    assert reseal(vault, keyring) == 4  # two contents and two records
    assert len(list(vault.folder.quarantine.iterdir())) == 2
    assert vault.read(c)[1] == data(3)


def test_files_that_are_not_the_vault_s_are_told_and_left_alone(
    tmp_path: Path, keyring: Keyring, caplog: pytest.LogCaptureFixture
) -> None:
    vault = Vault(tmp_path / "vault", keyring=keyring)
    [a] = fill(vault, 1)
    foreign = {vault.folder.contents / name: b"mine" for name in ("x.kv", f"{'AB' * 32}.kv")}
    for path, said in foreign.items():
        path.write_bytes(said)
    keyring.renew()
    assert reseal(vault, keyring) == 2
    assert vault.read(a)[1] == data(1)
    assert {path: path.read_bytes() for path in foreign} == foreign
    told = [record.getMessage() for record in caplog.records]
    assert all(any(str(path) in one for one in told) for path in foreign)


def test_a_key_that_is_not_there_is_an_error(tmp_path: Path, keyring: Keyring) -> None:
    vault = Vault(tmp_path / "vault", keyring=keyring)
    fill(vault, 1)
    before = files(vault)
    (tmp_path / "other").mkdir()
    other = Keyring.load_or_create(tmp_path / "other")
    with pytest.raises(DecryptError):
        reseal(vault, other)
    assert files(vault) == before


def test_evicted_meanwhile(
    tmp_path: Path, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = Vault(tmp_path / "vault", keyring=keyring)
    [k] = fill(vault, 1)
    path = vault.folder.content(content(vault, k))
    keyring.renew()

    def encode(*args: object, **options: object) -> list[bytes]:
        path.unlink()
        return [b"x"]

    monkeypatch.setattr("cwm_jupyter.vault.rekey.encode", encode)
    assert reseal(vault, keyring) == 1  # the record
    assert list(vault.folder.contents.iterdir()) == []


def test_a_vault_that_has_no_key_is_left_alone(vault: Vault, keyring: Keyring) -> None:
    fill(vault, 1)
    before = files(vault)
    ignore: Callable[[int], None] = lambda number: None  # noqa: E731
    assert VaultStore(vault).reseal(keyring, ignore) == 0
    assert files(vault) == before

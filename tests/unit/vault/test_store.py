"""Chunk stores as the core sees them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from vaults import content_path, keys, names, noise, record_path

from cwm_jupyter.core.chunks import ChunkKey, ChunkStore, RetrieveResult
from cwm_jupyter.core.kept import KeptStore
from cwm_jupyter.core.models import ChunkRef
from cwm_jupyter.errors import (
    CancelledJobError,
    ChunkCorruptError,
    ConfigError,
    KVStoreError,
    ResourceExhaustedError,
)
from cwm_jupyter.vault.factory import make_store
from cwm_jupyter.vault.files import Vault
from cwm_jupyter.vault.fs import FsStore
from cwm_jupyter.vault.memory import MemoryStore
from cwm_jupyter.vault.store import VaultStore

pytestmark = pytest.mark.every_system


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VaultStore]:
    store = VaultStore(Vault(tmp_path / "vault"))
    yield store
    store.vault.close()


@pytest.mark.covers("KV-030")
def test_the_factory_makes_a_memory_store() -> None:
    assert isinstance(make_store("memory"), MemoryStore)


@pytest.mark.covers("KV-031")
def test_the_factory_makes_disk_stores(tmp_path: Path) -> None:
    vault = make_store("vault", tmp_path / "vault")
    assert isinstance(vault, VaultStore)
    assert isinstance(vault, KeptStore)
    assert names(tmp_path / "vault") >= {"contents", "records", "holds", "secret"}
    assert isinstance(make_store("fs", tmp_path / "fs"), FsStore)
    vault.vault.close()


@pytest.mark.covers("KV-032")
@pytest.mark.parametrize("kind", ["vault", "fs"])
@pytest.mark.parametrize("path", [None, Path(), Path(" ")])
def test_a_disk_store_without_a_path_is_refused(
    kind: str, path: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="has no path") as caught:
        make_store(kind, path)
    assert caught.value.hint
    assert not names(tmp_path)


def test_an_unknown_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no chunk store 'tape'"):
        make_store("tape", tmp_path)


@pytest.fixture(params=["memory", "vault"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ChunkStore]:
    store = make_store(request.param, tmp_path / "vault")
    yield store
    if isinstance(store, VaultStore):
        store.vault.close()


@pytest.mark.covers("KV-002", "KV-014", "KV-018", "KV-021", "KV-034")
async def test_what_every_store_does(any_store: ChunkStore) -> None:
    chunks = {key: noise(i) for i, key in enumerate(keys(5))}
    chunk_keys = list(chunks)
    result = await any_store.write(chunks)
    assert (result.stored, result.skipped, result.failed) == (5, 0, 0)
    assert result.size_bytes == sum(map(len, chunks.values()))
    assert (await any_store.write(chunks)).skipped == 5
    assert {key: await any_store.read(key) for key in chunks} == chunks
    done: list[int] = []
    refs = await any_store.seal(chunk_keys, done.append)
    assert done[-1] == result.size_bytes
    noted = [ref for ref in refs if ref is not None]
    assert [ref.size_bytes for ref in noted] == [len(data) for data in chunks.values()]
    stats = await any_store.stat(chunk_keys)
    assert [stat.digest for stat in stats if stat] == [ref.digest for ref in noted]
    await any_store.hold("window", chunk_keys[:2])
    assert await any_store.delete(chunk_keys[:3]) == 1
    await any_store.release("window")
    await any_store.release("window")
    wrong = [noted[0].replace(digest="00" * 32), *noted[1:]]
    states = [check.state for check in await any_store.verify(chunk_keys, wrong)]
    assert states == ["corrupt", "intact", "missing", "intact", "intact"]
    assert await any_store.seal([chunk_keys[2]]) == [None]
    with pytest.raises(KVStoreError):
        await any_store.read(chunk_keys[2])
    seen, page = [], await any_store.list(limit=3)
    seen += page.keys
    assert page.cursor is not None
    page = await any_store.list(limit=3, cursor=page.cursor)
    assert page.cursor is None
    assert set(seen + page.keys) == set(chunk_keys) - {chunk_keys[2]}
    assert len(seen + page.keys) == 4


@pytest.mark.covers("KV-019", "KV-020")
async def test_metadata_of_a_missing_chunk_is_none(store: VaultStore) -> None:
    first, absent = keys(2)
    await store.write({first: noise(1)})
    await store.hold("window", [first])
    assert await store.stat([absent]) == [None]
    assert await store.describe(absent) is None
    info = await store.describe(first)
    assert info is not None
    assert info.owners == ["window"]
    content_path(store.vault, first).unlink()
    assert await store.stat([first]) == [None]


@pytest.mark.covers("KV-035", "KV-033")
async def test_reading_many_says_what_was_found(store: VaultStore) -> None:
    first, damaged, absent = keys(3)
    await store.write({first: noise(1), damaged: noise(2)})
    content_path(store.vault, damaged).write_bytes(b"damaged")
    data, result = await store.read_many([first, damaged, absent])
    assert data == {first: noise(1)}
    assert (result.found, result.missing, result.corrupt) == (1, 1, 1)
    assert result.size_bytes == len(noise(1))
    assert RetrieveResult.from_dict(result.to_dict()) == result


async def test_a_damaged_chunk_is_an_error_that_says_so(store: VaultStore) -> None:
    (key,) = keys(1)
    await store.write({key: noise(1)})
    refs = await store.seal([key])
    content_path(store.vault, key).write_bytes(b"damaged")
    with pytest.raises(ChunkCorruptError, match=key.chunk_hash.hex()[:12]) as caught:
        await store.read(key)
    assert "salt" not in str(caught.value)
    await store.write({key: noise(1)})
    content_path(store.vault, key).write_bytes(b"damaged")
    (check,) = await store.verify([key], [ref for ref in refs if ref is not None])
    assert (check.state, check.digest) == ("corrupt", None)
    assert check.reason == "cut off"


async def test_a_chunk_that_was_stored_anew_is_not_as_frozen(store: VaultStore) -> None:
    (key,) = keys(1)
    await store.write({key: noise(1)})
    (ref,) = await store.seal([key])
    assert ref is not None
    content_path(store.vault, key).unlink()
    await store.write({key: noise(2)})
    (check,) = await store.verify([key], [ref])
    assert (check.state, check.reason) == ("corrupt", "other bytes than were frozen")
    assert check.digest != ref.digest


@pytest.mark.covers("KV-016", "KV-022", "KV-023", "KV-024")
async def test_clearing_one_session_leaves_the_others(store: VaultStore) -> None:
    mine, others = keys(3, "mine"), keys(3, "others")
    shared = noise(0)
    await store.write({key: shared if i == 0 else noise(i) for i, key in enumerate(mine)})
    await store.write({key: shared if i == 0 else noise(9 + i) for i, key in enumerate(others)})
    assert set((await store.list(salt="mine")).keys) == set(mine)
    assert await store.clear(salt="mine") == 3
    assert (await store.list(salt="mine")).keys == []
    assert [await store.read(key) for key in others] == [shared, noise(10), noise(11)]
    await store.hold("window", others[:1])
    assert set((await store.list(owner="window")).keys) == set(others[:1])
    assert await store.clear() == 2
    assert await store.read(others[0]) == shared
    await store.release("window")
    assert await store.clear() == 1
    assert not names(store.vault.folder.contents)


@pytest.mark.covers("KV-016")
async def test_clearing_all_leaves_nothing_but_what_is_held(store: VaultStore) -> None:
    """Whoever's it is, damaged or whole; what a window holds is byte for byte as it was."""
    mine, others = keys(5, "mine"), keys(4, "others")
    await store.write({key: noise(i) for i, key in enumerate(mine)})
    await store.write({key: noise(20 + i) for i, key in enumerate(others)})
    await store.hold("window", [mine[1], others[2]])
    vault = store.vault
    content_path(vault, mine[0]).write_bytes(b"damaged")
    content_path(vault, mine[2]).unlink()
    record_path(vault, mine[3]).write_bytes(b"{")
    assert await store.clear() == 6  # the seventh has no record that could be read
    assert set((await store.list()).keys) == {mine[1], others[2]}
    assert [await store.read(key) for key in (mine[1], others[2])] == [noise(1), noise(22)]
    assert len(names(vault.folder.records)) == 2
    await store.collect(["window"])
    assert len(names(vault.folder.contents)) == 2
    assert await store.clear() == 0
    await store.release("window")
    assert await store.clear() == 2
    assert not names(vault.folder.contents) | names(vault.folder.records)


@pytest.mark.covers("KV-023")
@pytest.mark.parametrize("limit", [1, 3, 7])
async def test_a_listing_goes_on_from_its_cursor_whatever_happens_meanwhile(
    store: VaultStore, limit: int
) -> None:
    """What is there all the time is listed once; nothing is listed twice."""
    staying, leaving, coming = keys(7, "stay"), keys(5, "leave"), keys(5, "come")
    await store.write({key: noise(i) for i, key in enumerate([*staying, *leaving])})
    seen: list[ChunkKey] = []
    cursor: str | None = None
    for turn in range(100):
        page = await store.list(limit=limit, cursor=cursor)
        assert len(page.keys) <= limit
        seen += page.keys
        if (cursor := page.cursor) is None:
            break
        await store.delete(leaving[turn : turn + 1])
        await store.write({key: noise(50 + turn) for key in coming[turn : turn + 1]})
    assert cursor is None
    assert len(seen) == len(set(seen))
    assert set(staying) <= set(seen)
    last = await store.list(limit=limit, cursor="f" * 64)
    assert (last.keys, last.cursor) == ([], None)


@pytest.mark.covers("KV-025")
async def test_health(store: VaultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await store.healthy()
    monkeypatch.setattr(os, "fsync", _refuse)
    assert not await store.healthy()


def _refuse(handle: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.every_system("here")  # Windows syncs no folders
async def test_what_the_disk_refuses_is_an_error_of_ours(
    store: VaultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (key,) = keys(1)
    await store.write({key: noise(1)})
    ref = ChunkRef(chunk_hash=key.chunk_hash.hex(), digest="00" * 32, size_bytes=1)
    monkeypatch.setattr(os, "fsync", _refuse)
    for call in (
        store.hold("window", [key]),
        store.release("window"),
        store.seal([key]),
        store.delete([key]),
    ):
        with pytest.raises(ResourceExhaustedError, match="No space left") as caught:
            await call
        assert caught.value.hint
    assert not await store.point(key, ref)
    assert (await store.write({key: noise(1)})).failed == 1


async def test_cancelling_ends_a_check(store: VaultStore) -> None:
    chunks = {key: noise(i) for i, key in enumerate(keys(5))}
    await store.write(chunks)

    def cancelled(done: int) -> None:
        raise CancelledJobError("Cancelled.")

    with pytest.raises(CancelledJobError):
        await store.seal(list(chunks), cancelled)

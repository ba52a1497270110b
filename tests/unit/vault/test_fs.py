"""The files of LMCache's ``fs`` adapter as a chunk store."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.core.chunks import ChunkKey, chunk_hashes, chunk_keys, kv_ranks
from cwm_jupyter.core.models import ChunkRef
from cwm_jupyter.errors import CancelledJobError, KVStoreError, ResourceExhaustedError
from cwm_jupyter.vault.fs import FsStore

HASH = bytes(range(32))
#: ``_object_key_to_filename`` of lmcache 0.5.6
NAMES = {
    "org-SEP-name@0x02010201@0@" + HASH.hex() + "@ab12.data": ChunkKey(
        chunk_hash=HASH, model_name="org/name", kv_rank=kv_ranks(2)[1], cache_salt="ab12"
    ),
    "smol@0x01000100@0@" + HASH.hex() + ".data": ChunkKey(
        chunk_hash=HASH, model_name="smol", kv_rank=kv_ranks(1)[0]
    ),
}


def keys(count: int, salt: str = "salt") -> list[ChunkKey]:
    hashes = chunk_hashes(range(count * 4), 4)
    return chunk_keys(hashes, model_name="org/m", world_size=1, cache_salt=salt)


def data(key: ChunkKey, size: int = 5000) -> bytes:
    return blake3.blake3(key.chunk_hash).digest(length=size)


def ref(key: ChunkKey, content: bytes) -> ChunkRef:
    return ChunkRef(
        chunk_hash=key.chunk_hash.hex(),
        digest=blake3.blake3(content).hexdigest(),
        size_bytes=len(content),
    )


@pytest.fixture
def store(tmp_path: Path) -> FsStore:
    return FsStore(tmp_path / "vault")


@pytest.mark.parametrize("name", NAMES)
async def test_files_are_named_as_lmcache_names_them(store: FsStore, name: str) -> None:
    await store.write({NAMES[name]: b"x"})
    assert [path.name for path in store.folder.iterdir()] == [name]
    assert (await store.list()).keys == [NAMES[name]]


MODEL_NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,12}(/[A-Za-z0-9._-]{1,12}){0,2}", fullmatch=True)


@given(
    MODEL_NAMES.filter(lambda name: "-SEP-" not in name),
    st.integers(0, 2**32 - 1),
    st.integers(0, 300),
    st.binary(min_size=1, max_size=32),
    st.from_regex(r"[0-9a-f]{0,32}", fullmatch=True),
)
def test_every_name_is_read_back_as_its_key(
    model: str, rank: int, group: int, chunk_hash: bytes, salt: str
) -> None:
    key = ChunkKey(
        chunk_hash=chunk_hash,
        model_name=model,
        kv_rank=rank,
        object_group_id=group,
        cache_salt=salt,
    )
    path = FsStore(Path("vault"))._path(key)
    assert path.parent == Path("vault")
    assert FsStore._key(path.name) == key


@pytest.mark.covers("KV-004", "KV-007")
async def test_a_chunk_is_read_back_byte_for_byte(store: FsStore) -> None:
    (key,) = keys(1)
    result = await store.write({key: data(key)})
    assert (result.stored, result.skipped, result.failed, result.size_bytes) == (1, 0, 0, 5000)
    assert await store.read(key) == data(key)


@pytest.mark.covers("KV-005", "KV-007", "KV-034")
async def test_many_chunks_are_stored_in_one_call(store: FsStore) -> None:
    chunks = {key: data(key, 100 + index) for index, key in enumerate(keys(40))}
    result = await store.write(chunks)
    assert (result.stored, result.size_bytes) == (40, sum(map(len, chunks.values())))
    assert {key: await store.read(key) for key in chunks} == chunks
    again = await store.write(chunks)
    assert (again.stored, again.skipped, again.size_bytes) == (0, 40, 0)


@pytest.mark.covers("KV-034")
async def test_a_chunk_that_cannot_be_written_counts_as_failed(
    store: FsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = keys(2)

    def write(path: Path, content: bytes) -> None:
        if content == b"bad":
            raise PermissionError(errno.EACCES, "no")
        path.write_bytes(content)

    monkeypatch.setattr("cwm_jupyter.vault.fs.write_atomic", write)
    result = await store.write({good: b"good", bad: b"bad"})
    assert (result.stored, result.failed) == (1, 1)
    assert await store.stat([bad]) == [None]


@pytest.mark.covers("KV-008")
async def test_a_missing_chunk_is_a_clean_miss(store: FsStore) -> None:
    """Also where there is no folder yet."""
    key, other = keys(2)
    content = data(key)
    assert await store.stat([key]) == [None]
    assert [check.state for check in await store.verify([key], [ref(key, content)])] == ["missing"]
    assert await store.delete([key]) == 0
    assert (await store.list()).keys == []
    with pytest.raises(KVStoreError, match=key.chunk_hash.hex()[:12]) as caught:
        await store.read(key)
    assert "salt" not in str(caught.value)
    await store.write({other: b"x"})
    assert await store.seal([key]) == [None]


async def test_stat_tells_size_and_time(store: FsStore) -> None:
    first, second = keys(2)
    await store.write({second: b"12345"})
    missing, found = await store.stat([first, second])
    assert missing is None
    assert found is not None
    assert found.size_bytes == 5
    assert found.stored_at.endswith("+00:00")


async def test_sealing_syncs_and_digests(store: FsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk_keys_ = keys(3)
    contents = {key: data(key) for key in chunk_keys_}
    await store.write(contents)
    synced: list[int] = []
    done: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    refs = await store.seal(chunk_keys_, done.append)
    assert refs == [ref(key, content) for key, content in contents.items()]
    files = {path.stat().st_ino for path in store.folder.iterdir()}
    assert set(synced) == {*files, store.folder.stat().st_ino}
    assert done == sorted(done)
    assert done[-1] == 15000


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_disk_that_keeps_nothing_is_no_success(
    store: FsStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (key,) = keys(1)
    await store.write({key: b"x"})

    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ResourceExhaustedError, match=os.strerror(number)):
        await store.seal([key])


async def test_cancelling_ends_a_seal(store: FsStore) -> None:
    chunk_keys_ = keys(5)
    await store.write({key: data(key) for key in chunk_keys_})

    def cancelled(done: int) -> None:
        raise CancelledJobError("Cancelled.")

    with pytest.raises(CancelledJobError):
        await store.seal(chunk_keys_, cancelled)


DAMAGE = {
    "flipped": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "truncated": lambda content: content[:-1],
    "empty": lambda content: b"",
    "extended": lambda content: content + b"\0",
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_is_found(store: FsStore, damage: str) -> None:
    good, bad = keys(2)
    refs = [ref(key, data(key)) for key in (good, bad)]
    await store.write({key: data(key) for key in (good, bad)})
    path = store._path(bad)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    checks = await store.verify([good, bad], refs)
    assert [check.state for check in checks] == ["intact", "corrupt"]
    assert checks[1].size_bytes == path.stat().st_size
    assert checks[0].digest == refs[0].digest != checks[1].digest


async def test_swapped_chunks_are_both_corrupt(store: FsStore) -> None:
    one, other = keys(2)
    await store.write({one: data(other), other: data(one)})
    checks = await store.verify([one, other], [ref(key, data(key)) for key in (one, other)])
    assert [check.state for check in checks] == ["corrupt", "corrupt"]


async def test_a_folder_in_a_chunk_s_place_is_corrupt(store: FsStore) -> None:
    (key,) = keys(1)
    store._path(key).mkdir(parents=True)
    assert (await store.verify([key], [ref(key, b"x")]))[0].state == "corrupt"


async def test_verifying_while_chunks_are_replaced_sees_one_or_the_other(store: FsStore) -> None:
    """LMCache renames whole files into place, and so do we."""
    (key,) = keys(1)
    good, other = data(key, 300_000), data(key, 300_001)[1:]
    await store.write({key: good})
    path, stop = store._path(key), threading.Event()

    def replace() -> None:
        while not stop.is_set():
            for content in (other, good):
                temporary = path.with_suffix(".tmp")
                temporary.write_bytes(content)
                temporary.replace(path)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        digests = {(await store.verify([key], [ref(key, good)]))[0].digest for _ in range(30)}
    finally:
        stop.set()
        writer.join()
    assert digests <= {blake3.blake3(content).hexdigest() for content in (good, other)}


@pytest.mark.covers("KV-018")
async def test_deleting_says_how_many_were_there(store: FsStore) -> None:
    first, second, third = keys(3)
    await store.write({key: data(key) for key in (first, second)})
    assert await store.delete([first, third]) == 1
    assert [stat is not None for stat in await store.stat([first, second])] == [False, True]


@pytest.mark.covers("KV-021", "KV-023")
async def test_listing_pages_through_every_chunk_once(store: FsStore) -> None:
    wanted = keys(7)
    await store.write(dict.fromkeys(wanted, b"x"))
    seen, cursor, pages = [], None, 0
    while True:
        page = await store.list(limit=3, cursor=cursor)
        seen += page.keys
        pages += 1
        assert len(page.keys) <= 3
        cursor = page.cursor
        if cursor is None:
            break
    assert pages == 3
    assert len(seen) == 7
    assert set(seen) == set(wanted)


async def test_foreign_files_are_left_alone(store: FsStore) -> None:
    (key,) = keys(1)
    await store.write({key: b"x"})
    foreign = ["notes.txt", "a@b.data", "m@0xzz@0@00.data", "m@0x1@0@zz.data", ".m@0x1@0@00.tmp"]
    for name in foreign:
        (store.folder / name).write_bytes(b"")
    assert (await store.list()).keys == [key]
    assert await store.delete((await store.list()).keys) == 1
    assert sorted(path.name for path in store.folder.iterdir()) == sorted(foreign)


async def test_holds_need_nothing(store: FsStore) -> None:
    (key,) = keys(1)
    await store.write({key: b"x"})
    await store.hold("w1", [key])
    await store.release("w1")
    await store.release("unknown")
    assert await store.read(key) == b"x"


@pytest.mark.covers("KV-026")
@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
async def test_the_folder_and_its_files_are_the_owner_s_alone(store: FsStore) -> None:
    (key,) = keys(1)
    store.folder.mkdir(mode=0o755)
    await store.write({key: b"x"})
    assert store.folder.stat().st_mode & 0o777 == 0o700
    assert store._path(key).stat().st_mode & 0o777 == 0o600

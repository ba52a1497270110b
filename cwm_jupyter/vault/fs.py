"""The files of LMCache's stock ``fs`` adapter, seen from outside as a ChunkStore.

The adapter (lmcache 0.5.6, ``lmcache/v1/distributed/l2_adapters/fs_l2_adapter.py``) writes each
object raw to ``MODEL@RANK@GROUP@HASH[@SALT].data`` and renames it into place. It neither syncs nor
checks, so this store does both: `seal` syncs and digests, `verify` compares. Nothing evicts there,
so a hold needs nothing. The names show the salt: the folder is the owner's alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import blake3
from anyio import to_thread

from cwm_jupyter.core.chunks import ChunkCheck, ChunkKey, ChunkPage, ChunkStat, StoreResult
from cwm_jupyter.core.files import make_private_dir, write_atomic
from cwm_jupyter.core.models import ChunkRef
from cwm_jupyter.core.portable import fsync_dir, long_path, read_bytes, remove, sync_file
from cwm_jupyter.errors import KVStoreError, ResourceExhaustedError

__all__ = ["FsStore"]

_SUFFIX = ".data"
_BLOCK_BYTES = 4 << 20
_THREADS = min(4, os.cpu_count() or 1)
_T = TypeVar("_T")
_U = TypeVar("_U")


class FsStore:
    """A `ChunkStore` over the folder of LMCache's ``fs`` adapter.

    Parameters
    ----------
    folder
        The adapter's ``base_path``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = long_path(folder)

    async def stat(self, keys: Sequence[ChunkKey]) -> list[ChunkStat | None]:
        """Return size and time of each chunk, None for a missing one."""
        return await to_thread.run_sync(lambda: [self._stat(key) for key in keys])

    async def read(self, key: ChunkKey) -> bytes:
        """Return the raw bytes of a chunk."""
        try:
            return await to_thread.run_sync(read_bytes, self._path(key))
        except OSError as error:
            raise KVStoreError(
                f"Chunk {key.chunk_hash.hex()[:12]} cannot be read: {error.strerror}."
            ) from error

    async def write(self, chunks: Mapping[ChunkKey, bytes]) -> StoreResult:
        """Store chunks durably; one that is there already with the same size is skipped."""
        make_private_dir(self.folder)
        outcomes = await _each(lambda item: self._write(*item), list(chunks.items()))
        stored = [size for outcome, size in outcomes if outcome == "stored"]
        return StoreResult(
            stored=len(stored),
            skipped=sum(outcome == "skipped" for outcome, _ in outcomes),
            failed=sum(outcome == "failed" for outcome, _ in outcomes),
            size_bytes=sum(stored),
        )

    async def seal(
        self, keys: Sequence[ChunkKey], on_bytes: Callable[[int], None] | None = None
    ) -> list[ChunkRef | None]:
        """Sync chunks and their folder to disk and digest them; None: missing.

        Raises
        ------
        ResourceExhaustedError
            The disk did not take the bytes.
        """
        counter = _Counter(on_bytes)
        try:
            refs = await _each(lambda key: self._seal(key, counter), keys)
            await to_thread.run_sync(fsync_dir, self.folder)
        except OSError as error:
            raise ResourceExhaustedError(
                f"The disk did not keep the chunks: {error.strerror}.",
                hint="Make room, or see cwm doctor; the conversation goes on as it was.",
            ) from error
        return refs

    async def verify(
        self,
        keys: Sequence[ChunkKey],
        refs: Sequence[ChunkRef],
        on_bytes: Callable[[int], None] | None = None,
    ) -> list[ChunkCheck]:
        """Read each chunk and compare size and digest with what was noted."""
        counter = _Counter(on_bytes)
        pairs = list(zip(keys, refs, strict=True))
        await to_thread.run_sync(self._read_ahead, keys)
        return await _each(lambda pair: self._verify(*pair, counter), pairs)

    async def hold(
        self, owner: str, keys: Sequence[ChunkKey], refs: Sequence[ChunkRef] = ()
    ) -> None:
        """Do nothing: the ``fs`` adapter evicts nothing."""

    async def release(self, owner: str) -> None:
        """Do nothing: there are no holds."""

    async def delete(self, keys: Sequence[ChunkKey]) -> int:
        """Delete chunks and return how many were there."""
        return sum(await _each(self._delete, keys))

    async def list(self, *, limit: int = 1000, cursor: str | None = None) -> ChunkPage:
        """List the keys of all chunks by file name; `cursor` is the last name seen."""
        return await to_thread.run_sync(partial(self._list, limit, cursor))

    # What follows runs in threads.

    def _path(self, key: ChunkKey) -> Path:
        model = key.model_name.replace("/", "-SEP-")
        parts = [model, f"{key.kv_rank:#010x}", f"{key.object_group_id:x}", key.chunk_hash.hex()]
        if key.cache_salt:
            parts.append(key.cache_salt)
        return self.folder / ("@".join(parts) + _SUFFIX)

    @staticmethod
    def _key(name: str) -> ChunkKey | None:
        parts = name.removesuffix(_SUFFIX).split("@")
        try:
            model, rank, group, chunk_hash, *salt = parts
            return ChunkKey(
                chunk_hash=bytes.fromhex(chunk_hash),
                model_name=model.replace("-SEP-", "/"),
                kv_rank=int(rank, 16),
                object_group_id=int(group, 16),
                cache_salt=salt[0] if salt else "",
            )
        except ValueError:
            return None

    def _stat(self, key: ChunkKey) -> ChunkStat | None:
        try:
            found = self._path(key).stat()
        except OSError:
            return None
        stored = datetime.fromtimestamp(found.st_mtime, UTC)
        return ChunkStat(size_bytes=found.st_size, stored_at=stored.isoformat())

    def _write(self, key: ChunkKey, data: bytes) -> tuple[str, int]:
        found = self._stat(key)
        if found and found.size_bytes == len(data):
            return "skipped", 0
        try:
            write_atomic(self._path(key), data)
        except OSError:
            return "failed", 0
        return "stored", len(data)

    def _read_ahead(self, keys: Sequence[ChunkKey]) -> None:
        """Have the system read all files at once, for us and for LMCache, which reads in turn."""
        if not hasattr(os, "posix_fadvise"):
            return
        for key in keys:
            with suppress(OSError), self._path(key).open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def _seal(self, key: ChunkKey, counter: _Counter) -> ChunkRef | None:
        digested = self._digest(key, counter, sync=True)
        if digested is None:
            return None
        digest, size = digested
        return ChunkRef(chunk_hash=key.chunk_hash.hex(), digest=digest, size_bytes=size)

    def _verify(self, key: ChunkKey, ref: ChunkRef, counter: _Counter) -> ChunkCheck:
        try:
            digested = self._digest(key, counter, sync=False)
        except OSError:
            return ChunkCheck(state="corrupt")
        if digested is None:
            return ChunkCheck(state="missing")
        digest, size = digested
        same = (digest, size) == (ref.digest, ref.size_bytes)
        return ChunkCheck(state="intact" if same else "corrupt", digest=digest, size_bytes=size)

    def _digest(self, key: ChunkKey, counter: _Counter, *, sync: bool) -> tuple[str, int] | None:
        """Return digest (blake3, hex) and size of a chunk's bytes, None where it is missing."""
        hasher, buffer, size = blake3.blake3(), memoryview(bytearray(_BLOCK_BYTES)), 0
        try:
            # fsync wants a handle that may write on some systems.
            with self._path(key).open("r+b" if sync else "rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    hasher.update(buffer[:count])
                    size += count
                if sync:
                    sync_file(file.fileno())
        except FileNotFoundError:
            return None
        counter.add(size)
        return hasher.hexdigest(), size

    def _delete(self, key: ChunkKey) -> bool:
        return remove(self._path(key))

    def _list(self, limit: int, cursor: str | None) -> ChunkPage:
        try:
            names = sorted(entry.name for entry in os.scandir(self.folder))
        except FileNotFoundError:
            names = []
        names = [n for n in names if n.endswith(_SUFFIX) and (cursor is None or n > cursor)]
        page = names[:limit]
        keys = [key for name in page if (key := self._key(name))]
        return ChunkPage(keys=keys, cursor=page[-1] if len(names) > limit else None)


async def _each(work: Callable[[_T], _U], items: Sequence[_T]) -> list[_U]:
    """Do `work` for each item on a few threads, since reading and hashing release the GIL."""

    def run() -> list[_U]:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="cwm-store") as pool:
            return list(pool.map(work, items))

    return await to_thread.run_sync(run)


class _Counter:
    """Adds up bytes from several threads."""

    def __init__(self, on_bytes: Callable[[int], None] | None) -> None:
        self._on_bytes = on_bytes
        self._lock = threading.Lock()
        self._done = 0

    def add(self, count: int) -> None:
        if self._on_bytes is None:
            return
        with self._lock:
            self._done += count
            self._on_bytes(self._done)

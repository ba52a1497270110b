"""Chunks in this process's memory: for trials, and the model that the vault is held to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

import blake3

from cwm_jupyter.core.chunks import ChunkCheck, ChunkKey, ChunkPage, ChunkStat, StoreResult
from cwm_jupyter.core.models import ChunkRef, now
from cwm_jupyter.errors import KVStoreError

__all__ = ["MemoryStore"]


class MemoryStore:
    """A `ChunkStore` that forgets everything with the process, so nothing in it is durable."""

    def __init__(self) -> None:
        self._chunks: dict[ChunkKey, tuple[bytes, str]] = {}
        self._holds: dict[str, frozenset[ChunkKey]] = {}

    async def stat(self, keys: Sequence[ChunkKey]) -> list[ChunkStat | None]:
        """Return size, time and digest of each chunk, None for a missing one."""
        return [self._stat(key) for key in keys]

    async def read(self, key: ChunkKey) -> bytes:
        """Return the raw bytes of a chunk."""
        if key not in self._chunks:
            raise KVStoreError(f"Chunk {key.chunk_hash.hex()[:12]} is not there.")
        return self._chunks[key][0]

    async def write(self, chunks: Mapping[ChunkKey, bytes]) -> StoreResult:
        """Keep chunks; one that is there already is skipped."""
        new = {key: data for key, data in chunks.items() if key not in self._chunks}
        self._chunks |= {key: (bytes(data), now()) for key, data in new.items()}
        return StoreResult(
            stored=len(new),
            skipped=len(chunks) - len(new),
            failed=0,
            size_bytes=sum(map(len, new.values())),
        )

    async def seal(
        self, keys: Sequence[ChunkKey], on_bytes: Callable[[int], None] | None = None
    ) -> list[ChunkRef | None]:
        """Digest chunks; None: missing."""
        refs = [self._ref(key) for key in keys]
        if on_bytes is not None:
            on_bytes(sum(ref.size_bytes or 0 for ref in refs if ref is not None))
        return refs

    async def verify(
        self,
        keys: Sequence[ChunkKey],
        refs: Sequence[ChunkRef],
        on_bytes: Callable[[int], None] | None = None,
    ) -> list[ChunkCheck]:
        """Compare each chunk with what was noted."""
        found = await self.seal(keys, on_bytes)
        return [_check(mine, noted) for mine, noted in zip(found, refs, strict=True)]

    async def hold(
        self, owner: str, keys: Sequence[ChunkKey], refs: Sequence[ChunkRef] = ()
    ) -> None:
        """Keep chunks from deletion until `release`."""
        self._holds[owner] = frozenset(keys)

    async def release(self, owner: str) -> None:
        """Give up a hold; unknown owners are no error."""
        self._holds.pop(owner, None)

    async def delete(self, keys: Sequence[ChunkKey]) -> int:
        """Delete chunks that nobody holds and return how many were deleted."""
        held = frozenset[ChunkKey]().union(*self._holds.values())
        return sum(self._chunks.pop(key, None) is not None for key in keys if key not in held)

    async def list(self, *, limit: int = 1000, cursor: str | None = None) -> ChunkPage:
        """List the keys of all chunks; `cursor` is the last one seen."""
        keys = {_order(key): key for key in self._chunks}
        names = sorted(keys)
        start = bisect_right(names, cursor) if cursor is not None else 0
        page = names[start : start + limit]
        more = start + limit < len(names)
        return ChunkPage(keys=[keys[name] for name in page], cursor=page[-1] if more else None)

    def _stat(self, key: ChunkKey) -> ChunkStat | None:
        if key not in self._chunks:
            return None
        data, stored_at = self._chunks[key]
        digest = blake3.blake3(data).hexdigest()
        return ChunkStat(size_bytes=len(data), stored_at=stored_at, digest=digest)

    def _ref(self, key: ChunkKey) -> ChunkRef | None:
        stat = self._stat(key)
        if stat is None or stat.digest is None:
            return None
        return ChunkRef(
            chunk_hash=key.chunk_hash.hex(), digest=stat.digest, size_bytes=stat.size_bytes
        )


def _check(mine: ChunkRef | None, noted: ChunkRef) -> ChunkCheck:
    if mine is None:
        return ChunkCheck(state="missing")
    same = (mine.digest, mine.size_bytes) == (noted.digest, noted.size_bytes)
    return ChunkCheck(
        state="intact" if same else "corrupt", digest=mine.digest, size_bytes=mine.size_bytes
    )


def _order(key: ChunkKey) -> str:
    fields = (key.model_name, f"{key.kv_rank:08x}", f"{key.object_group_id:x}", key.cache_salt)
    return "@".join((key.chunk_hash.hex(), *fields))

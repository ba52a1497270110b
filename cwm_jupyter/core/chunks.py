"""Chunks: their keys, equal to LMCache's, and the protocol of the stores that keep them.

A chunk is the KV of ``chunk_tokens`` consecutive tokens. Its hash is rolling: with blake3,
``h0 = H(i64(0) | u32(0))`` and ``h[i] = H(h[i-1] | u32(t) for t in chunk i)``, all big-endian, as
in lmcache 0.5.6, ``lmcache/v1/multiprocess/token_hasher.py``. So a hash names the whole prefix.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import blake3
import msgspec

from cwm_jupyter.core.models import ChunkRef, Value

__all__ = [
    "ChunkCheck",
    "ChunkInfo",
    "ChunkKey",
    "ChunkPage",
    "ChunkStat",
    "ChunkStore",
    "RetrieveResult",
    "StoreResult",
    "chunk_hashes",
    "chunk_keys",
    "kv_ranks",
    "usable_chunks",
]

_NONE_HASH = blake3.blake3(struct.pack(">qI", 0, 0)).digest()


class ChunkKey(msgspec.Struct, frozen=True, kw_only=True):
    """LMCache's object key. `cache_salt` is a secret: it opens the cache to who knows it."""

    chunk_hash: bytes
    model_name: str
    kv_rank: int
    object_group_id: int = 0
    cache_salt: str = ""

    def __repr__(self) -> str:
        return f"ChunkKey({self.chunk_hash.hex()[:12]}…, {self.model_name}, {self.kv_rank:#x})"


class ChunkStat(Value, frozen=True, kw_only=True):
    """What a store knows of one chunk without reading it.

    `digest` is that of the bytes that it will read back, None where only reading tells. `used_ns`
    is when they were last stored or read (ns since the epoch), None where that is not noted.
    """

    size_bytes: int
    stored_at: str
    digest: str | None = None
    used_ns: int | None = None


class ChunkInfo(Value, frozen=True, kw_only=True):
    """All there is to say about one chunk.

    `stored_bytes` is what its content takes on disk, shared with all chunks of the same content;
    both it and `used_at` are null where the content is gone. `owners` hold it.
    """

    chunk_hash: str
    digest: str
    size_bytes: int
    stored_bytes: int | None
    stored_at: str
    used_at: str | None
    owners: list[str]


class ChunkCheck(Value, frozen=True, kw_only=True):
    """The outcome of verifying one chunk: as frozen, absent, or with other bytes."""

    state: Literal["intact", "missing", "corrupt"]
    digest: str | None = None
    size_bytes: int | None = None
    reason: str | None = None


class StoreResult(Value, frozen=True, kw_only=True):
    """The outcome of a write of several chunks."""

    stored: int
    skipped: int
    failed: int
    size_bytes: int


class RetrieveResult(Value, frozen=True, kw_only=True):
    """The outcome of a read of several chunks."""

    found: int
    missing: int
    corrupt: int
    size_bytes: int


class ChunkPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of keys; `cursor` continues the listing, None at its end."""

    keys: list[ChunkKey]
    cursor: str | None


class ChunkStore(Protocol):
    """Where the bytes of chunks are durable.

    A store is the ground of a freeze's proof, so it looks at the bytes themselves, from outside
    the server that wrote them. All methods may be called while that server runs.
    """

    async def stat(self, keys: Sequence[ChunkKey]) -> list[ChunkStat | None]:
        """Return size and time of each chunk, None for a missing one; reads no content."""
        ...

    async def read(self, key: ChunkKey) -> bytes:
        """Return the raw bytes of a chunk.

        Raises
        ------
        KVStoreError
            The chunk is missing or cannot be read.
        """
        ...

    async def write(self, chunks: Mapping[ChunkKey, bytes]) -> StoreResult:
        """Store chunks durably: when it returns, what it counts as stored survives a power cut."""
        ...

    async def seal(
        self, keys: Sequence[ChunkKey], on_bytes: Callable[[int], None] | None = None
    ) -> list[ChunkRef | None]:
        """Make sure that chunks are durable, read them back and digest them; None: not intact.

        `on_bytes` is called with the bytes done so far.
        """
        ...

    async def verify(
        self,
        keys: Sequence[ChunkKey],
        refs: Sequence[ChunkRef],
        on_bytes: Callable[[int], None] | None = None,
    ) -> list[ChunkCheck]:
        """Read each chunk and compare it with what the freeze noted."""
        ...

    async def hold(
        self, owner: str, keys: Sequence[ChunkKey], refs: Sequence[ChunkRef] = ()
    ) -> None:
        """Keep chunks from eviction and deletion until `release`; a hold outlives the process.

        A second call of the same owner replaces the first; chunks may be held before they are
        stored. The contents of `refs` are kept whether or not the keys mean them now.
        """
        ...

    async def release(self, owner: str) -> None:
        """Give up a hold; unknown owners are no error."""
        ...

    async def delete(self, keys: Sequence[ChunkKey]) -> int:
        """Delete chunks that nobody holds and return how many were deleted."""
        ...

    async def list(self, *, limit: int = 1000, cursor: str | None = None) -> ChunkPage:
        """List the keys of all chunks, in a stable order."""
        ...


def chunk_hashes(token_ids: Sequence[int], chunk_tokens: int) -> list[bytes]:
    """Return the rolling hash of each full chunk, 32 bytes each.

    Parameters
    ----------
    token_ids
        The tokens from the very start of the context.
    chunk_tokens
        Tokens a chunk, LMCache's ``--chunk-size``.
    """
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens must be positive, not {chunk_tokens}")
    hashes, previous = [], _NONE_HASH
    for start in range(0, len(token_ids) - chunk_tokens + 1, chunk_tokens):
        chunk = token_ids[start : start + chunk_tokens]
        previous = blake3.blake3(previous + struct.pack(f">{chunk_tokens}I", *chunk)).digest()
        hashes.append(previous)
    return hashes


def usable_chunks(tokens: int, chunk_tokens: int) -> int:
    """Return how many chunks of a prompt of `tokens` the engine can take from cache.

    One token at least is always computed, so a chunk that ends with the prompt is of no use.
    """
    return max(tokens - 1, 0) // chunk_tokens


def kv_ranks(world_size: int) -> list[int]:
    """Return LMCache's packed rank of each worker of one node (``ObjectKey.ComputeKVRank``)."""
    return [
        (world_size << 24) | (rank << 16) | (world_size << 8) | rank for rank in range(world_size)
    ]


def chunk_keys(
    hashes: Sequence[bytes], *, model_name: str, world_size: int, cache_salt: str
) -> list[ChunkKey]:
    """Return the object keys of chunks, chunk by chunk and within a chunk rank by rank."""
    return [
        ChunkKey(chunk_hash=h, model_name=model_name, kv_rank=rank, cache_salt=cache_salt)
        for h in hashes
        for rank in kv_ranks(world_size)
    ]

"""ConnectedStack: an engine, the LMCache server that keeps its KV, and the way to its chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from cwm_jupyter.clients.lmcache import CacheLayout, LMCacheClient
from cwm_jupyter.clients.vllm import VLLMClient
from cwm_jupyter.core import fingerprint
from cwm_jupyter.core.chunks import (
    ChunkKey,
    ChunkStore,
    chunk_hashes,
    chunk_keys,
    usable_chunks,
)
from cwm_jupyter.core.models import Fingerprint
from cwm_jupyter.errors import KVStoreConnectionError

__all__ = ["ConnectedStack", "EngineFacts"]

#: stands in where no LMCache tells its chunk size; such a stack keeps no chunks
_ANY_CHUNK_TOKENS = 256


@dataclass(frozen=True)
class EngineFacts:
    """What an engine said of itself, asked anew for each piece of work: engines are restarted.

    `kv_bytes_per_token` counts all layers, keys and values.
    """

    fingerprint: Fingerprint
    max_context_tokens: int | None
    kv_bytes_per_token: int | None

    @property
    def aligned(self) -> bool:
        """Whether chunks end where the engine's blocks end.

        Only then does a restored prompt reuse as much as a live one, and compute the same tail in
        the same shape: equality to the bit is due. Where the blocks are unknown it is not.
        """
        layout = self.fingerprint.layout
        return layout["block_tokens"] == layout["chunk_tokens"] is not None


@dataclass(frozen=True)
class ConnectedStack:
    """A running stack, local or remote.

    Parameters
    ----------
    engine
        The engine's client.
    cache
        LMCache's client; None where there is no LMCache: such a stack talks but cannot freeze.
    store
        The chunks' files, None where we cannot read them.
    model
        The served model's name.
    kv_model_name, world_size
        What LMCache puts into its keys.
    chunk_tokens
        Tokens a chunk.
    """

    engine: VLLMClient
    cache: LMCacheClient | None
    store: ChunkStore | None
    model: str
    kv_model_name: str
    world_size: int
    chunk_tokens: int

    @classmethod
    async def open(
        cls,
        engine: VLLMClient,
        cache: LMCacheClient | None,
        *,
        store: ChunkStore | None,
        kv_model_name: str | None,
        world_size: int | None,
        chunk_tokens: int | None,
    ) -> ConnectedStack:
        """Connect, and ask the servers for what the caller does not know (None)."""
        layout = await cache.layout() if cache is not None else None
        registered = layout.engines[0] if layout is not None and layout.engines else None
        model = await engine.model()
        return cls(
            engine=engine,
            cache=cache,
            store=store,
            model=model,
            kv_model_name=kv_model_name or (registered.model_name if registered else model),
            world_size=world_size or (registered.world_size if registered else 1),
            chunk_tokens=chunk_tokens or (layout.chunk_tokens if layout else _ANY_CHUNK_TOKENS),
        )

    async def aclose(self) -> None:
        """Close the clients."""
        await self.engine.aclose()
        if self.cache is not None:
            await self.cache.aclose()

    def keeper(self) -> LMCacheClient:
        """Return LMCache's client.

        Raises
        ------
        KVStoreConnectionError
            The stack has no LMCache, so nothing can be frozen or thawed.
        """
        if self.cache is None:
            raise KVStoreConnectionError(
                "This stack has no LMCache server, so its state cannot be kept.",
                hint="Connect with its URL too: cwm connect ENGINE_URL LMCACHE_URL.",
            )
        return self.cache

    async def facts(self) -> EngineFacts:
        """Ask the servers what they are.

        Raises
        ------
        ModelError
            LMCache cannot keep this model's KV exactly.
        """
        told, layout = await self._told()
        figures = told or {}
        max_context = figures.get("max_context_tokens")
        if max_context is None:
            served = {m.id: m.max_model_len for m in await self.engine.models()}
            max_context = served.get(self.model)
        return EngineFacts(
            fingerprint=fingerprint.collect(
                told,
                chunk_tokens=layout.chunk_tokens if layout else None,
                hash_algorithm=layout.hash_algorithm if layout else None,
                kv_model_name=self.kv_model_name,
            ),
            max_context_tokens=max_context,
            kv_bytes_per_token=figures.get("kv_bytes_per_token"),
        )

    async def _told(self) -> tuple[dict[str, Any] | None, CacheLayout | None]:
        """Ask both servers at once: a thaw waits for them."""
        cache = self.cache
        layout: CacheLayout | None = None

        async def ask(cache: LMCacheClient) -> None:
            nonlocal layout
            layout = await cache.layout()

        try:
            async with anyio.create_task_group() as group:
                if cache is not None:
                    group.start_soon(ask, cache)
                told = await self.engine.facts()
        except ExceptionGroup as errors:  # what a task group raises; either error tells enough
            raise errors.exceptions[0] from None
        return told, layout

    async def forget(self, keys: Sequence[ChunkKey]) -> bool:
        """Have both servers drop what they have in memory, so that the store is read again.

        The engine drops its whole prefix cache, LMCache these chunks. False where one of them
        cannot: the engine is another's, or in use.
        """
        return await self.engine.forget() and await self.keeper().drop(keys)

    def keys(self, token_ids: Sequence[int], salt: str) -> list[ChunkKey]:
        """Return the keys of the chunks that a prompt of these tokens can be served from."""
        chunks = usable_chunks(len(token_ids), self.chunk_tokens)
        hashes = chunk_hashes(token_ids[: chunks * self.chunk_tokens], self.chunk_tokens)
        return chunk_keys(
            hashes, model_name=self.kv_model_name, world_size=self.world_size, cache_salt=salt
        )

"""The LMCache server's HTTP API, as LMCache 0.5.6 speaks it (``multiprocess/http_apis``).

It has no authentication, so it belongs on loopback. Salts go over the wire and nowhere else: no
message here repeats one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import anyio
import httpx2
import msgspec

from cwm_jupyter.clients._http import Client, Http, Service
from cwm_jupyter.clients.metrics import CacheFigures, cache_figures
from cwm_jupyter.core.chunks import ChunkKey, ChunkPage
from cwm_jupyter.core.models import Value
from cwm_jupyter.errors import (
    CWMError,
    KVStoreConnectionError,
    KVStoreError,
    KVStoreTimeoutError,
)

__all__ = ["CacheLayout", "DeleteResult", "LMCacheClient", "PrefetchResult", "RegisteredEngine"]

#: LMCache's own limit for one request (``object_service.MAX_DELETE_BATCH``).
_DELETE_BATCH = 10_000

# A prefetch competes with the server for cores: asking all the time makes it slower.
_POLL_FIRST_S, _POLL_LAST_S, _POLL_GROWTH = 0.005, 0.02, 1.3


class PrefetchResult(Value, frozen=True, kw_only=True):
    """How many of the wanted keys are now in L1, those that were there before included."""

    found: int
    total: int


class DeleteResult(Value, frozen=True, kw_only=True):
    """Keys that were deleted (an absent key of L2 counts), and those refused as in use."""

    deleted: int
    skipped: int


class RegisteredEngine(Value, frozen=True, kw_only=True):
    """An engine that stores here: its model's name in the keys, and how many workers it has."""

    model_name: str
    world_size: int
    block_size_tokens: int | None = None


class CacheLayout(Value, frozen=True, kw_only=True):
    """What shapes the keys of the server's chunks, and the engines it knows."""

    chunk_tokens: int
    hash_algorithm: str
    engines: list[RegisteredEngine]


class _Engine(msgspec.Struct):
    model_name: str
    world_size: int
    block_size: int | None = None


class _Status(msgspec.Struct):
    chunk_size: int
    hash_algorithm: str
    cache_context_meta: dict[str, _Engine] = msgspec.field(default_factory=dict)
    non_cuda_context_meta: dict[str, _Engine] = msgspec.field(default_factory=dict)


class _Submitted(msgspec.Struct):
    request_id: str | None = None


class _Progress(msgspec.Struct):
    status: str
    found_keys: int = 0
    total_keys: int = 0


class _Deleted(msgspec.Struct):
    deleted: int
    skipped: int
    ok: bool = True
    error: str | None = None


class _Key(msgspec.Struct):
    chunk_hash_hex: Annotated[str, msgspec.Meta(pattern="^([0-9a-fA-F]{2})+$")]
    model_name: str
    kv_rank: int
    object_group_id: int = 0
    cache_salt: str = ""

    @classmethod
    def of(cls, key: ChunkKey) -> Self:
        """The wire form of a key."""
        return cls(
            chunk_hash_hex=key.chunk_hash.hex(),
            model_name=key.model_name,
            kv_rank=key.kv_rank,
            object_group_id=key.object_group_id,
            cache_salt=key.cache_salt,
        )

    def key(self) -> ChunkKey:
        """The key of the wire form."""
        return ChunkKey(
            chunk_hash=bytes.fromhex(self.chunk_hash_hex),
            model_name=self.model_name,
            kv_rank=self.kv_rank,
            object_group_id=self.object_group_id,
            cache_salt=self.cache_salt,
        )


class _Entry(msgspec.Struct):
    key: _Key


class _Listing(msgspec.Struct):
    entries: list[_Entry]
    next_page_token: str | None = None


def _refusal(status: int, said: str, url: str, body: Mapping[str, Any]) -> CWMError:
    if status != 503:
        return KVStoreError(f"LMCache at {url} refused ({status}): {said}", url=url, status=status)
    if "no layout registered" in said:
        return KVStoreConnectionError(
            f"No engine has registered with LMCache at {url} for this model: {said}",
            hint="The engine registers when it starts. If LMCache was restarted since, restart "
            "both, LMCache first.",
            url=url,
            status=status,
        )
    return KVStoreConnectionError(
        f"LMCache at {url} is unavailable: {said}", url=url, status=status
    )


_LMCACHE = Service(
    name="LMCache",
    setting="lmcache.url",
    hint="Start it with %cwm up, or check lmcache.url.",
    connection=KVStoreConnectionError,
    timeout=KVStoreTimeoutError,
    response=KVStoreError,
    refusal=_refusal,
)


class LMCacheClient(Client):
    """One LMCache server, over HTTP; an async context manager, or close it with `aclose`.

    Parameters
    ----------
    url
        Where its HTTP port listens, as in ``http://127.0.0.1:8080``.
    api_key
        For a server behind a key, as that of our local stack; stock LMCache knows none.
    request_timeout_s
        Limit for one request.
    prefetch_timeout_s
        Limit for a prefetch, unless the call says another.
    transport
        Replaces the network, for tests.

    Raises
    ------
    ConfigError
        The URL is malformed.

    Notes
    -----
    Every method that asks the server may raise `KVStoreConnectionError`, `KVStoreTimeoutError` or
    `KVStoreError`. Nothing is retried: what a poll has told once is gone at the server.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        request_timeout_s: float = 30.0,
        prefetch_timeout_s: float = 60.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = Http(
            _LMCACHE,
            url,
            api_key=api_key,
            request_timeout_s=request_timeout_s,
            transport=transport,
        )
        self._prefetch_timeout_s = prefetch_timeout_s

    # --- the server -------------------------------------------------------------------------------

    async def health(self) -> bool:
        """Say whether the server answers and its cache works; raises nothing."""
        return await self._http.answers("/healthcheck")

    async def status(self) -> dict[str, Any]:
        """Return the server's own description of its parts."""
        return await self._http.call("GET", "/status", dict[str, Any])

    async def layout(self) -> CacheLayout:
        """Return chunk size, hash algorithm and registered engines."""
        status = await self._http.call("GET", "/status", _Status)
        engines = [*status.cache_context_meta.values(), *status.non_cuda_context_meta.values()]
        return CacheLayout(
            chunk_tokens=status.chunk_size,
            hash_algorithm=status.hash_algorithm,
            engines=[
                RegisteredEngine(
                    model_name=one.model_name,
                    world_size=one.world_size,
                    block_size_tokens=one.block_size,
                )
                for one in engines
            ],
        )

    async def store_failures(self) -> tuple[int, str | None]:
        """Return how many chunks failed to reach the vault since it was opened, and why lately."""
        with contextlib.suppress(CWMError):
            manager = (await self.status()).get("storage_manager", {})
            for adapter in manager.get("l2_adapters", []):
                if adapter.get("last_failure"):
                    return adapter.get("counters", {}).get("failed", 0), adapter["last_failure"]
        return 0, None

    async def unstored(self) -> int:
        """Return how many chunks are on their way to L2; 0 where the server does not tell."""
        store = (await self.status()).get("storage_manager", {}).get("store_controller", {})
        return int(store.get("pending_keys_count", 0) + store.get("in_flight_task_count", 0))

    async def figures(self) -> CacheFigures:
        """Return the cache's figures; without a server all are None (unavailable)."""
        status: dict[str, Any] = {}
        text = ""
        try:
            status = self._http.parse(await self._http.text("/status"), dict[str, Any], "/status")
            text = await self._http.text("/metrics")  # a stack may keep it shut: it shows salts
        except KVStoreError:
            pass
        return cache_figures(status, text)

    # --- chunks -----------------------------------------------------------------------------------

    async def prefetch(
        self,
        token_ids: Sequence[int],
        *,
        model_name: str,
        world_size: int,
        cache_salt: str,
        timeout_s: float | None = None,
    ) -> PrefetchResult:
        """Load the chunks of a context from L2 into L1 and wait until that is done.

        Parameters
        ----------
        token_ids
            The context from its very start; what follows the last whole chunk does not matter.
        model_name, world_size
            The engine's model as named in the keys, and its workers.
        cache_salt
            The lineage's salt.
        timeout_s
            Limit for the whole; None: the client's.

        Raises
        ------
        KVStoreConnectionError
            Not reached, or no engine has registered for this model.
        KVStoreTimeoutError
            Not done in time; it goes on at the server and does no harm.
        """
        limit_s = self._prefetch_timeout_s if timeout_s is None else timeout_s
        body = {
            "model_name": model_name,
            "world_size": world_size,
            "token_ids": list(token_ids),
            "cache_salt": cache_salt,
        }
        try:
            with anyio.fail_after(limit_s):
                submitted = await self._http.call(
                    "POST", "/cache/prefetches", _Submitted, body=body
                )
                if submitted.request_id is None:  # less than a chunk
                    return PrefetchResult(found=0, total=0)
                return await self._prefetched(submitted.request_id)
        except TimeoutError as error:
            raise KVStoreTimeoutError(
                f"LMCache at {self.url} did not finish the prefetch within {limit_s:g} s.",
                hint="Its disk may be slow or busy; lmcache.prefetch_timeout_s is the limit.",
                url=self.url,
            ) from error

    async def _prefetched(self, request_id: str) -> PrefetchResult:
        wait_s = _POLL_FIRST_S
        while True:
            path = f"/cache/prefetches/{request_id}"
            progress = await self._http.call("GET", path, _Progress)
            if progress.status == "completed":
                return PrefetchResult(found=progress.found_keys, total=progress.total_keys)
            await anyio.sleep(wait_s)
            wait_s = min(wait_s * _POLL_GROWTH, _POLL_LAST_S)

    async def delete(
        self,
        keys: Sequence[ChunkKey],
        *,
        tier: Literal["l1", "l2", "all"] = "l2",
        force: bool = False,
    ) -> DeleteResult:
        """Delete chunks.

        Parameters
        ----------
        keys
            Any number; they are sent in batches.
        tier
            Memory, the vault, or both.
        force
            Delete from L1 what is being read or written, too.

        Raises
        ------
        KVStoreError
            L2 failed; some of the keys may be gone.
        """
        deleted = skipped = 0
        for start in range(0, len(keys), _DELETE_BATCH):
            batch = [msgspec.structs.asdict(_Key.of(k)) for k in keys[start:][:_DELETE_BATCH]]
            body = {"keys": batch, "tier": tier, "force": force}
            answer = await self._http.call("DELETE", "/cache/objects", _Deleted, body=body)
            if not answer.ok:
                said = self._http.scrub(answer.error or "no reason given", body)
                raise KVStoreError(f"L2 of the LMCache at {self.url} failed: {said}", url=self.url)
            deleted += answer.deleted
            skipped += answer.skipped
        return DeleteResult(deleted=deleted, skipped=skipped)

    async def drop(
        self, keys: Sequence[ChunkKey], *, tier: Literal["l1", "all"] = "l1", patience_s: float = 5
    ) -> bool:
        """Delete chunks from memory, those that are in use once they are free.

        Never by force: that would free memory which somebody still reads or writes.

        Returns
        -------
        bool
            False where some were in use for all of `patience_s`.
        """
        deadline = anyio.current_time() + patience_s
        while (await self.delete(keys, tier=tier)).skipped:
            if anyio.current_time() > deadline:
                return False
            await anyio.sleep(_POLL_LAST_S)
        return True

    async def clear_memory(self) -> None:
        """Drop everything from L1 that is not in use; L2 is left alone."""
        body = {"tier": "l1", "force": False}
        await self._http.call("POST", "/cache/clear", dict[str, Any], body=body)

    async def list_page(
        self, *, model_name: str | None = None, limit: int = 500, cursor: str | None = None
    ) -> ChunkPage:
        """Return a page of the keys in L2.

        Parameters
        ----------
        model_name
            Only chunks of this model.
        limit
            Most keys to return, 5,000 at most.
        cursor
            Where the page before ended; None: from the start.

        Raises
        ------
        KVStoreConnectionError
            The server's L2 adapter cannot list.
        """
        params = {"page_size": limit, "model_name": model_name, "page_token": cursor}
        given = {name: value for name, value in params.items() if value is not None}
        listing = await self._http.call("GET", "/cache/objects", _Listing, params=given)
        return ChunkPage(
            keys=[entry.key.key() for entry in listing.entries], cursor=listing.next_page_token
        )

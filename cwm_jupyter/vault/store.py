"""The vault as a `ChunkStore`: what the core asks it, from outside the server that fills it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar, TypeVarTuple

from anyio import to_thread

from cwm_jupyter.core.chunks import (
    ChunkCheck,
    ChunkInfo,
    ChunkKey,
    ChunkPage,
    ChunkStat,
    RetrieveResult,
    StoreResult,
)
from cwm_jupyter.core.kept import Freed, Shares, Traces
from cwm_jupyter.core.models import ChunkRef
from cwm_jupyter.errors import ChunkCorruptError, KVStoreError, ResourceExhaustedError
from cwm_jupyter.vault import upkeep
from cwm_jupyter.vault.files import Found, Item, Vault
from cwm_jupyter.vault.records import is_content
from cwm_jupyter.vault.room import Garbage

if TYPE_CHECKING:
    from cwm_jupyter.core.cipher import Keyring

__all__ = ["VaultStore"]

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


class VaultStore:
    """A `ChunkStore` over a `Vault`, and a `KeptStore`.

    Parameters
    ----------
    vault
        The files.
    """

    def __init__(self, vault: Vault) -> None:
        self.vault = vault

    async def stat(self, keys: Sequence[ChunkKey]) -> list[ChunkStat | None]:
        """Return what is known of each chunk without reading it, None for a missing one."""
        return await _on_disk(lambda: [self._stat(key) for key in keys])

    async def describe(self, key: ChunkKey) -> ChunkInfo | None:
        """Return all there is to say about one chunk, None for a missing one."""
        return await _on_disk(self._describe, key)

    async def read(self, key: ChunkKey) -> bytes:
        """Return the raw bytes of a chunk, or raise."""
        found, data = await _on_disk(self.vault.read, key)
        if data is not None:
            return data
        error = ChunkCorruptError if found.state == "corrupt" else KVStoreError
        raise error(f"Chunk {key.chunk_hash.hex()[:12]} cannot be read: {found.reason}.")

    async def read_many(
        self, keys: Sequence[ChunkKey]
    ) -> tuple[dict[ChunkKey, bytes], RetrieveResult]:
        """Return the chunks that are there and intact, and how many were and were not."""
        read = await _on_disk(lambda: self.vault.each(self.vault.read, keys))
        data = {k: d for k, (_, d) in zip(keys, read, strict=True) if d is not None}
        result = RetrieveResult(
            found=len(data),
            missing=sum(found.state == "missing" for found, _ in read),
            corrupt=sum(found.state in ("corrupt", "unreadable") for found, _ in read),
            size_bytes=sum(map(len, data.values())),
        )
        return data, result

    async def write(self, chunks: Mapping[ChunkKey, bytes]) -> StoreResult:
        """Store chunks durably: when it returns, what it counts as stored survives a power cut."""
        items = [Item(key=key, raw=memoryview(data)) for key, data in chunks.items()]
        outcomes = await _on_disk(self.vault.store, items)
        states = [one.state for one in outcomes]
        return StoreResult(
            stored=states.count("stored"),
            skipped=states.count("skipped"),
            failed=states.count("failed"),
            size_bytes=sum(one.raw_bytes for one in outcomes if one.state == "stored"),
        )

    async def seal(
        self, keys: Sequence[ChunkKey], on_bytes: Callable[[int], None] | None = None
    ) -> list[ChunkRef | None]:
        """Read every chunk back, and return its content's id and size; None: not intact.

        Raises
        ------
        ResourceExhaustedError
            The names could not be made durable.
        """
        found = await self._checked(keys, on_bytes)
        await _on_disk(self.vault.sync)
        return [
            ChunkRef(chunk_hash=key.chunk_hash.hex(), digest=one.content, size_bytes=one.raw_bytes)
            if one.state == "intact" and one.content is not None and one.raw_bytes is not None
            else None
            for key, one in zip(keys, found, strict=True)
        ]

    async def verify(
        self,
        keys: Sequence[ChunkKey],
        refs: Sequence[ChunkRef],
        on_bytes: Callable[[int], None] | None = None,
    ) -> list[ChunkCheck]:
        """Read and digest each chunk to its last byte and compare it with what the freeze noted."""
        checked = await self._checked(keys, on_bytes, deep=True)
        return [_check(found, ref) for found, ref in zip(checked, refs, strict=True)]

    async def hold(
        self, owner: str, keys: Sequence[ChunkKey], refs: Sequence[ChunkRef] = ()
    ) -> None:
        """Keep chunks from eviction and deletion until `release`; durable when it returns."""
        # A window that was frozen where files cannot be seen has refs without a digest.
        contents = {ref.digest for ref in refs if is_content(ref.digest)}
        await _on_disk(self.vault.hold, owner, keys, contents)

    async def renew_hold(
        self, owner: str, keys: Sequence[ChunkKey], refs: Sequence[ChunkRef]
    ) -> bool:
        """Put a hold back where it is lost or of other chunks, and return whether it was."""
        contents = {ref.digest for ref in refs}
        return await _on_disk(upkeep.renew_hold, self.vault, owner, keys, contents)

    async def release(self, owner: str) -> None:
        """Give up a hold; unknown owners are no error."""
        await _on_disk(self.vault.release, owner)

    async def delete(self, keys: Sequence[ChunkKey]) -> int:
        """Delete chunks that nobody holds and return how many were deleted."""
        return sum(await _on_disk(self.vault.delete, keys))

    async def salted(self, salts: Collection[str]) -> list[ChunkKey]:
        """Return the keys of all chunks that have one of these salts, whoever keeps them."""
        return await _on_disk(
            lambda: [r.key for _, r in self.vault.records() if r.cache_salt in salts]
        )

    async def list(
        self,
        *,
        limit: int = 1000,
        cursor: str | None = None,
        owner: str | None = None,
        salt: str | None = None,
    ) -> ChunkPage:
        """List the keys of all chunks, or of those a window holds, or of one salt."""
        listing = partial(self.vault.page, limit=limit, cursor=cursor, owner=owner, salt=salt)
        records, cursor = await _on_disk(listing)
        return ChunkPage(keys=[record.key for record in records], cursor=cursor)

    async def clear(self, *, salt: str | None = None) -> int:
        """Delete all chunks, or all of one salt, that nobody holds; return how many."""

        def work() -> int:
            keys = [r.key for _, r in self.vault.records() if salt in (None, r.cache_salt)]
            return sum(self.vault.delete(keys))

        return await _on_disk(work)

    async def point(self, key: ChunkKey, ref: ChunkRef) -> bool:
        """Make a key mean the content of a ref, if that is there and intact; durable then."""
        return await _on_disk(upkeep.point, self.vault, key, ref.digest)

    async def shares(self) -> Shares:
        """Count what lies there, and who keeps what of it."""
        return await _on_disk(upkeep.shares, self.vault)

    async def collect(self, owners: Collection[str], *, dry_run: bool = False) -> Garbage:
        """Remove what nothing can use; holds of others than `owners` too, once a day old."""
        return await _on_disk(partial(self.vault.room.collect, owners, dry_run=dry_run))

    async def purge(
        self,
        owners: Collection[str] = (),
        *,
        keys: Sequence[ChunkKey] = (),
        salts: Collection[str] = (),
        damaged: bool = False,
        dry_run: bool = False,
    ) -> Freed:
        """Give up holds, and delete what they held, `keys`, and all of `salts`, for good."""
        work = partial(
            upkeep.purge,
            self.vault,
            owners,
            keys=keys,
            salts=salts,
            damaged=damaged,
            dry_run=dry_run,
        )
        return await _on_disk(work)

    def label(self, key: ChunkKey) -> str:
        """Return the name of a key's record, a keyed hash."""
        return self.vault.name(key)

    async def traces(self, owners: Collection[str], labels: Collection[str]) -> Traces:
        """Look for what is left of owners and of chunks, by the names of their records."""
        return await _on_disk(upkeep.traces, self.vault, owners, labels)

    def reseal(self, keyring: Keyring, on_files: Callable[[int], None]) -> int:
        """Encrypt all files under the keyring's current key; blocks, see `vault.rekey`."""
        from cwm_jupyter.vault.rekey import reseal

        if self.vault.keyring is None:  # then nobody could read it afterwards
            return 0
        return reseal(self.vault, keyring, on_files)

    async def healthy(self) -> bool:
        """Say whether chunks can be stored now, by storing a few bytes; raises nothing."""
        return await _on_disk(self.vault.writable)

    # What follows runs in threads.

    def _stat(self, key: ChunkKey) -> ChunkStat | None:
        record = self.vault.record(key)
        if record is None:
            return None
        try:
            status = self.vault.folder.content(record.content).stat()
        except OSError:
            return None
        return ChunkStat(
            size_bytes=record.size_bytes,
            stored_at=record.stored_at,
            digest=record.content,
            used_ns=status.st_mtime_ns,
        )

    def _describe(self, key: ChunkKey) -> ChunkInfo | None:
        record = self.vault.record(key)
        return None if record is None else self.vault.describe(self.vault.name(key), record)

    async def _checked(
        self,
        keys: Sequence[ChunkKey],
        on_bytes: Callable[[int], None] | None,
        *,
        deep: bool = False,
    ) -> Sequence[Found]:
        done, lock = 0, threading.Lock()

        def check(key: ChunkKey) -> Found:
            nonlocal done
            found = self.vault.check(key, deep=deep)
            with lock:
                done += found.raw_bytes or 0
                if on_bytes is not None:
                    on_bytes(done)
            return found

        return await _on_disk(lambda: self.vault.each(check, keys))


async def _on_disk(work: Callable[[*_Args], _T], *args: *_Args) -> _T:
    """Do `work` in a thread; what the disk refuses is an error of ours.

    Raises
    ------
    ResourceExhaustedError
        The disk or a quota of the system is full, or failing.
    """
    try:
        return await to_thread.run_sync(work, *args)
    except OSError as error:
        raise ResourceExhaustedError(
            f"The disk of the vault refused: {error.strerror or error}.",
            hint="Make room, or see cwm doctor; what was stored before is as it was.",
        ) from error


def _check(found: Found, ref: ChunkRef) -> ChunkCheck:
    if found.state == "unreadable":  # which says nothing of the bytes
        raise KVStoreError(
            f"Chunk {ref.chunk_hash[:12]} cannot be read now: {found.reason}.",
            hint="Look to the disk, its permissions and the encryption key, then try again.",
        )
    same = found.state == "intact" and found.content == ref.digest
    state: Literal["intact", "missing", "corrupt"] = "intact" if same else "corrupt"
    if found.state == "missing":
        state = "missing"
    return ChunkCheck(
        state=state,
        digest=found.content if found.state == "intact" else None,
        size_bytes=found.raw_bytes,
        reason=found.reason or (None if same else "other bytes than were frozen"),
    )

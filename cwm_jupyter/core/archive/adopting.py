"""Adopting: the contents of an archive go into the vault as they are, in a new lineage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from anyio import to_thread

from cwm_jupyter.core.archive.arrivals import Arrival
from cwm_jupyter.core.archive.reader import Reader
from cwm_jupyter.core.chunks import ChunkKey, ChunkStore, chunk_keys
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.kept import KeptStore
from cwm_jupyter.core.lineage import Lineages
from cwm_jupyter.core.models import ChunkRef
from cwm_jupyter.errors import KVStoreError, ResourceExhaustedError

__all__ = ["Adopt"]

_BATCH_BYTES = 64 << 20
_BATCH = 16


@dataclass
class Adopt:
    """One archive's contents on their way into the vault.

    Parameters
    ----------
    reader, store
        From where, and to where.
    lineages
        The secrets of this home.
    job
        Told of the bytes.
    """

    reader: Reader
    store: ChunkStore
    lineages: Lineages
    job: Job
    #: None: the windows keep what they had
    model: str | None = None
    max_context_tokens: int | None = None

    async def check(self, _found: Sequence[Arrival]) -> None:
        """Refuse an archive that the vault has no room for.

        Raises
        ------
        ResourceExhaustedError
            It has not; nothing was written.
        """
        if not isinstance(self.store, KeptStore):
            return
        shares, needed = await self.store.shares(), self.reader.content_bytes
        room = shares.free_bytes
        if shares.quota_bytes is not None:
            held = shares.stored_bytes - shares.unheld_bytes
            room = min(room, shares.quota_bytes - held)
        if needed > room:
            raise ResourceExhaustedError(
                f"The archive holds {needed:,} bytes of KV, and the vault has room for "
                f"{max(room, 0):,}.",
                hint="Delete windows and purge them (cwm admin purge), or make room on the disk.",
                needed_bytes=needed,
            )

    def address(self, arrival: Arrival) -> None:
        """Give a window its keys: its own layout's, in its new lineage."""
        arrival.keys = chunk_keys(
            arrival.hashes,
            model_name=str(arrival.fingerprint.layout["kv_model_name"]),
            world_size=arrival.entry.ranks,
            cache_salt=self.lineages.salt(arrival.lineage_id, arrival.fingerprint),
        )

    async def fill(self, found: Sequence[Arrival]) -> None:
        """Store all contents, and read them back.

        Raises
        ------
        KVStoreError
            The vault did not take them.
        """
        await self._store(found)
        self.job.stage("verify", total=self.reader.content_bytes, unit="bytes")
        known: dict[ChunkKey, ChunkRef] = {}
        for arrival in found:
            new = [key for key in arrival.keys if key not in known]
            for key, ref in zip(new, await self.store.seal(new), strict=True):
                if ref is None:
                    raise KVStoreError(
                        "A chunk was not read back as it was stored.",
                        hint="The disk may be failing: see cwm doctor.",
                    )
                known[key] = ref
            arrival.refs = [known[key] for key in arrival.keys]
            self.job.advance(sum(ref.size_bytes or 0 for ref in known.values()))

    async def _store(self, found: Sequence[Arrival]) -> None:
        wanted: dict[int, set[ChunkKey]] = defaultdict(set)
        for arrival in found:
            for content, key in zip(arrival.contents, arrival.keys, strict=True):
                wanted[content].add(key)
        self.job.stage("store", total=self.reader.content_bytes, unit="bytes")
        batch: dict[ChunkKey, bytes] = {}
        done = waiting = 0
        contents = self.reader.contents()
        for position in range(len(self.reader.catalogue.contents)):
            data = await to_thread.run_sync(next, contents)
            batch |= dict.fromkeys(wanted[position], data)
            waiting += len(data)
            if waiting >= _BATCH_BYTES or len(batch) >= _BATCH:
                await self._write(batch)
                done += waiting
                self.job.advance(done)
                batch, waiting = {}, 0
        await self._write(batch)
        self.job.advance(done + waiting)

    async def _write(self, batch: dict[ChunkKey, bytes]) -> None:
        result = await self.store.write(batch)
        if result.failed:
            raise KVStoreError(
                f"{result.failed} of {len(batch)} chunks could not be stored.",
                hint="See cwm doctor for the room on the disk; nothing was imported.",
            )

    async def drop(self, found: Sequence[Arrival]) -> bool:
        """Delete what was stored, and return whether that is all that can ever be there."""
        await self.store.delete([key for arrival in found for key in arrival.keys])
        return True

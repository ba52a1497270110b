"""Freeze: make a session's state durable under a name, and prove it.

The order is the promise. Hold the chunks, make the engine store what is missing, wait, sync,
digest, probe, write the manifest, and only then one atomic write of the index: a window is in the
index only if every chunk of it is durable, and a crash at any point leaves the old state or the
new one.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import anyio
from anyio import to_thread

from cwm_jupyter.core import probe
from cwm_jupyter.core.chunks import ChunkKey, ChunkStore
from cwm_jupyter.core.connection import ConnectedStack, EngineFacts
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.library import Library, Manifest
from cwm_jupyter.core.lifetime import lasting, refuse_expired, renewed
from cwm_jupyter.core.models import (
    ChunkRef,
    FreezePlan,
    FreezeReport,
    Probe,
    Proof,
    Session,
    Window,
    now,
)
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.core.versions import prune
from cwm_jupyter.errors import KVStoreError, KVStoreTimeoutError, SessionEmptyError
from cwm_jupyter.units import total

__all__ = ["Freeze", "settle"]

_POLL_S = 0.02
#: stores that may fail with a reason before it is believed
_REFUSALS = 2


@dataclass
class Freeze:
    """One freeze, step by step; the caller holds the session.

    Parameters
    ----------
    stack, library
        The running stack, and where windows are kept.
    session
        What is frozen.
    job
        Told of the stages.
    durable_timeout_s
        How long chunks may take to reach the disk.
    probe_top
        How many of the likeliest next tokens to note.
    update
        Make a new version of the window that has the name already, if there is one.
    keep_versions
        How many versions stay then; None: all.
    ttl_s
        How long the window stays after its last use; None: for good.
    """

    stack: ConnectedStack
    library: Library
    session: Session
    job: Job
    durable_timeout_s: float
    probe_top: int
    update: bool = False
    keep_versions: int | None = None
    ttl_s: float | None = None

    async def plan(self) -> FreezePlan:
        """Look at what the session holds and what of it is durable already.

        Raises
        ------
        SessionEmptyError
            Nothing was said yet.
        StateTransitionError
            The session has expired.
        """
        self.job.stage("look")
        refuse_expired(self.session)
        self._transcript = await to_thread.run_sync(self.library.transcript, self.session)
        if not self._transcript.turns:
            raise SessionEmptyError(f"The session {self.session.name!r} is empty.")
        self._facts = await self.stack.facts()
        self._salt = self.library.lineages.salt(self.session.lineage_id, self._facts.fingerprint)
        self._keys = self.stack.keys(self._transcript.token_ids, self._salt)
        self._stored_before = await self._stored_bytes()
        return _plan(
            self.session,
            self._transcript,
            self._facts,
            self._keys,
            self._stored_before,
            self.stack.chunk_tokens,
        )

    async def commit(self, name: str, *, tags: Sequence[str], note: str) -> FreezeReport:
        """Store, prove, probe and enter the window into the index, after `plan`.

        Raises
        ------
        KVStoreTimeoutError
            A chunk did not become durable; the session is as before and no window exists.
        """
        window_id = uuid.uuid4().hex
        store = self.stack.store
        if store is not None:
            await store.hold(window_id, self._keys)
        try:
            return await self._commit(window_id, name, tags, note)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._undo(window_id)
            raise

    async def _undo(self, window_id: str) -> None:
        """Leave nothing of a failed freeze, unless its window is in the index after all."""
        if await to_thread.run_sync(self.library.index.get_window, window_id) is not None:
            return
        self.library.forget_manifests(window_id)
        if self.stack.store is not None:
            await self.stack.store.release(window_id)

    async def _commit(
        self, window_id: str, name: str, tags: Sequence[str], note: str
    ) -> FreezeReport:
        started = time.perf_counter() - self.job.seconds("look")
        if self.stack.store is None:
            refs, level = await self._prove_present(), "present"
        else:
            refs, level = await self._prove_durable(self.stack.store, window_id), "verified"
        self.job.stage("probe")
        noted, probe_s = await self._probe()
        self.job.stage("index")
        size_bytes = total(ref.size_bytes for ref in refs)
        proof = Proof.from_dict(
            {"level": level, "chunks": len(refs), "size_bytes": size_bytes, "checked_at": now()}
        )
        manifest = Manifest(
            window_id=window_id,
            transcript=self._transcript,
            fingerprint=self._facts.fingerprint,
            refs=refs,
            probe=noted,
        )
        window, pruned = await to_thread.run_sync(self._enter, manifest, name, proof, tags, note)
        self.job.finish()
        stored_before = self._stored_before
        return FreezeReport(
            window=window,
            session=self.session.name,
            commit_s=time.perf_counter() - started - probe_s,
            probe_s=probe_s,
            already_stored_bytes=stored_before,
            newly_stored_bytes=None
            if stored_before is None or size_bytes is None
            else size_bytes - stored_before,
            tail_tokens=window.tokens - window.chunks * window.chunk_tokens,
            stages_s={stage.name: stage.seconds for stage in self.job.state.stages},
            pruned=[version.known_as for version in pruned],
        )

    async def _stored_bytes(self) -> int | None:
        """Return the bytes of this session's chunks that are in the store; None: unavailable."""
        if self.stack.store is None:
            return None
        found = await self.stack.store.stat(self._keys)
        return sum(stat.size_bytes for stat in found if stat)

    async def _prove_durable(self, store: ChunkStore, window_id: str) -> list[ChunkRef]:
        """Have every chunk stored, and read it back from the disk."""
        self.job.stage("store", total=len(self._keys), unit="chunks")
        await self._settle(store)
        self.job.stage("verify", total=self._stored_before, unit="bytes")
        refs = await store.seal(self._keys, self.job.advance)
        if None in refs:  # the store has put aside what was damaged, so it is stored anew
            await self._settle(store)
            refs = await store.seal(self._keys)
        sealed = [ref for ref in refs if ref is not None]
        if len(sealed) != len(refs):
            raise KVStoreError(
                f"{len(refs) - len(sealed)} of {len(refs)} chunks were not read back as stored.",
                hint="The disk may be failing: see cwm doctor and cwm logs lmcache.",
            )
        await store.hold(window_id, self._keys)  # now with the contents that the proof is of
        return sealed

    async def _settle(self, store: ChunkStore) -> None:
        await settle(
            self.stack,
            store,
            self._keys,
            self._transcript.token_ids,
            self._salt,
            job=self.job,
            timeout_s=self.durable_timeout_s,
        )

    async def _prove_present(self) -> list[ChunkRef]:
        """Drop the chunks from LMCache's memory and count what comes back from its disk."""
        self.job.stage("store", total=len(self._keys), unit="chunks")
        deadline = time.monotonic() + self.durable_timeout_s
        while True:
            await self.stack.engine.complete(
                self._transcript.token_ids, cache_salt=self._salt, max_tokens=1
            )
            # What is in memory would be counted as well, and some may still be on its way.
            dropped = not await self.stack.keeper().unstored()
            dropped = dropped and await self.stack.keeper().drop(self._keys)
            found = await self.stack.keeper().prefetch(
                self._transcript.token_ids,
                model_name=self.stack.kv_model_name,
                world_size=self.stack.world_size,
                cache_salt=self._salt,
            )
            if dropped and found.found >= len(self._keys):
                break
            if time.monotonic() > deadline:
                raise KVStoreTimeoutError(
                    f"The stack keeps only {found.found} of {len(self._keys)} chunks.",
                    hint="Its LMCache server needs a disk, Redis or S3 tier (--l2-adapter).",
                )
            await anyio.sleep(10 * _POLL_S)
        per_token = self._facts.kv_bytes_per_token
        chunk = None if per_token is None else per_token * self.stack.chunk_tokens
        size = None if chunk is None else chunk // self.stack.world_size
        return [
            ChunkRef(chunk_hash=key.chunk_hash.hex(), digest="", size_bytes=size)
            for key in self._keys
        ]

    async def _probe(self) -> tuple[Probe, float]:
        """Note the probe, with exactly the window's chunks taken from cache.

        Where the engine's blocks are smaller than chunks it may take more, of its own cache.
        """
        started = time.perf_counter()
        expected = len(self._keys) // self.stack.world_size * self.stack.chunk_tokens
        for _ in range(2):  # a first one may have to load what the engine had dropped
            noted, cached = await probe.ask(
                self.stack, self._transcript.token_ids, self._salt, top=self.probe_top
            )
            if cached is None or cached == expected:
                return noted, time.perf_counter() - started
            if cached > expected and not self._facts.aligned:
                return noted, time.perf_counter() - started
        raise KVStoreError(
            f"The engine takes {cached:,} tokens from cache where the window has {expected:,}.",
            hint="Restart the stack (cwm down, cwm up) and freeze again.",
        )

    def _enter(
        self, manifest: Manifest, name: str, proof: Proof, tags: Sequence[str], note: str
    ) -> tuple[Window, list[Window]]:
        """Write the manifest, then window and session in one atomic write of the index.

        Returns
        -------
        tuple
            The window, and the earlier versions that were deleted in the same write.
        """
        index = self.library.index
        parent = index.get_window(self.session.window_id) if self.session.window_id else None
        window = Window(
            id=manifest.window_id,
            name=name,
            state="intact",
            session_id=self.session.id,
            lineage_id=self.session.lineage_id,
            model=self.stack.model,
            created_at=now(),
            used_at=None,
            tokens=len(self._transcript.token_ids),
            turns=len(self._transcript.turns),
            prefill_s=self._transcript.prefill_s,
            chunks=proof.chunks // self.stack.world_size,
            chunk_tokens=self.stack.chunk_tokens,
            size_bytes=proof.size_bytes,
            proof=proof,
            manifest_digest=self.library.write_manifest(manifest),
            parent_window_id=parent.id if parent else None,
            depth=parent.depth + 1 if parent else 0,
            tags=list(tags),
            note=note,
        )
        window = lasting(window, self.ttl_s)
        with index.transaction() as transaction:
            transaction.update_session(window.session_id, lambda s: _frozen(s, window.id))
            if not self.update:
                return transaction.add_window(window), []
            window = transaction.add_version(window)
            return window, prune(transaction, window, self.keep_versions)


def _frozen(session: Session, window_id: str) -> Session:
    if session.state != "frozen":
        session = session.to("frozen")
    return renewed(session.replace(window_id=window_id))


def _plan(
    session: Session,
    transcript: Transcript,
    facts: EngineFacts,
    keys: Sequence[ChunkKey],
    stored_bytes: int | None,
    chunk_tokens: int,
) -> FreezePlan:
    tokens = len(transcript.token_ids)
    chunks = max(tokens - 1, 0) // chunk_tokens
    per_token = facts.kv_bytes_per_token
    return FreezePlan(
        session=session.name,
        tokens=tokens,
        chunks=chunks,
        tail_tokens=tokens - chunks * chunk_tokens,
        size_bytes=None if per_token is None else per_token * chunks * chunk_tokens,
        already_stored_bytes=stored_bytes,
    )


async def settle(
    stack: ConnectedStack,
    store: ChunkStore,
    keys: Sequence[ChunkKey],
    token_ids: Sequence[int],
    salt: str,
    *,
    job: Job,
    timeout_s: float,
) -> None:
    """Wait until all chunks are in the store, and have those stored again that are not.

    LMCache stores asynchronously and never retries. What stays away is deleted from its memory,
    since it does not store again what it finds there, and one token is asked of the engine: its own
    prefix cache gives the blocks without computing, or else they are computed.

    Raises
    ------
    KVStoreError
        The store says why it does not take them, again and again.
    KVStoreTimeoutError
        Chunks are still missing after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    patience = _patience_s(len(keys))
    refused, failed_before = 0, None
    while missing := await _await_stored(store, keys, job, min(patience, timeout_s)):
        failed, reason = await stack.keeper().store_failures()
        if failed == failed_before:
            reason = None  # it is an old one, of somebody else's chunks perhaps
        refused, failed_before = refused + (reason is not None), failed
        late = time.monotonic() > deadline
        if late or refused > _REFUSALS:
            what = f"{len(missing)} of {len(keys)} chunks did not reach the disk"
            error = KVStoreError if reason else KVStoreTimeoutError
            raise error(
                f"{what}: {reason}." if reason else f"{what} within {timeout_s:g} s.",
                hint="See cwm doctor for the room on disk; the conversation goes on as it was.",
                missing_chunks=len(missing),
            )
        await stack.keeper().delete(missing, tier="l1")
        await stack.engine.complete(token_ids, cache_salt=salt, max_tokens=1)


def _patience_s(chunks: int) -> float:
    """How long stores under way may take before they count as failed: 1 s and 20 ms a chunk."""
    return 1.0 + 0.02 * chunks


async def _await_stored(
    store: ChunkStore, keys: Sequence[ChunkKey], job: Job, timeout_s: float
) -> list[ChunkKey]:
    """Wait while chunks keep arriving; return those that are missing in the end."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = await store.stat(keys)
        missing = [key for key, stat in zip(keys, found, strict=True) if stat is None]
        job.advance(len(keys) - len(missing))
        if not missing or time.monotonic() > deadline:
            return missing
        await anyio.sleep(_POLL_S)

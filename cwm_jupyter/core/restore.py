"""Restore: give a window's state back to an engine, measure it, and refuse what does not match.

Fingerprint first; then LMCache loads the chunks into its memory, and the vault verifies every byte
as it does: what is damaged is put aside, so that the engine computes it anew. Then one token is
asked of the engine, which takes the chunks in, tells how many tokens it took from cache, and must
reproduce the probe of the freeze.

The state at the end of an earlier turn is restored from its own chunks alone. A freeze notes the
probe at the window's end, so there is none to compare with: what is known then is how much came
from cache, that what was read from the disk has the bytes that were frozen, and that the engine is
the same in all its fields. An engine that differs is therefore not accepted for an earlier turn.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import anyio
from anyio import to_thread

from cwm_jupyter.core import fingerprint, probe
from cwm_jupyter.core.chunks import ChunkKey, ChunkStat, ChunkStore, usable_chunks
from cwm_jupyter.core.connection import ConnectedStack, EngineFacts
from cwm_jupyter.core.freeze import settle
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.lifetime import lasting, ttl_s
from cwm_jupyter.core.models import (
    ChunkRef,
    Fingerprint,
    Probe,
    ProbeResult,
    Restored,
    Session,
    SessionState,
    Window,
    now,
)
from cwm_jupyter.core.parts import Parts
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.core.turns import stem, until
from cwm_jupyter.errors import (
    CWMError,
    EngineMismatchError,
    IndexCorruptError,
    KVStoreError,
    ProbeError,
    WindowNotFoundError,
)

__all__ = ["Restoration", "Restore"]

_QUIET_S = 5.0


@dataclass
class _Chunks:
    """The chunks as they were found; positions are those of the keys.

    `every` are the keys of the whole window, `keys` those up to where it goes back to.
    """

    keys: list[ChunkKey] = field(default_factory=list)
    every: list[ChunkKey] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    corrupt: list[int] = field(default_factory=list)
    #: there, but with other bytes than were frozen: computed again since
    other: list[int] = field(default_factory=list)
    #: read from the disk, and so checked; None: that cannot be told
    read: list[int] | None = None

    @property
    def bad(self) -> list[int]:
        return sorted([*self.missing, *self.corrupt])


@dataclass(frozen=True)
class Restoration:
    """A restored state, and what one needs to go on from it."""

    report: Restored
    transcript: Transcript
    lineage_id: str
    salt: str
    facts: EngineFacts


@dataclass
class Restore:
    """One restoration, step by step.

    Parameters
    ----------
    parts
        What the manager works with.
    stack
        The running stack; it has an LMCache.
    window
        What is restored.
    turn
        Whose end to go back to; None: the window's end.
    job
        Told of the stages.
    """

    parts: Parts
    stack: ConnectedStack
    window: Window
    turn: int | None
    job: Job

    async def run(
        self,
        *,
        recompute: bool = False,
        accept_engine: bool = False,
        accept_unknown: Collection[str] = (),
    ) -> Restoration:
        """Restore the state and return it with what was measured.

        Parameters
        ----------
        recompute
            Compute everything anew from the tokens, in a lineage of its own.
        accept_engine
            Accept an engine that differs in numeric fields.
        accept_unknown
            Layout fields that may be unknown.

        Raises
        ------
        ValidationError
            The window has no such turn.
        EngineMismatchError
            The engine is not the window's, or it is accepted, but at the end of an earlier turn
            there is no probe to decide; nothing was touched.
        ProbeError
            The restored state does not reproduce the probe.
        """
        started = time.perf_counter()
        self.job.stage("check")
        self._manifest = await to_thread.run_sync(self.parts.library.manifest, self.window)
        self._transcript = self._manifest.transcript
        if self.turn is not None:
            what = f"window {self.window.known_as!r}"
            self._transcript = until(self._transcript, self.turn, what)
        self._token_ids = self._transcript.token_ids
        facts = await self.stack.facts()
        accepted = self._compare(facts, recompute, accept_engine, accept_unknown)
        lineage_id = self.parts.library.lineages.create() if recompute else self.window.lineage_id
        self._salt = self.parts.library.lineages.salt(lineage_id, facts.fingerprint)
        chunks = _Chunks() if recompute else await self._load()

        self.job.stage("recompute" if recompute else "take into the engine")
        ranks = self.stack.world_size
        expected = len(chunks.keys) // ranks * self.stack.chunk_tokens
        recomputed = {*_chunks(chunks.other, ranks), *self._recomputed_before(chunks)}
        inexact = bool(recompute or accepted or chunks.bad or recomputed or not facts.aligned)
        result, cached = await self._probe(chunks.keys, expected, inexact=inexact)
        restore_s = time.perf_counter() - started
        report = Restored(
            window=self.window.known_as,
            turn=self.turn,
            tokens=len(self._token_ids),
            size_bytes=self._size_bytes(),
            chunks_expected=len(chunks.keys) // ranks,
            chunks_found=len(chunks.keys) // ranks - len(_chunks(chunks.bad, ranks)),
            chunks_missing=len(_chunks(chunks.missing, ranks)),
            chunks_corrupt=len(_chunks(chunks.corrupt, ranks)),
            chunks_recomputed=len(recomputed),
            chunks_read=None if chunks.read is None else len(_chunks(chunks.read, ranks)),
            expected_cached_tokens=expected,
            cached_tokens=cached,
            recomputed_tokens=None if cached is None else len(self._token_ids) - cached,
            recompute=recompute,
            complete=not recompute and not chunks.bad and (cached or 0) >= expected,
            probe=result,
            restore_s=restore_s,
            stages_s={},
            accepted_differences=accepted,
        )
        if result is not None and not result.passed and not recompute:
            raise ProbeError(
                f"The restored state of {self.window.known_as!r} is not the frozen one: the "
                f"likeliest next tokens differ{_by(result)}.",
                report=report.to_dict(),
            )
        if chunks.bad and self.stack.store is not None:
            await self._heal(self.stack.store, chunks)
        return Restoration(report, self._transcript, lineage_id, self._salt, facts)

    def session(
        self, restored: Restoration, name: str, state: SessionState, transcript: Transcript
    ) -> Session:
        """Return the entry of a session that goes on from the restored state.

        Parameters
        ----------
        restored
            What `run` returned.
        name, state
            Of the session.
        transcript
            All of it; it begins with the restored one.
        """
        library, window = self.parts.library, self.window
        session = Session(
            id=uuid.uuid4().hex,
            name=name,
            state=state,
            model=self.stack.model,
            lineage_id=restored.lineage_id,
            created_at=now(),
            updated_at=now(),
            tokens=len(transcript.token_ids),
            turns=len(transcript.turns),
            max_context_tokens=restored.facts.max_context_tokens,
            window_id=window.id if self._whole else stem(library, window.id, restored.transcript),
        )
        return lasting(session, ttl_s(self.parts.settings.limits.session_ttl))

    @property
    def _whole(self) -> bool:
        """Whether it goes back to the window's end, where the probe was noted."""
        return len(self._transcript.turns) == len(self._manifest.transcript.turns)

    def _compare(
        self,
        facts: EngineFacts,
        recompute: bool,
        accept_engine: bool,
        accept_unknown: Collection[str],
    ) -> list[str]:
        """Refuse an engine that the window does not fit, and return the differences accepted."""
        differences = fingerprint.compare(self._manifest.fingerprint, facts.fingerprint)
        if recompute:
            self._check_words(facts.fingerprint)
            return [str(d) for d in differences]
        accepted = fingerprint.check(
            self.window.known_as,
            differences,
            accept_engine=accept_engine,
            accept_unknown=accept_unknown,
        )
        if accepted and not self._whole:
            raise EngineMismatchError(
                f"The window {self.window.known_as!r} was frozen on another engine, and at the end "
                f"of turn {self.turn} there is no probe to decide: {'; '.join(accepted)}.",
                hint="Thaw the whole window so, and then go back in its session: "
                f"%cwm rewind {self.turn}",
                differences=[d.to_dict() for d in differences],
            )
        return accepted

    def _check_words(self, engine: Fingerprint) -> None:
        """Refuse an engine for which the window's tokens are other words."""
        differ = fingerprint.surely_differ(
            self._manifest.fingerprint, engine, fingerprint.SAME_WORDS
        )
        if differ:
            raise EngineMismatchError(
                f"The window {self.window.known_as!r} cannot be computed here: it is of another "
                "tokenizer than the running engine's, so that its tokens would be other words.",
                hint="Start a stack with its model.",
                differences=differ,
            )

    def _size_bytes(self) -> int | None:
        """Return the size of the chunks up to where it goes back to; None: unknown."""
        if self._whole:
            return self.window.size_bytes
        sizes = [ref.size_bytes for ref in self._refs()]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def _refs(self) -> list[ChunkRef]:
        """Return the window's chunks up to where it goes back to, rank by rank."""
        refs = self._manifest.refs
        ranks = len(refs) // max(self.window.chunks, 1)
        return refs[: ranks * usable_chunks(len(self._token_ids), self.window.chunk_tokens)]

    def _recomputed_before(self, chunks: _Chunks) -> set[int]:
        """Return which chunks the manifest notes as computed again."""
        hashes = [key.chunk_hash.hex() for key in chunks.keys[:: self.stack.world_size]]
        return {i for i, one in enumerate(hashes) if one in self._manifest.recomputed}

    async def _load(self) -> _Chunks:
        """Have LMCache load the chunks, and find out about those that it could not load."""
        every = self.stack.keys(self._manifest.transcript.token_ids, self._salt)
        if [k.chunk_hash.hex() for k in every] != [r.chunk_hash for r in self._manifest.refs]:
            raise IndexCorruptError(
                f"The manifest of {self.window.name!r} lists other chunks than its tokens have.",
                hint="Restore it from a backup, or build it anew with --recompute.",
            )
        refs = self._refs()
        keys = every[: len(refs)]
        chunks = _Chunks(keys, every)
        store = self.stack.store
        self.job.stage("load", total=self._size_bytes(), unit="bytes")
        if store is None:
            chunks.missing = list(range(await self._prefetch(keys), len(keys)))
            return chunks
        before = await store.stat(keys)
        await self._prefetch(keys)
        after = await store.stat(keys)
        chunks.read = _read(before, after)
        for i, (ref, was, now_is) in enumerate(zip(refs, before, after, strict=True)):
            if was is None:
                chunks.missing.append(i)
            elif now_is is None:  # reading found it damaged, and the store has put it aside
                chunks.corrupt.append(i)
            elif now_is.digest not in (None, ref.digest):
                chunks.other.append(i)
        return chunks

    async def _prefetch(self, keys: list[ChunkKey]) -> int:
        """Have LMCache load the chunks and return how many it has, from the first on."""
        if not keys:
            return 0
        prefetched = await self.stack.keeper().prefetch(
            self._token_ids,
            model_name=self.stack.kv_model_name,
            world_size=self.stack.world_size,
            cache_salt=self._salt,
            timeout_s=self.parts.settings.lmcache.prefetch_timeout_s,
        )
        return prefetched.found

    async def _probe(
        self, keys: list[ChunkKey], expected: int, *, inexact: bool
    ) -> tuple[ProbeResult | None, int | None]:
        """Ask the engine, and once more from the disk, with nothing else running, if it differs."""
        noted = self._manifest.probe
        measured, cached = await self._ask()
        if not self._whole:
            return None, cached
        short = cached is None or cached != expected
        allowed = self.parts.settings.limits.probe_tolerance
        tolerance = allowed if inexact or short else 0.0
        result = probe.compare(noted, measured, tolerance=tolerance)
        if not result.passed:
            await self._await_quiet()
            # What the servers have in memory may have been computed again since the freeze.
            if keys and await self.stack.forget(keys):
                await self._prefetch(keys)
            measured, cached = await self._ask()
            result = probe.compare(noted, measured, tolerance=tolerance).replace(repeated=True)
        return result, cached

    async def _ask(self) -> tuple[Probe, int | None]:
        return await probe.ask(
            self.stack,
            self._token_ids,
            self._salt,
            top=self.parts.settings.limits.probe_top,
            position_tokens=self._manifest.probe.position_tokens if self._whole else None,
        )

    async def _await_quiet(self) -> None:
        """Wait a while for other requests to end, since they change the shapes of batches."""
        deadline = time.monotonic() + _QUIET_S
        while time.monotonic() < deadline:
            if not (await self.stack.engine.metrics()).running_requests:
                return
            await anyio.sleep(0.05)

    async def _heal(self, store: ChunkStore, chunks: _Chunks) -> None:
        """Have the recomputed chunks stored again, and note that their bytes are new.

        Where that fails the window is marked damaged: the next thaw computes them again. Of a
        window that was purged meanwhile nothing stays.
        """
        self.job.stage("heal", total=len(chunks.bad), unit="chunks")
        keys = [chunks.keys[i] for i in chunks.bad]
        try:
            await settle(
                self.stack,
                store,
                keys,
                self._token_ids,
                self._salt,
                job=self.job,
                timeout_s=self.parts.settings.storage.durable_timeout_s,
            )
            sealed = await store.seal(keys)
            if None in sealed:
                raise KVStoreError("A chunk that was stored again is not read back as stored.")
            # The new contents too, and the old ones for as long as the manifest names them.
            await store.hold(self.window.id, chunks.every, self._manifest.refs)
        except CWMError:
            self.window = await to_thread.run_sync(self._mark_damaged)
            return
        if await to_thread.run_sync(self.parts.library.index.get_window, self.window.id) is None:
            await store.release(self.window.id)  # purged meanwhile
            await store.delete(keys)
            raise WindowNotFoundError(self.window.known_as)
        frozen = [self._manifest.refs[i] for i in chunks.bad]
        new = {old: ref for old, ref in zip(frozen, sealed, strict=True) if ref and ref != old}
        self.window = await to_thread.run_sync(self._mark_healed, new)

    def _mark_damaged(self) -> Window:
        return self.parts.library.index.update_window(
            self.window.id, lambda w: w.to("damaged") if w.state == "intact" else w
        )

    def _mark_healed(self, new: dict[ChunkRef, ChunkRef]) -> Window:
        def healed(window: Window) -> Window:
            # Of what lies beyond an earlier turn nothing is known.
            return window.to("intact") if window.state == "damaged" and self._whole else window

        window = self.parts.library.exchange(self.window.id, new, healed)
        self.parts.library.note_recomputed(window.lineage_id, new)
        return window


def _read(
    before: Sequence[ChunkStat | None], after: Sequence[ChunkStat | None]
) -> list[int] | None:
    """Return which chunks were read from the disk between two looks; None: it cannot be told."""
    both = list(zip(before, after, strict=True))
    if any(now_is is not None and now_is.used_ns is None for _, now_is in both):
        return None
    return [
        i
        for i, (was, now_is) in enumerate(both)
        if was is not None and now_is is not None and now_is.used_ns != was.used_ns
    ]


def _chunks(positions: Collection[int], ranks: int) -> set[int]:
    """Return which chunks these keys are parts of: each rank has a part of a chunk."""
    return {position // ranks for position in positions}


def _by(result: ProbeResult) -> str:
    if result.max_abs_logprob_diff is None:
        return " altogether"
    return f" by up to {result.max_abs_logprob_diff:.3g} nats"

"""Thaw: give a window's state back to an engine, measure it, and refuse what does not match.

Fingerprint first; then LMCache loads the chunks into its memory, and the vault verifies every byte
as it does: what is damaged is put aside, so that the engine computes it anew. Then one token is
asked of the engine, which takes the chunks in, tells how many tokens it took from cache, and must
reproduce the probe of the freeze.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import anyio
from anyio import to_thread

from cwm_jupyter.core import fingerprint, probe
from cwm_jupyter.core.chunks import ChunkKey, ChunkStat, ChunkStore
from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.freeze import settle
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.library import Library
from cwm_jupyter.core.lifetime import lasting, renewed
from cwm_jupyter.core.models import (
    ChunkRef,
    Probe,
    ProbeResult,
    Session,
    ThawNote,
    ThawReport,
    Window,
    now,
)
from cwm_jupyter.errors import CWMError, IndexCorruptError, KVStoreError, ProbeError

__all__ = ["Thaw"]

_QUIET_S = 5.0
#: how many thaws a window remembers
_THAWS_NOTED = 5


@dataclass
class _Chunks:
    """The window's chunks as they were found; positions are those of the keys."""

    keys: list[ChunkKey] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    corrupt: list[int] = field(default_factory=list)
    #: there, but with other bytes than were frozen: computed again since
    other: list[int] = field(default_factory=list)
    #: read from the disk, and so checked; None: that cannot be told
    read: list[int] | None = None

    @property
    def bad(self) -> list[int]:
        return sorted([*self.missing, *self.corrupt])


@dataclass
class Thaw:
    """One thaw, step by step.

    Parameters
    ----------
    stack, library
        The running stack, and where windows are kept.
    window
        What is thawed.
    job
        Told of the stages.
    probe_top, probe_tolerance
        See `cwm_jupyter.config.LimitSettings`; the tolerance is in nats.
    prefetch_timeout_s, durable_timeout_s
        How long loading and storing may take.
    session_ttl_s
        How long the new session stays after its last use; None: for good.
    """

    stack: ConnectedStack
    library: Library
    window: Window
    job: Job
    probe_top: int
    probe_tolerance: float
    prefetch_timeout_s: float
    durable_timeout_s: float
    session_ttl_s: float | None = None

    async def run(
        self,
        session_name: str,
        *,
        recompute: bool = False,
        accept_engine: bool = False,
        accept_unknown: Collection[str] = (),
    ) -> ThawReport:
        """Restore the window into a new session and report what was measured.

        Parameters
        ----------
        session_name
            Of the new session; free.
        recompute
            Compute everything anew from the tokens, in a lineage of its own.
        accept_engine
            Accept an engine that differs in numeric fields.
        accept_unknown
            Layout fields that may be unknown.

        Raises
        ------
        EngineMismatchError
            The engine is not the window's; nothing was touched.
        ProbeError
            The restored state does not reproduce the probe; there is no session, and the window
            was kept.
        """
        started = time.perf_counter()
        self.job.stage("check")
        self._manifest = await to_thread.run_sync(self.library.manifest, self.window)
        self._token_ids = self._manifest.transcript.token_ids
        facts = await self.stack.facts()
        differences = fingerprint.compare(self._manifest.fingerprint, facts.fingerprint)
        if recompute:
            accepted = [str(d) for d in differences]
            lineage_id = self.library.lineages.create()
        else:
            accepted = fingerprint.check(
                self.window.known_as,
                differences,
                accept_engine=accept_engine,
                accept_unknown=accept_unknown,
            )
            lineage_id = self.window.lineage_id
        self._salt = self.library.lineages.salt(lineage_id, facts.fingerprint)
        chunks = _Chunks() if recompute else await self._load()

        self.job.stage("recompute" if recompute else "take into the engine")
        ranks = self.stack.world_size
        expected = len(chunks.keys) // ranks * self.stack.chunk_tokens
        recomputed = {*_chunks(chunks.other, ranks), *self._recomputed_before(chunks)}
        inexact = bool(recompute or accepted or chunks.bad or recomputed or not facts.aligned)
        result, cached = await self._probe(chunks.keys, expected, inexact=inexact)
        restore_s = time.perf_counter() - started
        report = ThawReport(
            window=self.window.known_as,
            session=session_name,
            tokens=self.window.tokens,
            size_bytes=self.window.size_bytes,
            chunks_expected=len(chunks.keys) // ranks,
            chunks_found=len(chunks.keys) // ranks - len(_chunks(chunks.bad, ranks)),
            chunks_missing=len(_chunks(chunks.missing, ranks)),
            chunks_corrupt=len(_chunks(chunks.corrupt, ranks)),
            chunks_recomputed=len(recomputed),
            chunks_read=None if chunks.read is None else len(_chunks(chunks.read, ranks)),
            expected_cached_tokens=expected,
            cached_tokens=cached,
            recomputed_tokens=None if cached is None else self.window.tokens - cached,
            recompute=recompute,
            complete=not recompute and not chunks.bad and (cached or 0) >= expected,
            probe=result,
            restore_s=restore_s,
            stages_s={},
            accepted_differences=accepted,
        )
        if not result.passed and not recompute:
            raise ProbeError(
                f"The restored state of {self.window.known_as!r} is not the frozen one: the "
                f"likeliest next tokens differ{_by(result)}.",
                report=report.to_dict(),
            )
        if chunks.bad and self.stack.store is not None:
            await self._heal(self.stack.store, chunks)
        self.job.stage("session")
        await to_thread.run_sync(self._enter, report, lineage_id, facts.max_context_tokens)
        self.job.finish()
        return report.replace(stages_s={s.name: s.seconds for s in self.job.state.stages})

    def _recomputed_before(self, chunks: _Chunks) -> set[int]:
        """Return which chunks the manifest notes as computed again."""
        hashes = [key.chunk_hash.hex() for key in chunks.keys[:: self.stack.world_size]]
        return {i for i, one in enumerate(hashes) if one in self._manifest.recomputed}

    async def _load(self) -> _Chunks:
        """Have LMCache load the chunks, and find out about those that it could not load."""
        keys = self.stack.keys(self._token_ids, self._salt)
        refs = self._manifest.refs
        if [k.chunk_hash.hex() for k in keys] != [r.chunk_hash for r in refs]:
            raise IndexCorruptError(
                f"The manifest of {self.window.name!r} lists other chunks than its tokens have.",
                hint="Restore it from a backup, or build it anew with --recompute.",
            )
        chunks = _Chunks(keys)
        store = self.stack.store
        self.job.stage("load", total=self.window.size_bytes, unit="bytes")
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
            timeout_s=self.prefetch_timeout_s,
        )
        return prefetched.found

    async def _probe(
        self, keys: list[ChunkKey], expected: int, *, inexact: bool
    ) -> tuple[ProbeResult, int | None]:
        """Ask the engine, and once more from the disk, with nothing else running, if it differs."""
        noted = self._manifest.probe
        measured, cached = await self._ask()
        short = cached is None or cached != expected
        tolerance = self.probe_tolerance if inexact or short else 0.0
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
            top=self.probe_top,
            position_tokens=self._manifest.probe.position_tokens,
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

        Where that fails the window is marked damaged: the next thaw computes them again.
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
                timeout_s=self.durable_timeout_s,
            )
            sealed = await store.seal(keys)
            if None in sealed:
                raise KVStoreError("A chunk that was stored again is not read back as stored.")
            await store.hold(self.window.id, chunks.keys)  # the new contents too
        except CWMError:
            self.window = await to_thread.run_sync(self._mark_damaged)
            return
        frozen = [self._manifest.refs[i] for i in chunks.bad]
        new = {old: ref for old, ref in zip(frozen, sealed, strict=True) if ref and ref != old}
        self.window = await to_thread.run_sync(self._mark_healed, new)

    def _mark_damaged(self) -> Window:
        return self.library.index.update_window(
            self.window.id, lambda w: w.to("damaged") if w.state == "intact" else w
        )

    def _mark_healed(self, new: dict[ChunkRef, ChunkRef]) -> Window:
        window = self.library.exchange(
            self.window.id, new, lambda w: w.to("intact") if w.state == "damaged" else w
        )
        self.library.note_recomputed(window.lineage_id, new)
        return window

    def _enter(self, report: ThawReport, lineage_id: str, max_context_tokens: int | None) -> None:
        """Write the new session's transcript, then it and the window's use into the index."""
        note = ThawNote(
            at=now(),
            session=report.session,
            cached_tokens=report.cached_tokens,
            expected_cached_tokens=report.expected_cached_tokens,
            complete=report.complete,
            restore_s=report.restore_s,
        )

        def used(window: Window) -> Window:
            window = window.replace(
                used_at=note.at,
                thaws=window.thaws + 1,
                last_thaws=[note, *window.last_thaws][:_THAWS_NOTED],
            )
            return renewed(window)

        session = Session(
            id=uuid.uuid4().hex,
            name=report.session,
            state="thawed",
            model=self.stack.model,
            lineage_id=lineage_id,
            created_at=now(),
            updated_at=now(),
            tokens=self.window.tokens,
            turns=self.window.turns,
            max_context_tokens=max_context_tokens,
            window_id=self.window.id,
        )
        self.library.add_session(
            lasting(session, self.session_ttl_s),
            self._manifest.transcript,
            lambda transaction: transaction.update_window(self.window.id, used),
        )


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

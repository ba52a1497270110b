"""Thaw: give a window's state back to an engine, measure it, and refuse what does not match.

Fingerprint first; then the chunks are verified where we can read them, while LMCache loads them
from disk into its memory; what is corrupt is deleted, so that the engine computes it anew; then one
token is asked of the engine, which takes the chunks in, tells how many tokens it took from cache,
and must reproduce the probe of the freeze.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field

import anyio
from anyio import to_thread

from cwm_jupyter.core import fingerprint, probe
from cwm_jupyter.core.chunks import ChunkCheck, ChunkKey, ChunkStore
from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.freeze import settle
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.library import Library
from cwm_jupyter.core.models import ChunkRef, Probe, ProbeResult, Session, ThawReport, Window, now
from cwm_jupyter.errors import CWMError, IndexCorruptError, ProbeError

__all__ = ["Thaw"]

_QUIET_S = 5.0


@dataclass
class _Chunks:
    """The window's chunks as they were found."""

    keys: list[ChunkKey] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    corrupt: list[int] = field(default_factory=list)

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
    """

    stack: ConnectedStack
    library: Library
    window: Window
    job: Job
    probe_top: int
    probe_tolerance: float
    prefetch_timeout_s: float
    durable_timeout_s: float

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
                self.window.name,
                differences,
                accept_engine=accept_engine,
                accept_unknown=accept_unknown,
            )
            lineage_id = self.window.lineage_id
        self._salt = self.library.lineages.salt(lineage_id, facts.fingerprint)
        chunks = _Chunks() if recompute else await self._load()

        self.job.stage("recompute" if recompute else "take into the engine")
        expected = len(chunks.keys) // self.stack.world_size * self.stack.chunk_tokens
        inexact = bool(
            recompute or accepted or chunks.bad or self._manifest.recomputed or not facts.aligned
        )
        result, cached = await self._probe(expected, inexact=inexact)
        restore_s = time.perf_counter() - started
        report = ThawReport(
            window=self.window.name,
            session=session_name,
            tokens=self.window.tokens,
            size_bytes=self.window.size_bytes,
            chunks_expected=len(chunks.keys),
            chunks_found=len(chunks.keys) - len(chunks.bad),
            chunks_missing=len(chunks.missing),
            chunks_corrupt=len(chunks.corrupt),
            chunks_recomputed=len(self._manifest.recomputed),
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
                f"The restored state of {self.window.name!r} is not the frozen one: the "
                f"likeliest next tokens differ{_by(result)}.",
                report=report.to_dict(),
            )
        if chunks.bad and self.stack.store is not None:
            await self._heal(self.stack.store, chunks)
        self.job.stage("session")
        await to_thread.run_sync(self._enter, session_name, lineage_id, facts.max_context_tokens)
        self.job.finish()
        return report.replace(stages_s={s.name: s.seconds for s in self.job.state.stages})

    async def _load(self) -> _Chunks:
        """Verify the chunks and have LMCache load them, both at once; delete corrupt ones."""
        keys = self.stack.keys(self._token_ids, self._salt)
        refs = self._manifest.refs
        if [k.chunk_hash.hex() for k in keys] != [r.chunk_hash for r in refs]:
            raise IndexCorruptError(
                f"The manifest of {self.window.name!r} lists other chunks than its tokens have.",
                hint="Restore it from a backup, or build it anew with --recompute.",
            )
        chunks = _Chunks(keys)
        self.job.stage("load", total=self.window.size_bytes, unit="bytes")
        try:
            checks, loaded = await self._verify_and_prefetch(keys)
        except ExceptionGroup as errors:  # what a task group raises; either error tells enough
            raise errors.exceptions[0] from None
        if self.stack.store is None:
            chunks.missing = list(range(loaded, len(keys)))
            return chunks
        chunks.missing = [i for i, check in enumerate(checks) if check.state == "missing"]
        chunks.corrupt = [i for i, check in enumerate(checks) if check.state == "corrupt"]
        if chunks.corrupt:
            corrupt = [keys[i] for i in chunks.corrupt]
            await self.stack.keeper().delete(corrupt, tier="all", force=True)
            await self.stack.store.delete(corrupt)
        return chunks

    async def _verify_and_prefetch(self, keys: list[ChunkKey]) -> tuple[list[ChunkCheck], int]:
        """Return what the store says of the chunks, and how many LMCache has loaded."""
        checks: list[ChunkCheck] = []
        loaded = 0

        async def verify(store: ChunkStore) -> None:
            checks.extend(await store.verify(keys, self._manifest.refs, self.job.advance))

        async with anyio.create_task_group() as group:
            if self.stack.store is not None:
                group.start_soon(verify, self.stack.store)
            if keys:
                prefetched = await self.stack.keeper().prefetch(
                    self._token_ids,
                    model_name=self.stack.kv_model_name,
                    world_size=self.stack.world_size,
                    cache_salt=self._salt,
                    timeout_s=self.prefetch_timeout_s,
                )
                loaded = prefetched.found
        return checks, loaded

    async def _probe(self, expected: int, *, inexact: bool) -> tuple[ProbeResult, int | None]:
        """Ask the engine, and once more with nothing else running if the answer differs."""
        noted = self._manifest.probe
        measured, cached = await self._ask()
        short = cached is None or cached != expected
        tolerance = self.probe_tolerance if inexact or short else 0.0
        result = probe.compare(noted, measured, tolerance=tolerance)
        if not result.passed:
            await self._await_quiet()
            measured, _ = await self._ask()
            result = probe.compare(noted, measured, tolerance=tolerance).replace(repeated=True)
        return result, cached

    async def _ask(self) -> tuple[Probe, int | None]:
        return await probe.ask(self.stack, self._token_ids, self._salt, top=self.probe_top)

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
        except CWMError:
            self.window = await to_thread.run_sync(self._mark_damaged)
            return
        frozen = [self._manifest.refs[i] for i in chunks.bad]
        new = {old: ref for old, ref in zip(frozen, sealed, strict=True) if ref and ref != old}
        self.window = await to_thread.run_sync(self._mark_healed, new)

    def _mark_damaged(self) -> Window:
        return self.library.index.update_window(
            self.window.id, lambda w: w if w.state == "damaged" else w.to("damaged")
        )

    def _mark_healed(self, new: dict[ChunkRef, ChunkRef]) -> Window:
        window = self.library.replace_manifest(
            self._manifest.exchanged(new), lambda w: w.to("intact") if w.state == "damaged" else w
        )
        self.library.note_recomputed(window.lineage_id, new)
        return window

    def _enter(self, name: str, lineage_id: str, max_context_tokens: int | None) -> None:
        """Write the new session's transcript, then it and the window's use into the index."""
        session = Session(
            id=uuid.uuid4().hex,
            name=name,
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
            session,
            self._manifest.transcript,
            lambda transaction: transaction.update_window(
                self.window.id, lambda w: w.replace(used_at=now(), thaws=w.thaws + 1)
            ),
        )


def _by(result: ProbeResult) -> str:
    if result.max_abs_logprob_diff is None:
        return " altogether"
    return f" by up to {result.max_abs_logprob_diff:.3g} nats"

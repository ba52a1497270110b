"""Repair: compute a damaged window's chunks again from its own tokens, see `core.replay`.

What comes out is often the frozen content to the bit, and then heals it for every window that means
it: those are verified again. Else the window's key is made to mean the new content, and its
manifest says so. Until everything is computed, stored and read back, the window is untouched; what
was intact stays.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio
from anyio import to_thread

from cwm_jupyter.core import fingerprint
from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.kept import KeptStore, kept
from cwm_jupyter.core.library import Library, Manifest
from cwm_jupyter.core.models import ChunkRef, Window
from cwm_jupyter.core.replay import Plan, Replay
from cwm_jupyter.core.reports import Outcome, RepairReport
from cwm_jupyter.core.verify import Verify, check_chunks, mark, window_keys
from cwm_jupyter.errors import (
    CWMError,
    EngineMismatchError,
    KVStoreError,
    WindowError,
    WindowNotFoundError,
)

__all__ = ["Repair"]

#: a chunk that several ranks have parts of is as good as its worst part
_WORST_LAST: tuple[Outcome, ...] = ("intact", "relinked", "bit-equal", "recomputed")


@dataclass
class Repair:
    """One repair, step by step.

    Parameters
    ----------
    stack, library
        The running stack, and where windows are kept.
    window
        What is repaired.
    job
        Told of the stages.
    durable_timeout_s
        How long storing may take.
    """

    stack: ConnectedStack
    library: Library
    window: Window
    job: Job
    durable_timeout_s: float

    async def run(self, *, accept_engine: bool = False) -> RepairReport:
        """Repair the window and report what became of each chunk.

        Parameters
        ----------
        accept_engine
            Accept an engine that differs in numeric fields; it hardly computes equal bits.

        Raises
        ------
        EngineMismatchError
            The engine is not the window's.
        KVStoreError
            The chunks are out of reach, or what was computed did not become durable.
        WindowError
            The window was changed meanwhile.

        Notes
        -----
        Whatever is raised, the window is as damaged as it was found, and nothing else is left.
        """
        started = time.perf_counter()
        self.job.stage("check")
        store = kept(self.stack.store)
        manifest = await to_thread.run_sync(self.library.manifest, self.window)
        keys = await to_thread.run_sync(window_keys, self.library, self.window, manifest)
        facts = await self.stack.facts()
        accepted = self._accepted(
            fingerprint.compare(manifest.fingerprint, facts.fingerprint), accept_engine
        )
        outcomes, bad = await self._check(store, keys, manifest.refs)
        plan = differed = None
        also_intact: list[str] = []
        if bad:
            ranks = self.stack.world_size
            plan = Plan.of(
                manifest.transcript.turns, [i // ranks for i in bad], self.stack.chunk_tokens
            )
            replay = Replay(
                self.stack,
                store,
                self.library,
                manifest,
                facts.fingerprint,
                plan,
                self.job,
                self.durable_timeout_s,
            )
            async with replay.chunks(bad) as refs:
                self.job.stage("adopt")
                new = dict(zip(bad, refs, strict=True))
                with anyio.CancelScope(shield=True):
                    await self._adopt(store, keys, manifest, new)
            differed = replay.differed
            for i, ref in new.items():
                outcomes[i] = "bit-equal" if ref == manifest.refs[i] else "recomputed"
            also_intact = await self._others(store, {ref.digest for ref in refs})
        self.job.finish()
        per_chunk = _per_chunk(outcomes, self.stack.world_size)
        return RepairReport(
            window=self.window,
            outcomes=per_chunk,
            chunks_intact=per_chunk.count("intact"),
            chunks_relinked=per_chunk.count("relinked"),
            chunks_bit_equal=per_chunk.count("bit-equal"),
            chunks_recomputed=per_chunk.count("recomputed"),
            turns_replayed=len(plan.turns) if plan else 0,
            turns_differed=differed or 0,
            computed_tokens=plan.computed_tokens if plan else 0,
            repair_s=time.perf_counter() - started,
            stages_s={stage.name: stage.seconds for stage in self.job.state.stages},
            accepted_differences=accepted,
            also_intact=also_intact,
        )

    def _accepted(
        self, differences: list[fingerprint.Difference], accept_engine: bool
    ) -> list[str]:
        try:
            return fingerprint.check(self.window.known_as, differences, accept_engine=accept_engine)
        except EngineMismatchError as error:
            raise EngineMismatchError(
                error.message,
                hint="Repair it on that engine; where only versions or threads differ "
                "--accept-engine will do.",
                **error.context,
            ) from None

    async def _check(
        self, store: KeptStore, keys: Sequence[ChunkKey], refs: Sequence[ChunkRef]
    ) -> tuple[list[Outcome], list[int]]:
        """Read all chunks, note the window's state, and return which ones are bad."""
        self.job.stage("verify", total=self.window.size_bytes, unit="bytes")
        pairs = list(zip(keys, refs, strict=True))
        checked = await check_chunks(store, pairs, self.job.advance)
        bad = [i for i, one in enumerate(checked) if one.state in ("missing", "corrupt")]
        self.window = await to_thread.run_sync(
            mark, self.library, self.window, "damaged" if bad else "intact"
        )
        return ["relinked" if one.state == "relinked" else "intact" for one in checked], bad

    async def _adopt(
        self,
        store: KeptStore,
        keys: Sequence[ChunkKey],
        manifest: Manifest,
        new: Mapping[int, ChunkRef],
    ) -> None:
        """Make the window mean the new contents; a failure here leaves it damaged, not worse."""
        for i, ref in new.items():
            if not await store.point(keys[i], ref):
                raise KVStoreError("A chunk was gone as soon as it had been computed.")
        await store.hold(self.window.id, keys, manifest.refs)
        await self.stack.forget([keys[i] for i in new])
        exchanged = {manifest.refs[i]: ref for i, ref in new.items() if ref != manifest.refs[i]}
        try:
            self.window = await to_thread.run_sync(self._enter, manifest, exchanged)
        except WindowNotFoundError:  # purged meanwhile
            await store.release(self.window.id)
            await store.delete([keys[i] for i in new])
            raise

    def _enter(self, manifest: Manifest, new: Mapping[ChunkRef, ChunkRef]) -> Window:
        def healed(window: Window) -> Window:
            if window.manifest_digest != self.window.manifest_digest:
                raise WindowError(
                    f"The window {window.name!r} was changed while it was repaired.",
                    hint="Repair it again.",
                )
            return window.to("intact") if window.state == "damaged" else window

        exchanged = manifest.exchanged(new) if new else manifest
        window = self.library.replace_manifest(exchanged, healed)
        if new:
            self.library.note_recomputed(window.lineage_id, new)
        return window

    async def _others(self, store: KeptStore, contents: Collection[str]) -> list[str]:
        """Verify other damaged windows that share contents; return those that are intact again."""
        with suppress(CWMError):  # the repair itself is done
            sharing = await to_thread.run_sync(self._damaged_with, contents)
            if sharing:
                self.job.stage("verify what shares its chunks")
                report = await Verify(self.library, store, Job("verify")).run(sharing)
                return [check.window for check in report.windows if check.state == "intact"]
        return []

    def _damaged_with(self, contents: Collection[str]) -> list[Window]:
        found = []
        for window in self.library.index.all_windows():
            if window.state == "damaged":
                with suppress(CWMError):  # without a manifest it stays damaged
                    refs = self.library.manifest(window).refs
                    if any(ref.digest in contents for ref in refs):
                        found.append(window)
        return found


def _per_chunk(outcomes: Sequence[Outcome], ranks: int) -> list[Outcome]:
    return [
        max(outcomes[start : start + ranks], key=_WORST_LAST.index)
        for start in range(0, len(outcomes), ranks)
    ]

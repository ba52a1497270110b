"""Import: the windows of an archive become windows of this home.

The order is the promise. The whole file is read and checked first. Then come, in a lineage that is
new, with a secret of its own: holds, contents, proof, manifests, transcripts, and last all entries
in one write of the index. So there are all windows of an archive, or none. What a crash leaves has
no entry; the secrets, which are first, lead garbage collection to all of it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import anyio
from anyio import to_thread

from cwm_jupyter.core import fingerprint
from cwm_jupyter.core.archive.adopting import Adopt
from cwm_jupyter.core.archive.arrivals import Arrival, arrivals, check_together
from cwm_jupyter.core.archive.reader import Reader
from cwm_jupyter.core.archive.recomputing import Recompute
from cwm_jupyter.core.archive.reports import ImportedWindow, ImportReport, Signer
from cwm_jupyter.core.archive.signing import Signers
from cwm_jupyter.core.chunks import ChunkStore
from cwm_jupyter.core.connection import ConnectedStack, EngineFacts
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.library import Manifest
from cwm_jupyter.core.models import Proof, Session, Window, now
from cwm_jupyter.core.names import numbered
from cwm_jupyter.core.parts import Parts
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.errors import CWMError, KVStoreError, StackDownError

__all__ = ["Import"]


class _Way(Protocol):
    """How the chunks come here: `Adopt` or `Recompute`."""

    @property
    def store(self) -> ChunkStore: ...

    @property
    def model(self) -> str | None: ...

    @property
    def max_context_tokens(self) -> int | None: ...

    async def check(self, found: list[Arrival], /) -> None: ...

    def address(self, arrival: Arrival, /) -> None: ...

    async def fill(self, found: list[Arrival], /) -> None: ...

    async def drop(self, found: list[Arrival], /) -> bool: ...


@dataclass
class Import:
    """One import.

    Parameters
    ----------
    parts
        Where everything is kept.
    signers
        Whom this home trusts.
    reader, path
        The archive, and where it lies; the caller closes it.
    job
        Told of the bytes.
    """

    parts: Parts
    signers: Signers
    reader: Reader
    path: Path
    job: Job

    async def run(
        self, *, wanted: str | None, recompute: bool, trust: bool, accept_untrusted: bool
    ) -> ImportReport:
        """Take the windows in, see `cwm_jupyter.core.archive.archives.Archives.import_file`."""
        started = time.perf_counter()
        signer = await to_thread.run_sync(self.signers.describe, self.reader.public)
        trusted = signer.trusted or trust
        why: Literal["asked", "untrusted"] | None = None
        if recompute:
            why = "asked"
        elif not (trusted or accept_untrusted):
            why = "untrusted"
        index = self.parts.library.index
        self._arrivals = await to_thread.run_sync(arrivals, self.reader.catalogue, index, wanted)
        stack, facts = await self._engine(signer, why)
        await self._check()
        differences = None if facts is None else self._differences(facts)
        self._way = self._choose(stack, facts, why, trusted)
        await self._way.check(self._arrivals)
        windows, sessions = await self._take_in()
        if trust and not signer.trusted:
            name = self.path.name[:100] if self.path.name.isprintable() else ""
            signer = await to_thread.run_sync(self.signers.add, signer.public, name)
        self.job.finish()
        return ImportReport(
            file=str(self.path),
            windows=[
                ImportedWindow(
                    window=window,
                    archived_name=arrival.entry.name,
                    frozen_at=arrival.entry.created_at,
                    probe=arrival.compared,
                    as_shown=arrival.as_shown,
                )
                for window, arrival in zip(windows, self._arrivals, strict=True)
            ],
            sessions=[session.name for session in sessions],
            signer=signer,
            encrypted=self.reader.encrypted,
            recomputed=why,
            differences=differences,
            size_bytes=self.reader.size_bytes,
            import_s=time.perf_counter() - started,
            stages_s={stage.name: stage.seconds for stage in self.job.state.stages},
        )

    # Before anything is kept

    async def _engine(
        self, signer: Signer, why: str | None
    ) -> tuple[ConnectedStack | None, EngineFacts | None]:
        """Ask the running stack, which must be there where something is to be computed."""
        try:
            stack = await self.parts.connect()
            return stack, await stack.facts()
        except StackDownError as error:
            if why != "untrusted":
                return self._without_engine(error, why)
            raise StackDownError(
                f"The archive was signed by {signer.fingerprint}, whom you do not trust: its "
                "windows have to be computed anew, and no stack is running.",
                hint="Start it with cwm up, or if you know that this is the right signer, trust "
                "it with --trust.",
                signer=signer.fingerprint,
            ) from error
        except CWMError as error:
            return self._without_engine(error, why)

    @staticmethod
    def _without_engine(error: CWMError, why: str | None) -> tuple[None, None]:
        if why is not None:
            raise error
        return None, None

    async def _check(self) -> None:
        """Read the whole archive and check it."""
        self.job.stage("check", total=self.reader.content_bytes, unit="bytes")
        for arrival in self._arrivals:
            arrival.take(await to_thread.run_sync(self.reader.details, arrival.position))
        listed = len(self.reader.catalogue.contents)
        await to_thread.run_sync(check_together, self._arrivals, listed)
        done, contents = 0, self.reader.contents()
        while (data := await to_thread.run_sync(next, contents, None)) is not None:
            done += len(data)
            self.job.advance(done)

    def _differences(self, facts: EngineFacts) -> list[str]:
        """Return how the archive's engines differ from the running one, each once."""
        found = (fingerprint.compare(a.fingerprint, facts.fingerprint) for a in self._arrivals)
        return list(dict.fromkeys(str(one) for differences in found for one in differences))

    def _choose(
        self,
        stack: ConnectedStack | None,
        facts: EngineFacts | None,
        why: str | None,
        trusted: bool,
    ) -> _Way:
        parts = self.parts
        lineages = parts.library.lineages
        if why is not None and stack is not None and facts is not None:
            return Recompute(
                self.reader,
                stack,
                facts,
                lineages,
                parts.settings,
                self.job,
                asked=why == "asked",
                trusted=trusted,
            )
        if parts.store is None:
            raise KVStoreError("There is no vault here to import into.")
        return Adopt(self.reader, parts.store, lineages, self.job)

    # Keeping it

    async def _take_in(self) -> tuple[list[Window], list[Session]]:
        way, store = self._way, self._way.store
        try:
            await to_thread.run_sync(self._begin)
            for arrival in self._arrivals:
                await store.hold(arrival.window_id, arrival.keys)
            await way.fill(self._arrivals)
            for arrival in self._arrivals:  # now with the contents that the proof is of
                await store.hold(arrival.window_id, arrival.keys)
            self.job.stage("index")
            entered = await to_thread.run_sync(self._enter)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._undo()
            raise
        return entered

    def _begin(self) -> None:
        """Make the lineages, and find the keys in them."""
        library = self.parts.library
        made: dict[int, str] = {}
        for arrival in self._arrivals:
            if arrival.entry.lineage not in made:
                made[arrival.entry.lineage] = library.lineages.create()
            arrival.lineage_id = made[arrival.entry.lineage]
            self._way.address(arrival)

    def _enter(self) -> tuple[list[Window], list[Session]]:
        """Write manifests and transcripts, then everything into the index, in one write."""
        library = self.parts.library
        windows: list[Window] = []
        sessions: dict[str, Session] = {}
        for arrival in self._arrivals:
            transcript = self._write_manifest(arrival)
            parent = arrival.entry.parent
            window = self._window(arrival, transcript, None if parent is None else windows[parent])
            windows.append(window)
            known = sessions.get(window.session_id)
            if known is None or known.tokens <= window.tokens:  # a session is as its latest window
                library.write_transcript(window.session_id, transcript)
                sessions[window.session_id] = self._session(window)
        entered = []
        with library.index.transaction() as transaction:
            for session in sessions.values():
                name, number = session.name, 1
                while transaction.find_session(name) is not None:
                    number += 1
                    name = numbered(session.name, number)
                entered.append(transaction.add_session(session.replace(name=name)))
            for window in windows:
                transaction.add_window(window)
        return windows, entered

    def _write_manifest(self, arrival: Arrival) -> Transcript:
        details = self.reader.details(arrival.position)
        computed = arrival.compared is not None
        manifest = Manifest(
            window_id=arrival.window_id,
            transcript=details.transcript,
            fingerprint=arrival.fingerprint,
            refs=arrival.refs,
            probe=arrival.probe or details.probe,
            recomputed=[] if computed else details.recomputed,
        )
        arrival.manifest_digest = self.parts.library.write_manifest(manifest)
        return details.transcript

    def _window(self, arrival: Arrival, transcript: Transcript, parent: Window | None) -> Window:
        entry = arrival.entry
        size_bytes = sum(ref.size_bytes or 0 for ref in arrival.refs)
        return Window(
            id=arrival.window_id,
            name=arrival.name,
            state="intact",
            session_id=arrival.session_id,
            lineage_id=arrival.lineage_id,
            model=self._way.model or entry.model,
            created_at=now(),
            used_at=None,
            tokens=entry.tokens,
            turns=entry.turns,
            chunks=len({ref.chunk_hash for ref in arrival.refs}),
            chunk_tokens=arrival.chunk_tokens,
            size_bytes=size_bytes,
            proof=Proof(
                level="verified", chunks=len(arrival.refs), size_bytes=size_bytes, checked_at=now()
            ),
            manifest_digest=arrival.manifest_digest,
            parent_window_id=parent.id if parent else None,
            depth=parent.depth + 1 if parent else 0,
            tags=entry.tags,
            note=entry.note,
            prefill_s=transcript.prefill_s,
        )

    def _session(self, window: Window) -> Session:
        """Return the session that a window was frozen in, as it is known here."""
        return Session(
            id=window.session_id,
            name=window.name,
            state="frozen",
            model=window.model,
            lineage_id=window.lineage_id,
            created_at=window.created_at,
            updated_at=window.created_at,
            tokens=window.tokens,
            turns=window.turns,
            max_context_tokens=self._way.max_context_tokens,
            window_id=window.id,
        )

    # Afterwards

    async def _undo(self) -> None:
        """Leave nothing of a failed import, unless its windows are in the index after all."""
        library, found = self.parts.library, [a for a in self._arrivals if a.lineage_id]
        entered = await to_thread.run_sync(library.index.get_window, self._arrivals[0].window_id)
        if entered is not None:
            return
        for arrival in found:
            library.forget_manifests(arrival.window_id)
            library.forget_session(arrival.session_id)
            await self._way.store.release(arrival.window_id)
        if await self._way.drop(found):  # else the secrets lead garbage collection to the rest
            for lineage_id in {arrival.lineage_id for arrival in found}:
                library.lineages.remove(lineage_id)

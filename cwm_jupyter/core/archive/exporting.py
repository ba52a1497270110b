"""Export: windows of this home, written into one archive.

In two passes over the chunks. The first reads and digests them, so that the catalogue, which comes
first in the file, is known; a window that is not whole is refused before anything is written. The
second reads them again and writes them. So a reader can check everything as it comes.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio import to_thread

from cwm_jupyter._version import __version__
from cwm_jupyter.core.archive.checks import check_catalogue, check_details
from cwm_jupyter.core.archive.format import Catalogue, Details, Entry, Part, digest, encode
from cwm_jupyter.core.archive.reports import ExportReport
from cwm_jupyter.core.archive.signing import Signers
from cwm_jupyter.core.archive.writer import Writer, check_target
from cwm_jupyter.core.chunks import ChunkKey, ChunkStore
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.library import Library, Manifest
from cwm_jupyter.core.models import ChunkRef, Window, now
from cwm_jupyter.core.names import numbered
from cwm_jupyter.core.verify import window_keys
from cwm_jupyter.errors import KVStoreError

__all__ = ["Export"]


@dataclass
class _Contents:
    """The contents that were found so far, each once, and a key that leads to each."""

    parts: list[Part] = field(default_factory=list)
    keys: list[ChunkKey] = field(default_factory=list)
    #: positions in these lists, by digest and by key
    by_digest: dict[str, int] = field(default_factory=dict)
    by_key: dict[ChunkKey, int] = field(default_factory=dict)

    def add(self, key: ChunkKey, data: bytes) -> None:
        name = digest(data)
        if name not in self.by_digest:
            self.by_digest[name] = len(self.parts)
            self.parts.append(Part(size_bytes=len(data), digest=name))
            self.keys.append(key)
        self.by_key[key] = self.by_digest[name]


@dataclass
class Export:
    """One export.

    Parameters
    ----------
    library, store
        Where windows and chunks are kept.
    signers
        Signs the archive.
    windows
        What to export, each once.
    job
        Told of the bytes.
    """

    library: Library
    store: ChunkStore
    signers: Signers
    windows: Sequence[Window]
    job: Job

    async def run(self, path: Path, *, passphrase: str | None, force: bool) -> ExportReport:
        """Write the archive; what stops it leaves no file, and one that was there as it was.

        Raises
        ------
        KVStoreError
            A chunk is missing or damaged, or cannot be read from here.
        ValidationError
            There is a file already.
        """
        started = time.perf_counter()
        check_target(path, force=force)
        # What others came of has to be before them.
        self._windows = sorted(self.windows, key=lambda window: window.depth)
        self._contents = _Contents()
        await self._find()
        catalogue = await to_thread.run_sync(self._catalogue)
        with Writer(path, self.signers, passphrase=passphrase, force=force) as writer:
            public = await to_thread.run_sync(writer.begin, catalogue)
            await self._write(writer, catalogue)
            with anyio.CancelScope(shield=True):  # from here on it is there, or it is not
                size = await to_thread.run_sync(writer.commit)
        self.job.finish()
        return ExportReport(
            file=str(path),
            windows=[entry.name for entry in catalogue.windows],
            contents=len(catalogue.contents),
            content_bytes=_total(catalogue),
            size_bytes=size,
            encrypted=passphrase is not None,
            signer=self.signers.describe(public),
            export_s=time.perf_counter() - started,
        )

    async def _find(self) -> None:
        """Read and digest all chunks of the windows, each once."""
        total = sum(window.size_bytes or 0 for window in self._windows)
        self.job.stage("read", total=total, unit="bytes")
        done = 0
        for window in self._windows:
            if window.proof.level != "verified":
                raise KVStoreError(
                    f"The chunks of {window.known_as!r} are in a remote store, whose files cannot "
                    "be read from here.",
                    hint="Export its conversation: cwm export --text NAME FILE.md",
                )
            manifest = await to_thread.run_sync(self._manifest, window)
            keys = window_keys(self.library, window, manifest)
            await self._check_whole(window, keys, manifest.refs)
            for key, ref in zip(keys, manifest.refs, strict=True):
                if key not in self._contents.by_key:
                    data = await self.store.read(key)
                    await to_thread.run_sync(self._contents.add, key, data)
                done += ref.size_bytes or 0
                self.job.advance(done)

    async def _check_whole(
        self, window: Window, keys: Sequence[ChunkKey], refs: Sequence[ChunkRef]
    ) -> None:
        """Refuse a window whose chunks are not there, or not those that it lists."""
        stats = await self.store.stat(keys)
        bad = sum(
            stat is None or stat.digest not in (None, ref.digest)
            for stat, ref in zip(stats, refs, strict=True)
        )
        if bad:
            raise KVStoreError(
                f"{bad} of {len(refs)} chunks of {window.known_as!r} are not there as frozen.",
                hint=f"Repair it first: cwm repair {shlex.quote(window.known_as)}",
                window=window.known_as,
            )

    def _catalogue(self) -> Catalogue:
        sessions: dict[str, int] = {}
        lineages: dict[str, int] = {}
        entries = []
        sizes = [part.size_bytes for part in self._contents.parts]
        for window in self._windows:
            manifest = self._manifest(window)
            details = self._details(window, manifest)
            data = encode(details)
            name = window.name
            entry = Entry(
                # An earlier version has the name of the present one.
                name=numbered(name, window.version) if window.superseded else name,
                tags=window.tags,
                note=window.note,
                model=window.model,
                created_at=window.created_at,
                tokens=window.tokens,
                turns=window.turns,
                chunks=len(details.chunk_hashes),
                chunk_tokens=window.chunk_tokens,
                ranks=len(manifest.refs) // len(details.chunk_hashes) if manifest.refs else 1,
                session=sessions.setdefault(window.session_id, len(sessions)),
                lineage=lineages.setdefault(window.lineage_id, len(lineages)),
                parent=self._parent(window),
                details=Part(size_bytes=len(data), digest=digest(data)),
            )
            check_details(entry, details, sizes)
            entries.append(entry)
        catalogue = Catalogue(
            product=f"cwm-jupyter {__version__}",
            created_at=now(),
            windows=entries,
            contents=self._contents.parts,
        )
        check_catalogue(catalogue)
        return catalogue

    def _details(self, window: Window, manifest: Manifest) -> Details:
        keys = window_keys(self.library, window, manifest)
        return Details(
            transcript=manifest.transcript,
            fingerprint=manifest.fingerprint,
            probe=manifest.probe,
            chunk_hashes=list(dict.fromkeys(ref.chunk_hash for ref in manifest.refs)),
            contents=[self._contents.by_key[key] for key in keys],
            recomputed=manifest.recomputed,
        )

    def _parent(self, window: Window) -> int | None:
        """Return the position of the nearest ancestor that is exported too."""
        positions = {one.id: position for position, one in enumerate(self._windows)}
        parent_id = window.parent_window_id
        while parent_id is not None and parent_id not in positions:
            parent = self.library.index.get_window(parent_id)
            parent_id = parent.parent_window_id if parent else None
        return None if parent_id is None else positions[parent_id]

    async def _write(self, writer: Writer, catalogue: Catalogue) -> None:
        self.job.stage("write", total=_total(catalogue), unit="bytes")
        for window, entry in zip(self._windows, catalogue.windows, strict=True):
            data = await to_thread.run_sync(self._details_again, window)
            await to_thread.run_sync(_write_part, writer, data, entry.details, window.known_as)
        done = 0
        for key, part in zip(self._contents.keys, catalogue.contents, strict=True):
            data = await self.store.read(key)
            await to_thread.run_sync(_write_part, writer, data, part, key.chunk_hash.hex()[:12])
            done += part.size_bytes
            self.job.advance(done)

    def _details_again(self, window: Window) -> bytes:
        return encode(self._details(window, self._manifest(window)))

    def _manifest(self, window: Window) -> Manifest:
        """Return a window's present manifest: a thaw that heals a chunk replaces it."""
        return self.library.manifest(self.library.index.get_window(window.id) or window)


def _write_part(writer: Writer, data: bytes, part: Part, what: str) -> None:
    """Write a part if its bytes are still those that the catalogue lists."""
    if digest(data) != part.digest:
        raise KVStoreError(f"What belongs to {what} was changed meanwhile.", hint="Export again.")
    writer.write(data)


def _total(catalogue: Catalogue) -> int:
    return sum(part.size_bytes for part in catalogue.contents)

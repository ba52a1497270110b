"""What is kept on disk: the index, and beside it transcripts, manifests and lineage secrets.

Layout of a home folder::

    index.json              sessions and windows, small (`cwm_jupyter.core.index`)
    index.schema-N.json     the index as an older release had left it
    sessions/ID.json        a session's transcript, replaced at each turn
    windows/ID.DIGEST.json  a window's manifest, bound to its index entry by its digest
    keys/LINEAGE.secret     a lineage's secret
    keys/home.id            what the home is told apart by (`cwm_jupyter.core.identity`)
    keys/encryption.json    the key of what is encrypted (`cwm_jupyter.core.cipher`)
    audit/, keys/audit.*    what was changed, by whom (`cwm_jupyter.core.audit`)

Everything is owner-only, replaced atomically and checksummed. Transcripts and manifests are
encrypted where the user wants it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blake3
import filelock
import msgspec

from cwm_jupyter.core.files import make_private_dir, read_checked, reseal, write_checked
from cwm_jupyter.core.index import Index, Transaction
from cwm_jupyter.core.lineage import Lineages
from cwm_jupyter.core.models import ChunkRef, Fingerprint, Probe, Session, Value, Window
from cwm_jupyter.core.portable import remove
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.errors import (
    CWMError,
    IndexCorruptError,
    SessionBusyError,
    WindowNotFoundError,
)

if TYPE_CHECKING:
    from cwm_jupyter.core.cipher import Keyring

__all__ = ["Library", "Manifest"]

_SCHEMA = 1


class Manifest(Value, frozen=True, kw_only=True):
    """All of a window that is too large for the index.

    `refs` are in the order of the stack's keys for the transcript: chunk by chunk, within a chunk
    rank by rank. `recomputed` are the hashes of chunks that were computed again after the freeze:
    right, but no longer the bytes that the session had.
    """

    window_id: str
    transcript: Transcript
    fingerprint: Fingerprint
    refs: list[ChunkRef]
    probe: Probe
    recomputed: list[str] = msgspec.field(default_factory=list)

    def exchanged(self, new: Mapping[ChunkRef, ChunkRef]) -> Manifest:
        """Return the manifest with other refs for some chunks, noted as recomputed."""
        gone = {ref.chunk_hash for ref in self.refs if ref in new}
        return self.replace(
            refs=[new.get(ref, ref) for ref in self.refs],
            recomputed=sorted({*self.recomputed, *gone}),
        )


class Library:
    """The home folder.

    Parameters
    ----------
    home
        Where everything lies; created with owner-only permissions.
    keyring
        Opens what is encrypted, and encrypts what is new if it is to.
    """

    def __init__(self, home: Path, keyring: Keyring | None = None) -> None:
        self.home, self.keyring = make_private_dir(home), keyring
        self._sessions, self._windows = (
            make_private_dir(self.home / name) for name in ("sessions", "windows")
        )
        self.index = Index(self.home)
        self.lineages = Lineages(self.home / "keys")

    def transcript(self, session: Session) -> Transcript:
        """Return a session's transcript.

        Raises
        ------
        IndexCorruptError
            It is missing or damaged.
        DecryptError
            It is encrypted, and its key is not here.
        """
        path = self._sessions / f"{session.id}.json"
        return Transcript.from_dict(read_checked(path, "transcript", _SCHEMA, keyring=self.keyring))

    def write_transcript(self, session_id: str, transcript: Transcript) -> None:
        """Replace a session's transcript; it is durable when this returns."""
        path = self._sessions / f"{session_id}.json"
        write_checked(path, "transcript", _SCHEMA, transcript, self.keyring)

    def add_session(
        self,
        session: Session,
        transcript: Transcript,
        also: Callable[[Transaction], object] = lambda transaction: None,
    ) -> None:
        """Write a new session's transcript, then its entry and what `also` does, or nothing."""
        self.write_transcript(session.id, transcript)
        try:
            with self.index.transaction() as transaction:
                transaction.add_session(session)
                also(transaction)
        except BaseException:
            if self.index.get_session(session.id) is None:
                remove(self._sessions / f"{session.id}.json")
            raise

    def manifest(self, window: Window) -> Manifest:
        """Return a window's manifest.

        Raises
        ------
        IndexCorruptError
            It is missing, damaged, or not the one that the index speaks of.
        DecryptError
            It is encrypted, and its key is not here.
        """
        path = self._manifest_path(window.id, window.manifest_digest)
        document = read_checked(path, "manifest", _SCHEMA, keyring=self.keyring)
        # Of what lies there: an older release did not write the fields that were added since.
        if _digest(document) != window.manifest_digest:
            raise IndexCorruptError(
                f"The manifest of the window {window.name!r} is not the one in the index.",
                hint="Restore both from the same backup.",
                window=window.name,
            )
        return Manifest.from_dict(document)

    def write_manifest(self, manifest: Manifest) -> str:
        """Write a window's manifest durably and return the digest for its index entry."""
        digest = _digest(manifest)
        path = self._manifest_path(manifest.window_id, digest)
        write_checked(path, "manifest", _SCHEMA, manifest, self.keyring)
        return digest

    def replace_manifest(self, manifest: Manifest, change: Callable[[Window], Window]) -> Window:
        """Give a window another manifest and change its entry; a crash leaves the old or the new.

        The file's name holds the digest, so both exist. The old one stays for a day, for the
        generation of the index before this one: see `cwm_jupyter.core.leftovers`.
        """
        with self.index.transaction() as transaction:  # one writer at a time
            digest = self.write_manifest(manifest)
            return transaction.update_window(
                manifest.window_id, lambda w: self._renamed(w, digest, change)
            )

    def _renamed(self, window: Window, digest: str, change: Callable[[Window], Window]) -> Window:
        """Return a changed window's entry with another manifest; the old one's day begins."""
        with suppress(OSError):
            os.utime(self._manifest_path(window.id, window.manifest_digest))
        return change(window).replace(manifest_digest=digest)

    def exchange(
        self,
        window_id: str,
        new: Mapping[ChunkRef, ChunkRef],
        change: Callable[[Window], Window],
    ) -> Window:
        """Exchange chunks in a window's present manifest, whoever else has changed that lately.

        The manifest is replaced as in `replace_manifest`.

        Raises
        ------
        WindowNotFoundError, IndexCorruptError
            The window, or its manifest, is gone or damaged.
        """
        with self.index.transaction() as transaction:  # one writer at a time
            present = transaction.get_window(window_id)
            if present is None:
                raise WindowNotFoundError(window_id)
            manifest = self.manifest(present)
            exchanged = manifest.exchanged(new)
            if exchanged == manifest:
                return transaction.update_window(window_id, change)
            digest = self.write_manifest(exchanged)
            return transaction.update_window(window_id, lambda w: self._renamed(w, digest, change))

    def note_recomputed(self, lineage_id: str, new: Mapping[ChunkRef, ChunkRef]) -> None:
        """Note in all windows of a lineage that chunks were computed again, to other bytes.

        Windows share chunks: what healed one would look corrupt to the next.
        """
        for window in self.index.all_windows():
            if window.lineage_id != lineage_id:
                continue
            with suppress(CWMError):  # whoever thaws that window is told; it may be gone by now
                self.exchange(window.id, new, lambda w: w)

    def forget_manifests(self, window_id: str) -> None:
        """Delete all manifests of a window."""
        for path in self._windows.glob(f"{window_id}.*.json"):
            remove(path)

    def forget_session(self, session_id: str) -> None:
        """Delete a session's transcript."""
        for ending in (".json", ".lock"):
            remove(self._sessions / f"{session_id}{ending}")

    def _manifest_path(self, window_id: str, digest: str) -> Path:
        return self._windows / f"{window_id}.{digest[:16]}.json"

    def documents(self) -> list[Path]:
        """Return the files of all transcripts and manifests."""
        return [*sorted(self._sessions.glob("*.json")), *sorted(self._windows.glob("*.json"))]

    def reseal(self, path: Path, keyring: Keyring) -> bool:
        """Encrypt one of `documents` under the current key, against all others that write it.

        Returns
        -------
        bool
            Whether it was not yet encrypted so.

        Raises
        ------
        SessionBusyError
            It is the transcript of a session that is being used.
        """
        if path.parent == self._sessions:
            with self._exclusively(path.stem):
                return reseal(path, "transcript", _SCHEMA, keyring)
        with self.index.transaction():  # in which manifests are replaced
            return reseal(path, "manifest", _SCHEMA, keyring)

    @contextmanager
    def using(self, session: Session) -> Iterator[None]:
        """Hold a session for one piece of work, against other cells, kernels and processes.

        Raises
        ------
        SessionBusyError
            Something else is using it.
        """
        with self._exclusively(session.id, session.name):
            yield

    @contextmanager
    def _exclusively(self, session_id: str, name: str | None = None) -> Iterator[None]:
        lock = filelock.FileLock(self._sessions / f"{session_id}.lock", mode=0o600)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise SessionBusyError(f"The session {name or session_id!r} is busy.") from None
        try:
            yield
        finally:
            lock.release()


def _digest(manifest: Manifest | dict[str, Any]) -> str:
    return blake3.blake3(msgspec.json.encode(manifest, order="sorted")).hexdigest()

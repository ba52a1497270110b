"""What is kept on disk: the index, and beside it transcripts, manifests and lineage secrets.

Layout of a home folder::

    index.json              sessions and windows, small (`cwm_jupyter.core.index`)
    sessions/ID.json        a session's transcript, replaced at each turn
    windows/ID.DIGEST.json  a window's manifest, bound to its index entry by its digest
    keys/LINEAGE.secret     a lineage's secret

Everything is owner-only, replaced atomically and checksummed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import blake3
import filelock
import msgspec

from cwm_jupyter.core.files import make_private_dir, read_checked, write_checked
from cwm_jupyter.core.index import Index
from cwm_jupyter.core.lineage import Lineages
from cwm_jupyter.core.models import ChunkRef, Fingerprint, Probe, Session, Value, Window
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.errors import IndexCorruptError, SessionBusyError

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


class Library:
    """The home folder.

    Parameters
    ----------
    home
        Where everything lies; created with owner-only permissions.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._sessions, self._windows = home / "sessions", home / "windows"
        for folder in (home, self._sessions, self._windows):
            make_private_dir(folder)
        self.index = Index(home)
        self.lineages = Lineages(home / "keys")

    def transcript(self, session: Session) -> Transcript:
        """Return a session's transcript.

        Raises
        ------
        IndexCorruptError
            It is missing or damaged.
        """
        path = self._sessions / f"{session.id}.json"
        return Transcript.from_dict(read_checked(path, "transcript", _SCHEMA))

    def write_transcript(self, session_id: str, transcript: Transcript) -> None:
        """Replace a session's transcript; it is durable when this returns."""
        path = self._sessions / f"{session_id}.json"
        write_checked(path, "transcript", _SCHEMA, transcript)

    def manifest(self, window: Window) -> Manifest:
        """Return a window's manifest.

        Raises
        ------
        IndexCorruptError
            It is missing, damaged, or not the one that the index speaks of.
        """
        path = self._manifest_path(window.id, window.manifest_digest)
        manifest = Manifest.from_dict(read_checked(path, "manifest", _SCHEMA))
        if _digest(manifest) != window.manifest_digest:
            raise IndexCorruptError(
                f"The manifest of the window {window.name!r} is not the one in the index.",
                hint="Restore both from the same backup.",
                window=window.name,
            )
        return manifest

    def write_manifest(self, manifest: Manifest) -> str:
        """Write a window's manifest durably and return the digest for its index entry."""
        digest = _digest(manifest)
        path = self._manifest_path(manifest.window_id, digest)
        write_checked(path, "manifest", _SCHEMA, manifest)
        return digest

    def replace_manifest(self, manifest: Manifest, change: Callable[[Window], Window]) -> Window:
        """Give a window another manifest and change its entry; a crash leaves the old or the new.

        The file's name holds the digest, so both exist until the index has named the new one.
        """
        digest = self.write_manifest(manifest)
        window = self.index.update_window(
            manifest.window_id, lambda w: change(w).replace(manifest_digest=digest)
        )
        self.forget_manifests(window.id, but=digest)
        return window

    def forget_manifests(self, window_id: str, *, but: str | None = None) -> None:
        """Delete a window's manifests, all or all but the one with this digest."""
        keep = self._manifest_path(window_id, but) if but else None
        for path in self._windows.glob(f"{window_id}.*.json"):
            if path != keep:
                path.unlink(missing_ok=True)

    def _manifest_path(self, window_id: str, digest: str) -> Path:
        return self._windows / f"{window_id}.{digest[:16]}.json"

    @contextmanager
    def using(self, session: Session) -> Iterator[None]:
        """Hold a session for one piece of work, against other cells, kernels and processes.

        Raises
        ------
        SessionBusyError
            Something else is using it.
        """
        lock = filelock.FileLock(self._sessions / f"{session.id}.lock", mode=0o600)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise SessionBusyError(f"The session {session.name!r} is busy.") from None
        try:
            yield
        finally:
            lock.release()


def _digest(manifest: Manifest) -> str:
    return blake3.blake3(msgspec.json.encode(manifest, order="sorted")).hexdigest()

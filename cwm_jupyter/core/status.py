"""Status: all there is to say about one window or one session, as it is now."""

from __future__ import annotations

from contextlib import suppress

from anyio import to_thread

from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.kept import KeptStore, Share
from cwm_jupyter.core.library import Manifest
from cwm_jupyter.core.models import Session, SessionStatus, Window, WindowStatus
from cwm_jupyter.core.parts import Parts
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.core.verify import window_keys
from cwm_jupyter.errors import CWMError, KVStoreError

__all__ = ["Status"]


class Status:
    """Looks at windows and sessions; changes nothing.

    Parameters
    ----------
    parts
        What it looks into.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def window(self, name: str) -> WindowStatus:
        """Describe a window; needs no running stack.

        Raises
        ------
        WindowNotFoundError
            With the nearest names.
        IndexCorruptError
            Its manifest is damaged.
        """
        library = self._parts.library
        index = library.index
        window = await to_thread.run_sync(index.require_window, name)
        manifest = await to_thread.run_sync(library.manifest, window)
        everything = sorted(
            await to_thread.run_sync(index.all_windows), key=lambda w: (w.created_at, w.id)
        )
        known = [w for w in everything if w.state != "deleted"]
        parent = index.get_window(window.parent_window_id) if window.parent_window_id else None
        share = await self._share(window)
        return WindowStatus(
            window=window,
            turns=manifest.transcript.turns,
            messages=manifest.transcript.messages,
            fingerprint=manifest.fingerprint,
            probe=manifest.probe,
            chunks_present=await self._present(window, manifest),
            chunks_recomputed=len(manifest.recomputed),
            held_bytes=share.held_bytes if share else None,
            own_bytes=share.exclusive_bytes if share else None,
            parent=parent.known_as if parent else None,
            children=[w.known_as for w in known if w.parent_window_id == window.id],
            lineage=[w.known_as for w in known if w.lineage_id == window.lineage_id],
            versions=await to_thread.run_sync(index.versions, window.name),
        )

    async def _present(self, window: Window, manifest: Manifest) -> int | None:
        """Count a window's chunks in the local store, None where that cannot be told."""
        store = self._parts.store
        if store is None or window.proof.level != "verified":
            return None
        try:
            keys = window_keys(self._parts.library, window, manifest)
        except KVStoreError:  # without the lineage's secret nobody knows its keys
            return None
        return sum(stat is not None for stat in await store.stat(keys))

    async def _share(self, window: Window) -> Share | None:
        store = self._parts.store
        if window.proof.level != "verified" or not isinstance(store, KeptStore):
            return None
        return (await store.shares()).owners.get(window.id)

    async def session(self, name: str) -> SessionStatus:
        """Describe a session; what it has in the store is told where a stack runs.

        Raises
        ------
        SessionNotFoundError
            With the nearest names.
        """
        library = self._parts.library
        session = await to_thread.run_sync(library.index.require_session, name)
        transcript = await to_thread.run_sync(library.transcript, session)
        windows = sorted(
            await to_thread.run_sync(library.index.all_windows), key=lambda w: (w.created_at, w.id)
        )
        chunks = stored = stored_bytes = None
        with suppress(CWMError):
            stack = await self._parts.connect()
            chunks, stored, stored_bytes = await self._stored(stack, session, transcript)
        return SessionStatus(
            session=session,
            turns=transcript.turns,
            messages=transcript.messages,
            chunks=chunks,
            chunks_present=stored,
            stored_bytes=stored_bytes,
            windows=[
                w.known_as for w in windows if w.session_id == session.id and w.state != "deleted"
            ],
            lineage=[
                w.known_as
                for w in windows
                if w.lineage_id == session.lineage_id and w.state != "deleted"
            ],
        )

    async def _stored(
        self, stack: ConnectedStack, session: Session, transcript: Transcript
    ) -> tuple[int, int | None, int | None]:
        """Count a session's whole chunks, those of them in the store, and their bytes."""
        fingerprint = (await stack.facts()).fingerprint
        salt = self._parts.library.lineages.salt(session.lineage_id, fingerprint)
        keys = stack.keys(transcript.token_ids, salt)
        chunks = len(keys) // stack.world_size
        if stack.store is None:
            return chunks, None, None
        found = [stat for stat in await stack.store.stat(keys) if stat is not None]
        return chunks, len(found) // stack.world_size, sum(stat.size_bytes for stat in found)

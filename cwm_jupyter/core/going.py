"""What goes with windows and sessions that are deleted for good, and with nothing else.

A window's chunks go unless another window has them. A session's go unless a window or another
session has them: those are all chunks of its lineage that are not somebody else's, also the ones
that it left behind on other engines. A lineage of which nothing remains goes as a whole.

A remote store knows no holds, so a freeze under way cannot be seen there. What a session of the
lineage has therefore stays in it too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from anyio import to_thread

from cwm_jupyter.core.chunks import ChunkKey, chunk_hashes, chunk_keys
from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.index import Index, Transaction
from cwm_jupyter.core.kept import KeptStore
from cwm_jupyter.core.library import Library
from cwm_jupyter.core.models import Fingerprint, Session, Window
from cwm_jupyter.core.verify import window_keys
from cwm_jupyter.errors import CWMError

__all__ = ["Going", "choose", "choose_remote"]


@dataclass
class Going:
    """What is to go, and what goes with it."""

    windows: list[Window]
    sessions: list[Session]
    #: lineages of which nothing remains, and their salts
    lineages: list[str] = field(default_factory=list)
    salts: list[str] = field(default_factory=list)
    #: chunks that nobody else has, here and in a remote store
    keys: list[ChunkKey] = field(default_factory=list)
    remote: list[ChunkKey] = field(default_factory=list)
    #: whether all of these keys could be told
    certain: bool = True

    @property
    def far(self) -> list[Window]:
        """The windows whose chunks are in a remote store."""
        return [window for window in self.windows if window.proof.level == "present"]

    @property
    def ids(self) -> list[str]:
        """The ids of the windows and the sessions."""
        return [*(window.id for window in self.windows), *(session.id for session in self.sessions)]


async def choose(
    library: Library,
    store: KeptStore,
    stack: ConnectedStack | None,
    windows: Sequence[Window],
    sessions: Sequence[Session],
) -> Going:
    """Return what goes with these windows and sessions.

    Parameters
    ----------
    library, store
        Where windows and chunks are kept.
    stack
        The running one, which may have chunks in its memory that are not in the store.
    windows, sessions
        Those that are to go.
    """
    choice = _Choice(library, Going(list(windows), list(sessions)))
    salts = await to_thread.run_sync(choice.look)
    stored = await store.salted(salts) if salts else []
    engine = None
    if stack is not None and sessions:
        try:
            engine = (await stack.facts()).fingerprint
        except CWMError:  # what the sessions have in its memory cannot be told
            choice.going.certain = False
    await to_thread.run_sync(choice.take, stored, stack, engine)
    return choice.going


def choose_remote(library: Library, going: Going, index: Transaction) -> None:
    """Choose again what goes in a remote store, by what the index has in this transaction."""
    choice = _Choice(library, going)
    choice.look_at(index)
    choice.take_remote()


class _Choice:
    """Finds out what nobody else has."""

    def __init__(self, library: Library, going: Going) -> None:
        self._library, self.going = library, going
        self._salts: dict[str, tuple[str, Fingerprint]] = {}
        self._theirs: dict[tuple[str, int], frozenset[bytes] | None] = {}

    def look(self) -> Collection[str]:
        """Look at who is in the same lineages; return the salts whose chunks matter."""
        going = self.going
        ours = self.look_at(self._library.index)
        going.lineages = sorted(ours - _lineages(self._windows, self._sessions))
        for lineage_id in {*going.lineages, *(s.lineage_id for s in going.sessions)}:
            for salt, layout in self._library.lineages.salts(lineage_id).items():
                self._salts[salt] = lineage_id, layout
                if lineage_id in going.lineages:
                    going.salts.append(salt)
        return self._salts

    def look_at(self, index: Index | Transaction) -> set[str]:
        """Look at who stays in the lineages of what goes, and return these."""
        leaving = set(self.going.ids)
        ours = _lineages(self.going.windows, self.going.sessions)
        self._windows = [
            w for w in index.all_windows() if w.lineage_id in ours and w.id not in leaving
        ]
        self._sessions = [
            s for s in index.all_sessions() if s.lineage_id in ours and s.id not in leaving
        ]
        return ours

    def take(
        self,
        stored: Sequence[ChunkKey],
        stack: ConnectedStack | None,
        engine: Fingerprint | None,
    ) -> None:
        """Choose the keys, of those that are stored and of those that may be in memory."""
        kept, _ = self._kept_by_windows()
        keys = dict.fromkeys(key for key in stored if self._is_free(key, kept))
        if stack is not None and engine is not None:
            for session in self.going.sessions:
                mine = self._in_memory(session, stack, engine)
                keys |= dict.fromkeys(key for key in mine if self._is_free(key, kept))
        for window in self.going.windows:
            if window.proof.level == "verified":
                keys |= dict.fromkeys(key for key in self._own(window) if key not in kept)
        self.going.keys = list(keys)
        self.take_remote()

    def take_remote(self) -> None:
        """Choose the keys in a remote store: what others have there, or may have, stays."""
        kept, certain = self._kept_by_windows()
        remote: dict[ChunkKey, None] = {}
        for window in self.going.far:
            theirs = self._kept_by_sessions(window.lineage_id, window.chunk_tokens)
            if not certain or theirs is None:
                self.going.certain = False
                continue
            own = self._own(window)
            remote |= dict.fromkeys(k for k in own if k not in kept and k.chunk_hash not in theirs)
        self.going.remote = list(remote)

    def _kept_by_windows(self) -> tuple[set[ChunkKey], bool]:
        """Return the keys of the windows that stay, and whether those of all could be told."""
        kept: set[ChunkKey] = set()
        certain = True
        for window in self._windows:
            try:
                kept.update(self._keys(window))
            except CWMError:
                certain = False
        return kept, certain

    def _is_free(self, key: ChunkKey, kept: Collection[ChunkKey]) -> bool:
        """Return whether a chunk of a session's lineage goes with the session."""
        lineage_id, layout = self._salts[key.cache_salt]
        if lineage_id in self.going.lineages:
            return True
        chunk_tokens = layout.layout.get("chunk_tokens")
        if not isinstance(chunk_tokens, int):
            return False
        theirs = self._kept_by_sessions(lineage_id, chunk_tokens)
        return key not in kept and theirs is not None and key.chunk_hash not in theirs

    def _kept_by_sessions(self, lineage_id: str, chunk_tokens: int) -> frozenset[bytes] | None:
        """Return the hashes of the chunks of the sessions that stay; None: that cannot be told."""
        if (lineage_id, chunk_tokens) not in self._theirs:
            self._theirs[lineage_id, chunk_tokens] = self._hashes(lineage_id, chunk_tokens)
        return self._theirs[lineage_id, chunk_tokens]

    def _hashes(self, lineage_id: str, chunk_tokens: int) -> frozenset[bytes] | None:
        hashes: set[bytes] = set()
        for session in self._sessions:
            if session.lineage_id != lineage_id:
                continue
            try:
                transcript = self._library.transcript(session)
            except CWMError:
                return None
            hashes.update(chunk_hashes(transcript.token_ids, chunk_tokens))
        return frozenset(hashes)

    def _in_memory(
        self, session: Session, stack: ConnectedStack, engine: Fingerprint
    ) -> list[ChunkKey]:
        """Return the keys that a session has on the running engine."""
        try:
            token_ids = self._library.transcript(session).token_ids
            salt = self._library.lineages.salt(session.lineage_id, engine)
        except CWMError:
            self.going.certain = False
            return []
        self._salts.setdefault(salt, (session.lineage_id, engine))
        return chunk_keys(
            chunk_hashes(token_ids, stack.chunk_tokens),
            model_name=stack.kv_model_name,
            world_size=stack.world_size,
            cache_salt=salt,
        )

    def _own(self, window: Window) -> list[ChunkKey]:
        """Return the keys of a window that goes; where they are lost, only its hold tells more."""
        try:
            return self._keys(window)
        except CWMError:
            self.going.certain = False
            return []

    def _keys(self, window: Window) -> list[ChunkKey]:
        return window_keys(self._library, window, self._library.manifest(window))


def _lineages(windows: Sequence[Window], sessions: Sequence[Session]) -> set[str]:
    return {window.lineage_id for window in windows} | {s.lineage_id for s in sessions}

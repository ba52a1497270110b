"""Branches: clones of windows, the family tree, and where two windows part.

A clone shares all chunks with its source; each has a hold of its own on them, so that either can
be purged without the other losing anything. The order is that of a freeze: the hold, the manifest,
and then one atomic write of the index. What a crash leaves of a clone that is not in the index is
found by `cwm_jupyter.core.upkeep`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import anyio
from anyio import to_thread

from cwm_jupyter.core.chunks import ChunkKey, ChunkStore
from cwm_jupyter.core.comparison import Comparison, compare
from cwm_jupyter.core.family import Tree, family
from cwm_jupyter.core.kept import KeptStore, Share
from cwm_jupyter.core.library import Manifest
from cwm_jupyter.core.lifetime import lasting, ttl_s
from cwm_jupyter.core.models import Window, now
from cwm_jupyter.core.names import check_name, check_tag, check_unicode
from cwm_jupyter.core.parts import Parts
from cwm_jupyter.core.verify import window_keys
from cwm_jupyter.errors import (
    CWMError,
    KVStoreError,
    WindowError,
    WindowExistsError,
    WindowNotFoundError,
)

__all__ = ["Branches"]


@dataclass(frozen=True)
class Branches:
    """Makes and looks at branches; nothing here needs a running stack.

    Parameters
    ----------
    parts
        What the manager works with.
    """

    parts: Parts

    async def clone(
        self, name: str, new: str, *, tags: Sequence[str] = (), note: str = ""
    ) -> Window:
        """Make a window that has all that another has, under a name of its own.

        Parameters
        ----------
        name
            Of the source: a window's name, or ``NAME@vN``.
        new
            The clone's name; free.
        tags, note
            The clone's own; it does not take over the source's.

        Raises
        ------
        WindowNotFoundError
            There is no such source.
        WindowExistsError
            The new name is taken.
        WindowError
            The source is damaged: a window is in the index only if every chunk of it is durable.
        KVStoreError
            The source's chunks are not all there, or cannot be looked at from here.
        """
        library = self.parts.library
        with self.parts.audit.entry("clone", window=name, new=new) as entry:
            new = check_name(new, "window")
            tags = [check_tag(tag) for tag in tags]
            check_unicode(note, "note")
            source = await to_thread.run_sync(library.index.require_window, name)
            entry.names |= {"window": source.known_as, "new": new}
            if await to_thread.run_sync(library.index.find_window, new) is not None:
                raise WindowExistsError(f"There is a window {new!r} already.", window=new)
            _check_intact(source)
            manifest = await to_thread.run_sync(library.manifest, source)
            clone_id = uuid.uuid4().hex
            try:
                await self._hold(clone_id, source, manifest)
                enter = partial(self._enter, clone_id, source.id, new, tags=tags, note=note)
                clone = await to_thread.run_sync(enter)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self._undo(clone_id)
                raise
            entry.size_bytes = clone.size_bytes
            return clone

    async def _hold(self, clone_id: str, source: Window, manifest: Manifest) -> None:
        """Hold the chunks for the clone, and look that all are there; a remote store has no holds.

        The look comes after the hold: what is there then stays.
        """
        if source.proof.level == "present":
            return
        if self.parts.store is None:
            raise KVStoreError("The window's chunks are in a store that is not open here.")
        keys = await to_thread.run_sync(window_keys, self.parts.library, source, manifest)
        await self.parts.store.hold(clone_id, keys)
        missing = await _missing(self.parts.store, keys, manifest)
        if missing:
            raise KVStoreError(
                f"{missing} of {len(keys)} chunks of the window {source.known_as!r} are not there "
                "as they were frozen, so it is not cloned.",
                hint=f"Look with: cwm verify {source.known_as}; then cwm repair.",
                window=source.known_as,
                missing_chunks=missing,
            )

    def _enter(
        self, clone_id: str, source_id: str, name: str, *, tags: list[str], note: str
    ) -> Window:
        """Write the clone's manifest and its index entry.

        Both in one transaction, in which no manifest is exchanged: what heals the source while it
        is cloned is not missed by the clone.
        """
        library = self.parts.library
        with library.index.transaction() as transaction:
            source = transaction.get_window(source_id)
            if source is None or source.state == "deleted":  # meanwhile
                raise WindowNotFoundError(source.known_as if source else name)
            _check_intact(source)
            manifest = library.manifest(source).replace(window_id=clone_id)
            clone = source.replace(
                id=clone_id,
                name=name,
                created_at=now(),
                used_at=None,
                manifest_digest=library.write_manifest(manifest),
                parent_window_id=source.id,
                depth=source.depth + 1,
                thaws=0,
                last_thaws=[],
                tags=tags,
                note=note,
                version=1,
                last_version=0,
                superseded=False,
                series_id=None,
                pinned=False,
            )
            stays_s = ttl_s(self.parts.settings.limits.window_ttl)
            return transaction.add_window(lasting(clone, stays_s))

    async def _undo(self, clone_id: str) -> None:
        """Leave nothing of a failed clone, unless it is in the index after all."""
        library = self.parts.library
        if await to_thread.run_sync(library.index.get_window, clone_id) is not None:
            return
        library.forget_manifests(clone_id)
        if self.parts.store is not None:
            await self.parts.store.release(clone_id)

    async def tree(self, name: str | None = None) -> Tree:
        """Return the family that a window is in, or all families.

        Raises
        ------
        WindowNotFoundError
            There is no such window.
        """
        index = self.parts.library.index
        one = None if name is None else await to_thread.run_sync(index.require_window, name)
        windows = await to_thread.run_sync(index.all_windows)
        return family(windows, await self._shares(), of=one)

    async def _shares(self) -> Mapping[str, Share] | None:
        """Count who keeps what on the disk, None where that cannot be told."""
        if isinstance(self.parts.store, KeptStore):
            with suppress(CWMError):  # a hold that cannot be read; the tree can be drawn without
                return (await self.parts.store.shares()).owners
        return None

    async def compare(self, a: str, b: str) -> Comparison:
        """Return where two windows part, and what they share.

        Raises
        ------
        WindowNotFoundError
            One of them is not there.
        """

        def work() -> Comparison:
            library = self.parts.library
            both = [library.index.require_window(name) for name in (a, b)]
            return compare(*((window, library.manifest(window)) for window in both))

        return await to_thread.run_sync(work)


def _check_intact(source: Window) -> None:
    if source.state == "damaged":
        raise WindowError(
            f"The window {source.known_as!r} is damaged, so it is not cloned.",
            hint=f"Repair it first, with cwm repair {source.known_as}.",
            window=source.known_as,
        )


async def _missing(store: ChunkStore, keys: Sequence[ChunkKey], manifest: Manifest) -> int:
    """Count the chunks whose content is not the frozen one; reads no content."""
    found = await store.stat(keys)
    return sum(
        stat is None or stat.digest not in (None, ref.digest)
        for stat, ref in zip(found, manifest.refs, strict=True)
    )

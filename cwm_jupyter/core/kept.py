"""KeptStore: a chunk store that can be looked after from here, as the vault can.

`ChunkStore` is what freeze and thaw need. Repairing, measuring and clearing up need more: who
shares what, and to change what a key means without writing its bytes again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from cwm_jupyter.core.chunks import ChunkKey, ChunkStore
from cwm_jupyter.core.models import ChunkRef, Value
from cwm_jupyter.errors import KVStoreError

if TYPE_CHECKING:
    from cwm_jupyter.core.cipher import Keyring
    from cwm_jupyter.vault.room import Garbage

__all__ = ["Freed", "KeptStore", "Share", "Shares", "Traces", "kept"]


class Share(Value, frozen=True, kw_only=True):
    """What one owner keeps on disk: in all, and what nobody else keeps."""

    held_bytes: int
    exclusive_bytes: int


class Shares(Value, frozen=True, kw_only=True):
    """What lies in a store, counted on the disk.

    `raw_bytes` is what the contents are when decoded, each counted once: so raw to stored is what
    the codec saves. `unheld_bytes` are of contents that nobody keeps. `quota_bytes` is null where
    there is none, `free_bytes` is what the disk has left.
    """

    folder: str
    owners: dict[str, Share]
    contents: int
    stored_bytes: int
    raw_bytes: int
    unheld_bytes: int
    quarantined: int
    quarantined_bytes: int
    quota_bytes: int | None
    free_bytes: int


class Freed(Value, frozen=True, kw_only=True):
    """What was deleted: chunks, and the bytes of the contents that went with the last of them.

    `labels` are what the store called the chunks, see `KeptStore.label`.
    """

    chunks: int
    freed_bytes: int
    labels: list[str] = msgspec.field(default_factory=list)


class Traces(Value, frozen=True, kw_only=True):
    """What a store has of what was looked for.

    `owners` are those that keep something, `stored_at` is when each label was stored that is there
    (RFC 3339), and `unmeant` counts the contents that no chunk means and nobody keeps.
    """

    owners: list[str]
    stored_at: dict[str, str]
    unmeant: int


@runtime_checkable
class KeptStore(ChunkStore, Protocol):
    """A `ChunkStore` whose files are ours."""

    async def point(self, key: ChunkKey, ref: ChunkRef) -> bool:
        """Make a key mean the content of a ref, if that is there and intact; durable then."""
        ...

    async def renew_hold(
        self, owner: str, keys: Sequence[ChunkKey], refs: Sequence[ChunkRef]
    ) -> bool:
        """Put a hold back where it is lost or of other chunks, and return whether it was.

        `keys` are all that the owner has to keep, `refs` what of it is there.
        """
        ...

    async def shares(self) -> Shares:
        """Count what lies there, and who keeps what of it."""
        ...

    async def collect(self, owners: Collection[str], *, dry_run: bool = False) -> Garbage:
        """Remove what nothing can use; holds of others than `owners` too, once a day old."""
        ...

    async def purge(
        self,
        owners: Collection[str] = (),
        *,
        keys: Sequence[ChunkKey] = (),
        salts: Collection[str] = (),
        damaged: bool = False,
        dry_run: bool = False,
    ) -> Freed:
        """Give up holds, and delete what they held, `keys`, and all of `salts`, for good.

        What somebody else holds stays, and so do contents that another key means. With `damaged`
        everything in quarantine goes too: whose it was cannot always be told.
        """
        ...

    async def salted(self, salts: Collection[str]) -> list[ChunkKey]:
        """Return the keys of all chunks that have one of these salts, whoever keeps them."""
        ...

    def label(self, key: ChunkKey) -> str:
        """Return what the store calls a key; neither the key nor its salt can be told from it."""
        ...

    async def traces(self, owners: Collection[str], labels: Collection[str]) -> Traces:
        """Look for what is left of owners and of chunks, by their labels."""
        ...

    def reseal(self, keyring: Keyring, on_files: Callable[[int], None]) -> int:
        """Encrypt all files under the keyring's current key, and return how many that were.

        Blocks; `on_files` is told how many are done. What it raises leaves everything readable
        with the keys that the keyring has.
        """
        ...

    async def clear(self, *, salt: str | None = None) -> int:
        """Delete all chunks, or all of one salt, that nobody holds; return how many."""
        ...


def kept(store: ChunkStore | None) -> KeptStore:
    """Return the store as one that can be looked after.

    Raises
    ------
    KVStoreError
        It cannot: its files are not ours, or are those of LMCache's own disk tier.
    """
    if isinstance(store, KeptStore):
        return store
    raise KVStoreError(
        "The chunks of this stack are not in a vault of ours, so they cannot be looked after.",
        hint="Use the local stack, with storage.store set to vault.",
    )

"""Storing in a vault: what is counted as stored is durable, and what fails leaves nothing behind.

In three steps. Look: digest each chunk, and see whether it is there and intact already. Write: the
missing contents and all records under temporary names, fsynced. Publish, under the vault's lock:
make room, name the contents, fsync their folder, then name the records that mean them, and fsync
theirs. A crash at any point leaves a chunk stored or not stored.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.errors import CWMError, ResourceExhaustedError
from cwm_jupyter.vault import disk
from cwm_jupyter.vault.content import encode, identify
from cwm_jupyter.vault.records import Record

if TYPE_CHECKING:
    from cwm_jupyter.vault.files import Vault

__all__ = ["Item", "Stored", "said", "store"]

_log = logging.getLogger(__name__)


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk to be stored: its key, its bytes, and the bytes of one number in them."""

    key: ChunkKey
    raw: memoryview
    element_bytes: int = 2


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a chunk that was to be stored; `reason` says why not.

    `stored_bytes` is what it took on the disk: 0 where its content was there already.
    """

    state: Literal["stored", "skipped", "failed"]
    raw_bytes: int
    stored_bytes: int = 0
    reason: str | None = None


class _Chunk(msgspec.Struct, kw_only=True):
    """A chunk on its way."""

    item: Item
    name: str = ""
    content: str = ""
    checksum: bytes = b""
    #: what the key meant when it was looked at
    before: Record | None = None
    #: whether something damaged is replaced
    healing: bool = False
    #: the chunk of the same call that brings the content, where that is not this one
    bearer: _Chunk | None = None
    needs_content: bool = False
    #: temporary files, until they have their names
    file: Path | None = None
    record: Path | None = None
    stored_bytes: int = 0
    #: the key that encrypted the temporary files
    key: bytes | None = None
    outcome: Stored | None = None

    def done(self, state: Literal["stored", "skipped"]) -> None:
        size = self.stored_bytes if state == "stored" else 0
        self.outcome = Stored(state=state, raw_bytes=len(self.item.raw), stored_bytes=size)

    def fail(self, error: Exception) -> None:
        self.outcome = Stored(state="failed", raw_bytes=len(self.item.raw), reason=said(error))

    def drop_files(self) -> None:
        for path in (self.file, self.record):
            if path is not None:
                with contextlib.suppress(OSError):  # then it is garbage, to be collected
                    disk.remove(path)
        self.file = self.record = None


def store(vault: Vault, items: Sequence[Item]) -> list[Stored]:
    """Store chunks, see `Vault.store`."""
    chunks = [_Chunk(item=item) for item in items]
    vault.each(lambda one: _guarded(one, lambda: _look(vault, one)), chunks, storing=True)
    _share(chunks)
    missing = [one for one in chunks if one.outcome is None]
    vault.each(lambda one: _guarded(one, lambda: _write(vault, one)), missing, storing=True)
    for one in missing:
        if one.bearer is not None and one.bearer.outcome is not None and one.outcome is None:
            one.outcome = one.bearer.outcome  # it failed
    try:
        _publish(vault, chunks)
    except ResourceExhaustedError:  # not room for all of them: for some, perhaps
        for one in chunks:
            _guarded(one, lambda one=one: _publish(vault, [one]))  # type: ignore[misc]
    except (OSError, CWMError) as error:
        for one in chunks:
            if one.outcome is None or one.outcome.state != "failed":
                one.fail(error)
    return [_ended(vault, one) for one in chunks]


def said(error: Exception) -> str:
    """Return an error in a few words."""
    if isinstance(error, CWMError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"


def _guarded(one: _Chunk, step: Callable[[], object]) -> None:
    if one.outcome is not None and one.outcome.state == "failed":
        return
    try:
        step()
    except Exception as error:  # whatever it is, it is this chunk's failure and no other's
        one.fail(error)


def _look(vault: Vault, one: _Chunk) -> None:
    item = one.item
    one.name = vault.name(item.key)
    identity, one.checksum = identify(vault.folder.secret, item.raw)
    one.content = identity.hex()
    there = disk.exists(vault.folder.record(one.name))
    one.before = vault.record_named(one.name)
    if one.before is not None:
        if vault.examine(one.before.content).state == "intact":
            vault.touch(one.before.content)
            one.done("skipped")
            return
        one.healing = True
    elif there:
        one.healing = True
    found = vault.examine(one.content)
    if found.state == "intact":
        vault.touch(one.content)
    else:
        one.needs_content = True
        one.healing |= found.state != "missing"


def _share(chunks: Sequence[_Chunk]) -> None:
    """Let equal contents of one call be written once."""
    bearers: dict[str, _Chunk] = {}
    for one in chunks:
        if one.outcome is None and one.needs_content:
            bearer = bearers.setdefault(one.content, one)
            if bearer is not one:
                one.bearer, one.needs_content = bearer, False


def _write(vault: Vault, one: _Chunk) -> None:
    if vault.keyring is not None and vault.keyring.encrypts:
        one.key = vault.keyring.refresh()  # first: a key that changes meanwhile is then found out
    if one.needs_content:
        _write_content(vault, one)
    record = vault.seal(one.item.key, one.content, len(one.item.raw))
    one.record = disk.write_temporary(vault.folder.records, [record])


def _write_content(vault: Vault, one: _Chunk) -> None:
    parts = encode(
        one.item.raw,
        bytes.fromhex(one.content),
        one.checksum,
        codec_name=vault.codec,
        element_bytes=one.item.element_bytes,
        keyring=vault.keyring,
    )
    one.file = disk.write_temporary(vault.folder.contents, parts)
    one.stored_bytes = sum(map(len, parts))


def _publish(vault: Vault, chunks: Sequence[_Chunk]) -> None:
    """Give what was written its names, contents before the records that mean them."""
    folder = vault.folder
    with folder.locked():
        waiting = [one for one in chunks if one.outcome is None and not _overtaken(vault, one)]
        bringing = {one.content for one in waiting if one.file is not None}
        for one in waiting:
            if one.content not in bringing and not disk.exists(folder.content(one.content)):
                _write_content(vault, one)  # it was evicted meanwhile
                bringing.add(one.content)
            if _older_key(vault, one):
                _rewrite(vault, one)
        vault.room.make(
            sum(one.stored_bytes for one in waiting if one.file is not None),
            keep={one.content for one in waiting},
        )
        for one in waiting:
            if one.file is not None:
                disk.replace(one.file, folder.content(one.content))
                one.file = None
        # Also what is there already, by somebody who may not have come so far yet.
        disk.sync([folder.contents])
        _name_records(vault, waiting)
    for one in waiting:
        if one.healing:
            vault.count(healed=1)
        one.done("stored")


def _older_key(vault: Vault, one: _Chunk) -> bool:
    """Say whether the key was changed since the chunk was written.

    Who changes it lists what there is under this lock, and then drops the older keys.
    """
    keyring = vault.keyring
    if keyring is None or not keyring.encrypts:
        return False
    return one.key != keyring.refresh()


def _rewrite(vault: Vault, one: _Chunk) -> None:
    with_content = one.file is not None
    one.drop_files()
    one.needs_content = with_content
    _write(vault, one)


def _overtaken(vault: Vault, one: _Chunk) -> bool:
    """Say whether somebody else has stored the chunk since it was looked at."""
    present = vault.record_named(one.name)
    if present is None or present == one.before:
        return False
    if not disk.exists(vault.folder.content(present.content)):
        return False
    one.done("skipped")
    return True


def _name_records(vault: Vault, chunks: Sequence[_Chunk]) -> None:
    placed = []
    try:
        for one in chunks:
            if one.record is not None:
                disk.replace(one.record, vault.folder.record(one.name))
                one.record = None
                placed.append(one)
        disk.sync([vault.folder.records])
    except OSError:
        # Not known to be durable, so it must not look as if it were. Nobody has relied on these:
        # the lock is ours, and what somebody else stored was not replaced.
        for one in placed:
            with contextlib.suppress(OSError):
                disk.remove(vault.folder.record(one.name))
        raise


def _ended(vault: Vault, one: _Chunk) -> Stored:
    one.drop_files()
    outcome = one.outcome
    if outcome is None:  # every path above gives one
        outcome = Stored(state="failed", raw_bytes=len(one.item.raw), reason="not stored")
    if outcome.state == "failed":
        _log.warning(
            "chunk %s was not stored: %s", one.item.key.chunk_hash.hex()[:12], outcome.reason
        )
    vault.count(**{outcome.state: 1})
    if outcome.state == "stored":
        vault.count(raw_bytes=outcome.raw_bytes, stored_bytes=outcome.stored_bytes)
    return outcome

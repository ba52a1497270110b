"""The vault's files: chunks stored durably, and read back byte for byte or not at all.

Storing: the bytes are digested, coded and written under a temporary name, fsynced, and then, under
the vault's lock, given their name; the folder is fsynced; only then the records are named, and
their folder is fsynced. A crash at any point leaves a chunk stored or not stored. What is there
already, and intact, is not written again, whatever key it comes under.

Reading needs no lock. What is read is digested, and the digest is the name; all else is a miss,
counted and logged with the reason, and what is damaged is moved into quarantine, so that the next
store of the chunk heals it for all keys that mean it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from cwm_jupyter.core.chunks import ChunkInfo, ChunkKey
from cwm_jupyter.core.files import open_document, seal_document
from cwm_jupyter.core.models import Value, now, rfc3339
from cwm_jupyter.errors import (
    CWMError,
    IndexCorruptError,
    ResourceExhaustedError,
    SchemaError,
    SecurityError,
)
from cwm_jupyter.vault import disk
from cwm_jupyter.vault.content import (
    HEADER_BYTES,
    CodecName,
    ContentError,
    content_id,
    encode,
    read_header,
    read_into,
)
from cwm_jupyter.vault.folder import Folder
from cwm_jupyter.vault.records import HOLD, RECORD, SCHEMA, Hold, Record, name_key, record_name
from cwm_jupyter.vault.room import Room

if TYPE_CHECKING:
    from cwm_jupyter.core.cipher import Keyring

__all__ = ["Counters", "Found", "Item", "Stored", "Vault"]

_log = logging.getLogger(__name__)
_THREADS = min(4, os.cpu_count() or 1)
_T = TypeVar("_T")
_U = TypeVar("_U")

State = Literal["intact", "missing", "corrupt", "unreadable"]


class Counters(Value, frozen=True, kw_only=True):
    """What a vault did since it was opened, in this process."""

    hits: int = 0
    misses: int = 0
    corrupt: int = 0
    unreadable: int = 0
    healed: int = 0
    stored: int = 0
    skipped: int = 0
    failed: int = 0
    evicted: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0
    loaded_bytes: int = 0

    @property
    def hit_rate(self) -> float | None:
        """Hits a lookup; None before the first one."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk to be stored: its key, its bytes, and the bytes of one number in them."""

    key: ChunkKey
    raw: memoryview
    element_bytes: int = 2


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a chunk that was to be stored; `reason` says why not."""

    state: Literal["stored", "skipped", "failed"]
    raw_bytes: int
    stored_bytes: int = 0
    reason: str | None = None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What reading a chunk gave; `content` and sizes are null where they are unknown."""

    state: State
    content: str | None = None
    raw_bytes: int | None = None
    stored_bytes: int | None = None
    reason: str | None = None


class _Staged(msgspec.Struct, kw_only=True):
    """A chunk on its way: written under temporary names."""

    item: Item
    content: str
    name: str
    record: Path | None = None
    file: Path | None = None
    healing: bool = False
    stored_bytes: int = 0
    outcome: Stored | None = None


class Vault:
    """The chunks in one folder. All methods block, and may be called from any thread.

    Parameters
    ----------
    path
        The folder; made if there is none.
    codec
        How new contents are coded; all that are known are read.
    quota_bytes
        Bytes that all contents together may take; None: what the disk has.
    keyring
        Encrypts what is new, and opens what is encrypted.
    """

    def __init__(
        self,
        path: Path,
        *,
        codec: CodecName = "raw",
        quota_bytes: int | None = None,
        keyring: Keyring | None = None,
    ) -> None:
        self.folder = Folder(path, keyring)
        self.codec: CodecName = codec
        self.keyring = keyring
        self.room = Room(self, quota_bytes)
        self._naming = name_key(self.folder.secret)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="cwm-vault")
        self._counts: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._scratch = threading.local()

    def close(self) -> None:
        """Wait until all that was begun is done."""
        self._pool.shutdown(wait=True)

    @property
    def counters(self) -> Counters:
        """What was done so far."""
        with self._counting:
            return Counters(**self._counts)

    def count(self, **changes: int) -> None:
        """Add to the counters."""
        with self._counting:
            self._counts.update(changes)

    def each(self, work: Callable[[_T], _U], items: Iterable[_T]) -> list[_U]:
        """Do `work` for each item on a few threads: reading and digesting release the GIL."""
        return list(self._pool.map(work, items))

    # Records

    def name(self, key: ChunkKey) -> str:
        """Return the name of a key's record."""
        return record_name(self._naming, key)

    def record(self, key: ChunkKey) -> Record | None:
        """Return what a key means, None for nothing; a damaged record is quarantined."""
        name = self.name(key)
        record = self.record_named(name)
        if record is not None and self.name(record.key) != name:
            self._quarantine_record(name, "another key's record")
            return None
        return record

    def record_named(self, name: str) -> Record | None:
        """Return the record of this name, None where there is none that can be read."""
        try:
            data = self.folder.record(name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self.count(unreadable=1)
            _log.warning("record %s cannot be read: %s", name[:12], error.strerror)
            return None
        try:
            return self._parse(data, name)
        except IndexCorruptError as error:
            self._quarantine_record(name, error.message)
            return None

    def records(self) -> Iterator[tuple[str, Record]]:
        """Go through all records that are whole, in no order."""
        for entry in os.scandir(self.folder.records):
            name, dot, ending = entry.name.partition(".")
            if dot and ending == "json":
                record = self.record_named(name)
                if record is not None:
                    yield name, record

    def _parse(self, data: bytes, name: str) -> Record:
        document = open_document(data, RECORD, SCHEMA, name)
        return Record.from_dict(msgspec.json.decode(document.body))

    def _seal(self, item: Item, content: str) -> bytes:
        record = Record.of(item.key, content, len(item.raw), now())
        return seal_document(RECORD, SCHEMA, record)

    # Storing

    def store(self, items: Sequence[Item]) -> list[Stored]:
        """Store chunks. What is counted as stored survives a power cut; nothing is raised."""
        staged = self.each(self._stage, items)
        waiting = [one for one in staged if one.outcome is None]
        if waiting:
            try:
                self._publish(waiting)
            except (OSError, CWMError) as error:
                for one in waiting:
                    self._failed(one, error)
        outcomes = [one.outcome or _failure(one, "not stored") for one in staged]
        for outcome in outcomes:
            self.count(**{outcome.state: 1})
            if outcome.state == "stored":
                self.count(raw_bytes=outcome.raw_bytes, stored_bytes=outcome.stored_bytes)
        return outcomes

    def _stage(self, item: Item) -> _Staged:
        """Write what is not there yet under temporary names."""
        identity = content_id(self.folder.secret, item.raw)
        one = _Staged(item=item, content=identity.hex(), name=self.name(item.key))
        try:
            there = self.folder.record(one.name).exists()
            known = self.record(item.key)
            one.healing = there and known is None
            if known is not None:
                if self.examine(known.content).state == "intact":
                    one.outcome = Stored(state="skipped", raw_bytes=len(item.raw))
                    return one
                one.healing = True
            found = self.examine(one.content)
            if found.state != "intact":
                one.healing |= found.state != "missing"
                self._write_content(one)
            one.record = disk.write_temporary(self.folder.records, [self._seal(item, one.content)])
        except (OSError, CWMError) as error:
            self._failed(one, error)
        return one

    def _write_content(self, one: _Staged) -> None:
        parts = encode(
            one.item.raw,
            bytes.fromhex(one.content),
            codec_name=self.codec,
            element_bytes=one.item.element_bytes,
            keyring=self.keyring,
        )
        one.stored_bytes = sum(map(len, parts))
        one.file = disk.write_temporary(self.folder.contents, parts)

    def _publish(self, staged: Sequence[_Staged]) -> None:
        """Give what was written its names, contents before the records that speak of them."""
        with self.folder.locked():
            for one in staged:
                if one.file is None and not self.folder.content(one.content).exists():
                    self._write_content(one)  # it was evicted meanwhile
            self.room.make(
                sum(one.stored_bytes for one in staged), keep={one.content for one in staged}
            )
            for one in staged:
                if one.file is not None:
                    disk.place(one.file, self.folder.content(one.content))
                    one.file = None
            disk.sync([self.folder.contents])
            placed = []
            try:
                for one in staged:
                    if one.record is not None:
                        disk.place(one.record, self.folder.record(one.name))
                        one.record = None
                        placed.append(one)
                disk.sync([self.folder.records])
            except OSError:
                # Not known to be durable, so it must not look as if it were.
                for one in placed:
                    with contextlib.suppress(OSError):
                        disk.remove(self.folder.record(one.name))
                raise
        for one in staged:
            if one.healing:
                self.count(healed=1)
            one.outcome = Stored(
                state="stored", raw_bytes=len(one.item.raw), stored_bytes=one.stored_bytes
            )

    def _failed(self, one: _Staged, error: Exception) -> None:
        reason = error.message if isinstance(error, CWMError) else _said(error)
        _log.warning("chunk %s was not stored: %s", one.item.key.chunk_hash.hex()[:12], reason)
        for path in (one.file, one.record):
            if path is not None:
                with contextlib.suppress(OSError):
                    disk.remove(path)
        one.outcome = _failure(one, reason)

    # Reading

    def lookup(self, keys: Sequence[ChunkKey]) -> list[str | None]:
        """Return for each key the content that is there for it, unread; None where there is none.

        Not counted: whoever looks up may never load.
        """
        found = []
        for key in keys:
            record = self.record(key)
            there = record is not None and self.folder.content(record.content).exists()
            found.append(record.content if record is not None and there else None)
        return found

    def load(self, key: ChunkKey, out: memoryview) -> Found:
        """Read a chunk into `out`, which has exactly its raw size; on a miss `out` holds anything.

        Nothing is raised: whatever is wrong is a miss.
        """
        try:
            record = self.record(key)
            if record is None:
                found = Found(state="missing", reason="there is no record")
            else:
                found = self._read(record.content, out)
        except (OSError, CWMError, ValueError) as error:
            found = Found(state="unreadable", reason=_said(error))
        if found.state == "intact":
            self.count(hits=1, loaded_bytes=len(out))
        else:
            self.count(misses=1)
            _log.info("chunk %s: %s: %s", key.chunk_hash.hex()[:12], found.state, found.reason)
        return found

    def load_all(self, wanted: Sequence[tuple[ChunkKey, memoryview]]) -> list[Found]:
        """Load many chunks, in parallel."""
        return self.each(lambda one: self.load(*one), wanted)

    def check(self, key: ChunkKey) -> Found:
        """Read a chunk and say what it is, without keeping it."""
        record = self.record(key)
        if record is None:
            return Found(state="missing", reason="there is no record")
        return self.examine(record.content)

    def read(self, key: ChunkKey) -> bytes | None:
        """Return a chunk's bytes, None for a miss."""
        record = self.record(key)
        out = bytearray(record.size_bytes if record is not None else 0)
        return bytes(out) if self.load(key, memoryview(out)).state == "intact" else None

    def examine(self, content: str) -> Found:
        """Read a content to its last byte."""
        try:
            with self._opened(content) as file:
                size = read_header(file, bytes.fromhex(content)).raw_bytes
        except FileNotFoundError:
            return Found(state="missing", content=content, reason="its content is gone")
        except ContentError as error:
            return self._rotten(content, str(error))
        except OSError as error:
            return self._unreadable(content, error)
        return self._read(content, self._own_memory(size), used=False)

    def _read(self, content: str, out: memoryview, *, used: bool = True) -> Found:
        path = self.folder.content(content)
        try:
            with self._opened(content) as file:
                header = read_into(
                    file,
                    bytes.fromhex(content),
                    out,
                    secret=self.folder.secret,
                    keyring=self.keyring,
                )
        except FileNotFoundError:
            return Found(state="missing", content=content, reason="its content is gone")
        except ContentError as error:
            return self._rotten(content, str(error))
        except (OSError, SecurityError) as error:
            return self._unreadable(content, error)
        if used:  # eviction goes by the age of use
            with contextlib.suppress(OSError):
                os.utime(path)
        return Found(
            state="intact",
            content=content,
            raw_bytes=header.raw_bytes,
            stored_bytes=HEADER_BYTES + header.payload_bytes,
        )

    def _opened(self, content: str) -> io.FileIO:
        return io.FileIO(self.folder.content(content), "rb")

    def _own_memory(self, size: int) -> memoryview:
        memory: bytearray | None = getattr(self._scratch, "memory", None)
        if memory is None or len(memory) < size:
            memory = self._scratch.memory = bytearray(size)
        return memoryview(memory)[:size]

    # What is wrong

    def _unreadable(self, content: str, error: Exception) -> Found:
        self.count(unreadable=1)
        _log.warning("content %s cannot be read: %s", content[:12], _said(error))
        return Found(state="unreadable", content=content, reason=_said(error))

    def _rotten(self, content: str, reason: str) -> Found:
        """Move a damaged content out of the way, unless somebody has just healed it."""
        self.count(corrupt=1)
        _log.warning("content %s is damaged: %s", content[:12], reason)
        with self.folder.locked():
            try:
                with self._opened(content) as file:
                    size = read_header(file, bytes.fromhex(content)).raw_bytes
                    file.seek(0)
                    out = memoryview(bytearray(size))
                    read_into(
                        file,
                        bytes.fromhex(content),
                        out,
                        secret=self.folder.secret,
                        keyring=self.keyring,
                    )
            except ContentError:
                self.room.quarantine(self.folder.content(content))
            except (OSError, SecurityError):
                pass
        return Found(state="corrupt", content=content, reason=reason)

    def _quarantine_record(self, name: str, reason: str) -> None:
        self.count(corrupt=1)
        _log.warning("record %s is damaged: %s", name[:12], reason)
        with self.folder.locked():
            try:
                record = self._parse(self.folder.record(name).read_bytes(), name)
            except (IndexCorruptError, SchemaError):
                record = None
            except OSError:
                return
            if record is None or self.name(record.key) != name:
                self.room.quarantine(self.folder.record(name))

    # Holds and deletion

    def hold(self, owner: str, keys: Sequence[ChunkKey]) -> None:
        """Keep chunks from eviction and deletion until `release`; durable when this returns.

        A second call of the same owner replaces the first. Chunks may be held before they are
        stored.
        """
        with self.folder.locked():
            records = {self.name(key): self.record(key) for key in keys}
            hold = Hold(
                owner=owner,
                records=list(records),
                contents=sorted({r.content for r in records.values() if r is not None}),
                held_at=now(),
            )
            disk.add(self.folder.holds, self.folder.hold(owner), seal_document(HOLD, SCHEMA, hold))
            disk.sync([self.folder.holds])

    def release(self, owner: str) -> bool:
        """Give up a hold and return whether there was one."""
        with self.folder.locked():
            there = disk.remove(self.folder.hold(owner))
            disk.sync([self.folder.holds])
        return there

    def holds(self) -> dict[str, Hold]:
        """Return all holds by owner.

        Raises
        ------
        IndexCorruptError
            One of them cannot be read: nothing may be evicted or deleted then.
        """
        return self.room.holds()

    def delete(self, keys: Sequence[ChunkKey]) -> list[bool]:
        """Delete chunks that nobody holds, and return for each whether it was deleted.

        Contents go with the last record that means them.
        """
        with self.folder.locked():
            held = self.room.held_records()
            gone = []
            names = [self.name(key) for key in keys]
            contents = set()
            for name in names:
                record = None if name in held else self.record_named(name)
                removed = name not in held and disk.remove(self.folder.record(name))
                gone.append(removed)
                if record is not None:
                    contents.add(record.content)
            disk.sync([self.folder.records])
            self.room.drop_unmeant(contents)
        return gone

    def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        owner: str | None = None,
        salt: str | None = None,
        model_name: str | None = None,
    ) -> tuple[list[Record], str | None]:
        """List records whose contents are there, in the order of their names.

        Returns
        -------
        tuple
            `limit` records at most, and the name to go on after, None at the end.
        """
        if owner is not None:
            hold = self.holds().get(owner)
            names = sorted(hold.records) if hold is not None else []
        else:
            names = sorted(
                entry.name.removesuffix(".json")
                for entry in os.scandir(self.folder.records)
                if entry.name.endswith(".json")
            )
        found: list[Record] = []
        last: str | None = None
        for name in names:
            if cursor is not None and name <= cursor:
                continue
            record = self.record_named(name)
            if (
                record is None
                or salt not in (None, record.cache_salt)
                or model_name not in (None, record.model_name)
                or not self.folder.content(record.content).exists()
            ):
                continue
            if len(found) == limit:
                return found, last
            found.append(record)
            last = name
        return found, None

    def describe(self, name: str, record: Record) -> ChunkInfo:
        """Return all there is to say about the chunk of a record."""
        try:
            status = self.folder.content(record.content).stat()
        except OSError:
            status = None
        return ChunkInfo(
            chunk_hash=record.chunk_hash,
            digest=record.content,
            size_bytes=record.size_bytes,
            stored_bytes=status.st_size if status else None,
            stored_at=record.stored_at,
            used_at=rfc3339(status.st_mtime) if status else None,
            owners=sorted(o for o, hold in self.holds().items() if name in hold.records),
        )

    def writable(self) -> bool:
        """Say whether the disk takes bytes, by writing and removing a few."""
        try:
            disk.remove(disk.write_temporary(self.folder.contents, [b"cwm"]))
        except OSError:
            return False
        return True

    def point(self, key: ChunkKey, content: str, size_bytes: int) -> None:
        """Make a key mean a content that is there already.

        Raises
        ------
        ResourceExhaustedError
            The disk did not take the record.
        """
        record = Record.of(key, content, size_bytes, now())
        try:
            with self.folder.locked():
                disk.add(
                    self.folder.records,
                    self.folder.record(self.name(key)),
                    seal_document(RECORD, SCHEMA, record),
                )
                disk.sync([self.folder.records])
        except OSError as error:
            raise ResourceExhaustedError(
                f"The disk did not take a record: {error.strerror}."
            ) from error

    def sync(self) -> None:
        """Make all names durable once more: for a freeze, that must not rely on who stored."""
        disk.sync([self.folder.contents, self.folder.records])


def _said(error: Exception) -> str:
    if isinstance(error, CWMError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"


def _failure(one: _Staged, reason: str) -> Stored:
    return Stored(state="failed", raw_bytes=len(one.item.raw), reason=reason)

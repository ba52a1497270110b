"""The vault's files: chunks stored durably, and read back byte for byte or not at all.

Storing is in `cwm_jupyter.vault.storing`. Reading needs no lock. What is read is digested, and the
digest is the name; all else is a miss, counted and logged with the reason, and what is damaged is
moved into quarantine, so that the next store of the chunk heals it for all keys that mean it. What
merely cannot be read now (no permission, a failing disk, a missing key) is a miss too, and stays.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from cwm_jupyter.core.chunks import ChunkInfo, ChunkKey
from cwm_jupyter.core.files import seal_document
from cwm_jupyter.core.models import Value, now, rfc3339
from cwm_jupyter.errors import CWMError, IndexCorruptError, KVStoreError, ResourceExhaustedError
from cwm_jupyter.vault import disk, storing
from cwm_jupyter.vault.content import (
    HEADER_BYTES,
    CodecName,
    ContentError,
    Header,
    SizeError,
    read_header,
    read_into,
)
from cwm_jupyter.vault.folder import Folder
from cwm_jupyter.vault.records import (
    HOLD,
    RECORD,
    SCHEMA,
    Hold,
    Record,
    name_key,
    open_checked,
    record_name,
)
from cwm_jupyter.vault.room import Room
from cwm_jupyter.vault.storing import Item, Stored, said

if TYPE_CHECKING:
    from cwm_jupyter.core.cipher import Keyring

__all__ = ["Counters", "Found", "Item", "Stored", "Vault"]

_log = logging.getLogger(__name__)
_THREADS = min(4, os.cpu_count() or 1)
#: how long a reader waits to put aside what is damaged: the next one may do it as well
_ASIDE_S = 1.0
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


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What reading a chunk gave; `content` and sizes are null where they are unknown."""

    state: State
    content: str | None = None
    raw_bytes: int | None = None
    stored_bytes: int | None = None
    reason: str | None = None


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
        Encrypts what is new, if it is meant to, and opens what is encrypted.
    home
        Id of the home whose holds are made here, and may be collected: several may share a vault.
    """

    def __init__(
        self,
        path: Path,
        *,
        codec: CodecName = "raw",
        quota_bytes: int | None = None,
        keyring: Keyring | None = None,
        home: str = "",
    ) -> None:
        self.home = home
        self.folder = Folder(path, keyring)
        self.codec: CodecName = codec
        self.keyring = keyring
        self.room = Room(self, quota_bytes)
        self._naming = name_key(self.folder.secret)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="cwm-vault")
        # Stores wait for the disk; a load must not wait for them.
        self._storing = ThreadPoolExecutor(_THREADS, thread_name_prefix="cwm-storing")
        self._counts: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._scratch = threading.local()

    def close(self) -> None:
        """Wait until all that was begun is done; nothing can be begun after that."""
        self._storing.shutdown(wait=True)
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

    def each(
        self, work: Callable[[_T], _U], items: Iterable[_T], *, storing: bool = False
    ) -> list[_U]:
        """Do `work` for each item on a few threads: reading and digesting release the GIL.

        Raises
        ------
        KVStoreError
            The vault is closed.
        """
        try:
            results = (self._storing if storing else self._pool).map(work, items)
        except RuntimeError as error:
            raise KVStoreError("The vault is closed.") from error
        return list(results)

    # Records

    def name(self, key: ChunkKey) -> str:
        """Return the name of a key's record."""
        return record_name(self._naming, key)

    def record(self, key: ChunkKey) -> Record | None:
        """Return what a key means, None for nothing; a damaged record is quarantined."""
        return self.record_named(self.name(key))

    def record_named(self, name: str, *, strict: bool = False) -> Record | None:
        """Return the record of this name, None where there is none that can be read.

        With `strict`, one that is there and cannot be read is an error, unless it is damaged:
        whoever deletes what no record means must not take 'unreadable' for 'nothing'.
        """
        try:
            return self._read_record(name)
        except FileNotFoundError:
            return None
        except IndexCorruptError as error:
            self.count(corrupt=1)
            _log.warning("record %s is damaged: %s", name[:12], error.message)
            self._put_aside(
                self.folder.record(name), lambda: self._read_record(name), IndexCorruptError
            )
            return None
        except (OSError, CWMError) as error:
            if strict:
                raise
            self.count(unreadable=1)
            _log.warning("record %s cannot be read: %s", name[:12], said(error))
            return None

    def records(self, *, strict: bool = False) -> Iterator[tuple[str, Record]]:
        """Go through all records that are whole, in no order; for `strict` see `record_named`."""
        for path, _ in disk.files(self.folder.records, ".json"):
            record = self.record_named(path.stem, strict=strict)
            if record is not None:
                yield path.stem, record

    def seal(self, key: ChunkKey, content: str, size_bytes: int) -> bytes:
        """Return the bytes of a record."""
        record = Record.of(key, content, size_bytes, now())
        name = self.folder.record(self.name(key)).name
        return seal_document(RECORD, SCHEMA, record, name, self.keyring)

    def _read_record(self, name: str) -> Record:
        path = self.folder.record(name)
        body = open_checked(path, RECORD, self.keyring)
        record = Record.from_dict(msgspec.json.decode(body))
        if self.name(record.key) != name:
            raise IndexCorruptError(f"{name} is another key's record.")
        return record

    # Storing

    def store(self, items: Sequence[Item]) -> list[Stored]:
        """Store chunks. What is counted as stored, or skipped, survives a power cut.

        What goes wrong is in the outcomes: nothing is raised unless the vault is closed.
        """
        return storing.store(self, items)

    # Reading

    def lookup(self, keys: Sequence[ChunkKey]) -> list[str | None]:
        """Return for each key the content that is there for it, unread; None where there is none.

        Not counted: whoever looks up may never load.
        """
        found: list[str | None] = []
        for key in keys:
            record = self.record(key)
            there = record is not None and disk.exists(self.folder.content(record.content))
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
                if found.state == "intact":
                    self.touch(record.content)
        except Exception as error:  # it would hang the engine that waits for this chunk
            found = Found(state="unreadable", reason=said(error))
        if found.state == "intact":
            self.count(hits=1, loaded_bytes=len(out))
        else:
            self.count(misses=1)
            _log.info("chunk %s: %s: %s", key.chunk_hash.hex()[:12], found.state, found.reason)
        return found

    def load_all(self, wanted: Sequence[tuple[ChunkKey, memoryview]]) -> list[Found]:
        """Load many chunks, in parallel."""
        return self.each(lambda one: self.load(*one), wanted)

    def read(self, key: ChunkKey) -> tuple[Found, bytes | None]:
        """Read a chunk, and return what it is and its bytes, None for a miss."""
        record = self.record(key)
        out = bytearray(record.size_bytes if record is not None else 0)
        found = self.load(key, memoryview(out))
        return found, bytes(out) if found.state == "intact" else None

    def check(self, key: ChunkKey, *, deep: bool = False) -> Found:
        """Read a chunk and say what it is, without keeping it; for `deep` see `examine`."""
        record = self.record(key)
        if record is None:
            return Found(state="missing", reason="there is no record")
        return self.examine(record.content, deep=deep)

    def examine(self, content: str, *, deep: bool = False) -> Found:
        """Read a content, by its id in hex, to its last byte, and say what it is.

        With `deep` its bytes are digested, too, and held against its name: that takes longer, and
        tells what no checksum tells.
        """
        return self._read(content, None, deep=deep)

    def touch(self, content: str) -> None:
        """Note that a content was used: eviction goes by the age of use."""
        with contextlib.suppress(OSError):
            os.utime(self.folder.content(content))

    def _read(self, content: str, out: memoryview | None, *, deep: bool = False) -> Found:
        try:
            header = self._read_content(content, out, deep=deep)
        except FileNotFoundError:
            return Found(state="missing", content=content, reason="its content is gone")
        except SizeError as error:
            return Found(state="missing", content=content, reason=str(error))
        except ContentError as error:
            self.count(corrupt=1)
            _log.warning("content %s is damaged: %s", content[:12], error)
            self._put_aside(
                self.folder.content(content),
                lambda: self._read_content(content, None, deep=deep),
                ContentError,
            )
            return Found(state="corrupt", content=content, reason=str(error))
        except (OSError, CWMError, MemoryError) as error:
            self.count(unreadable=1)
            _log.warning("content %s cannot be read: %s", content[:12], said(error))
            return Found(state="unreadable", content=content, reason=said(error))
        return Found(
            state="intact",
            content=content,
            raw_bytes=header.raw_bytes,
            stored_bytes=HEADER_BYTES + header.payload_bytes,
        )

    def _read_content(self, content: str, out: memoryview | None, *, deep: bool) -> Header:
        """Read a content into `out`, or into memory of our own."""
        name = bytes.fromhex(content)
        with disk.opened(self.folder.content(content)) as file:
            if out is None:
                out = self._own_memory(read_header(file, name).raw_bytes)
                file.seek(0)
            secret = self.folder.secret
            return read_into(file, name, out, secret=secret, keyring=self.keyring, deep=deep)

    def _own_memory(self, size: int) -> memoryview:
        memory: bytearray | None = getattr(self._scratch, "memory", None)
        if memory is None or len(memory) < size:
            memory = self._scratch.memory = bytearray(size)
        return memoryview(memory)[:size]

    def _put_aside(self, path: Path, read: Callable[[], object], damage: type[Exception]) -> None:
        """Quarantine a damaged file, unless somebody has just healed it.

        Best effort: it is a miss already, and stays one for as long as it lies there.
        """
        try:
            with self.folder.locked(_ASIDE_S):
                try:
                    read()
                except damage:
                    self.room.quarantine(path)
        except (OSError, CWMError, MemoryError) as error:
            _log.info("%s was not put aside: %s", path.name[:12], said(error))

    # Holds and deletion

    def hold(self, owner: str, keys: Sequence[ChunkKey], contents: Collection[str] = ()) -> None:
        """Keep chunks from eviction and deletion until `release`; durable when this returns.

        A second call of the same owner replaces the first. Chunks may be held before they are
        stored. `contents` are kept whether or not the keys mean them now.
        """
        path = self.folder.hold(owner)
        with self.folder.locked():
            records = {self.name(key): self.record(key) for key in keys}
            meant = {record.content for record in records.values() if record is not None}
            hold = Hold(
                owner=owner,
                records=list(records),
                contents=sorted(meant.union(contents)),
                held_at=now(),
                home=self.home,
            )
            data = seal_document(HOLD, SCHEMA, hold, path.name, self.keyring)
            disk.add(self.folder.holds, path, data)
            disk.sync([self.folder.holds])

    def release(self, owner: str) -> bool:
        """Give up a hold and return whether there was one."""
        path = self.folder.hold(owner)
        with self.folder.locked():
            there = disk.remove(path)
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
            gone, contents = [], set()
            for name in map(self.name, keys):
                record = None if name in held else self.record_named(name)
                gone.append(name not in held and disk.remove(self.folder.record(name)))
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
            names = sorted(path.stem for path, _ in disk.files(self.folder.records, ".json"))
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
                or not disk.exists(self.folder.content(record.content))
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
        """Make a key mean a content that is there already; durable when this returns.

        Raises
        ------
        KVStoreError
            The content is not there.
        ResourceExhaustedError
            The disk did not take the record.
        """
        path = self.folder.record(self.name(key))
        try:
            with self.folder.locked():
                if not disk.exists(self.folder.content(content)):
                    raise KVStoreError(f"There is no content {content[:12]} in the vault.")
                disk.sync([self.folder.contents])
                disk.add(self.folder.records, path, self.seal(key, content, size_bytes))
                disk.sync([self.folder.records])
        except OSError as error:
            raise ResourceExhaustedError(
                f"The disk did not take a record: {error.strerror}.", hint="Make room."
            ) from error

    def sync(self) -> None:
        """Make all names durable once more: for a freeze, that must not rely on who stored."""
        disk.sync([self.folder.contents, self.folder.records])

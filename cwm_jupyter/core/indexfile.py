"""The file under the index: generations that replace each other whole, behind one lock.

TinyDB's own storage writes in place and knows no lock. Here a writer holds a lock between
processes around its read, change and write; a generation is written beside the old one, made
durable and put in its place, and the old one stays as ``index.prev.json``. Readers need no lock:
they see one generation or the other. A damaged file is set aside, never overwritten, and a copy of
what an older release wrote is kept as ``index.schema-N.json`` when the first change migrates it.

Nearly all of a generation is as in the one before. So the bytes of each entry are kept beside the
entry: a commit encodes what has changed, and a reader decodes what another process has changed.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import operator
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import msgspec

from cwm_jupyter.core import files, models, portable
from cwm_jupyter.core.portable import patiently, read_bytes, remove
from cwm_jupyter.errors import IndexBusyError, IndexCorruptError

__all__ = ["SCHEMA", "IndexFile", "Tables"]

#: Tables by name, documents by id.
Tables = dict[str, dict[str, dict[str, Any]]]

#: Version of the documents' shape; older ones are migrated when read.
SCHEMA = 2
_KIND = "index"
_HEAD_BYTES = 128  # holds the checksum
_LOG = logging.getLogger(__name__)
_Encoded = dict[str, dict[str, msgspec.Raw]]
_ENTRIES = msgspec.json.Decoder(_Encoded)
_ENTRY = msgspec.json.Decoder(dict[str, Any])


def _add_tags_and_metadata(tables: Tables) -> Tables:
    """From schema 0, in which sessions had no tags and metadata and windows no tags and note."""
    missing: dict[str, dict[str, Callable[[], Any]]] = {
        "sessions": {"tags": list, "metadata": dict},
        "windows": {"tags": list, "note": str},
    }
    return {
        table: {
            key: {**{field: make() for field, make in missing.get(table, {}).items()}, **document}
            for key, document in documents.items()
        }
        for table, documents in tables.items()
    }


def _add_versions_and_expiry(tables: Tables) -> Tables:
    """From schema 1, in which nothing expired and a name had one window."""
    kept: dict[str, Any] = {"pinned": False, "ttl_s": None, "expires_at": None}
    missing: dict[str, dict[str, Any]] = {
        "sessions": {**kept, "policy": None},
        "windows": {**kept, "version": 1, "superseded": False},
    }
    return {
        table: {key: {**missing.get(table, {}), **document} for key, document in documents.items()}
        for table, documents in tables.items()
    }


_MIGRATIONS = {0: _add_tags_and_metadata, 1: _add_versions_and_expiry}


@dataclass(frozen=True)
class _Generation:
    """One state of the index: its entries, and the bytes of each in the file.

    `encoded` has the bytes of those entries of `tables` that are the very same objects.
    """

    schema: int
    tables: Tables
    encoded: _Encoded


_EMPTY = _Generation(SCHEMA, {}, {})


class IndexFile:
    """Reads and replaces the generations of an index; safe between threads and processes.

    Parameters
    ----------
    folder
        Where the files lie: ``index.json``, ``index.prev.json``, ``index.lock``.
    lock_timeout_s
        How long a writer waits for another one.
    """

    def __init__(self, folder: Path, lock_timeout_s: float) -> None:
        self.path = folder / "index.json"
        self.previous = folder / "index.prev.json"
        #: What was recovered by this object, for the user; None where all was well.
        self.warning: str | None = None
        self._timeout_s = lock_timeout_s
        self._thread_lock = threading.Lock()
        self._writer: int | None = None
        self._file_lock = filelock.FileLock(
            folder / "index.lock", mode=0o600, poll_interval=0.005, thread_local=False
        )
        # What a read of the file would give, under what identifies its content. The times of a
        # file are too coarse and inodes are used again, so the head with the checksum is in it.
        self._cache: tuple[tuple[int, int, int, bytes] | None, _Generation] = None, _EMPTY
        self._swept = False

    def read(self) -> Tables:
        """Return the present tables. The documents are shared: never change them in place.

        Raises
        ------
        IndexCorruptError
            Neither the file nor the generation before it can be read.
        IndexBusyError
            The file is damaged, and another process holds the lock that its recovery needs.
        SchemaError
            A newer release wrote it.
        """
        try:
            return dict(self._load().tables)
        except IndexCorruptError:
            with self._locked():
                return dict(self._load_or_recover().tables)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Tables]:
        """Hold the lock, give the tables to change, and write them as one generation at the end.

        Tables may be replaced in the dict that is given, documents not be changed in place. An
        exception leaves the index as it was; so does a crash at any point.

        Raises
        ------
        IndexBusyError
            Another writer held the lock for too long.
        ResourceExhaustedError
            The disk is full.
        """
        with self._locked():
            before = self._load_or_recover()
            tables = dict(before.tables)
            yield tables
            if tables != before.tables:
                with self._replaceable():
                    self._commit(tables, before)

    def forget_previous(self) -> None:
        """Leave nothing of what was removed: not in the generation before, not in older schemas.

        Raises
        ------
        IndexBusyError, ResourceExhaustedError
            As `transaction` does.
        """
        with self._locked():
            present = self._load_or_recover()
            if self.path.exists():  # a copy and no link: the one is there in case the other rots
                files.write_atomic(self.previous, read_bytes(self.path))
            for backup in self.path.parent.glob("index.schema-*.json"):
                self._thin(backup, present.tables)

    def _thin(self, backup: Path, present: Tables) -> None:
        """Keep of a backup what is in the present tables; all goes where it cannot be read."""
        try:
            document = files.open_document(read_bytes(backup), _KIND, SCHEMA, backup.name)
            entries = _ENTRIES.decode(document.body)
        except (IndexCorruptError, msgspec.MsgspecError):
            remove(backup)
            return
        kept = {
            table: {key: raw for key, raw in found.items() if key in present.get(table, {})}
            for table, found in entries.items()
        }
        files.write_checked(backup, _KIND, document.schema, kept)

    def _commit(self, tables: Tables, before: _Generation) -> None:
        encoded = _encode(tables, before)
        data = files.seal_document(_KIND, SCHEMA, encoded)
        if self.path.exists():
            files.keep_copy(self.path, self.previous)
            if before.schema < SCHEMA:
                backup = self.path.with_name(f"index.schema-{before.schema}.json")
                files.keep_copy(self.path, backup)
        files.write_atomic(self.path, data)
        identity = _identity(self.path.stat(), data[:_HEAD_BYTES])
        self._cache = identity, _Generation(SCHEMA, tables, encoded)

    def _load(self) -> _Generation:
        """Return the present generation, of which is decoded what was not yet."""
        known, latest = self._cache
        try:
            with patiently(lambda: self.path.open("rb")) as file:
                head = file.read(_HEAD_BYTES)
                identity = _identity(os.fstat(file.fileno()), head)
                if known == identity:
                    return latest
                data = head + file.read()
        except FileNotFoundError as error:
            if self.previous.exists():
                raise IndexCorruptError(f"{self.path.name} is missing.") from error
            return _EMPTY
        generation = _parse(data, self.path.name, latest)
        self._cache = identity, generation
        return generation

    def _load_or_recover(self) -> _Generation:
        """Under the lock: return the present generation, or the last good one if need be."""
        try:
            return self._load()
        except IndexCorruptError as error:  # and still so: nobody else has recovered it meanwhile
            return self._recover(error)

    def _recover(self, error: IndexCorruptError) -> _Generation:
        """Put the generation before in the place of a damaged one, which is kept."""
        try:
            data = read_bytes(self.previous)
            generation = _parse(data, self.previous.name, _EMPTY)
        except (OSError, IndexCorruptError) as second:
            raise IndexCorruptError(
                f"The index cannot be read: {error.message} {self.previous.name} does not help.",
                hint=f"Restore {self.path.name} from a backup, or move both away to begin anew.",
                file=self.path.name,
            ) from second
        aside = "nothing was left of the damaged file"
        if self.path.exists():
            stamp = models.now().translate({ord(c): None for c in "-:.Z"})
            quarantine = self.path.with_name(f"index.corrupt-{stamp}.json")
            files.keep_copy(self.path, quarantine)
            aside = f"the damaged file is kept as {quarantine.name}"
        files.write_atomic(self.path, data)
        self.warning = (
            f"{error.message} The index was recovered from the generation before it, so its last "
            f"change may be missing; {aside}."
        )
        _LOG.warning(self.warning)
        return generation

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the threads and the one of the processes."""
        if self._writer == threading.get_ident():
            raise RuntimeError("a transaction on the index cannot hold another one")
        if not self._thread_lock.acquire(timeout=self._timeout_s):
            raise self._busy()
        try:
            with self._file_lock.acquire(timeout=self._timeout_s):
                self._writer = threading.get_ident()
                self._sweep()
                yield
        except filelock.Timeout as error:
            raise self._busy() from error
        finally:
            self._writer = None
            self._thread_lock.release()

    @contextlib.contextmanager
    def _replaceable(self) -> Iterator[None]:
        """Say what can be done where Windows does not let the file be replaced."""
        try:
            yield
        except PermissionError as error:
            if not portable.WINDOWS:
                raise
            raise IndexBusyError(
                f"Another program has {self.path.name} open, so it cannot be replaced.",
                hint="Close what shows it; a virus scanner or a backup is soon done.",
            ) from error

    def _busy(self) -> IndexBusyError:
        return IndexBusyError(
            f"Another process or thread has held the index for {self._timeout_s:g} s."
        )

    def _sweep(self) -> None:
        """Once, under the lock: remove what a writer that was killed left behind."""
        if not self._swept:
            for path in (self.path, self.previous):
                files.remove_leftovers(path)
            self._swept = True


def _identity(status: os.stat_result, head: bytes) -> tuple[int, int, int, bytes]:
    return status.st_mtime_ns, status.st_size, status.st_ino, head


def _parse(data: bytes, name: str, latest: _Generation) -> _Generation:
    """Read a generation; entries whose bytes are those of the latest one are taken from there."""
    document = files.open_document(data, _KIND, SCHEMA, name)
    tables: Tables = {}
    encoded: _Encoded = {}
    try:
        for table, found in _ENTRIES.decode(document.body).items():
            entries = tables[table] = {}
            known, raws = latest.tables.get(table, {}), latest.encoded.get(table, {})
            kept = encoded[table] = {}
            for key, raw in found.items():
                if raws.get(key) == raw:
                    entries[key], kept[key] = known[key], raws[key]
                else:
                    # A copy: the raw bytes are a view, which would keep the whole file in memory.
                    entries[key], kept[key] = _ENTRY.decode(raw), raw.copy()
    except msgspec.ValidationError as error:
        raise IndexCorruptError(f"{name} is damaged: {error}.", file=name) from error
    if document.schema < SCHEMA:
        tables = files.migrate(tables, document.schema, SCHEMA, _MIGRATIONS)
        encoded = {}
    return _Generation(document.schema, tables, encoded)


def _encode(tables: Tables, before: _Generation) -> _Encoded:
    """Return the bytes of all entries, of which those that have not changed are there already."""
    encoded: _Encoded = {}
    for table, entries in tables.items():
        encoded[table] = raws = dict(before.encoded.get(table, {}))
        known = before.tables.get(table, {}) if raws else {}
        # Thousands of entries, of which one or two are others: told apart without a Python loop.
        same = map(operator.is_, entries.values(), map(known.get, entries))
        for key in itertools.compress(entries, map(operator.not_, same)):
            raws[key] = msgspec.Raw(msgspec.json.encode(entries[key]))
        for key in raws.keys() - entries.keys():
            del raws[key]
    return encoded

"""The file under the index: generations that replace each other whole, behind one lock.

TinyDB's own storage writes in place and knows no lock. Here a writer holds a lock between
processes around its read, change and write; a generation is written beside the old one, made
durable and put in its place, and the old one stays as ``index.prev.json``. Readers need no lock:
they see one generation or the other. A damaged file is set aside, never overwritten.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import msgspec

from cwm_jupyter.core import files, models
from cwm_jupyter.errors import IndexBusyError, IndexCorruptError

__all__ = ["SCHEMA", "IndexFile", "Tables"]

#: Tables by name, documents by id.
Tables = dict[str, dict[str, dict[str, Any]]]

#: Version of the documents' shape; older ones are migrated when read.
SCHEMA = 2
_KIND = "index"
_HEAD_BYTES = 128  # holds the checksum
_LOG = logging.getLogger(__name__)
_DECODER = msgspec.json.Decoder(Tables)


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
    kept: dict[str, Any] = {"pinned": False, "expires_at": None}
    missing: dict[str, dict[str, Any]] = {
        "sessions": {**kept, "policy": None},
        "windows": {**kept, "version": 1, "superseded": False},
    }
    return {
        table: {key: {**missing.get(table, {}), **document} for key, document in documents.items()}
        for table, documents in tables.items()
    }


_MIGRATIONS = {0: _add_tags_and_metadata, 1: _add_versions_and_expiry}


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
        self._cache: tuple[tuple[int, int, int, bytes], Tables] | None = None
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
            return dict(self._load())
        except IndexCorruptError:
            with self._locked():
                return dict(self._load_or_recover())

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
            tables = dict(before)
            yield tables
            if tables != before:
                self._commit(tables)

    def forget_previous(self) -> None:
        """Make the generation before equal to the present one: nothing is left of what was removed.

        Raises
        ------
        IndexBusyError, ResourceExhaustedError
            As `transaction` does.
        """
        with self._locked():
            self._load_or_recover()
            if self.path.exists():  # a copy and no link: the one is there in case the other rots
                files.write_atomic(self.previous, self.path.read_bytes())

    def _commit(self, tables: Tables) -> None:
        data = files.seal_document(_KIND, SCHEMA, tables)
        if self.path.exists():
            files.keep_copy(self.path, self.previous)
        files.write_atomic(self.path, data)
        self._cache = (_identity(self.path.stat(), data[:_HEAD_BYTES]), tables)

    def _load(self) -> Tables:
        """Return the tables of the present generation, parsed once."""
        try:
            with self.path.open("rb") as file:
                head = file.read(_HEAD_BYTES)
                identity = _identity(os.fstat(file.fileno()), head)
                cache = self._cache
                if cache is not None and cache[0] == identity:
                    return cache[1]
                data = head + file.read()
        except FileNotFoundError as error:
            if self.previous.exists():
                raise IndexCorruptError(f"{self.path.name} is missing.") from error
            return {}
        tables = _parse(data, self.path.name)
        self._cache = (identity, tables)
        return tables

    def _load_or_recover(self) -> Tables:
        """Under the lock: return the tables, from the last good generation if need be."""
        try:
            return self._load()
        except IndexCorruptError as error:  # and still so: nobody else has recovered it meanwhile
            return self._recover(error)

    def _recover(self, error: IndexCorruptError) -> Tables:
        """Put the generation before in the place of a damaged one, which is kept."""
        try:
            data = self.previous.read_bytes()
            tables = _parse(data, self.previous.name)
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
        return tables

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


def _parse(data: bytes, name: str) -> Tables:
    document = files.open_document(data, _KIND, SCHEMA, name)
    try:
        tables = _DECODER.decode(document.body)
    except msgspec.ValidationError as error:
        raise IndexCorruptError(f"{name} is damaged: {error}.", file=name) from error
    migrated: Tables = files.migrate(tables, document.schema, SCHEMA, _MIGRATIONS)
    return migrated

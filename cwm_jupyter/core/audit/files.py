"""The files of the audit log: appended to, rotated, never changed.

::

    audit/audit.jsonl        the lines; full, it becomes audit-0001.jsonl, and so on
    keys/audit.key           the key of the MACs
    keys/audit.head          number and MAC of the last line, kept apart, so that a cut tail shows

A line is made durable, then the head; before the first line of all there is a head already, so that
one is missing only where it was lost. After a crash one line may lie beyond the head: if it is
right it counts. A line that is not finished stays where it is, and the next one says so.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import filelock
import msgspec

from cwm_jupyter.core.audit.line import (
    BEGINNING,
    KEY_BYTES,
    OPEN,
    Line,
    key_id,
    keyed,
    read,
    sealed,
)
from cwm_jupyter.core.files import fsync_dir, make_private_dir, write_atomic
from cwm_jupyter.core.portable import sync_file

__all__ = ["AuditFiles", "Head", "Snapshot"]

_NUMBERED = re.compile(r"audit-(\d{4,})\.jsonl")


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The last line of the log, and how long its file was with it."""

    seq: int
    mac: str
    key_id: str
    size_bytes: int


@dataclass(frozen=True)
class Snapshot:
    """All files of the log at one moment, oldest first; what cannot be read is None."""

    files: list[tuple[str, bytes]]
    head: Head | None
    key: bytes | None
    key_open: bool


@dataclass(frozen=True)
class _Tail:
    """Where the next line goes on, and what it has to tell of what was found there."""

    seq: int
    mac: str
    torn: str | None = None
    headless: bool | None = None
    #: of the key it was written with, where that is known
    key_id: str | None = None


class AuditFiles:
    """The log of one home. Safe between threads and processes.

    Parameters
    ----------
    home
        Where it lies.
    rotate_bytes
        How long a file may get.
    lock_timeout_s
        How long to wait for another writer.
    """

    def __init__(self, home: Path, rotate_bytes: int, lock_timeout_s: float) -> None:
        self.folder = home / "audit"
        self.path = self.folder / "audit.jsonl"
        self._keys = home / "keys"
        self._rotate_bytes = rotate_bytes
        self._lock_timeout_s = lock_timeout_s

    @property
    def key_path(self) -> Path:
        """Where the key lies."""
        return self._keys / "audit.key"

    @property
    def head_path(self) -> Path:
        """Where the head lies."""
        return self._keys / "audit.head"

    def append(self, fields: dict[str, Any]) -> int:
        """Write a line, durably, and return its number.

        Parameters
        ----------
        fields
            Those of `Line`, without its place in the chain.

        Raises
        ------
        OSError, CWMError
            It could not be written; a part of it may be there.
        """
        with self._locked():
            key = self._key_or_new()
            head, size = self._head(), _size(self.path)
            tail = self._tail(key, head, size)
            full = size is not None and (
                size >= self._rotate_bytes or self._of_other_key(head, key)
            )
            opens = size is None or (full and self._rotate())
            if head is None and tail.seq == 0:
                self._save_head(tail, key, size_bytes=0)
            return self._write(tail, key, fields, opens=opens)

    def snapshot(self) -> Snapshot:
        """Read everything, between two lines.

        Raises
        ------
        OSError
            A file cannot be read, or a writer holds the lock for too long.
        """
        if not self.folder.is_dir():
            return Snapshot([], self._head(), self._key(), self._key_open())
        with self._locked():
            paths = [*self._older(), *([self.path] if self.path.exists() else [])]
            files = [(path.name, path.read_bytes()) for path in paths]
            return Snapshot(files, self._head(), self._key(), self._key_open())

    # --- writing ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        make_private_dir(self.folder)
        # One made for each use excludes other threads too.
        lock = filelock.FileLock(
            self.folder / "audit.lock",
            timeout=self._lock_timeout_s,
            mode=0o600,
            poll_interval=0.005,
        )
        with lock:
            yield

    def _write(self, tail: _Tail, key: bytes, fields: dict[str, Any], *, opens: bool) -> int:
        found: dict[str, Any] = {"torn": tail.torn, "headless": tail.headless}
        data = b""
        if opens:
            who = ("time", "user", "host", "pid", "program", "kernel")
            about = {name: fields[name] for name in who}
            line = Line(
                seq=tail.seq + 1,
                after=tail.mac,
                action=OPEN,
                result="done",
                names={},
                key_id=key_id(key),
                previous_key_id=tail.key_id,
                **about,
                **found,
            )
            data, mac = sealed(line, key)
            tail, found = _Tail(line.seq, mac), {}
        elif tail.torn is not None:
            data = b"\n"  # what is torn stays, on a line of its own
        line = Line(seq=tail.seq + 1, after=tail.mac, **fields, **found)
        sealed_line, mac = sealed(line, key)
        size_bytes = _append(self.path, data + sealed_line)
        if opens:
            fsync_dir(self.folder)
        self._save_head(_Tail(line.seq, mac), key, size_bytes)
        return line.seq

    def _save_head(self, tail: _Tail, key: bytes, size_bytes: int) -> None:
        head = Head(seq=tail.seq, mac=tail.mac, key_id=key_id(key), size_bytes=size_bytes)
        write_atomic(self.head_path, msgspec.json.encode(head))

    def _tail(self, key: bytes, head: Head | None, size: int | None) -> _Tail:
        """Find where the log ends: at the head, or a right line beyond it.

        Whatever was cut off or put in, the chain goes on from what the head names, so that it
        shows for good.
        """
        if head is not None and size == head.size_bytes:
            return _Tail(head.seq, head.mac, key_id=head.key_id)
        # Without a present file a crash came into a rotation, or somebody took the file away.
        newest = [self.path] if size is not None else self._older()[-1:]
        data = newest[0].read_bytes() if newest else b""
        whole, _, unfinished = data.rpartition(b"\n")
        torn = keyed(unfinished, key) if unfinished else None
        if head is None:
            return replace(self._last_line(whole), torn=torn)
        tail = _Tail(head.seq, head.mac, key_id=head.key_id)
        for raw in whole[head.size_bytes :].split(b"\n"):
            found = read(raw, key)
            if found is not None and found[2] and found[0].after == tail.mac:
                tail = _Tail(found[0].seq, found[1], key_id=key_id(key))
        return replace(tail, torn=torn)

    def _last_line(self, whole: bytes) -> _Tail:
        """Without a head: find the last line that is there, and say that there was no head."""
        newest_first = (path.read_bytes() for path in reversed(self._older()))
        for data in (whole, *newest_first):
            for raw in reversed(data.split(b"\n")):
                found = read(raw, None)
                if found is not None:
                    return _Tail(found[0].seq, found[1], headless=True)
        return _Tail(0, BEGINNING)

    def _rotate(self) -> bool:
        """Put the present file among the older ones, and return whether that was possible."""
        older = self._older()
        number = _number(older[-1]) + 1 if older else 1
        try:
            self.path.rename(self.folder / f"audit-{number:04}.jsonl")
        except OSError:  # on Windows, while somebody reads it: then it gets longer
            return False
        return True

    def _of_other_key(self, head: Head | None, key: bytes) -> bool:
        """Return whether the present file was begun with another key, which is gone."""
        if head is not None:
            return head.key_id != key_id(key)
        with self.path.open("rb") as file:
            first = read(file.readline().rstrip(b"\n"), None)
        return first is not None and first[0].key_id != key_id(key)

    def _older(self) -> list[Path]:
        found = [
            path for path in self.folder.glob("audit-*.jsonl") if _NUMBERED.fullmatch(path.name)
        ]
        return sorted(found, key=_number)

    # --- key and head -----------------------------------------------------------------------------

    def _head(self) -> Head | None:
        try:
            return msgspec.json.decode(self.head_path.read_bytes(), type=Head)
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def _key(self) -> bytes | None:
        """Return the key, None where there is none."""
        try:
            key = self.key_path.read_bytes()
        except FileNotFoundError:
            return None
        return key if len(key) == KEY_BYTES else None

    def _key_or_new(self) -> bytes:
        key = self._key()
        if key is None:
            key = secrets.token_bytes(KEY_BYTES)
            make_private_dir(self._keys)
            write_atomic(self.key_path, key)
        return key

    def _key_open(self) -> bool:
        """Return whether other users can read the key, and so write lines."""
        if os.name == "nt" or not self.key_path.exists():
            return False
        return bool(self.key_path.stat().st_mode & 0o077)


def _number(path: Path) -> int:
    found = _NUMBERED.fullmatch(path.name)
    return int(found[1]) if found else 0


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _append(path: Path, data: bytes) -> int:
    """Append durably, and return how long the file is then."""

    def private(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)

    with open(path, "ab", opener=private) as file:
        file.write(data)
        file.flush()
        sync_file(file.fileno())
        return file.tell()

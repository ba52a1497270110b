"""The body of an archive: plain, or in sealed segments, written in order and read anywhere.

An encrypted body is cut into segments of 1 MiB, the last one shorter or full. Each is sealed with
AES-256-GCM under a key of this file alone: scrypt makes it of the passphrase and a random salt. The
nonce is the segment's number, and in its last byte whether it is the last one (the STREAM
construction, V. T. Hoang et al., 2015, as age has it); the file's first bytes are the associated
data. So segments cannot be left out, added, swapped or cut off, nor put into another file.
"""

from __future__ import annotations

import os
import unicodedata
from typing import TYPE_CHECKING, BinaryIO, Protocol

from cwm_jupyter.core.archive.format import DAMAGED, Sealing
from cwm_jupyter.errors import ArchiveError, DecryptError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = [
    "SEGMENT_BYTES",
    "Body",
    "PlainBody",
    "PlainSink",
    "SealedBody",
    "SealedSink",
    "Sink",
    "sealed_bytes",
]

SEGMENT_BYTES = 1 << 20
_TAG_BYTES = 16
_SEALED_BYTES = SEGMENT_BYTES + _TAG_BYTES


class Sink(Protocol):
    """Where a body is written, in order."""

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes."""
        ...

    def close(self) -> None:
        """Write what is still to be written."""
        ...


class Body(Protocol):
    """Where a body is read."""

    #: of the body, not of the file
    size: int

    def seek(self, position: int) -> None:
        """Go on at a position."""
        ...

    def read(self, size: int) -> bytes:
        """Return the next bytes, exactly as many.

        Raises
        ------
        ArchiveError
            There are not so many.
        DecryptError
            They do not open.
        """
        ...


class PlainSink:
    """A body as it is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes."""
        self._file.write(data)

    def close(self) -> None:
        """Nothing is left to write."""


class SealedSink:
    """A body in sealed segments.

    Parameters
    ----------
    file
        Where to write.
    sealing, passphrase
        What the key is made of.
    context
        The file's bytes before the body.
    """

    def __init__(self, file: BinaryIO, sealing: Sealing, passphrase: str, context: bytes) -> None:
        self._file, self._context = file, context
        self._cipher = _cipher(sealing, passphrase)
        self._pending = bytearray()
        self._number = 0

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes."""
        view = memoryview(data)
        while view:
            if len(self._pending) == SEGMENT_BYTES:  # more comes, so it is not the last
                self._seal(last=False)
            room = SEGMENT_BYTES - len(self._pending)
            self._pending += view[:room]
            view = view[room:]

    def close(self) -> None:
        """Write the last segment."""
        self._seal(last=True)

    def _seal(self, *, last: bool) -> None:
        nonce = _nonce(self._number, last=last)
        self._file.write(self._cipher.encrypt(nonce, self._pending, self._context))
        self._pending.clear()
        self._number += 1


class PlainBody:
    """A body as it is, from `start` to the end of the file."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        self._file, self._start = file, start
        self.size = max(os.fstat(file.fileno()).st_size - start, 0)
        self.seek(0)

    def seek(self, position: int) -> None:
        """Go on at a position."""
        self._file.seek(self._start + position)

    def read(self, size: int) -> bytes:
        """Return the next bytes, exactly as many."""
        data = self._file.read(size)
        if len(data) != size:
            raise _cut_off()
        return data


class SealedBody:
    """A body in sealed segments, from `start` to the end of the file.

    Parameters
    ----------
    file, start
        Where it lies.
    sealing, passphrase
        What the key is made of.
    context
        The file's bytes before the body.
    """

    def __init__(
        self, file: BinaryIO, start: int, sealing: Sealing, passphrase: str, context: bytes
    ) -> None:
        self._file, self._start, self._context = file, start, context
        sealed = max(os.fstat(file.fileno()).st_size - start, 0)
        self._segments = -(-sealed // _SEALED_BYTES)
        self.size = sealed - self._segments * _TAG_BYTES
        if self.size < 0 or sealed % _SEALED_BYTES in range(1, _TAG_BYTES + 1):
            raise _cut_off()  # what is sealed last holds a byte at least
        self._cipher = _cipher(sealing, passphrase)
        self._position = 0
        self._open: tuple[int, bytes] = (-1, b"")

    def seek(self, position: int) -> None:
        """Go on at a position."""
        self._position = position

    def read(self, size: int) -> bytes:
        """Return the next bytes, exactly as many."""
        if self._position + size > self.size:
            raise _cut_off()
        out = bytearray()
        while len(out) < size:
            number, offset = divmod(self._position, SEGMENT_BYTES)
            piece = self._segment(number)[offset : offset + size - len(out)]
            out += piece
            self._position += len(piece)
        return bytes(out)

    def _segment(self, number: int) -> bytes:
        """Return a segment, opened; the latest one is kept."""
        from cryptography.exceptions import InvalidTag

        if self._open[0] != number:
            self._file.seek(self._start + number * _SEALED_BYTES)
            sealed = self._file.read(_SEALED_BYTES)
            nonce = _nonce(number, last=number == self._segments - 1)
            try:
                self._open = number, self._cipher.decrypt(nonce, sealed, self._context)
            except InvalidTag:
                raise DecryptError(
                    "The archive does not open: the passphrase is wrong, or it is damaged.",
                    hint="Give the passphrase that it was exported with. " + DAMAGED,
                ) from None
        return self._open[1]


def sealed_bytes(size: int) -> int:
    """Return how many bytes a body takes once it is sealed."""
    return size + max(-(-size // SEGMENT_BYTES), 1) * _TAG_BYTES


def _cipher(sealing: Sealing, passphrase: str) -> AESGCM:
    """Return the cipher of a file; takes a good part of a second, on purpose."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    kdf = Scrypt(sealing.salt, length=32, n=1 << sealing.log2_n, r=sealing.r, p=sealing.p)
    # Composed or not, an accent is typed with the same key.
    normal = unicodedata.normalize("NFC", passphrase)
    return AESGCM(kdf.derive(normal.encode("utf-8", "surrogateescape")))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _cut_off() -> ArchiveError:
    return ArchiveError("The archive is cut off.", hint=DAMAGED)

"""Contents: the bytes of chunks, immutable files named by a keyed digest of what they hold.

A file is a header of 128 bytes and a payload. Every byte of it is covered: the header by a checksum
of its own, the payload by one of the raw bytes, which is taken again after decoding, and the length
by the header. So whatever is read back is what was stored, or an error that says what is wrong.

The checksum of the raw bytes is xxh3 of 128 bits: it tells damage, at some 15 GB/s a core, where
the digest of the name, which tells malice too, takes 2 to 4: a thaw waits for it. `read_into` takes
that one as well where it is asked to, as for ``cwm verify``.

Header, little-endian::

    8s  magic          has a line end that a text-mode copy would change
    H   version        1
    B   codec          0 raw, 1 planes (`cwm_jupyter.vault.codec`)
    B   element bytes  of one number
    B   encrypted      1: sealed by `cwm_jupyter.core.cipher`, with this header as context
    7x
    Q   raw bytes
    Q   payload bytes
    32s content id
    16s raw checksum   xxh3_128 of the raw bytes; zeros where they are encrypted
    12x
    32s checksum       blake3 of all before it
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import blake3
import msgspec
import xxhash

from cwm_jupyter.errors import SchemaError, SecurityError
from cwm_jupyter.vault import codec

if TYPE_CHECKING:
    from cwm_jupyter.core.cipher import Keyring

__all__ = [
    "CODECS",
    "HEADER_BYTES",
    "CodecName",
    "ContentError",
    "Header",
    "SizeError",
    "content_id",
    "encode",
    "identify",
    "read_header",
    "read_into",
]

CodecName = Literal["raw", "planes"]
#: by their numbers in the header
CODECS: tuple[CodecName, ...] = ("raw", "planes")

HEADER_BYTES = 128
_MAGIC = b"\x89CWM\r\n\x1a\n"
_VERSION = 1
_NO_CHECKSUM = bytes(16)
_FIELDS = struct.Struct("<8sHBBB7xQQ32s16s12x")
#: Read and checked piece by piece, so that what is checked is still in the processor's cache.
_PIECE_BYTES = 256 << 10


class ContentError(Exception):
    """A file that is not the content it is named after; the message says what is wrong."""


class SizeError(Exception):
    """The content is whole, but of another size than the caller has room for."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What the header of a content says."""

    codec: CodecName
    element_bytes: int
    encrypted: bool
    raw_bytes: int
    payload_bytes: int
    content_id: bytes
    raw_checksum: bytes

    def pack(self) -> bytes:
        """Return the header's bytes."""
        fields = _FIELDS.pack(
            _MAGIC,
            _VERSION,
            CODECS.index(self.codec),
            self.element_bytes,
            self.encrypted,
            self.raw_bytes,
            self.payload_bytes,
            self.content_id,
            self.raw_checksum,
        )
        return fields + blake3.blake3(fields).digest()


def content_id(secret: bytes, raw: memoryview) -> bytes:
    """Return the name of these bytes: a digest (blake3, 32 bytes) keyed with the vault's secret."""
    return blake3.blake3(raw, key=secret).digest()


def identify(secret: bytes, raw: memoryview) -> tuple[bytes, bytes]:
    """Return `content_id` and checksum of the same bytes, also where they change meanwhile.

    They lie in memory that an engine shares. Were the checksum taken later, of other bytes, those
    would pass under this name.
    """
    digest, checksum = blake3.blake3(key=secret), xxhash.xxh3_128()
    for piece in _pieces(raw):
        ours = bytes(piece)
        digest.update(ours)
        checksum.update(ours)
    return digest.digest(), checksum.digest()


def encode(
    raw: memoryview,
    name: bytes,
    checksum: bytes,
    *,
    codec_name: CodecName,
    element_bytes: int,
    keyring: Keyring | None,
) -> list[bytes | memoryview]:
    """Return the parts of a content's file: header and payload.

    Parameters
    ----------
    raw
        The chunk's bytes.
    name, checksum
        What `identify` gave for them.
    codec_name
        How to code them; what does not shrink stays raw.
    element_bytes
        Bytes of one number in `raw`.
    keyring
        Encrypts the payload, if given and meant to.
    """
    if keyring is not None and not keyring.encrypts:
        keyring = None
    payload: bytes | memoryview = raw
    packed = codec.pack(raw, element_bytes) if codec_name == "planes" else None
    if packed is not None:
        payload = packed
    size = len(payload)
    if keyring is not None:
        from cwm_jupyter.core.cipher import OVERHEAD

        size += OVERHEAD
    header = Header(
        codec="raw" if packed is None else "planes",
        element_bytes=element_bytes,
        encrypted=keyring is not None,
        raw_bytes=len(raw),
        payload_bytes=size,
        content_id=name,
        # Unkeyed, it would confirm a guess; what is encrypted is held against its name instead.
        raw_checksum=_NO_CHECKSUM if keyring is not None else checksum,
    ).pack()
    if keyring is not None:
        payload = keyring.seal(payload, header)
    return [header, payload]


def read_header(file: io.FileIO, name: bytes) -> Header:
    """Read and check the header of the content of this name.

    Raises
    ------
    ContentError
        It is damaged, or of another content, or the file is not as long as it says.
    SchemaError
        A newer release wrote it. The checksum stays where it is in every version, so that damage
        is never taken for that.
    """
    data = bytearray(HEADER_BYTES)
    _fill(file, memoryview(data))
    if blake3.blake3(data[: _FIELDS.size]).digest() != data[_FIELDS.size :]:
        raise ContentError("damaged in its header")
    magic, version, number, element_bytes, encrypted, raw, payload, said, checksum = (
        _FIELDS.unpack_from(data)
    )
    if magic != _MAGIC:
        raise ContentError("no content of a vault")
    if version != _VERSION or number >= len(CODECS):
        raise SchemaError(
            f"A chunk in the vault is of version {version}, codec {number}: not known here.",
            found=version,
            known=_VERSION,
        )
    if said != name:
        raise ContentError("another chunk's content")
    length = os.fstat(file.fileno()).st_size
    if length != HEADER_BYTES + payload:
        raise ContentError(f"{length:,} bytes long where {HEADER_BYTES + payload:,} were written")
    return Header(
        codec=CODECS[number],
        element_bytes=element_bytes,
        encrypted=bool(encrypted),
        raw_bytes=raw,
        payload_bytes=payload,
        content_id=said,
        raw_checksum=checksum,
    )


def read_into(
    file: io.FileIO,
    name: bytes,
    out: memoryview,
    *,
    secret: bytes,
    keyring: Keyring | None,
    deep: bool = False,
) -> Header:
    """Read the content of this name into `out`, checked; on an error `out` holds anything.

    Parameters
    ----------
    file
        Opened for reading, unbuffered, at its start.
    name
        Its `content_id`.
    out
        Writable, contiguous, of exactly the raw size.
    secret
        The vault's.
    keyring
        Opens what is encrypted.
    deep
        Hold the bytes against the digest in the name, too, as is done with what is encrypted.

    Raises
    ------
    ContentError
        The file is not that content, to the last byte.
    SizeError
        It is, but has another size than `out`.
    SchemaError
        A newer release wrote it.
    SecurityError
        It is encrypted, and its key is not there.
    """
    header = read_header(file, name)
    if header.raw_bytes != len(out):
        raise SizeError(f"{header.raw_bytes:,} bytes where {len(out):,} are wanted")
    if header.codec == "raw" and not header.encrypted:
        checksum = xxhash.xxh3_128()
        for piece in _pieces(out):
            _fill(file, piece)
            checksum.update(piece)
        found = checksum.digest()
    else:
        payload = memoryview(bytearray(header.payload_bytes))
        _fill(file, payload)
        if header.encrypted:
            payload = _opened(payload, header, keyring)
        if header.codec == "raw":
            if len(payload) != len(out):
                raise ContentError("of another size than it says")
            out[:] = payload
        else:
            try:
                codec.unpack(payload, header.element_bytes, out)
            except codec.CodecError as error:
                raise ContentError(f"not decodable: {error}") from error
        found = xxhash.xxh3_128(out).digest()
    damaged = not header.encrypted and found != header.raw_checksum
    if damaged or ((deep or header.encrypted) and content_id(secret, out) != name):
        raise ContentError("other bytes than were written")
    return header


def _opened(payload: memoryview, header: Header, keyring: Keyring | None) -> memoryview:
    if keyring is None:
        raise SecurityError(
            "A chunk in the vault is encrypted, and no key is there.",
            hint="Put the key back (see docs/security.md); the bytes are as they were.",
        )
    from cwm_jupyter.errors import DecryptError

    try:
        return memoryview(keyring.open(payload, header.pack()))
    except DecryptError as error:
        if keyring.knows(payload):  # then it is the bytes that are wrong, and not the key
            raise ContentError("other bytes than were encrypted") from error
        raise


def _pieces(out: memoryview) -> Sequence[memoryview]:
    return [out[start : start + _PIECE_BYTES] for start in range(0, len(out), _PIECE_BYTES)]


def _fill(file: io.FileIO, out: memoryview) -> None:
    done = 0
    while done < len(out):
        count = file.readinto(out[done:])
        if not count:
            raise ContentError("cut off")
        done += count

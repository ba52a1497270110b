"""What lies in an archive: one file, made to be read from start to end. See ``docs/archive.md``.

Layout, little-endian::

    preamble    16 bytes: magic, version, whether the body is encrypted
    sealing     32 bytes, only of an encrypted one: how the key comes from the passphrase
    body        as it is, or in sealed segments (`cwm_jupyter.core.archive.body`)

    body:
    head        100 bytes: length of the catalogue, public key, signature
    catalogue   JSON, `Catalogue`: size and digest of everything that follows
    details     JSON, `Details`, one a window, in the catalogue's order
    contents    the raw bytes of chunks, each once, in the catalogue's order

Parts have no names, only an order, sizes and digests. So there are no paths to escape by, no links,
no duplicates, no gaps, and nothing is compressed: the size of the file is known from the catalogue,
and is checked before anything else. The signature is over the catalogue, which has the digests of
all the rest. Digests are plain blake3, which anybody can check; no key of a machine is in them.
"""

from __future__ import annotations

import struct
from typing import Annotated, TypeVar

import blake3
import msgspec

from cwm_jupyter.core.models import Fingerprint, Probe
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.errors import ArchiveError, SchemaError

__all__ = [
    "DAMAGED",
    "HEAD",
    "MAX_CATALOGUE_BYTES",
    "PREAMBLE_BYTES",
    "SEALING_BYTES",
    "VERSION",
    "Catalogue",
    "Details",
    "Entry",
    "Part",
    "Sealing",
    "decode",
    "digest",
    "encode",
    "pack_preamble",
    "signed_bytes",
    "unpack_preamble",
]

VERSION = 1
MAX_CATALOGUE_BYTES = 64 << 20
DAMAGED = "Fetch it again, or have it exported again; nothing was imported."

_MAGIC = b"\x89CWA\r\n\x1a\n"  # has a line end that a text-mode copy would change
_PREAMBLE = struct.Struct("<8sHB5x")
_SEALING = struct.Struct("<16sBBB13x")
PREAMBLE_BYTES, SEALING_BYTES = _PREAMBLE.size, _SEALING.size
#: length of the catalogue, public key and signature (both Ed25519)
HEAD = struct.Struct("<I32s64s")
_SIGNED = b"cwm archive\0"

#: scrypt's cost as powers of two; more would be an attack on whoever opens the file
_MIN_LOG2_N, _MAX_LOG2_N = 10, 18

Hex = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 48)]
Small = Annotated[int, msgspec.Meta(ge=0, le=1 << 20)]
Text = Annotated[str, msgspec.Meta(max_length=512)]
_T = TypeVar("_T")


class _Strict(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=False
):
    """Base: a field that is not known is an error."""


class Part(_Strict, frozen=True, kw_only=True):
    """Something that follows the catalogue: its size, and its blake3 digest in hex."""

    size_bytes: Count
    digest: Hex


class Entry(_Strict, frozen=True, kw_only=True):
    """A window in the catalogue.

    `parent` counts windows of this archive, and comes before its children; null: none is here.
    Windows of one `session`, and of one `lineage`, were of one; the numbers mean nothing else.
    `ranks` is how many parts each chunk has, one a worker of the engine.
    """

    name: Text
    tags: list[Text]
    note: Annotated[str, msgspec.Meta(max_length=1 << 20)]
    model: Text
    created_at: Annotated[str, msgspec.Meta(max_length=40)]
    tokens: Count
    turns: Count
    chunks: Count
    chunk_tokens: Small
    ranks: Small
    session: Small
    lineage: Small
    parent: Small | None
    details: Part


class Catalogue(_Strict, frozen=True, kw_only=True):
    """All there is in an archive. `product` is what wrote it."""

    product: Text
    created_at: Annotated[str, msgspec.Meta(max_length=40)]
    windows: Annotated[list[Entry], msgspec.Meta(min_length=1, max_length=10_000)]
    contents: Annotated[list[Part], msgspec.Meta(max_length=1 << 24)]


class Details(_Strict, frozen=True, kw_only=True):
    """All of a window that is too large for the catalogue.

    `chunk_hashes` are LMCache's rolling hashes, one a chunk. `contents` are positions in the
    catalogue's list, chunk by chunk and within a chunk rank by rank. `recomputed` are the hashes
    of chunks that were computed again after the freeze.
    """

    transcript: Transcript
    fingerprint: Fingerprint
    probe: Probe
    chunk_hashes: list[Hex]
    contents: list[Count]
    recomputed: list[Hex]


class Sealing(msgspec.Struct, frozen=True, kw_only=True):
    """How the key of an encrypted archive comes from its passphrase: scrypt's salt and costs."""

    salt: bytes
    log2_n: int = 17
    r: int = 8
    p: int = 1

    def pack(self) -> bytes:
        """Return its bytes."""
        return _SEALING.pack(self.salt, self.log2_n, self.r, self.p)

    @classmethod
    def unpack(cls, data: bytes) -> Sealing:
        """Return what these bytes say.

        Raises
        ------
        ArchiveError
            They say nothing, or ask for too much memory.
        """
        salt, log2_n, r, p = _SEALING.unpack(data)
        sealing = cls(salt=salt, log2_n=log2_n, r=r, p=p)
        within = _MIN_LOG2_N <= log2_n <= _MAX_LOG2_N
        if not within or (r, p) != (8, 1) or sealing.pack() != data:
            raise ArchiveError("The archive's encryption is not one that is known.", hint=DAMAGED)
        return sealing


def pack_preamble(*, encrypted: bool) -> bytes:
    """Return the first bytes of an archive."""
    return _PREAMBLE.pack(_MAGIC, VERSION, encrypted)


def unpack_preamble(data: bytes) -> bool:
    """Return whether an archive that begins so is encrypted.

    Raises
    ------
    ArchiveError
        It is no archive.
    SchemaError
        A newer release wrote it.
    """
    if len(data) != PREAMBLE_BYTES or data[: len(_MAGIC)] != _MAGIC:
        raise ArchiveError(
            "This is not an archive of windows.", hint="cwm export NAME FILE writes one."
        )
    _, version, encrypted = _PREAMBLE.unpack(data)
    if version > VERSION:
        raise SchemaError(
            f"The archive has version {version}; this release knows {VERSION}.",
            found=version,
            known=VERSION,
        )
    if version != VERSION or data != pack_preamble(encrypted=bool(encrypted)):
        raise ArchiveError("The archive's first bytes are damaged.", hint=DAMAGED)
    return bool(encrypted)


def encode(value: Catalogue | Details) -> bytes:
    """Return the JSON of a value, its fields in a fixed order."""
    return msgspec.json.encode(value)


def decode(data: bytes, kind: type[_T], what: str) -> _T:
    """Return the value of its JSON.

    Raises
    ------
    ArchiveError
        It is none; the message names the field.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArchiveError(f"The archive's {what} cannot be read: {error}.", hint=DAMAGED) from None


def digest(data: bytes | memoryview) -> str:
    """Return the digest that archives have of everything: blake3, plain, in hex."""
    return blake3.blake3(data).hexdigest()


def signed_bytes(catalogue: bytes) -> bytes:
    """Return what is signed for a catalogue: what it is, the version, and a digest."""
    return _SIGNED + struct.pack("<H", VERSION) + blake3.blake3(catalogue).digest()

"""One content: a header and a payload."""

from __future__ import annotations

import io
from pathlib import Path

import blake3
import pytest
from vaults import kv, noise

from cwm_jupyter.core.cipher import Keyring
from cwm_jupyter.errors import SchemaError, SecurityError
from cwm_jupyter.vault.content import (
    HEADER_BYTES,
    CodecName,
    ContentError,
    SizeError,
    content_id,
    encode,
    identify,
    read_into,
)

SECRET = bytes(range(32))


def written(
    path: Path, raw: bytes, codec: CodecName = "raw", keyring: Keyring | None = None
) -> bytes:
    """Write a content and return its name."""
    name, checksum = identify(SECRET, memoryview(raw))
    assert name == content_id(SECRET, memoryview(raw))
    parts = encode(
        memoryview(raw), name, checksum, codec_name=codec, element_bytes=2, keyring=keyring
    )
    path.write_bytes(b"".join(parts))
    return name


def read(path: Path, name: bytes, size: int, keyring: Keyring | None = None) -> bytes:
    out = bytearray(size)
    with io.FileIO(path) as file:
        header = read_into(file, name, memoryview(out), secret=SECRET, keyring=keyring)
    assert header.raw_bytes == size
    assert header.payload_bytes == path.stat().st_size - HEADER_BYTES
    return bytes(out)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.load_or_create(tmp_path / "home", {})


@pytest.mark.covers("KV-013", "KV-014")
@pytest.mark.parametrize("raw", [b"", b"x", noise(1), kv(1)], ids=["none", "one", "noise", "kv"])
@pytest.mark.parametrize("codec", ["raw", "planes"])
@pytest.mark.parametrize("encrypted", [False, True])
def test_bytes_come_back(
    tmp_path: Path, keyring: Keyring, raw: bytes, codec: CodecName, encrypted: bool
) -> None:
    path = tmp_path / "content"
    name = written(path, raw, codec, keyring if encrypted else None)
    assert read(path, name, len(raw), keyring) == raw
    if raw == kv(1):
        smaller = path.stat().st_size < len(raw)
        assert smaller == (codec == "planes")
        assert (raw in path.read_bytes()) == (codec == "raw" and not encrypted)


def test_the_name_needs_the_secret() -> None:
    raw = memoryview(noise(1))
    assert content_id(SECRET, raw) != content_id(bytes(32), raw)
    assert content_id(SECRET, raw) != blake3.blake3(raw).digest()


def test_a_keyring_that_does_not_encrypt_still_opens(tmp_path: Path, keyring: Keyring) -> None:
    sealed, plain = tmp_path / "sealed", tmp_path / "plain"
    name = written(sealed, kv(1), "raw", keyring)
    opening = Keyring.load(tmp_path / "home", {}, encrypts=False)
    assert read(sealed, name, len(kv(1)), opening) == kv(1)
    written(plain, kv(1), "raw", opening)
    assert read(plain, name, len(kv(1)), None) == kv(1)


def test_without_its_key_it_cannot_be_read_and_is_not_called_damaged(
    tmp_path: Path, keyring: Keyring
) -> None:
    path = tmp_path / "content"
    name = written(path, kv(1), "raw", keyring)
    with pytest.raises(SecurityError, match="no key"):
        read(path, name, len(kv(1)))
    with pytest.raises(SecurityError):
        read(path, name, len(kv(1)), Keyring.load_or_create(tmp_path / "other", {}))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ContentError, match="other bytes than were encrypted"):
        read(path, name, len(kv(1)), keyring)


@pytest.mark.parametrize("codec", ["raw", "planes"])
def test_every_bit_of_the_header_counts(tmp_path: Path, codec: CodecName) -> None:
    path = tmp_path / "content"
    name = written(path, kv(1), codec)
    good = path.read_bytes()
    for bit in range(8 * HEADER_BYTES):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(ContentError, match="in its header"):
            read(path, name, len(kv(1)))


def forged(path: Path, offset: int, data: bytes) -> None:
    """Change a header so that its checksum fits."""
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    content[96:128] = blake3.blake3(content[:96]).digest()
    path.write_bytes(content)


@pytest.mark.parametrize(("offset", "data"), [(8, b"\2"), (10, b"\7")], ids=["version", "codec"])
def test_what_a_newer_release_wrote_is_not_called_damaged(
    tmp_path: Path, offset: int, data: bytes
) -> None:
    path = tmp_path / "content"
    name = written(path, kv(1))
    forged(path, offset, data)
    with pytest.raises(SchemaError, match="not known here"):
        read(path, name, len(kv(1)))


@pytest.mark.parametrize(
    ("offset", "data"),
    [(0, b"\x89PNG"), (36, b"another"), (10, b"\1"), (11, b"\0"), (28, b"\1"), (20, b"\1")],
    ids=["magic", "id", "codec", "element", "length", "size"],
)
def test_a_forged_header_gives_no_wrong_bytes(tmp_path: Path, offset: int, data: bytes) -> None:
    path = tmp_path / "content"
    name = written(path, kv(1), "planes" if offset == 11 else "raw")
    forged(path, offset, data)
    with pytest.raises((ContentError, SizeError)):
        read(path, name, len(kv(1)))


def test_another_size_than_is_wanted_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "content"
    name = written(path, kv(1))
    with pytest.raises(SizeError, match="8,192 bytes where 100 are wanted"):
        read(path, name, 100)


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("codec", ["raw", "planes"])
def test_bytes_that_changed_while_they_were_stored_are_damage(
    tmp_path: Path, keyring: Keyring, codec: CodecName, encrypted: bool
) -> None:
    """They lie in memory that an engine shares: what was digested need not be what was written."""
    raw = bytearray(kv(1))
    name, checksum = identify(SECRET, memoryview(raw))
    raw[100] ^= 1
    ring = keyring if encrypted else None
    parts = encode(memoryview(raw), name, checksum, codec_name=codec, element_bytes=2, keyring=ring)
    path = tmp_path / "content"
    path.write_bytes(b"".join(parts))
    with pytest.raises(ContentError, match="other bytes"):
        read(path, name, len(raw), keyring)

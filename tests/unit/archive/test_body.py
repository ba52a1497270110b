"""The body of an archive, plain and in sealed segments."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwm_jupyter.core.archive import body
from cwm_jupyter.core.archive.body import PlainBody, PlainSink, SealedBody, SealedSink, sealed_bytes
from cwm_jupyter.core.archive.format import Sealing
from cwm_jupyter.errors import ArchiveError, CWMError, DecryptError

SEALING = Sealing(salt=bytes(range(16)), log2_n=10)
CONTEXT = b"what comes before"
SEGMENT = 64


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "SEGMENT_BYTES", SEGMENT)
    monkeypatch.setattr(body, "_SEALED_BYTES", SEGMENT + 16)


def sealed(data: bytes, context: bytes = CONTEXT, passphrase: str = "open") -> bytes:
    file = io.BytesIO()
    sink = SealedSink(file, SEALING, passphrase, context)
    sink.write(data)
    sink.close()
    return file.getvalue()


def opened(path: Path, data: bytes, passphrase: str = "open", context: bytes = CONTEXT) -> bytes:
    path.write_bytes(data)
    with path.open("rb") as file:
        found = SealedBody(file, 0, SEALING, passphrase, context)
        return found.read(found.size)


SIZES = (1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT, 3 * SEGMENT + 5)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_sealed_comes_back(tmp_path: Path, size: int) -> None:
    data = bytes(i % 251 for i in range(size))
    written = sealed(data)
    assert len(written) == sealed_bytes(size)
    assert data[:8] not in written or size < 8
    assert opened(tmp_path / "f", written) == data


@settings(max_examples=30)
@given(pieces=st.lists(st.binary(max_size=3 * SEGMENT), min_size=1, max_size=5))
def test_it_does_not_matter_in_which_pieces_it_was_written(pieces: list[bytes]) -> None:
    file = io.BytesIO()
    sink = SealedSink(file, SEALING, "open", CONTEXT)
    for piece in pieces:
        sink.write(piece)
    sink.close()
    assert file.getvalue() == sealed(b"".join(pieces))


@pytest.mark.parametrize("plain", [True, False])
def test_it_is_read_from_any_position(tmp_path: Path, plain: bool) -> None:
    data = bytes(i % 251 for i in range(5 * SEGMENT + 7))
    path = tmp_path / "f"
    path.write_bytes(data if plain else sealed(data))
    with path.open("rb") as file:
        found = PlainBody(file, 0) if plain else SealedBody(file, 0, SEALING, "open", CONTEXT)
        assert found.size == len(data)
        for start, size in ((0, 3), (200, 100), (SEGMENT, SEGMENT), (7, 0), (len(data) - 1, 1)):
            found.seek(start)
            assert found.read(size) == data[start : start + size]
        with pytest.raises(ArchiveError, match="cut off"):
            found.read(1)


@pytest.mark.parametrize("size", SIZES)
def test_nothing_that_was_cut_off_opens(tmp_path: Path, size: int) -> None:
    written = sealed(bytes(size))
    assert opened(tmp_path / "f", b"") == b""  # of which a reader misses the head
    for length in range(1, len(written)):
        with pytest.raises((ArchiveError, DecryptError)):
            opened(tmp_path / "f", written[:length])


def test_nothing_that_was_changed_opens(tmp_path: Path) -> None:
    written = sealed(bytes(3 * SEGMENT + 5))
    for at in range(len(written)):
        changed = bytearray(written)
        changed[at] ^= 1
        with pytest.raises(DecryptError):
            opened(tmp_path / "f", bytes(changed))


def test_segments_stay_where_they_are(tmp_path: Path) -> None:
    written = sealed(bytes(4 * SEGMENT))
    pieces = [written[i : i + SEGMENT + 16] for i in range(0, len(written), SEGMENT + 16)]
    other = sealed(bytes(4 * SEGMENT), context=b"another file")
    for wrong in (
        [pieces[1], pieces[0], *pieces[2:]],  # swapped
        pieces[:-1],  # cut off between two
        pieces[1:],
        [*pieces, pieces[-1]],  # one more
        [other[: SEGMENT + 16], *pieces[1:]],  # of another file
    ):
        with pytest.raises(CWMError):
            opened(tmp_path / "f", b"".join(wrong))


def test_another_passphrase_opens_nothing(tmp_path: Path) -> None:
    written = sealed(b"a secret")
    for wrong in ("Open", "open ", ""):
        with pytest.raises(DecryptError, match="passphrase is wrong"):
            opened(tmp_path / "f", written, passphrase=wrong)


def test_an_accent_may_be_typed_in_two_ways(tmp_path: Path) -> None:
    written = sealed(b"a secret", passphrase="caf\u00e9")
    assert opened(tmp_path / "f", written, passphrase="cafe\u0301") == b"a secret"


def test_a_plain_body_is_as_it_is() -> None:
    file = io.BytesIO()
    sink = PlainSink(file)
    sink.write(b"ab")
    sink.write(b"c")
    sink.close()
    assert file.getvalue() == b"abc"

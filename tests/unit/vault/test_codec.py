"""Coding KV without loss."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vaults import kv, noise

from cwm_jupyter.vault import codec


def unpacked(coded: bytes, element_bytes: int, size: int) -> bytes:
    out = bytearray(size)
    codec.unpack(memoryview(coded), element_bytes, memoryview(out))
    return bytes(out)


def fp8(number: int) -> bytes:
    """Of few values, as quantised numbers are."""
    values = np.random.default_rng(number).normal(scale=8, size=8192)
    return values.astype(np.int8).tobytes()


KV = {
    "bf16": (2, kv(1)),
    "fp16": (2, kv(1, dtype="float16")),
    "fp32": (4, kv(1, dtype="float32")),
    "fp8": (1, fp8(1)),
    "zeros": (2, bytes(4096)),
}


@pytest.mark.covers("KV-013")
@pytest.mark.parametrize("kind", KV)
def test_kv_gets_smaller_and_comes_back_to_the_bit(kind: str) -> None:
    element_bytes, raw = KV[kind]
    packed = codec.pack(memoryview(raw), element_bytes)
    assert packed is not None
    assert len(packed) < len(raw)
    assert unpacked(packed, element_bytes, len(raw)) == raw


@pytest.mark.covers("KV-013")
@given(st.binary(max_size=600), st.sampled_from([1, 2, 4]), st.integers(1, 50))
def test_whatever_is_packed_comes_back(raw: bytes, element_bytes: int, times: int) -> None:
    data = raw * times
    packed = codec.pack(memoryview(data), element_bytes)
    if packed is not None:
        assert len(packed) < len(data)
        assert unpacked(packed, element_bytes, len(data)) == data


def test_every_special_number_comes_back() -> None:
    raw = np.repeat(np.arange(1 << 16, dtype="<u2"), 8).tobytes()
    packed = codec.pack(memoryview(raw), 2)
    assert packed is not None
    assert unpacked(packed, 2, len(raw)) == raw


@pytest.mark.parametrize(
    ("size", "element_bytes"), [(0, 2), (3, 2), (6, 4), (8, 0), (8, 3), (8, 8)]
)
def test_what_has_no_such_elements_stays_as_it_is(size: int, element_bytes: int) -> None:
    assert codec.pack(memoryview(bytes(size)), element_bytes) is None
    with pytest.raises(codec.CodecError, match="no elements"):
        unpacked(b"x" * 100, element_bytes, size)


def test_noise_stays_as_it_is() -> None:
    assert codec.pack(memoryview(noise(1, 8192)), 2) is None


@pytest.mark.parametrize("kind", ["bf16", "fp32", "fp8"])
def test_what_is_not_whole_is_refused(kind: str) -> None:
    element_bytes, raw = KV[kind]
    packed = codec.pack(memoryview(raw), element_bytes)
    assert packed is not None
    for size in (*range(64), *range(64, len(packed), 501), len(packed) - 1):
        with pytest.raises(codec.CodecError):
            unpacked(packed[:size], element_bytes, len(raw))
    for wrong in (len(raw) - element_bytes, len(raw) + element_bytes):
        with pytest.raises(codec.CodecError):
            unpacked(packed, element_bytes, wrong)
    with pytest.raises(codec.CodecError):
        unpacked(packed + b"x", element_bytes, len(raw))


@given(st.data())
def test_any_other_bytes_are_refused_or_decoded_and_nothing_else(data: st.DataObject) -> None:
    """What is decoded wrongly is told by the digest, one layer up."""
    packed = bytearray(codec.pack(memoryview(KV["bf16"][1]), 2) or b"")
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(codec.CodecError):
        unpacked(bytes(packed), 2, len(KV["bf16"][1]))

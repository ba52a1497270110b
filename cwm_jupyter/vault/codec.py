"""Lossless coding of KV: the bytes of each number in planes of their own, those that repeat packed.

The high byte of a bf16 number is its sign and most of its exponent, which vary little from token to
token; the low byte is close to noise. Split apart, zstd at its quickest level packs the first well
and leaves the second alone. Measured on SmolLM2's bf16 KV, against what was tried beside it, in
``docs/vault.md``. A plane that does not shrink is kept as it is.

Coded form: for each plane ``<BQ`` (1: zstd, 0: as it is; bytes), then the planes, lowest byte
first.
"""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CodecError", "pack", "unpack"]

_PLANE = struct.Struct("<BQ")
_LEVEL = 1
#: KV repeats in how often a byte comes, not in strings of bytes: the few short ones that there are
#: by chance cost more than they save, in time (a third, unpacking) as in bytes (one percent)
_MIN_MATCH, _HASH_LOG = 7, 6
#: a plane that shrinks by less is not worth the time to unpack it
_WORTH = 0.97


class CodecError(ValueError):
    """Bytes that `pack` did not make."""


class _Local(threading.local):
    """What a thread needs again and again: zstd's contexts may not be shared."""

    def __init__(self) -> None:
        import zstandard

        parameters = zstandard.ZstdCompressionParameters.from_level(
            _LEVEL, min_match=_MIN_MATCH, hash_log=_HASH_LOG, write_checksum=False
        )
        self.packer = zstandard.ZstdCompressor(compression_params=parameters)
        self.unpacker = zstandard.ZstdDecompressor()
        self.scratch: dict[int, NDArray[np.uint8]] = {}

    def buffer(self, plane: int, size: int) -> NDArray[np.uint8]:
        """Return scratch memory for one plane."""
        import numpy as np

        if plane not in self.scratch or self.scratch[plane].size < size:
            self.scratch[plane] = np.empty(size, np.uint8)
        return self.scratch[plane][:size]


_local: _Local | None = None
_local_lock = threading.Lock()


def _thread() -> _Local:
    global _local
    with _local_lock:
        if _local is None:
            _local = _Local()
    return _local


def pack(raw: memoryview, element_bytes: int) -> bytes | None:
    """Return the coded form of `raw`, None where it would not be smaller.

    Parameters
    ----------
    raw
        Contiguous bytes, of a whole number of elements.
    element_bytes
        Bytes a number: 1 (fp8), 2 (bf16, fp16) or 4 (fp32).
    """
    import numpy as np

    if element_bytes not in (1, 2, 4) or len(raw) % element_bytes or not len(raw):
        return None
    packer = _thread().packer
    numbers = np.frombuffer(raw, np.uint8).reshape(-1, element_bytes)
    heads, planes = [], []
    for i in range(element_bytes):
        plane: Any = np.ascontiguousarray(numbers[:, i])
        packed = packer.compress(plane)
        worth = len(packed) < _WORTH * plane.nbytes
        planes.append(packed if worth else plane.tobytes())
        heads.append(_PLANE.pack(worth, len(planes[-1])))
    coded = b"".join([*heads, *planes])
    return coded if len(coded) < _WORTH * len(raw) else None


def unpack(coded: memoryview, element_bytes: int, out: memoryview) -> None:
    """Write what `pack` was given into `out`, which has exactly its size.

    Raises
    ------
    CodecError
        `coded` is not whole, or not of this size.
    """
    import numpy as np

    if element_bytes not in (1, 2, 4) or len(out) % element_bytes or not len(out):
        raise CodecError(f"no elements of {element_bytes} bytes in {len(out)} bytes")
    count = len(out) // element_bytes
    planes = _planes(coded, element_bytes, count)
    target = np.frombuffer(out, np.uint8)
    if element_bytes == 1:
        target[:] = planes[0]
    elif element_bytes == 2:
        _merge(planes[1], planes[0], target.view("<u2"))
    else:
        halves = target.view("<u2").reshape(-1, 2)
        scratch = _thread().buffer(4, 2 * count).view("<u2")
        for half in (0, 1):
            _merge(planes[2 * half + 1], planes[2 * half], scratch)
            halves[:, half] = scratch


def _merge(high: NDArray[np.uint8], low: NDArray[np.uint8], out: NDArray[Any]) -> None:
    import numpy as np

    # Widening, shifting and or-ing whole arrays is four times faster than writing every other byte.
    np.left_shift(high, 8, out=out, dtype=out.dtype, casting="unsafe")
    np.bitwise_or(out, low, out=out)


def _planes(coded: memoryview, element_bytes: int, count: int) -> list[NDArray[np.uint8]]:
    import numpy as np

    start = element_bytes * _PLANE.size
    if len(coded) < start:
        raise CodecError("cut off")
    heads = [_PLANE.unpack_from(coded, i * _PLANE.size) for i in range(element_bytes)]
    if start + sum(size for _, size in heads) != len(coded):
        raise CodecError("planes of other sizes")
    planes = []
    for i, (packed, size) in enumerate(heads):
        part = coded[start : start + size]
        start += size
        if packed == 1:
            planes.append(_unpacked(part, _thread().buffer(i, count)))
        elif packed == 0 and size == count:
            planes.append(np.frombuffer(part, np.uint8))
        else:
            raise CodecError("a plane of another size")
    return planes


def _unpacked(part: memoryview, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import zstandard

    try:
        with _thread().unpacker.stream_reader(part) as reader:
            view, done = memoryview(out), 0  # type: ignore[arg-type]
            while done < len(view) and (count := reader.readinto(view[done:])):
                done += count
            whole = done == len(view) and not reader.read(1)
    except zstandard.ZstdError as error:
        raise CodecError(str(error)) from error
    if not whole:
        raise CodecError("a plane of another size")
    return out

"""One window in two codecs: its contents are exchanged, so that nothing is computed twice.

A content is named by its raw bytes, however it is coded, and says itself how it is: so the same
window, on the same stack, can be thawed raw and packed in turn.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from cwm_jupyter.bench.rows import Row
from cwm_jupyter.core.files import make_private_dir
from cwm_jupyter.core.models import ChunkRef
from cwm_jupyter.vault import codec
from cwm_jupyter.vault.content import CodecName, encode, identify, read_into
from cwm_jupyter.vault.files import Vault

__all__ = ["Coding", "codec_rows", "element_bytes"]

_ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
#: of the issue's reach: how much smaller the codec makes bfloat16
_REACH_RATIO = 1.45
_TIMED_CHUNKS = 16


def element_bytes(dtype: object) -> int:
    """Return the bytes of one number of a data type by vLLM's name; 1 for the kinds of fp8."""
    return _ELEMENT_BYTES.get(str(dtype), 1)


class Coding:
    """The contents of windows, each in both codecs beside the vault.

    Parameters
    ----------
    vault
        Where they are.
    element_bytes
        Bytes of one number in them.
    """

    def __init__(self, vault: Vault, element_bytes: int) -> None:
        self._vault, self._element_bytes = vault, element_bytes
        self._folder = make_private_dir(vault.folder.path.parent / "codings")
        self._files: list[str] = []
        self._using: CodecName = "raw"

    def add(self, refs: Sequence[ChunkRef]) -> None:
        """Code the contents of a window, which are raw now, the other way too."""
        for ref in refs:
            if ref.digest in self._files:
                continue
            raw = self.raw(ref)
            _, checksum = identify(self._vault.folder.secret, raw)
            for name in ("raw", "planes"):
                parts = encode(
                    raw,
                    bytes.fromhex(ref.digest),
                    checksum,
                    codec_name=name,
                    element_bytes=self._element_bytes,
                    keyring=self._vault.keyring,
                )
                self._side(ref.digest, name).write_bytes(b"".join(parts))
            self._files.append(ref.digest)

    def use(self, name: CodecName) -> None:
        """Have the vault's files coded so: other names for the same files, which costs no copy."""
        if name == self._using:
            return
        for digest in self._files:
            path = self._vault.folder.content(digest)
            temporary = path.with_suffix(".bench")
            os.link(self._side(digest, name), temporary)
            temporary.replace(path)
        self._using = name

    def stored_bytes(self, refs: Sequence[ChunkRef], name: CodecName) -> int:
        """Return what a window's contents take on disk in a codec."""
        digests = {ref.digest for ref in refs}
        return sum(self._side(digest, name).stat().st_size for digest in digests)

    def raw(self, ref: ChunkRef) -> memoryview:
        """Return the bytes of a chunk."""
        out = memoryview(bytearray(ref.size_bytes or 0))
        with self._vault.folder.content(ref.digest).open("rb", buffering=0) as file:
            read_into(
                file,
                bytes.fromhex(ref.digest),
                out,
                secret=self._vault.folder.secret,
                keyring=self._vault.keyring,
            )
        return out

    def _side(self, digest: str, name: CodecName) -> Path:
        return self._folder / f"{digest}.{name}"


def codec_rows(coding: Coding, refs: Sequence[ChunkRef], dtype: object) -> list[Row]:
    """Measure the codec alone, on one thread and the chunks of a window."""
    size = element_bytes(dtype)
    packing, unpacking, raw_bytes, packed_bytes = [], [], 0, 0
    for ref in refs[:_TIMED_CHUNKS]:
        raw = coding.raw(ref)
        out = memoryview(bytearray(len(raw)))
        started = time.perf_counter()
        packed = codec.pack(raw, size)
        between = time.perf_counter()
        if packed is None:
            continue
        codec.unpack(memoryview(packed), size, out)
        packing.append(between - started)
        unpacking.append(time.perf_counter() - between)
        raw_bytes, packed_bytes = raw_bytes + len(raw), packed_bytes + len(packed)
    if not packing:
        return []
    ratio = raw_bytes / packed_bytes
    each = raw_bytes // len(packing)
    known = str(dtype) == "bfloat16"
    rows = [
        Row.timed(f"codec-{what}", f"{what} one chunk on one thread", times, bytes=each).replace(
            store="vault",
            codec="planes",
            details={"bytes_per_s": each / statistics.median(times)},
        )
        for what, times in (("encode", packing), ("decode", unpacking))
    ]
    return [
        Row(
            id="codec-ratio",
            what=f"raw bytes over coded bytes, {dtype}",
            store="vault",
            codec="planes",
            runs=len(packing),
            bytes=packed_bytes,
            limit=f"at least {_REACH_RATIO} for bfloat16" if known else None,
            within=ratio >= _REACH_RATIO if known else None,
            details={"ratio": ratio},
        ),
        *rows,
    ]

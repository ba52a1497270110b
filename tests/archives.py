"""Archives for tests: taken apart, changed, and signed again, as an attacker can."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cwm_jupyter.core.archive.format import HEAD, digest, pack_preamble, signed_bytes
from cwm_jupyter.core.archive.reader import Reader
from cwm_jupyter.core.archive.signing import Signers


@dataclass
class Kit:
    """What is in an archive: JSON values and bytes, to change at will."""

    catalogue: dict[str, Any]
    details: list[dict[str, Any]]
    contents: list[bytes]

    @classmethod
    def of(cls, path: Path) -> Kit:
        with Reader(path) as reader:
            windows = range(len(reader.catalogue.windows))
            return cls(
                msgspec.to_builtins(reader.catalogue),
                [msgspec.to_builtins(reader.details(position)) for position in windows],
                list(reader.contents()),
            )

    def copy(self) -> Kit:
        return copy.deepcopy(self)

    def write(
        self,
        path: Path,
        signer: Signers,
        lie: Callable[[dict[str, Any]], object] = lambda catalogue: None,
    ) -> Path:
        """Write and sign it. Sizes and digests are right, until `lie` has changed the catalogue."""
        details = [msgspec.json.encode(one) for one in self.details]
        for entry, data in zip(self.catalogue["windows"], details, strict=True):
            entry["details"] = _part(data)
        self.catalogue["contents"] = [_part(data) for data in self.contents]
        lie(self.catalogue)
        listed = msgspec.json.encode(self.catalogue)
        head = HEAD.pack(len(listed), *signer.sign(signed_bytes(listed)))
        parts = [pack_preamble(encrypted=False), head, listed, *details, *self.contents]
        path.write_bytes(b"".join(parts))
        return path


def read_all(path: Path, passphrase: str | None = None) -> None:
    """Read an archive to its end, as an import does before it keeps anything."""
    with Reader(path, passphrase) as reader:
        for position in range(len(reader.catalogue.windows)):
            reader.details(position)
        for _ in reader.contents():
            pass


def _part(data: bytes) -> dict[str, Any]:
    return {"size_bytes": len(data), "digest": digest(data)}

"""Archives for tests: taken apart, changed, and signed again, as an attacker can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cwm_jupyter.core.archive.format import Catalogue, Details, Part, digest, encode
from cwm_jupyter.core.archive.reader import Reader
from cwm_jupyter.core.archive.signing import Signers
from cwm_jupyter.core.archive.writer import Writer


@dataclass
class Kit:
    """What is in an archive; `details` and `catalogue` are JSON values, to change at will."""

    catalogue: dict[str, Any]
    details: list[dict[str, Any]]
    contents: list[bytes]

    @classmethod
    def of(cls, path: Path, passphrase: str | None = None) -> Kit:
        with Reader(path, passphrase) as reader:
            windows = range(len(reader.catalogue.windows))
            return cls(
                msgspec.to_builtins(reader.catalogue),
                [msgspec.to_builtins(reader.details(position)) for position in windows],
                list(reader.contents()),
            )

    def write(
        self,
        path: Path,
        home: Path,
        *,
        passphrase: str | None = None,
        listed: Callable[[dict[str, Any]], None] = lambda catalogue: None,
    ) -> Path:
        """Write and sign it: sizes and digests are those of what it holds, unless `listed` lies."""
        details = [msgspec.json.encode(one) for one in self.details]
        for entry, data in zip(self.catalogue["windows"], details, strict=True):
            entry["details"] = msgspec.to_builtins(part(data))
        self.catalogue["contents"] = [msgspec.to_builtins(part(data)) for data in self.contents]
        listed(self.catalogue)
        catalogue = Lying(msgspec.json.encode(self.catalogue))
        with Writer(path, Signers(home), passphrase=passphrase, force=True) as writer:
            writer.begin(catalogue)  # type: ignore[arg-type]
            for data in (*details, *self.contents):
                writer.write(data)
            writer.commit()
        return path


class Lying(msgspec.Raw):
    """A catalogue that says what no catalogue may; it is encoded as it is."""

    windows: tuple[Any, ...] = ()
    contents: tuple[Any, ...] = ()


def part(data: bytes) -> Part:
    """What a catalogue says of a part."""
    return Part(size_bytes=len(data), digest=digest(data))


def typed(kit: Kit) -> tuple[Catalogue, list[Details]]:
    """The kit's values, as the product has them."""
    return (
        msgspec.convert(kit.catalogue, Catalogue),
        [msgspec.convert(one, Details) for one in kit.details],
    )


__all__ = ["Kit", "encode", "part", "typed"]

"""Reading an archive: nothing is believed before it is checked.

The order is that of trust. The first bytes say whether it is an archive; the signature vouches for
the catalogue; the catalogue must give the very size of the file; each part that is read after it
must have the digest that the catalogue lists.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from cwm_jupyter.core.archive.body import Body, PlainBody, SealedBody
from cwm_jupyter.core.archive.checks import check_catalogue, check_details
from cwm_jupyter.core.archive.format import (
    DAMAGED,
    HEAD,
    MAX_CATALOGUE_BYTES,
    PREAMBLE_BYTES,
    SEALING_BYTES,
    Catalogue,
    Details,
    Part,
    Sealing,
    decode,
    digest,
    signed_bytes,
    unpack_preamble,
)
from cwm_jupyter.core.archive.signing import check_signature
from cwm_jupyter.errors import ArchiveError, DecryptError, ValidationError

__all__ = ["Reader", "is_encrypted"]


class Reader:
    """An archive that is open for reading; all methods block.

    Parameters
    ----------
    path
        The file.
    passphrase
        Opens an encrypted one.

    Raises
    ------
    ArchiveError
        It is no archive, is damaged, or says what cannot be.
    SchemaError
        A newer release wrote it.
    DecryptError
        It is encrypted, and the passphrase does not open it.
    """

    def __init__(self, path: Path, passphrase: str | None = None) -> None:
        self._file = _open(path)
        try:
            self.size_bytes = os.fstat(self._file.fileno()).st_size
            self.encrypted, self._body = self._open_body(passphrase)
            self.public, self.catalogue, self._starts = self._read_catalogue()
            self._content_sizes = [part.size_bytes for part in self.catalogue.contents]
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def content_bytes(self) -> int:
        """What all contents are together."""
        return sum(self._content_sizes)

    def details(self, position: int) -> Details:
        """Return the details of the window at a position of the catalogue, checked.

        Raises
        ------
        ArchiveError
            They are damaged, or do not fit the window.
        """
        self._body.seek(self._starts[position])
        entry = self.catalogue.windows[position]
        what = f"window {entry.name!r}"
        details = decode(self._part(entry.details, what), Details, what)
        check_details(entry, details, self._content_sizes)
        return details

    def contents(self) -> Iterator[bytes]:
        """Give all contents in their order, each checked; one at a time is in memory.

        Raises
        ------
        ArchiveError
            One of them is damaged.
        """
        starts = self._starts[len(self.catalogue.windows) :]
        for number, part in enumerate(self.catalogue.contents, 1):
            self._body.seek(starts[number - 1])
            yield self._part(part, f"content {number} of {len(self.catalogue.contents)}")

    def _open_body(self, passphrase: str | None) -> tuple[bool, Body]:
        context = self._file.read(PREAMBLE_BYTES)
        if not unpack_preamble(context):
            return False, PlainBody(self._file, PREAMBLE_BYTES)
        sealing = self._file.read(SEALING_BYTES)
        if len(sealing) != SEALING_BYTES:
            raise ArchiveError("The archive is cut off.", hint=DAMAGED)
        context += sealing
        if passphrase is None:
            raise DecryptError(
                "The archive is encrypted.",
                hint="Give its passphrase in an environment variable: --passphrase-env VARIABLE.",
            )
        how = Sealing.unpack(sealing)
        return True, SealedBody(self._file, len(context), how, passphrase, context)

    def _read_catalogue(self) -> tuple[bytes, Catalogue, list[int]]:
        """Return the signer's key, the catalogue, and where each part of the body begins."""
        length, public, signature = HEAD.unpack(self._body.read(HEAD.size))
        if length > MAX_CATALOGUE_BYTES:
            raise ArchiveError("The archive's catalogue is too long.", hint=DAMAGED)
        listed = self._body.read(length)
        check_signature(public, signature, signed_bytes(listed))
        catalogue = decode(listed, Catalogue, "catalogue")
        check_catalogue(catalogue)
        starts = list(accumulate(_sizes(catalogue), initial=HEAD.size + length))
        size, due = self._body.size, starts[-1]
        if size != due:
            wrong = "cut off" if size < due else "followed by something"
            raise ArchiveError(
                f"The archive is {wrong}: {size:,} bytes, not {due:,}.", hint=DAMAGED
            )
        return public, catalogue, starts

    def _part(self, part: Part, what: str) -> bytes:
        data = self._body.read(part.size_bytes)
        if digest(data) != part.digest:
            raise ArchiveError(f"The archive's {what} is damaged.", hint=DAMAGED)
        return data


def is_encrypted(path: Path) -> bool:
    """Return whether an archive is encrypted; raises as `Reader` does."""
    with _open(path) as file:
        return unpack_preamble(file.read(PREAMBLE_BYTES))


def _sizes(catalogue: Catalogue) -> Sequence[int]:
    return [
        *(window.details.size_bytes for window in catalogue.windows),
        *(part.size_bytes for part in catalogue.contents),
    ]


def _open(path: Path) -> BinaryIO:
    """Open a plain file; a pipe or a device could keep us waiting for ever."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValidationError(f"{path} is no file.")
        return path.open("rb")
    except OSError as error:
        raise ValidationError(f"{path} cannot be read: {error.strerror}.") from error

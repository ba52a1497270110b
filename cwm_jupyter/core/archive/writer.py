"""Writing an archive: to a temporary file beside its place, which it takes when it is whole."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from cwm_jupyter.core.archive.body import PlainSink, SealedSink, Sink, sealed_bytes
from cwm_jupyter.core.archive.format import (
    HEAD,
    MAX_CATALOGUE_BYTES,
    PREAMBLE_BYTES,
    SEALING_BYTES,
    Catalogue,
    Sealing,
    encode,
    pack_preamble,
    signed_bytes,
)
from cwm_jupyter.core.archive.signing import Signers
from cwm_jupyter.core.portable import fsync_dir, remove, replace, sync_file
from cwm_jupyter.errors import ArchiveError, ResourceExhaustedError, ValidationError

__all__ = ["Writer", "check_target"]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Writer:
    """An archive while it is written; all methods block. Left without `commit` it leaves no file.

    Parameters
    ----------
    path
        Where it will be.
    signers
        Signs it.
    passphrase
        Encrypts it; None: it is plain.
    force
        Replace a file that is there.

    Raises
    ------
    ValidationError
        There is something already, or no folder.
    """

    def __init__(
        self, path: Path, signers: Signers, *, passphrase: str | None = None, force: bool = False
    ) -> None:
        check_target(path, force=force)
        self._path, self._signers = path, signers
        self._passphrase, self._force = passphrase, force
        handle, name = tempfile.mkstemp(prefix=".cwm-export.", suffix=".tmp", dir=path.parent)
        self._file, self._temporary = os.fdopen(handle, "wb"), Path(name)
        self._sink: Sink | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):  # where the disk is full, the rest cannot be written either
            self._file.close()
        remove(self._temporary)

    def begin(self, catalogue: Catalogue) -> bytes:
        """Write all up to the catalogue, and return the public key that signed it.

        Raises
        ------
        ArchiveError
            There is too much for one archive.
        ResourceExhaustedError
            The disk has not enough room for what the catalogue lists.
        """
        listed = encode(catalogue)
        if len(listed) > MAX_CATALOGUE_BYTES:
            raise ArchiveError(
                "These are too many windows for one archive.", hint="Export them in several."
            )
        follows = [w.details.size_bytes for w in catalogue.windows]
        follows += [part.size_bytes for part in catalogue.contents]
        self._check_room(HEAD.size + len(listed) + sum(follows))
        context = pack_preamble(encrypted=self._passphrase is not None)
        if self._passphrase is None:
            self._file.write(context)
            self._sink = PlainSink(self._file)
        else:
            sealing = Sealing(salt=secrets.token_bytes(16))
            context += sealing.pack()
            self._file.write(context)
            self._sink = SealedSink(self._file, sealing, self._passphrase, context)
        public, signature = self._signers.sign(signed_bytes(listed))
        self.write(HEAD.pack(len(listed), public, signature) + listed)
        return public

    def write(self, data: bytes) -> None:
        """Write a part: the caller keeps to the catalogue.

        Raises
        ------
        ResourceExhaustedError
            The disk is full.
        """
        assert self._sink is not None  # noqa: S101  (`begin` comes first)
        try:
            self._sink.write(data)
        except OSError as error:
            raise self._refused(error) from error

    def commit(self) -> int:
        """Give the file its name, durably, and return its size in bytes."""
        assert self._sink is not None  # noqa: S101
        try:
            self._sink.close()
            self._file.flush()
            sync_file(self._file.fileno())
            size = os.fstat(self._file.fileno()).st_size
            self._file.close()
            check_target(self._path, force=self._force)  # since a while has passed
            replace(self._temporary, self._path)
        except OSError as error:
            raise self._refused(error) from error
        fsync_dir(self._path.parent)
        return size

    def _check_room(self, body_bytes: int) -> None:
        needed = PREAMBLE_BYTES + body_bytes
        if self._passphrase is not None:
            needed = PREAMBLE_BYTES + SEALING_BYTES + sealed_bytes(body_bytes)
        free = shutil.disk_usage(self._path.parent).free
        if needed > free:
            raise ResourceExhaustedError(
                f"The archive takes {needed:,} bytes, and the disk of {self._path.parent} has "
                f"{free:,} left.",
                hint="Make room, or export to another disk.",
                needed_bytes=needed,
                free_bytes=free,
            )

    def _refused(self, error: OSError) -> ResourceExhaustedError | OSError:
        if error.errno in _NO_ROOM:
            return ResourceExhaustedError(
                f"No room to write {self._path.name}: {error.strerror}.", hint="Make room."
            )
        return error


def check_target(path: Path, *, force: bool) -> None:
    """Refuse a place where nothing may be written.

    Raises
    ------
    ValidationError
        There is something already, or no folder to write to.
    """
    if not path.parent.is_dir():
        raise ValidationError(f"There is no folder {path.parent}.", hint="Make it first.")
    if not os.path.lexists(path):
        return
    if path.is_dir() or not (path.is_file() or path.is_symlink()):
        raise ValidationError(f"{path} is no file.", hint="Give the name of a file.")
    if not force:
        raise ValidationError(
            f"There is a file {path} already.", hint="Give another name, or replace it: --force."
        )

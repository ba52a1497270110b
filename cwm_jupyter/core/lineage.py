"""Lineages: one random secret for a session, its windows, their clones and what is thawed.

The secret and the layout of the engine make the salt that goes into every chunk key, so KV of
another layout, and another lineage's, has other keys and cannot be hit.

Each layout is noted before the first salt is made with it. So all salts that a lineage ever had can
be told while its secret is there, and its chunks be deleted whatever engine they were stored by.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import blake3
import msgspec

from cwm_jupyter.core.files import (
    fsync_dir,
    make_private_dir,
    read_checked,
    write_atomic,
    write_checked,
)
from cwm_jupyter.core.models import Fingerprint
from cwm_jupyter.core.portable import long_path, read_bytes, remove
from cwm_jupyter.errors import IndexCorruptError, KVStoreError

__all__ = ["Lineages", "make_salt"]

_SECRET_BYTES = 32
_SCHEMA = 1
_LOST = "Its chunks cannot be found without it; --recompute builds the window anew."


class Lineages:
    """The secrets, one owner-only file each, and beside them the layouts that were met.

    Parameters
    ----------
    folder
        Where they lie; created with owner-only permissions.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = long_path(folder)
        self._noted: set[str] = set()

    def create(self) -> str:
        """Make a lineage and return its id; its secret is durable when this returns."""
        lineage_id = uuid.uuid4().hex
        make_private_dir(self._folder)
        write_atomic(self.path(lineage_id), secrets.token_bytes(_SECRET_BYTES))
        return lineage_id

    def salt(self, lineage_id: str, fingerprint: Fingerprint) -> str:
        """Return the salt of a lineage on an engine; it can be told again, see `salts`.

        Raises
        ------
        KVStoreError
            The lineage's secret is gone or damaged, and with it the way to its chunks.
        """
        secret = self._secret(lineage_id)
        self._note(fingerprint)
        return make_salt(secret, fingerprint)

    def salts(self, lineage_id: str) -> dict[str, Fingerprint]:
        """Return all salts that a lineage may have been given, each with its layout.

        There are none without its secret: then nothing leads to its chunks any more. The
        fingerprints have no numeric fields.
        """
        try:
            secret = self._secret(lineage_id)
        except KVStoreError:
            return {}
        return {make_salt(secret, layout): layout for layout in self._layouts()}

    def _secret(self, lineage_id: str) -> bytes:
        try:
            secret = read_bytes(self.path(lineage_id))
        except OSError as error:
            raise KVStoreError(
                f"The secret of lineage {lineage_id} cannot be read: {error.strerror}.", hint=_LOST
            ) from error
        if len(secret) != _SECRET_BYTES:
            raise KVStoreError(f"The secret of lineage {lineage_id} is damaged.", hint=_LOST)
        return secret

    def _note(self, fingerprint: Fingerprint) -> None:
        """Note a layout durably, once."""
        name = blake3.blake3(_encoded(fingerprint)).hexdigest()[:32]
        if name in self._noted:
            return
        path = self._folder / f"{name}.layout"
        if not path.exists():
            write_checked(path, "layout", _SCHEMA, fingerprint.replace(numeric={}))
        self._noted.add(name)

    def _layouts(self) -> Iterator[Fingerprint]:
        for path in sorted(self._folder.glob("*.layout")):
            with suppress(IndexCorruptError):  # the others are known all the same
                yield Fingerprint.from_dict(read_checked(path, "layout", _SCHEMA))

    def ids(self) -> list[str]:
        """Return the ids of all lineages whose secret is there."""
        return sorted(path.stem for path in self._folder.glob("*.secret"))

    def remove(self, lineage_id: str) -> None:
        """Forget a lineage for good: nothing leads to its chunks any more."""
        remove(self.path(lineage_id))
        fsync_dir(self._folder)

    def path(self, lineage_id: str) -> Path:
        """Return where a lineage's secret lies."""
        return self._folder / f"{lineage_id}.secret"


def make_salt(secret: bytes, fingerprint: Fingerprint) -> str:
    """Return a keyed hash (blake3, 32 hex digits) of the layout fields of a fingerprint.

    Parameters
    ----------
    secret
        32 random bytes.
    fingerprint
        Its layout fields count, an unknown one as unknown; the numeric ones do not.
    """
    return blake3.blake3(_encoded(fingerprint), key=secret).hexdigest()[:32]


def _encoded(fingerprint: Fingerprint) -> bytes:
    return msgspec.json.encode(fingerprint.layout, order="sorted")

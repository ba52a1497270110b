"""Lineages: one random secret for a session, its windows, their clones and what is thawed.

The secret and the layout of the engine make the salt that goes into every chunk key, so KV of
another layout, and another lineage's, has other keys and cannot be hit.
"""

from __future__ import annotations

import secrets
import uuid
from pathlib import Path

import blake3
import msgspec

from cwm_jupyter.core.files import fsync_dir, make_private_dir, write_atomic
from cwm_jupyter.core.models import Fingerprint
from cwm_jupyter.errors import KVStoreError

__all__ = ["Lineages", "make_salt"]

_SECRET_BYTES = 32
_LOST = "Its chunks cannot be found without it; --recompute builds the window anew."


class Lineages:
    """The secrets, one owner-only file each.

    Parameters
    ----------
    folder
        Where they lie; created with owner-only permissions.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self) -> str:
        """Make a lineage and return its id; its secret is durable when this returns."""
        lineage_id = uuid.uuid4().hex
        make_private_dir(self._folder)
        write_atomic(self.path(lineage_id), secrets.token_bytes(_SECRET_BYTES))
        return lineage_id

    def salt(self, lineage_id: str, fingerprint: Fingerprint) -> str:
        """Return the salt of a lineage on an engine.

        Raises
        ------
        KVStoreError
            The lineage's secret is gone or damaged, and with it the way to its chunks.
        """
        try:
            secret = self.path(lineage_id).read_bytes()
        except OSError as error:
            raise KVStoreError(
                f"The secret of lineage {lineage_id} cannot be read: {error.strerror}.", hint=_LOST
            ) from error
        if len(secret) != _SECRET_BYTES:
            raise KVStoreError(f"The secret of lineage {lineage_id} is damaged.", hint=_LOST)
        return make_salt(secret, fingerprint)

    def ids(self) -> list[str]:
        """Return the ids of all lineages whose secret is there."""
        return sorted(path.stem for path in self._folder.glob("*.secret"))

    def remove(self, lineage_id: str) -> None:
        """Forget a lineage for good: nothing leads to its chunks any more."""
        self.path(lineage_id).unlink(missing_ok=True)
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
    layout = msgspec.json.encode(fingerprint.layout, order="sorted")
    return blake3.blake3(layout, key=secret).hexdigest()[:32]

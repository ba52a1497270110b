"""Receipts: what is kept of a purge, so that it can be shown that nothing else is.

A receipt lies in ``purged/`` of the home, owner-only. It has the names and ids of what was deleted,
as the index had them, and the labels of the chunks: what their records were called on the disk,
keyed hashes from which neither text nor key nor salt can be told. Deleting the file forgets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cwm_jupyter.core.files import make_private_dir, read_checked, write_checked
from cwm_jupyter.core.models import Value
from cwm_jupyter.core.portable import remove

__all__ = ["Named", "Receipt", "Receipts"]

_SCHEMA = 1


class Named(Value, frozen=True, kw_only=True):
    """A window or session by its id and the name that it had."""

    id: str
    name: str


class Receipt(Value, frozen=True, kw_only=True):
    """One purge.

    `lineages` are those that ended with it. `labels` are what the store called the chunks.
    `memory_cleared` and `engine_cleared` are what the servers answered; null: no stack ran.
    `remote_cleared` is whether a remote store deleted its chunks; null: none were there. All three
    are false until that is known. `purged_at` is when all was done; null: it never was.
    """

    id: str
    begun_at: str
    purged_at: str | None
    windows: list[Named]
    sessions: list[Named]
    lineages: list[str]
    labels: list[str]
    freed_bytes: int
    memory_cleared: bool | None
    engine_cleared: bool | None
    remote_cleared: bool | None = None

    @property
    def ids(self) -> list[str]:
        """The ids of what was deleted."""
        return [one.id for one in (*self.windows, *self.sessions)]


class Receipts:
    """The receipts of one home.

    Parameters
    ----------
    home
        The home's folder.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / "purged"

    def write(self, receipt: Receipt) -> None:
        """Write or replace one; it is durable when this returns."""
        make_private_dir(self._folder)
        write_checked(self._path(receipt.id), "receipt", _SCHEMA, receipt)

    def remove(self, receipt_id: str) -> None:
        """Forget one, of a purge that did not happen."""
        remove(self._path(receipt_id))

    def all(self) -> Iterator[Receipt]:
        """Go through all of them, oldest first.

        Raises
        ------
        IndexCorruptError
            One cannot be read.
        """
        found = [
            Receipt.from_dict(read_checked(path, "receipt", _SCHEMA))
            for path in self._folder.glob("*.json")
        ]
        yield from sorted(found, key=lambda receipt: receipt.begun_at)

    def _path(self, receipt_id: str) -> Path:
        return self._folder / f"{receipt_id}.json"

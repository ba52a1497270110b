"""Versions: the windows that were frozen one after the other under one name.

They are a series. Of those that are not deleted the newest has the name, and the others are
superseded: they are found as ``NAME@vN``. `cwm_jupyter.core.index` keeps it so whoever changes a
window: where the newest is deleted the one before it has the name again, where it is brought back
it takes the name back, and a new name goes to the whole series. No number is given twice, not even
when the newest version was purged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cwm_jupyter.core.models import Window
from cwm_jupyter.core.names import new_id

if TYPE_CHECKING:
    from cwm_jupyter.core.index import Transaction

__all__ = ["placed", "prune", "settled"]


def placed(old: Window, new: Window, others: Sequence[Window]) -> Window:
    """Return a changed window with its place among the other versions.

    Parameters
    ----------
    old, new
        Before and after the change, which is one of name, or to or from deleted.
    others
        The other versions that are not deleted.
    """
    if new.state == "deleted":
        return new
    if old.superseded and old.state != "deleted":  # it has a name of its own from now on
        return new.replace(series_id=new_id(), version=1, last_version=0, superseded=False)
    if old.state == "deleted" and others:  # they may have another name by now
        new = new.replace(name=others[0].name)
    return new.replace(superseded=any(other.version > new.version for other in others))


def settled(window: Window, others: Sequence[Window]) -> list[Window]:
    """Return those of the other versions that change with a window that was `placed`."""
    others = [other for other in others if other.series == window.series]
    present = others if window.state == "deleted" else [*others, window]
    newest = max(present, key=lambda one: one.version, default=window)
    changed = [
        other.replace(
            superseded=other.id != newest.id,
            name=other.name if window.state == "deleted" else window.name,
        )
        for other in others
    ]
    return [after for before, after in zip(others, changed, strict=True) if after != before]


def prune(transaction: Transaction, window: Window, keep: int | None) -> list[Window]:
    """Delete the oldest versions of a window softly, and return them.

    Parameters
    ----------
    transaction
        What it is a part of.
    window
        The newest version.
    keep
        How many versions stay, the newest among them; None: all. Pinned ones stay anyway.
    """
    if keep is None:
        return []
    beyond = transaction.versions(window.name)[keep:]
    return [
        transaction.update_window(one.id, lambda w: w.to("deleted"))
        for one in beyond
        if not one.pinned
    ]

"""Audit: an append-only log of changes, one JSON line each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cwm_jupyter.errors import CWMError

__all__ = ["Audit", "AuditEntry"]


@dataclass
class AuditEntry:
    """One change while it happens; whoever makes it fills in what it learns."""

    action: str
    names: dict[str, str | Sequence[str]]
    size_bytes: int | None = None
    result: str = "done"
    seconds: float = field(default=0.0)


class Audit:
    """The log of one home.

    Parameters
    ----------
    home
        Where it lies.
    """

    def __init__(self, home: Path) -> None:
        self._home = home

    @contextmanager
    def entry(self, action: str, **names: str | Sequence[str] | None) -> Iterator[AuditEntry]:
        """Log a change when the block ends: done, or the code of the error that leaves it."""
        entry = AuditEntry(action, {k: v for k, v in names.items() if v is not None})
        started = time.perf_counter()
        try:
            yield entry
        except CWMError as error:
            entry.result = error.code
            raise
        except BaseException:
            entry.result = "interrupted"
            raise
        finally:
            entry.seconds = time.perf_counter() - started
            self._append(entry)

    def _append(self, entry: AuditEntry) -> None:
        """Write the line."""

"""Audit: an append-only log of changes, one JSON line each, chained with a keyed hash.

A line is written when a change has ended, also where it failed; one that cannot be undone has a
line when it begins, too. It is durable when the change returns. Conversations, salts and keys are
never in it: names, sizes, times and results are.

Whoever can read ``keys/audit.key`` can write lines that are right: the log shows what was edited,
cut or put in by those who cannot, and by accident.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cwm_jupyter.core.audit.check import check
from cwm_jupyter.core.audit.files import AuditFiles, Snapshot
from cwm_jupyter.core.audit.line import OPEN, Line, named, where
from cwm_jupyter.core.audit.report import AuditFault, AuditRecord, AuditReport
from cwm_jupyter.core.models import now, rfc3339
from cwm_jupyter.core.names import name_key
from cwm_jupyter.errors import CWMError, IndexBusyError, SecurityError

__all__ = ["Audit", "AuditEntry", "AuditFault", "AuditRecord", "AuditReport"]

_LOG = logging.getLogger(__name__)
#: what cannot be undone: it is noted when it begins, since a crash may come before its end
_FOR_GOOD = frozenset({"purge", "gc", "rotate-key"})
_ROTATE_BYTES = 8_000_000
_SHOWN_FAULTS = 100


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
    rotate_bytes
        How long a file of it may get before the next one is begun; none is ever deleted.
    lock_timeout_s
        How long a change waits for another process that writes.
    """

    def __init__(
        self, home: Path, *, rotate_bytes: int = _ROTATE_BYTES, lock_timeout_s: float = 2.0
    ) -> None:
        self._files = AuditFiles(home, rotate_bytes, lock_timeout_s)
        #: What the user should know: that changes could not be written down; None if all is well.
        self.warning: str | None = None
        self._unwritten = 0

    @contextmanager
    def entry(self, action: str, **names: str | Sequence[str] | None) -> Iterator[AuditEntry]:
        """Log a change when the block ends: done, or the code of the error that leaves it.

        A log that cannot be written keeps no change from happening: the user is warned, and the
        next line that can be written says how many are missing.

        Parameters
        ----------
        action
            What is done, as in ``"freeze"``.
        **names
            Of what it is done to, as in ``window="paper"``; None is left out.
        """
        entry = AuditEntry(action, {k: v for k, v in names.items() if v is not None})
        begun = self._append(entry, result="begun") if action in _FOR_GOOD else None
        started = time.perf_counter()
        try:
            yield entry
        except CWMError as error:
            entry.result = error.code
            raise
        except BaseException as error:
            entry.result = type(error).__name__ if isinstance(error, Exception) else "interrupted"
            raise
        finally:
            entry.seconds = time.perf_counter() - started
            self._append(
                entry,
                result=entry.result,
                size_bytes=entry.size_bytes,
                seconds=round(entry.seconds, 6),
                begun=begun,
            )

    def read(
        self,
        *,
        last: int | None = None,
        action: str | None = None,
        name: str | None = None,
        since_s: float | None = None,
        verdict_only: bool = False,
    ) -> AuditReport:
        """Read the log and check all of it.

        Parameters
        ----------
        last
            Only so many of the latest lines that match.
        action
            Only this one.
        name
            Only what was done to something of this name.
        since_s
            Only what is no older (s).
        verdict_only
            Give no lines.

        Raises
        ------
        IndexBusyError
            Another process has held the log for too long.
        SecurityError
            It cannot be read.
        """
        snapshot = self._snapshot()
        found = check(snapshot)
        wanted = _wanted(action, name, since_s)
        matching = [] if verdict_only else [r for r in found.records if wanted(r.line)]
        return AuditReport(
            records=matching if last is None else matching[max(len(matching) - last, 0) :],
            matching=len(matching),
            lines=len(found.records),
            files=len(snapshot.files),
            intact=found.intact,
            fault_count=len(found.faults),
            faults=found.faults[:_SHOWN_FAULTS],
            notes=found.notes[:_SHOWN_FAULTS],
            folder=str(self._files.folder),
            verdict_only=verdict_only,
        )

    def _snapshot(self) -> Snapshot:
        try:
            return self._files.snapshot()
        except TimeoutError as error:
            raise IndexBusyError("Another process is writing the audit log.") from error
        except OSError as error:
            raise SecurityError(
                f"The audit log in {self._files.folder} cannot be read: {error.strerror}."
            ) from error

    def _append(self, entry: AuditEntry, **fields: Any) -> int | None:
        """Write a line and return its number, None where that is impossible."""
        try:
            number = self._files.append(
                {
                    "time": now(),
                    "action": entry.action,
                    "names": named(entry.names),
                    "unwritten": self._unwritten or None,
                    **where(),
                    **fields,
                }
            )
        except (OSError, CWMError) as error:
            self._unwritten += 1
            self._warn(error)
            return None
        self._unwritten = 0
        return number

    def _warn(self, error: Exception) -> None:
        """Tell the user once; the change has happened, and must not fail for this."""
        if self.warning is None:
            why = getattr(error, "strerror", None) or str(error)
            self.warning = (
                f"The audit log in {self._files.folder} cannot be written: {why} Changes go on, "
                "and are not written down until it can."
            )
            _LOG.warning(self.warning)


def _wanted(action: str | None, name: str | None, since_s: float | None) -> Callable[[Line], bool]:
    earliest = None
    if since_s is not None:
        earliest = rfc3339((datetime.now(UTC) - timedelta(seconds=since_s)).timestamp())
    key = None if name is None else name_key(name)

    def wanted(line: Line) -> bool:
        return (line.action == action if action is not None else line.action != OPEN) and (
            (earliest is None or line.time >= earliest) and (key is None or key in _keys(line))
        )

    return wanted


def _keys(line: Line) -> set[str]:
    """Return what the names in a line are compared by."""
    keys: set[str] = set()
    for value in line.names.values():
        keys.update(map(name_key, [value] if isinstance(value, str) else value))
    return keys

"""What reading the audit log found; apart from what reads it: front ends load it to show it."""

from __future__ import annotations

from typing import Literal

from cwm_jupyter.core.audit.line import Line
from cwm_jupyter.core.models import Value

__all__ = ["AuditFault", "AuditRecord", "AuditReport", "FaultKind"]

FaultKind = Literal["edited", "foreign", "missing", "misplaced", "cut", "no_head"]


class AuditFault(Value, frozen=True, kw_only=True):
    """Where the log is not as it was written.

    ``edited``: the line's MAC is not that of its bytes. ``foreign``: it is no line of the log.
    ``missing``: lines before it are gone. ``misplaced``: it is right, but does not belong here.
    ``cut``: the end is gone. ``no_head``: whether the end is gone, or was when the line was
    written, cannot be told. `line` counts from 1 within the file.
    """

    kind: FaultKind
    file: str
    line: int | None
    what: str


class AuditRecord(Value, frozen=True, kw_only=True):
    """A line, where it stands, and whether its MAC is right; null: that cannot be checked."""

    file: str
    number: int
    right: bool | None
    line: Line


class AuditReport(Value, frozen=True, kw_only=True):
    """What the log says, and whether it is as it was written.

    `records` are those that were asked for, oldest first, `matching` counts all that match before
    `last` cuts them. `lines` counts all lines there are. `intact` is null where there is no fault,
    but the key is missing for some of it. `faults` has the first hundred of `fault_count`. `notes`
    are what the log tells of itself and what is no fault: a crash, a change that could not be
    written down.
    """

    records: list[AuditRecord]
    matching: int
    lines: int
    files: int
    intact: bool | None
    fault_count: int
    faults: list[AuditFault]
    notes: list[str]
    folder: str
    #: only the verdict was asked for
    verdict_only: bool = False

"""How the audit log looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cwm_jupyter.core.audit import AuditRecord, AuditReport
from cwm_jupyter.layout import Block, Line, Table
from cwm_jupyter.present.phrases import many
from cwm_jupyter.units import count, megabytes, seconds

__all__ = ["FORMS"]

_HEADER = ("NO", "TIME (UTC)", "ACTION", "NAMES", "RESULT", "SIZE", "TOOK", "WHO", "WITH")
_MARK = {True: "", False: " EDITED", None: " unchecked"}


def _audit_report(report: AuditReport) -> list[Block]:
    shown: list[Block] = []
    if report.records:
        shown += [Table(_HEADER, [_row(r) for r in report.records], frozenset({0, 5, 6})), Line("")]
    elif not report.verdict_only:
        shown.append(Line("No change is noted that matches." if report.lines else "No change yet."))
    if len(report.records) < report.matching:
        shown.append(
            Line(f"The last {count(len(report.records))} of {count(report.matching)}.", faint=True)
        )
    return [*shown, *_verdict(report), *(Line(note) for note in report.notes)]


def _row(record: AuditRecord) -> tuple[str, ...]:
    line = record.line
    names = [
        f"{what} {name if isinstance(name, str) else ', '.join(name)}"
        for what, name in line.names.items()
        if name
    ]
    return (
        f"{line.seq}",
        line.time[:19].replace("T", " "),
        line.action,
        "; ".join(names),
        f"{line.result}{_MARK[record.right]}",
        "" if line.size_bytes is None else megabytes(line.size_bytes),
        "" if line.seconds is None else seconds(line.seconds),
        f"{line.user}@{line.host}",
        f"{line.program} {line.pid}",
    )


def _verdict(report: AuditReport) -> list[Block]:
    there = f"{many(report.lines, 'line')} in {many(report.files, 'file')}"
    if report.intact:
        return [Line(f"The audit log is intact: {there}.")] if report.lines else []
    if report.intact is None:
        return [Line(f"The audit log cannot be checked as a whole: {there}.", loud=True)]
    shown: list[Block] = [
        Line(
            f"The audit log is NOT INTACT: {many(report.fault_count, 'fault')} in {there}.",
            loud=True,
        )
    ]
    for fault in report.faults:
        place = f"line {fault.line} of {fault.file}: " if fault.line is not None else ""
        shown.append(Line(f"{place}{fault.what}"))
    if report.fault_count > len(report.faults):
        shown.append(Line(f"… and {count(report.fault_count - len(report.faults))} more"))
    return shown


#: by type, for `cwm_jupyter.present.blocks`
FORMS: dict[type, Callable[[Any], list[Block]]] = {AuditReport: _audit_report}

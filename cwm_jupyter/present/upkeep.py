"""How the values of upkeep look: verify, repair, disk usage, garbage, purge, rotate-key."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from cwm_jupyter.core.reports import (
    ChunkFault,
    DiskUsage,
    GarbageReport,
    PurgeReport,
    RepairReport,
    VerifyReport,
    WindowCheck,
    WindowUsage,
)
from cwm_jupyter.core.rotation import RotationReport
from cwm_jupyter.layout import Block, Facts, Line, Prose, Table
from cwm_jupyter.present.phrases import many
from cwm_jupyter.units import count, megabytes, seconds

__all__ = ["FORMS"]
_MOST_FAULTS = 20
#: by what became of a hold
_HOLDS = {
    "renewed": "what keeps its chunks from quotas and clean-ups was lost, and is put back",
    "lost": "WHAT KEEPS ITS CHUNKS from quotas and clean-ups is lost, and could not be put back",
}


def _verify_report(report: VerifyReport) -> list[Block]:
    if not report.windows:
        return [Line("There are no windows to verify.")]
    shown: list[Block] = []
    if len(report.windows) > 1:
        shown.append(_verify_table(report.windows))
    for check in report.windows:
        if check.state == "damaged":
            shown.append(Line(_damage(check), loud=True))
            faults = [fault for fault in check.faults if fault.state != "relinked"]
            if faults:
                shown.append(Facts([_fault(fault, check) for fault in faults[:_MOST_FAULTS]]))
            if len(faults) > _MOST_FAULTS:
                shown.append(Line(f"and {count(len(faults) - _MOST_FAULTS)} more", faint=True))
            if check.problem is None:
                shown.append(Line(f"Repair it with: cwm repair {shlex.quote(check.window)}"))
        elif check.problem is not None:
            shown.append(Line(f"Window {check.window} was not verified: {check.problem}."))
        elif len(report.windows) == 1:
            shown.append(Line(_all_intact(check)))
        if check.hold in _HOLDS:
            shown.append(Line(f"{check.window}: {_HOLDS[check.hold]}.", loud=check.hold == "lost"))
        if check.chunks_relinked:
            lost = many(check.chunks_relinked, "record")
            shown.append(
                Line(
                    f"{check.window}: {lost} lost, and made anew: what was frozen was still there."
                )
            )
    if len(report.windows) > 1:
        shown.append(Line(_verified_in_all(report), loud=not report.intact))
    return shown


def _verify_table(checks: Sequence[WindowCheck]) -> Table:
    return Table(
        ("WINDOW", "STATE", "CHUNKS", "INTACT", "MISSING", "CORRUPT", "RECOMPUTED", "READ"),
        [
            (
                c.window,
                c.state if c.problem is None or c.state == "damaged" else "not verified",
                count(c.chunks),
                *(
                    count(None if c.problem else number)
                    for number in (
                        c.chunks_intact,
                        c.chunks_missing,
                        c.chunks_corrupt,
                        c.chunks_recomputed,
                    )
                ),
                megabytes(None if c.problem else c.size_bytes),
            )
            for c in checks
        ],
        frozenset({2, 3, 4, 5, 6, 7}),
    )


def _all_intact(check: WindowCheck) -> str:
    recomputed = ""
    if check.chunks_recomputed:
        recomputed = (
            f"; {count(check.chunks_recomputed)} of them computed anew since the freeze, which is "
            "not bit-equal to what was frozen"
        )
    return (
        f"Window {check.window} is intact: {many(check.chunks, 'chunk')} read and right "
        f"({megabytes(check.size_bytes)}, {seconds(check.verify_s)}){recomputed}"
    )


def _damage(check: WindowCheck) -> str:
    if check.problem is not None:
        return f"Window {check.window} is DAMAGED: {check.problem}"
    bad = " and ".join(
        f"{count(number)} {what}"
        for number, what in ((check.chunks_missing, "missing"), (check.chunks_corrupt, "corrupt"))
        if number
    )
    return f"Window {check.window} is DAMAGED: of {many(check.chunks, 'chunk')}, {bad}"


def _fault(fault: ChunkFault, check: WindowCheck) -> tuple[str, str]:
    rank = f", rank {fault.rank}" if fault.rank else ""
    reason = f": {fault.reason}" if fault.reason else ""
    return f"chunk {fault.chunk + 1} of {check.chunks}{rank}", f"{fault.state}{reason}"


def _verified_in_all(report: VerifyReport) -> str:
    damaged = sum(check.state == "damaged" for check in report.windows)
    unseen = sum(c.problem is not None and c.state != "damaged" for c in report.windows)
    intact = len(report.windows) - damaged - unseen
    parts = [f"{many(intact, 'window')} intact"]
    parts += [f"{count(damaged)} DAMAGED"] if damaged else []
    parts += [f"{count(unseen)} not verified"] if unseen else []
    return f"{', '.join(parts)}; {megabytes(report.size_bytes)} read in {seconds(report.verify_s)}"


def _repair_report(report: RepairReport) -> list[Block]:
    window = report.window
    if not report.turns_replayed:
        relinked = report.chunks_relinked
        how = f", {count(relinked)} of them linked again" if relinked else ""
        chunks = many(window.chunks, "chunk")
        return [Line(f"Nothing to compute: {window.name} has all its {chunks}{how}")]
    parts = [
        f"{count(number)} {what}"
        for number, what in (
            (report.chunks_bit_equal, "computed again, equal to the bit"),
            (report.chunks_recomputed, "computed again to other bytes"),
            (report.chunks_relinked, "linked again"),
            (report.chunks_intact, "intact before"),
        )
        if number
    ]
    work = f"{many(report.computed_tokens, 'token')} in {many(report.turns_replayed, 'turn')}"
    shown: list[Block] = [
        Line(
            f"Repaired {window.name}: of {many(window.chunks, 'chunk')}, {', '.join(parts)}; "
            f"{work} computed, {seconds(report.repair_s)}"
        )
    ]
    if report.chunks_recomputed:
        sampled = "their turns had been sampled, and " if report.turns_differed else ""
        shown.append(
            Line(
                f"What has other bytes now is right, but not bit-equal to what was frozen: "
                f"{sampled}it was computed in another shape. A thaw says so."
            )
        )
    if report.also_intact:
        shown.append(Line(f"Intact again with it: {', '.join(report.also_intact)}."))
    shown += [Line(f"Accepted: {difference}.") for difference in report.accepted_differences]
    return shown


def _disk_usage(usage: DiskUsage) -> list[Block]:
    shown: list[Block] = []
    if usage.windows:
        rows = [
            (
                w.window,
                w.state,
                megabytes(w.size_bytes),
                megabytes(w.held_bytes),
                megabytes(w.exclusive_bytes),
                megabytes(_shared(w)),
            )
            for w in usage.windows
        ]
        header = ("WINDOW", "STATE", "KV", "ON DISK", "ITS OWN", "SHARED")
        shown += [Table(header, rows, frozenset({2, 3, 4, 5})), Line("")]
    ratio = ""
    if usage.stored_bytes:
        ratio = f" (codec ratio {usage.raw_bytes / usage.stored_bytes:.2f})"
    quota = ""
    if usage.quota_bytes is not None:
        quota = f"{megabytes(usage.quota_bytes)}, {usage.stored_bytes / usage.quota_bytes:.0%} used"
    damaged = ""
    if usage.quarantined:
        damaged = f"{many(usage.quarantined, 'file')}, {megabytes(usage.quarantined_bytes)}"
    pairs = [
        ("in all", f"{megabytes(usage.stored_bytes)}{ratio}"),
        ("unfrozen", megabytes(usage.unfrozen_bytes)),
        ("held otherwise", megabytes(usage.other_bytes) if usage.other_bytes else ""),
        ("in quarantine", damaged),
        ("quota", quota or "none"),
        ("free on disk", megabytes(usage.free_bytes)),
        ("folder", usage.folder),
    ]
    shown.append(Facts([pair for pair in pairs if pair[1]]))
    if any(w.state == "deleted" for w in usage.windows):
        shown.append(Line("Deleted windows keep their chunks until: cwm admin purge", faint=True))
    return shown


def _shared(window: WindowUsage) -> int | None:
    if window.held_bytes is None or window.exclusive_bytes is None:
        return None
    return window.held_bytes - window.exclusive_bytes


def _garbage_report(report: GarbageReport) -> list[Block]:
    found = [
        (what, count(number))
        for what, number in (
            ("contents that nothing means", report.contents),
            ("records of contents that are gone", report.records),
            ("holds of no window", report.holds),
            ("chunks that nothing leads to", report.chunks),
            ("files of writers that died", report.temporary_files),
            ("files in quarantine", report.quarantined),
            ("files in the home without an entry", report.leftovers),
        )
        if number
    ]
    if not found:
        return [Line("There is no garbage.")]
    freed = f"{'Freed' if report.removed else 'Would free'} {megabytes(report.freed_bytes)}"
    return [Facts(found), Line(freed)]


def _purge_report(report: PurgeReport) -> list[Block]:
    if not (report.windows or report.sessions):
        return [Line("Nothing was removed that could be purged.")]
    what = " and ".join(
        f"{kind}{'' if len(names) == 1 else 's'} {', '.join(names)}"
        for kind, names in (("window", report.windows), ("session", report.sessions))
        if names
    )
    amount = f"{many(report.chunks, 'chunk')}, {megabytes(report.freed_bytes)}"
    if not report.chunks:
        amount = f"no chunk of its own, {megabytes(report.freed_bytes)}"
    if not report.removed:
        return [Line(f"Would purge {what}: {amount} would be freed")]
    shown: list[Block] = [Line(f"Purged {what}: {amount} freed; they cannot be brought back")]
    asked = ("LMCache", report.memory_cleared), ("The engine", report.engine_cleared)
    shown += [
        Line(f"{name} could not be asked to forget them: it does when it stops (cwm down).", True)
        for name, cleared in asked
        if cleared is False
    ]
    if report.remote_cleared is False:
        shown.append(Line("The remote store may still have chunks of them.", loud=True))
    if not report.copies_cleared:
        shown.append(Line("A copy of the index may name them still: cwm admin gc clears it.", True))
    return shown


def _rotation_report(report: RotationReport) -> list[Block]:
    key = "A new key" if report.new_key else "The key that the environment gives"
    dropped = f", {count(report.dropped)} older dropped" if report.dropped else ""
    shown: list[Block] = [
        Line(
            f"{key} is in use ({report.current}): {many(report.documents, 'document')} and "
            f"{many(report.contents, 'file')} of the vault encrypted anew{dropped}"
        )
    ]
    if report.unreadable:
        shown.append(Line("What could not be opened, so the older keys are kept:", loud=True))
        shown.append(Prose("\n".join(report.unreadable)))
    return shown


#: by type, for `cwm_jupyter.present.blocks`
FORMS: dict[type, Callable[[Any], list[Block]]] = {
    VerifyReport: _verify_report,
    RepairReport: _repair_report,
    DiskUsage: _disk_usage,
    GarbageReport: _garbage_report,
    PurgeReport: _purge_report,
    RotationReport: _rotation_report,
}

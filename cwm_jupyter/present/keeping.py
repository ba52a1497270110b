"""How keeping and letting go look: policies, what expired, what is left of what was deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cwm_jupyter.core.outcomes import (
    AutoFreezeReport,
    DeletedCheck,
    DeletedReport,
    ExpireReport,
    Expiry,
    PolicyReport,
)
from cwm_jupyter.layout import Block, Line, Table
from cwm_jupyter.present.phrases import excerpt, facts, many
from cwm_jupyter.units import age, count, seconds

__all__ = ["FORMS"]
_EXCERPT = 88


def _policy_report(report: PolicyReport) -> list[Block]:
    policy = report.policy
    if policy is None:
        return [Line(f"Session {report.session} is not frozen by itself.")]
    if report.threshold_tokens is None:
        when = f"at {policy.at_share:.0%} of the model's context, which is known after a turn"
    else:
        share = "" if policy.at_share is None else f" ({policy.at_share:.0%} of the context)"
        when = f"at {count(report.threshold_tokens)} tokens{share}"
    then = "goes on" if policy.then == "continue" else "goes on in a fresh session"
    pairs = [
        ("session", f"{report.session}, {count(report.tokens)} tokens"),
        ("frozen by itself", when),
        ("again", f"{count(policy.cooldown_tokens)} tokens later at the earliest"),
        ("as", " ".join([policy.name, *(f"[{tag}]" for tag in policy.tags)])),
        ("then", then),
        ("summary", excerpt(policy.summary or "", _EXCERPT)),
    ]
    return [facts(pairs)]


def _auto_freeze_report(report: AutoFreezeReport) -> list[Block]:
    window = report.freeze.window
    took = seconds(report.freeze.commit_s + report.freeze.probe_s)
    shown: list[Block] = [
        Line(
            f"Frozen by itself, at {count(report.threshold_tokens)} tokens: {report.session} as "
            f"{window.name}, {count(window.tokens)} tokens; {took}"
        )
    ]
    if report.fresh_session is not None:
        shown.append(Line(f"The conversation goes on in session {report.fresh_session}."))
    return shown


def _expire_report(report: ExpireReport) -> list[Block]:
    if not report.entries:
        return [Line("Nothing has expired.")]
    rows = [
        (e.kind, e.name, age(e.expires_at), _outcome(e, report.removed)) for e in report.entries
    ]
    shown: list[Block] = [Table(("WHAT", "NAME", "EXPIRED", "OUTCOME"), rows)]
    expired = [e for e in report.entries if e.outcome == "expired"]
    what = many(sum(e.kind == "session" for e in expired), "session")
    what += f" and {many(sum(e.kind == 'window' for e in expired), 'window')}"
    if not report.removed:
        return [*shown, Line(f"{what} would go")]
    return [
        *shown,
        Line(f"{what} gone"),
        Line("Bring one back with: cwm rm --undo NAME, or -s NAME", faint=True),
    ]


def _outcome(entry: Expiry, removed: bool) -> str:
    if entry.outcome == "pinned":
        return "stays: pinned"
    if entry.outcome == "busy":
        return "stays: in use"
    if not removed:
        return "would go"
    return "expired" if entry.kind == "session" else "deleted"


def _deleted_report(report: DeletedReport) -> list[Block]:
    if not report.checks:
        return [Line("Nothing was purged, or there are no receipts of it.")]
    shown: list[Block] = []
    for check in report.checks:
        shown.append(Line(_verdict(check), loud=not check.gone))
        shown += [Line(f"left in the home: {file}", loud=True) for file in check.files]
        notes = [note for note in (_again(check), _memory(check)) if note]
        shown += [Line(note, faint=True) for note in notes]
    if report.unmeant:
        shown.append(
            Line(
                f"{many(report.unmeant, 'content')} in the vault that nothing means: whose they "
                "were cannot be told. Remove them with: cwm admin gc",
                loud=True,
            )
        )
    shown.append(Line(f"Looked at in {seconds(report.verify_s)}", faint=True))
    return shown


def _verdict(check: DeletedCheck) -> str:
    names = ", ".join([*check.windows, *(f"session {name}" for name in check.sessions)])
    if check.gone:
        asked = "" if check.listed is None else ", and LMCache lists none"
        chunks = many(check.chunks_deleted, "chunk")
        when = "whose purge had died half-way"
        if check.purged_at is not None:
            when = f"purged {age(check.purged_at)}"
        return f"Nothing is left of {names}, {when}: {chunks} gone{asked}"
    if check.purged_at is None:
        return (
            f"The purge of {names} DIED HALF-WAY: purge what is listed still, and cwm admin gc "
            "removes the rest"
        )
    left = [
        many(number, what)
        for number, what in ((check.holds, "hold"), (check.chunks, "chunk"))
        if number
    ]
    left += [f"{check.listed} listed by LMCache"] if check.listed else []
    left += ["chunks in a remote store, perhaps"] if check.remote_cleared is False else []
    return f"STILL THERE of {names}: {', '.join(left) or 'files'}"


def _again(check: DeletedCheck) -> str:
    if not check.chunks_again:
        return ""
    return (
        f"{many(check.chunks_again, 'chunk')} stored again since, by a session or window of the "
        "same lineage"
    )


def _memory(check: DeletedCheck) -> str:
    answers = check.memory_cleared, check.engine_cleared
    if check.purged_at is None or answers == (True, True):
        return ""
    if answers == (None, None):
        return "no stack was running at the time, so nothing was in its memory"
    kept = [
        name
        for name, cleared in zip(("LMCache", "the engine"), answers, strict=True)
        if cleared is False
    ]
    return f"{' and '.join(kept)} could not be asked to forget: restarting the stack makes sure"


#: by type, for `cwm_jupyter.present.blocks`
FORMS: dict[type, Callable[[Any], list[Block]]] = {
    PolicyReport: _policy_report,
    AutoFreezeReport: _auto_freeze_report,
    ExpireReport: _expire_report,
    DeletedReport: _deleted_report,
}

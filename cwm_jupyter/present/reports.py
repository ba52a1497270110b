"""How the reports look: an answer, a freeze, a thaw, an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cwm_jupyter.core.models import (
    FreezePlan,
    FreezeReport,
    Reply,
    Restored,
    ThawReport,
    Window,
)
from cwm_jupyter.errors import CWMError
from cwm_jupyter.layout import Block, Line, Markdown
from cwm_jupyter.present.phrases import chunks, proof, tail
from cwm_jupyter.units import count, megabytes, nats, seconds

__all__ = ["FORMS", "footer", "restored"]


def footer(reply: Reply) -> str:
    """Return the line under an answer: what it cost."""
    parts = [
        f"tokens in {count(reply.prompt_tokens)}",
        f"from cache {count(reply.cached_tokens)}",
        f"first token {seconds(reply.ttft_s)}",
        f"{count(reply.generated_tokens)} tokens out",
    ]
    if reply.finish_reason == "length":
        parts.append("cut at its longest")
    return " · ".join(parts)


def _reply(reply: Reply) -> list[Block]:
    return [Markdown(reply.text), Line(footer(reply), faint=True)]


def _freeze_plan(plan: FreezePlan) -> list[Block]:
    stored = ""
    if plan.already_stored_bytes:
        stored = f", {megabytes(plan.already_stored_bytes)} of it stored already"
    size = "size unavailable" if plan.size_bytes is None else megabytes(plan.size_bytes)
    return [
        Line(
            f"Freezing {plan.session}: {count(plan.tokens)} tokens, {chunks(plan.chunks)} "
            f"({size}{stored}){tail(plan.tail_tokens)}"
        )
    ]


def _freeze_report(report: FreezeReport) -> list[Block]:
    window = report.window
    return [
        Line(
            f"Froze {report.session} as {_named(window)}: {count(window.tokens)} tokens, "
            f"{chunks(window.chunks)} ({megabytes(window.size_bytes)}: "
            f"{megabytes(report.newly_stored_bytes)} new, "
            f"{megabytes(report.already_stored_bytes)} stored already)"
            f"{tail(report.tail_tokens)}; {proof(window)}; "
            f"{seconds(report.commit_s)}, probe {seconds(report.probe_s)}"
        ),
        *(
            Line(f"Removed {earlier}, since only so many versions are kept", faint=True)
            for earlier in report.pruned
        ),
    ]


def _named(window: Window) -> str:
    return f"{window.name}, version {window.version}" if window.version > 1 else window.name


def restored(report: Restored) -> list[Block]:
    """Return what is said of a restored state, in a session or not."""
    session = report.session if isinstance(report, ThawReport) else None
    lines: list[Block] = [
        Line(_restored(report, session), loud=not (report.complete or report.recompute))
    ]
    if not (report.complete or report.recompute):
        usable = f"The session {session} is" if session else "The answers are"
        use = " to use" if session else ""
        lines.append(
            Line(
                f"{_chunk_trouble(report)}. {usable} right{use}: what was missing was computed "
                "anew, which is not bit-equal to what was frozen."
            )
        )
    elif report.chunks_recomputed:
        lines.append(
            Line(
                f"{chunks(report.chunks_recomputed)} had been computed anew since the freeze: "
                "right, but not bit-equal to what was frozen."
            )
        )
    lines += [Line(f"Accepted: {difference}.") for difference in report.accepted_differences]
    return lines


def _restored(report: Restored, session: str | None) -> str:
    end = f"{_probe(report)}; {seconds(report.restore_s)}"
    place = report.window if report.turn is None else f"{report.window}@{report.turn}"
    did = "Recomputed" if report.recompute else "Thawed" if session else "Restored"
    did += f" {place} into session {session}" if session else f" {place}"
    cached, expected = count(report.cached_tokens), count(report.expected_cached_tokens)
    if report.recompute:
        return f"{did}: {count(report.tokens)} tokens computed anew; {end}"
    if not report.complete and report.cached_tokens is None:
        return f"RESTORED, BUT NOT MEASURED: tokens from cache unavailable. {did}; {end}"
    if not report.complete:
        return f"RESTORED ONLY {cached} of {expected} tokens from cache. {did}; {end}"
    return (
        f"{did}: {cached} of {count(report.tokens)} tokens from cache "
        f"({chunks(report.chunks_expected)}, {megabytes(report.size_bytes)}, {_whence(report)}), "
        f"tail of {count(report.tokens - report.expected_cached_tokens)} computed; {end}"
    )


def _whence(report: Restored) -> str:
    """Return where the chunks came from: what was read from the disk was checked by that."""
    read, found = report.chunks_read, report.chunks_found
    if read is None or not found:
        return "all found"
    if read == 0:
        return "all in LMCache's memory"
    if read >= found:
        return "all read from the disk and right"
    return f"{count(read)} read from the disk and right, the others in LMCache's memory"


def _chunk_trouble(report: Restored) -> str:
    found = [
        f"{number} {what}"
        for number, what in ((report.chunks_missing, "missing"), (report.chunks_corrupt, "corrupt"))
        if number
    ]
    if not found and report.cached_tokens is None:
        return f"All {chunks(report.chunks_expected)} were found, but the engine did not tell more"
    if not found:
        return f"All {chunks(report.chunks_expected)} were found, but the engine did not take them"
    return f"Of {chunks(report.chunks_expected)}, {' and '.join(found)}"


def _probe(report: Restored) -> str:
    probe = report.probe
    if probe is None:
        return "not probed (a window's probe is of its end)"
    again = ", asked twice" if probe.repeated else ""
    difference = nats(probe.max_abs_logprob_diff)
    if not probe.passed:
        return f"PROBE DIFFERS by {difference} ({nats(probe.tolerance)} allowed){again}"
    if probe.max_abs_logprob_diff == 0:
        return f"probe equal to the bit{again}"
    return f"probe within {difference} ({nats(probe.tolerance)} allowed){again}"


def _error(error: CWMError) -> list[Block]:
    said = " ".join(error.message.split())
    lines: list[Block] = [Line(f"{said} [{error.code}]", loud=True)]
    return [*lines, Line(error.hint)] if error.hint else lines


#: by type, for `cwm_jupyter.present.blocks`
FORMS: dict[type, Callable[[Any], list[Block]]] = {
    Reply: _reply,
    FreezePlan: _freeze_plan,
    FreezeReport: _freeze_report,
    ThawReport: restored,
    CWMError: _error,
}

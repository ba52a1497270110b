"""How the values of the stack look: its state, its servers, logs, doctor's findings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cwm_jupyter.core.models import Value
from cwm_jupyter.layout import Block, Facts, Line, Prose, Table
from cwm_jupyter.stack.state import StackState, StackStatus
from cwm_jupyter.units import age, megabytes, seconds

__all__ = ["FORMS", "LogLines"]


class LogLines(Value, frozen=True, kw_only=True):
    """The last lines of a server's log."""

    part: str
    lines: list[str]


def _stack_state(state: StackState) -> list[Block]:
    if state.kind == "remote":
        keeper = state.lmcache_url or "none, so nothing can be frozen"
        said = f"Connected to {state.engine_url}: {state.served_model}; LMCache: {keeper}"
    elif state.already_running:
        said = f"The stack is running already: {state.served_model} at {state.engine_url}"
    else:
        took = seconds(sum(state.stages_s.values()) or None)
        said = f"The stack is ready: {state.served_model} at {state.engine_url}; {took}"
    return [Line(said)]


def _stack_status(status: StackStatus) -> list[Block]:
    if status.phase == "down":
        return [Line("No stack is running. Start it with %cwm up, or cwm up in a terminal.")]
    model = status.model or "model unavailable"
    size = (
        f"chunks of {status.chunk_tokens} tokens" if status.chunk_tokens else "chunk size unknown"
    )
    loud = status.phase == "degraded"
    phase = "DEGRADED: a server is dead or does not answer" if loud else status.phase
    rows = [
        (
            part.name,
            part.phase,
            age(part.since) if part.since else "",
            megabytes(part.memory_bytes),
            "" if part.pid is None else str(part.pid),
            part.url or "",
        )
        for part in status.parts
    ]
    shown: list[Block] = [
        Line(f"The {status.kind} stack is {phase}; {model}, {size}", loud=loud),
    ]
    if rows:
        header = ("SERVER", "IS", "SINCE", "MEMORY", "PID", "URL")
        shown.append(Table(header, rows, frozenset({3, 4})))
    if status.store_dir:
        shown.append(Line(f"Chunks are kept in {status.store_dir}", faint=True))
    return shown


def _log_lines(log: LogLines) -> list[Block]:
    return [Prose("\n".join(log.lines))]


def _findings(findings: list[Any]) -> list[Block]:  # of Finding
    pairs: list[tuple[str, str]] = []
    for finding in findings:
        level = "ERROR" if finding.level == "error" else finding.level
        pairs.append((level, finding.what))
        if finding.level != "ok" and finding.hint:
            pairs.append(("", finding.hint))
    errors, warnings = (sum(f.level == level for f in findings) for level in ("error", "warn"))
    if not errors + warnings:
        return [Facts(pairs), Line("All is well.")]
    said = f"{errors} error{'' if errors == 1 else 's'}, "
    return [Facts(pairs), Line(f"{said}{warnings} warning{'' if warnings == 1 else 's'}")]


#: by type, for `cwm_jupyter.present.blocks`
FORMS: dict[type, Callable[[Any], list[Block]]] = {
    StackState: _stack_state,
    StackStatus: _stack_status,
    LogLines: _log_lines,
    list: _findings,
}

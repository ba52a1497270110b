"""How going back and asking look."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from cwm_jupyter.core.answers import Answered, AskReport, RewindReport
from cwm_jupyter.layout import Block, Line, Table
from cwm_jupyter.present.phrases import excerpt, many, turns
from cwm_jupyter.present.reports import restored
from cwm_jupyter.units import count, seconds

__all__ = ["FORMS"]

_QUESTION = 40
_ANSWER = 72


def _rewind_report(report: RewindReport) -> list[Block]:
    new, old = report.session, report.source
    where = f"from the end of turn {report.turn}" if report.turn else "from the beginning"
    return [
        Line(
            f"Session {new.name} goes on {where} of {old.name}: {turns(new.turns)}, "
            f"{count(new.tokens)} tokens"
        ),
        Line(
            f"{old.name} stays as it is, with all its {turns(old.turns)}; go back to it with "
            f"-s {shlex.quote(old.name)}",
            faint=True,
        ),
    ]


def _ask_report(report: AskReport) -> list[Block]:
    answered = sum(answer.reply is not None for answer in report.answers)
    shown: list[Block] = [
        *restored(report.restored),
        Table(
            ("QUESTION", "ANSWER", "TOKENS OUT", "FROM CACHE", "FIRST TOKEN"),
            [_row(answer) for answer in report.answers],
            frozenset({2, 3, 4}),
        ),
    ]
    if answered < len(report.answers):
        failed = many(len(report.answers) - answered, "question")
        shown.append(Line(f"{failed} got NO ANSWER; the others are not touched by that", loud=True))
    cost = f"{many(answered, 'answer')}, {count(report.generated_tokens)} tokens out"
    shown.append(Line(f"{cost}, in {seconds(report.ask_s)} together", faint=True))
    kept = [a.reply.session for a in report.answers if a.reply and a.reply.session]
    if kept:
        shown.append(Line(f"Kept as sessions: {', '.join(kept)}", faint=True))
    if any(a.reply and excerpt(a.reply.text, _ANSWER) != a.reply.text for a in report.answers):
        shown.append(Line("-o VARIABLE or --json gives the answers in full", faint=True))
    return shown


def _row(answer: Answered) -> tuple[str, ...]:
    question = excerpt(answer.question, _QUESTION)
    reply = answer.reply
    if reply is None:
        error = answer.error or {}
        said = f"NO ANSWER: {error.get('message')} [{error.get('code')}]"
        return (question, excerpt(said, 2 * _ANSWER), "", "", "")
    return (
        question,
        excerpt(reply.text, _ANSWER),
        count(reply.generated_tokens),
        count(reply.cached_tokens),
        seconds(reply.ttft_s),
    )


#: by type, for `cwm_jupyter.present.blocks`
FORMS: dict[type, Callable[[Any], list[Block]]] = {
    RewindReport: _rewind_report,
    AskReport: _ask_report,
}

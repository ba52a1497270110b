"""How sessions and windows look, one and many."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from cwm_jupyter.core.models import (
    Fingerprint,
    Message,
    Page,
    Session,
    SessionStatus,
    ThawNote,
    Turn,
    Window,
    WindowStatus,
)
from cwm_jupyter.layout import Block, Facts, Line, Table
from cwm_jupyter.present.phrases import chunks, excerpt, facts, proof, stays, turns
from cwm_jupyter.units import age, count, megabytes, seconds

__all__ = ["FORMS"]

_EXCERPT = 88
_DIGEST = 12


def _session(session: Session) -> list[Block]:
    lines: list[Block] = [
        Line(
            f"Session {session.name}, {session.state}: {turns(session.turns)}, "
            f"{count(session.tokens)} tokens{_of_context(session)}, {session.model}; "
            f"last used {age(session.updated_at)}"
        )
    ]
    if session.state in ("deleted", "expired"):
        lines.append(
            Line(f"Bring it back with: cwm rm --undo -s {shlex.quote(session.name)}", faint=True)
        )
    return lines


def _window(window: Window) -> list[Block]:
    lines: list[Block] = [
        Line(
            f"Window {window.known_as}, {window.state}: {turns(window.turns)}, "
            f"{count(window.tokens)} tokens, {chunks(window.chunks)} "
            f"({megabytes(window.size_bytes)}), {window.model}; frozen {age(window.created_at)}"
        )
    ]
    if window.state == "deleted":
        lines.append(
            Line(f"Bring it back with: cwm rm --undo {shlex.quote(window.known_as)}", faint=True)
        )
    return lines


def _page(page: Page) -> list[Block]:
    if not page.items:
        return [
            Line("There are none." if not page.total else f"None of {page.total} on this page.")
        ]
    table = (_window_table if isinstance(page.items[0], Window) else _session_table)(page.items)
    if len(page.items) == page.total:
        return [table]
    last = page.offset + len(page.items)
    return [table, Line(f"{page.offset + 1} to {last} of {page.total}", faint=True)]


def _window_table(windows: Sequence[Window]) -> Table:
    return Table(
        ("WINDOW", "STATE", "TOKENS", "SIZE", "FROZEN", "THAWED", "TAGS", "NOTE"),
        [
            (
                w.known_as,
                w.state,
                count(w.tokens),
                megabytes(w.size_bytes),
                age(w.created_at),
                age(w.used_at) if w.used_at else "never",
                " ".join(w.tags),
                excerpt(w.note, 40),
            )
            for w in windows
        ],
        frozenset({2, 3}),
    )


def _session_table(sessions: Sequence[Session]) -> Table:
    return Table(
        ("SESSION", "STATE", "TURNS", "TOKENS", "USED", "MODEL", "TAGS"),
        [
            (
                s.name,
                s.state,
                count(s.turns),
                count(s.tokens),
                age(s.updated_at),
                s.model,
                " ".join(s.tags),
            )
            for s in sessions
        ],
        frozenset({2, 3}),
    )


def _session_status(status: SessionStatus) -> list[Block]:
    session = status.session
    pairs = [
        ("session", f"{session.name}, {session.state}"),
        ("model", session.model),
        ("tokens", f"{count(session.tokens)}{_of_context(session)}"),
        ("begun", age(session.created_at)),
        ("last used", age(session.updated_at)),
        ("tags", " ".join(session.tags)),
        ("stays", stays(session)),
        ("frozen by itself", "yes: cwm admin policy" if session.policy else ""),
        ("chunks", _stored(status)),
        ("windows", ", ".join(status.windows)),
        ("lineage", ", ".join(status.lineage)),
    ]
    return [facts(pairs), *_conversation(status.turns, status.messages)]


def _window_status(status: WindowStatus) -> list[Block]:
    window = status.window
    present = count(status.chunks_present)
    pairs = [
        ("window", f"{window.name}, {window.state}"),
        ("note", window.note),
        ("tags", " ".join(window.tags)),
        ("stays", stays(window)),
        ("model", window.model),
        ("frozen", age(window.created_at)),
        ("last thawed", age(window.used_at) if window.used_at else "never"),
        ("tokens", count(window.tokens)),
        ("chunks", f"{count(window.chunks)} of {window.chunk_tokens} tokens, {present} present"),
        ("recomputed", _chunks_recomputed(status)),
        ("size", _size(status)),
        ("proof", f"{proof(window)}, {age(window.proof.checked_at)}"),
        ("probe", f"{len(status.probe.token_ids)} likeliest tokens noted"),
        ("parent", f"{status.parent}, {_levels(window.depth)}" if status.parent else ""),
        ("children", ", ".join(status.children)),
        ("lineage", ", ".join(status.lineage) if len(status.lineage) > 1 else ""),
        *_engine(status.fingerprint),
    ]
    return [
        facts(pairs),
        *_versions(status.versions),
        *_thaws(window.last_thaws),
        *_conversation(status.turns, status.messages),
    ]


def _levels(depth: int) -> str:
    return f"{depth} level{'' if depth == 1 else 's'} below the first of its family"


def _versions(versions: Sequence[Window]) -> list[Block]:
    if len(versions) < 2:
        return []
    rows = [
        (
            w.known_as,
            str(w.version),
            w.state,
            count(w.turns),
            count(w.tokens),
            age(w.created_at),
            excerpt(w.note, 40),
        )
        for w in versions
    ]
    header = ("WINDOW", "VERSION", "STATE", "TURNS", "TOKENS", "FROZEN", "NOTE")
    return [Line(""), Table(header, rows, frozenset({1, 3, 4}))]


def _stored(status: SessionStatus) -> str:
    """Return what of a session is in the store; nothing where no stack was there to ask."""
    if status.chunks is None:
        return ""
    present = count(status.chunks_present)
    return f"{count(status.chunks)}, {present} stored ({megabytes(status.stored_bytes)})"


def _chunks_recomputed(status: WindowStatus) -> str:
    number = status.chunks_recomputed
    return f"{chunks(number)} since the freeze: not bit-equal to it" if number else ""


def _size(status: WindowStatus) -> str:
    size = megabytes(status.window.size_bytes)
    if status.held_bytes is None or status.own_bytes is None:
        return size
    shared = status.held_bytes - status.own_bytes
    return f"{size}; on disk {megabytes(status.own_bytes)} of its own, {megabytes(shared)} shared"


def _thaws(notes: Sequence[ThawNote]) -> list[Block]:
    if not notes:
        return []
    rows = [
        (
            age(note.at),
            note.session,
            f"{count(note.cached_tokens)} of {count(note.expected_cached_tokens)}",
            "yes" if note.complete else "NO",
            seconds(note.restore_s),
        )
        for note in notes
    ]
    header = ("THAWED", "SESSION", "FROM CACHE", "COMPLETE", "RESTORED IN")
    return [Line(""), Table(header, rows, frozenset({2, 4}))]


def _of_context(session: Session) -> str:
    if session.max_context_tokens is None:
        return ""
    return f" of {count(session.max_context_tokens)}"


def _engine(fingerprint: Fingerprint) -> list[tuple[str, str]]:
    pairs = []
    for label, fields in (("layout", fingerprint.layout), ("numeric", fingerprint.numeric)):
        known = [f"{name} {_short(v)}" for name, v in fields.items() if v is not None]
        unknown = [name for name, value in fields.items() if value is None]
        pairs.append((label, ", ".join(known)))
        pairs.append((f"{label}, unknown", ", ".join(unknown)))
    return pairs


def _short(value: object) -> str:
    """Return a fingerprint's field; digests by their beginning."""
    shown = str(value)
    return shown if len(shown) < 32 else f"{shown[:_DIGEST]}…"


def _conversation(turns: Sequence[Turn], messages: Sequence[Message]) -> list[Block]:
    shown: list[Block] = []
    if turns:
        rows = [
            (
                str(turn.number),
                count(turn.prompt_end),
                count(turn.cached_tokens),
                seconds(turn.ttft_s),
                count(turn.end - turn.prompt_end),
                count(turn.end),
                turn.finish_reason,
            )
            for turn in turns
        ]
        header = (
            "TURN",
            "TOKENS IN",
            "FROM CACHE",
            "FIRST TOKEN",
            "TOKENS OUT",
            "ENDS AT",
            "ENDED BY",
        )
        shown += [Line(""), Table(header, rows, frozenset(range(6)))]
    if messages:
        said = [(m.role, excerpt(m.content, _EXCERPT)) for m in messages]
        shown += [Line(""), Facts(said)]
    return shown


#: by type, for `cwm_jupyter.present.blocks`
FORMS: dict[type, Callable[[Any], list[Block]]] = {
    Session: _session,
    Window: _window,
    Page: _page,
    SessionStatus: _session_status,
    WindowStatus: _window_status,
}

"""The values that everything here speaks: sessions, turns, windows, reports.

All are msgspec structs. ``to_dict`` is the one contract of ``--json``, the REST API and the
widgets: JSON-ready, units in the names (``_s`` seconds, ``_bytes``, ``_tokens``), times as RFC 3339
in UTC, figures that could not be read as null, and nothing secret. ``from_dict`` rebuilds a value
and raises `cwm_jupyter.errors.IndexCorruptError`, naming the field, where the document is not one.
"""

from __future__ import annotations

from collections.abc import Set
from datetime import UTC, datetime
from typing import Any, Literal, Self

import msgspec

from cwm_jupyter.errors import IndexCorruptError, StateTransitionError

__all__ = [
    "SESSION_STATES",
    "SESSION_TRANSITIONS",
    "WINDOW_TRANSITIONS",
    "ChunkRef",
    "Fingerprint",
    "FreezePlan",
    "FreezePolicy",
    "FreezeReport",
    "Message",
    "Page",
    "Probe",
    "ProbeResult",
    "Proof",
    "Reply",
    "Restored",
    "Session",
    "SessionState",
    "SessionStatus",
    "ThawNote",
    "ThawReport",
    "Turn",
    "Value",
    "Window",
    "WindowState",
    "WindowStatus",
    "now",
    "rfc3339",
]

SessionState = Literal["active", "frozen", "thawed", "expired", "deleted"]
WindowState = Literal["intact", "damaged", "deleted"]

SESSION_STATES: tuple[SessionState, ...] = ("active", "frozen", "thawed", "expired", "deleted")
#: What a session may become from each state; from expired and deleted also what it was before.
SESSION_TRANSITIONS: dict[str, frozenset[str]] = {
    "active": frozenset({"frozen", "expired", "deleted"}),
    "frozen": frozenset({"active", "expired", "deleted"}),
    "thawed": frozenset({"active", "frozen", "expired", "deleted"}),
    "expired": frozenset({"deleted"}),
    "deleted": frozenset(),
}
WINDOW_TRANSITIONS: dict[str, frozenset[str]] = {
    "intact": frozenset({"damaged", "deleted"}),
    "damaged": frozenset({"intact", "deleted"}),
    "deleted": frozenset(),
}


def now() -> str:
    """Return the present as RFC 3339 in UTC, to the microsecond: such strings sort by time."""
    return rfc3339(datetime.now(UTC).timestamp())


def rfc3339(timestamp_s: float) -> str:
    """Return a POSIX timestamp as `now` does the present."""
    moment = datetime.fromtimestamp(timestamp_s, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the models: immutable, with `to_dict` and `from_dict`."""

    def to_dict(self) -> dict[str, Any]:
        """Return the value as a JSON-ready dict."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Rebuild a value from what `to_dict` gave; unknown fields are ignored.

        Raises
        ------
        IndexCorruptError
            A field is missing or of the wrong type; the message names it.
        """
        try:
            return msgspec.convert(document, cls)
        except msgspec.ValidationError as error:
            raise IndexCorruptError(f"Not a {cls.__name__}: {error}") from error

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)


class Message(Value, frozen=True, kw_only=True):
    """One message of a conversation, as people write it."""

    role: str
    content: str


class Turn(Value, frozen=True, kw_only=True):
    """One exchange. Positions count tokens from the start of the transcript.

    ``[start, prompt_end)`` is what was appended before the generation, ``[prompt_end, end)`` what
    the model produced. `cached_tokens` is what the engine itself reported as taken from cache.
    """

    number: int
    start: int
    prompt_end: int
    end: int
    cached_tokens: int | None
    ttft_s: float | None
    total_s: float
    finish_reason: Literal["stop", "length", "interrupted"]
    created_at: str


class Reply(Value, frozen=True, kw_only=True):
    """What a turn gave: the answer, and what it cost.

    `session` is where it was kept, null for the answer to a question that was asked of a window.
    """

    session: str | None
    text: str
    turn: Turn
    prompt_tokens: int
    cached_tokens: int | None
    generated_tokens: int
    ttft_s: float | None
    total_s: float
    finish_reason: str
    #: the session's policy asks for a freeze now, once the answer is shown
    freeze_due: bool = False


class ChunkRef(Value, frozen=True, kw_only=True):
    """One chunk of a window: rolling hash and content digest in hex, size of the content.

    Where the store cannot be read the digest is empty, and the size null if it is unknown.
    """

    chunk_hash: str
    digest: str
    size_bytes: int | None


class Fingerprint(Value, frozen=True, kw_only=True):
    """What describes an engine.

    `layout` shapes the bytes of the KV, `numeric` the last digits or the text. A field that the
    server does not tell is null: unknown, and never taken for equal.
    """

    layout: dict[str, str | int | float | bool | None]
    numeric: dict[str, str | int | float | bool | None]


class Probe(Value, frozen=True, kw_only=True):
    """The likeliest next tokens at a window's end and their log-probabilities (nats)."""

    position_tokens: int
    token_ids: list[int]
    logprobs: list[float]


class ProbeResult(Value, frozen=True, kw_only=True):
    """A probe held against the one of the freeze.

    `tolerance` is 0 where equality to the bit is due, else the allowed difference in nats.
    """

    passed: bool
    max_abs_logprob_diff: float | None
    tolerance: float
    repeated: bool


class Proof(Value, frozen=True, kw_only=True):
    """Evidence, measured at freeze, that every chunk is durable and intact."""

    level: Literal["verified", "present"]
    chunks: int
    size_bytes: int | None
    checked_at: str


class FreezePolicy(Value, frozen=True, kw_only=True):
    """When a session is frozen by itself, after a turn, and what to do next.

    It triggers at `at_tokens`, or at `at_share` of the model's context; then not again before
    `cooldown_tokens` more. `name` is the windows' name, with ``{session}``, ``{turn}``, ``{n}`` and
    ``{date}`` filled in. `then` is ``continue``, or ``fresh``: go on in a fresh session, whose
    system message is `summary`.
    """

    at_tokens: int | None = None
    at_share: float | None = None
    cooldown_tokens: int = 1024
    name: str = "{session}-{n}"
    tags: list[str] = msgspec.field(default_factory=list)
    then: Literal["continue", "fresh"] = "continue"
    summary: str | None = None


class Session(Value, frozen=True, kw_only=True):
    """A live conversation's entry in the index; its transcript lies beside the index."""

    id: str
    name: str
    state: SessionState
    model: str
    lineage_id: str
    created_at: str
    updated_at: str
    tokens: int = 0
    turns: int = 0
    max_context_tokens: int | None = None
    #: the window that it was last frozen in or thawed from
    window_id: str | None = None
    #: what `deleted` and `expired` came from, the latest last
    previous_states: list[SessionState] = msgspec.field(default_factory=list)
    tags: list[str] = msgspec.field(default_factory=list)
    #: it stays, whatever `expires_at` says
    pinned: bool = False
    #: how long it stays after its last use; null: for good
    ttl_s: float | None = None
    #: when it may be cleaned up; null: never
    expires_at: str | None = None
    policy: FreezePolicy | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)

    def to(self, state: SessionState) -> Self:
        """Return the session in another state.

        Raises
        ------
        StateTransitionError
            The state cannot be reached from the present one.
        """
        before = self.previous_states
        allowed = SESSION_TRANSITIONS[self.state] | set(before[-1:])
        _check_transition("session", self.name, self.state, state, allowed)
        if state in before[-1:]:
            before = before[:-1]
        elif state in ("expired", "deleted"):
            before = [*before, self.state]
        return self.replace(state=state, previous_states=before, updated_at=now())


class ThawNote(Value, frozen=True, kw_only=True):
    """What a thaw measured, in short, as its window remembers it."""

    at: str
    session: str
    cached_tokens: int | None
    expected_cached_tokens: int
    complete: bool
    restore_s: float
    #: what it was spent on; empty where it was not noted
    stages_s: dict[str, float] = msgspec.field(default_factory=dict)


class Window(Value, frozen=True, kw_only=True):
    """A frozen session's entry in the index.

    Its transcript, chunk list, probe and fingerprint are in its manifest, which `manifest_digest`
    (blake3, hex) binds to this entry.
    """

    id: str
    name: str
    state: WindowState
    session_id: str
    lineage_id: str
    model: str
    created_at: str
    used_at: str | None
    tokens: int
    turns: int
    chunks: int
    chunk_tokens: int
    size_bytes: int | None
    proof: Proof
    manifest_digest: str
    parent_window_id: str | None = None
    depth: int = 0
    thaws: int = 0
    previous_state: WindowState | None = None
    tags: list[str] = msgspec.field(default_factory=list)
    note: str = ""
    #: the time to the first token of all turns together, as they were spoken; null: not measured
    prefill_s: float | None = None
    #: the latest thaws, the newest first
    last_thaws: list[ThawNote] = msgspec.field(default_factory=list)
    #: counts the freezes under this name; the newest has the name, see `superseded`
    version: int = 1
    #: a newer version has the name: this one is found as ``NAME@vN``
    superseded: bool = False
    #: the highest number of a version that was purged, where it is higher than the ones left
    last_version: int = 0
    #: what the versions of one window share; null: the window's own id, see `series`
    series_id: str | None = None
    #: it stays, whatever `expires_at` says
    pinned: bool = False
    #: how long it stays after its last use; null: for good
    ttl_s: float | None = None
    #: when it may be cleaned up; null: never
    expires_at: str | None = None

    @property
    def series(self) -> str:
        """What it shares with its other versions."""
        return self.series_id or self.id

    @property
    def numbered(self) -> int:
        """The highest number of a version that its entry knows of."""
        return max(self.version, self.last_version)

    @property
    def known_as(self) -> str:
        """What it is found by: its name, or ``NAME@vN`` where a newer version has that."""
        return f"{self.name}@v{self.version}" if self.superseded else self.name

    def to(self, state: WindowState) -> Self:
        """Return the window in another state.

        Raises
        ------
        StateTransitionError
            The state cannot be reached from the present one.
        """
        allowed = set(WINDOW_TRANSITIONS[self.state])
        if self.state == "deleted" and self.previous_state:
            allowed.add(self.previous_state)
        _check_transition("window", self.name, self.state, state, allowed)
        return self.replace(state=state, previous_state=self.state if state == "deleted" else None)


def _check_transition(what: str, name: str, old: str, new: str, allowed: Set[str]) -> None:
    if new not in allowed:
        raise StateTransitionError(
            f"The {what} {name!r} is {old} and cannot become {new}.",
            hint=f"From {old} it can become: {', '.join(sorted(allowed)) or 'nothing else'}.",
            state=old,
            wanted=new,
        )


class FreezePlan(Value, frozen=True, kw_only=True):
    """What a freeze will store, said before it starts.

    The tail, less than a chunk, is kept as tokens and computed again at thaw.
    """

    session: str
    tokens: int
    chunks: int
    tail_tokens: int
    size_bytes: int | None
    already_stored_bytes: int | None


class FreezeReport(Value, frozen=True, kw_only=True):
    """What a freeze did and measured.

    `commit_s` is everything but the probe. `already_stored_bytes` were durable before the freeze,
    `newly_stored_bytes` were stored by it; both are null where the store cannot be asked.
    `pruned` are the earlier versions that were deleted, softly, since only so many are kept.
    """

    window: Window
    session: str
    commit_s: float
    probe_s: float
    already_stored_bytes: int | None
    newly_stored_bytes: int | None
    tail_tokens: int
    stages_s: dict[str, float]
    pruned: list[str] = msgspec.field(default_factory=list)


class Restored(Value, frozen=True, kw_only=True):
    """What restoring a window's state measured, held against what was expected.

    `restore_s` runs from the start until the engine has the state and the probe has passed. Tokens
    beyond `expected_cached_tokens` (the tail, less than a chunk) are always computed again. `turn`
    is the turn whose end was gone back to, null for the window's own end; the figures are those of
    the state up to there. `probe` is null where none was noted to compare with: a freeze notes one
    at the window's end alone.
    """

    window: str
    turn: int | None = None
    tokens: int
    size_bytes: int | None
    chunks_expected: int
    chunks_found: int
    chunks_missing: int
    chunks_corrupt: int
    #: computed again since the freeze: right, but not the bytes that were frozen
    chunks_recomputed: int
    #: read from the disk and checked; the other ones found were in LMCache's memory. None: unknown
    chunks_read: int | None = None
    expected_cached_tokens: int
    cached_tokens: int | None
    recomputed_tokens: int | None
    recompute: bool
    complete: bool
    probe: ProbeResult | None
    restore_s: float
    stages_s: dict[str, float]
    accepted_differences: list[str]


class ThawReport(Restored, frozen=True, kw_only=True):
    """What a thaw measured, and the session that it made."""

    session: str


class SessionStatus(Value, frozen=True, kw_only=True):
    """All there is to say about one session.

    `chunks` are the whole chunks of its tokens, `chunks_present` those in the store, with
    `stored_bytes`; null where no stack runs or its store cannot be asked. `windows` were frozen
    from it, `lineage` are all windows that share chunks with it.
    """

    session: Session
    turns: list[Turn]
    messages: list[Message]
    chunks: int | None = None
    chunks_present: int | None = None
    stored_bytes: int | None = None
    windows: list[str] = msgspec.field(default_factory=list)
    lineage: list[str] = msgspec.field(default_factory=list)


class WindowStatus(Value, frozen=True, kw_only=True):
    """All there is to say about one window.

    `chunks_present` counts the chunks that the store has now, without reading them; null where the
    store cannot be asked. `held_bytes` are what it keeps on disk, `own_bytes` what nothing else
    keeps. `chunks_recomputed` were computed again since the freeze. `lineage` are all windows that
    share its lineage, itself too. `versions` are all that are there of this window, the newest
    first.
    """

    window: Window
    turns: list[Turn]
    messages: list[Message]
    fingerprint: Fingerprint
    probe: Probe
    chunks_present: int | None
    chunks_recomputed: int
    held_bytes: int | None
    own_bytes: int | None
    parent: str | None
    children: list[str]
    lineage: list[str]
    versions: list[Window] = msgspec.field(default_factory=list)


class Page(Value, frozen=True, kw_only=True):
    """A page of a listing, and how many there are in all."""

    items: list[Any]
    total: int
    limit: int | None
    offset: int

"""What keeping and letting go did and found: freezes by policy, what expired, what is left.

Apart from what makes them, since front ends load them to show them.
"""

from __future__ import annotations

from typing import Literal

from cwm_jupyter.core.models import FreezePolicy, FreezeReport, Value

__all__ = [
    "AutoFreezeReport",
    "DeletedCheck",
    "DeletedReport",
    "ExpireReport",
    "Expiry",
    "ExpiryKind",
    "ExpiryOutcome",
    "PolicyReport",
]

ExpiryKind = Literal["session", "window"]
ExpiryOutcome = Literal["expired", "pinned", "busy"]


class PolicyReport(Value, frozen=True, kw_only=True):
    """A session's policy, and where the session stands.

    `policy` is null where it has none. `threshold_tokens` is when it triggers, null while the
    model's context is unknown.
    """

    session: str
    tokens: int
    max_context_tokens: int | None
    policy: FreezePolicy | None
    threshold_tokens: int | None


class AutoFreezeReport(Value, frozen=True, kw_only=True):
    """What a policy did: a session that had reached its threshold was frozen by itself.

    `fresh_session` is the session to go on in, null where that is the same one.
    """

    session: str
    threshold_tokens: int
    freeze: FreezeReport
    fresh_session: str | None


class Expiry(Value, frozen=True, kw_only=True):
    """A session or window whose time was over when it was looked at.

    ``expired`` sessions can be brought back, and so can windows, which are deleted softly. Those
    that are ``pinned`` or ``busy`` were left as they are.
    """

    kind: ExpiryKind
    name: str
    expires_at: str
    outcome: ExpiryOutcome


class ExpireReport(Value, frozen=True, kw_only=True):
    """What a clean-up did; `removed` is false where it was only looked for."""

    entries: list[Expiry]
    removed: bool


class DeletedCheck(Value, frozen=True, kw_only=True):
    """What is left of one purge.

    `purged_at` is null where it died half-way. `files` are those in the home that still speak of
    what was deleted: of the index and its copies, manifests, transcripts, secrets. `holds` and
    `chunks` are in the store; `chunks_again` were stored since, by what is left of the lineage, and
    are no remains. `listed` is how many of the chunks LMCache lists now, null where it could not be
    asked. `memory_cleared` and `engine_cleared` are what the servers answered at the purge.
    `remote_cleared` is false where chunks may be left in a remote store; null: none were there.
    """

    windows: list[str]
    sessions: list[str]
    purged_at: str | None
    chunks_deleted: int
    files: list[str]
    holds: int
    chunks: int
    chunks_again: int
    listed: int | None
    memory_cleared: bool | None
    engine_cleared: bool | None
    remote_cleared: bool | None = None

    @property
    def gone(self) -> bool:
        """Whether nothing is left, as far as it can be seen now."""
        left = self.files or self.holds or self.chunks or self.listed
        return not left and self.remote_cleared is not False


class DeletedReport(Value, frozen=True, kw_only=True):
    """What is left of what was deleted for good.

    `unmeant` counts the contents in the store that nobody means: nobody can tell whose they were.
    """

    checks: list[DeletedCheck]
    unmeant: int
    gone: bool
    verify_s: float

"""The audit log."""

from __future__ import annotations

from cwm_jupyter.core.audit import AuditReport
from cwm_jupyter.core.query import duration_s
from cwm_jupyter.workspace import get_workspace

__all__ = ["audit_log"]


def audit_log(
    *,
    last: int | None = None,
    action: str | None = None,
    name: str | None = None,
    since: str | None = None,
) -> AuditReport:
    """Return who changed what and when, oldest first, and whether the log is as it was written.

    Parameters
    ----------
    last
        Only so many of the latest.
    action
        Only this one, as in ``"freeze"``.
    name
        Only what was done to something of this name.
    since
        Only what is no older, as in ``"7d"``.

    Raises
    ------
    ValidationError
        `since` is no duration.
    SecurityError
        The log cannot be read.
    """
    return get_workspace().manager.audit.read(
        last=last,
        action=action,
        name=name,
        since_s=None if since is None else duration_s(since),
    )

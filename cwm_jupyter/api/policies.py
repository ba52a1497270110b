"""Auto-freeze: when a session is frozen by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cwm_jupyter.core.models import FreezePolicy
from cwm_jupyter.core.outcomes import PolicyReport
from cwm_jupyter.current import shared
from cwm_jupyter.workspace import get_workspace

__all__ = ["autofreeze"]


def autofreeze(
    session: str | None = None,
    *,
    at: int | float | None,
    cooldown_tokens: int = 1024,
    name: str = "{session}-{n}",
    tags: Sequence[str] = (),
    then: Literal["continue", "fresh"] = "continue",
    summary: str | None = None,
) -> PolicyReport:
    """Freeze a session by itself, after a turn, once it is long enough.

    Parameters
    ----------
    session
        None is the session that the magics use in this notebook, or ``main``.
    at
        Tokens, as a whole number, or a share of the model's context, as in ``0.75``. None: not any
        more.
    cooldown_tokens
        It is not frozen again before so many tokens more.
    name
        Of the windows, with ``{session}``, ``{turn}``, ``{n}`` and ``{date}`` filled in.
    tags
        Of the windows.
    then
        ``continue``, or ``fresh``: go on in a fresh session that begins with the `summary`.
    summary
        The system message of the fresh session.

    Raises
    ------
    SessionNotFoundError
        There is no such session.
    ValidationError
        The policy cannot be; the message names the field.

    Examples
    --------
    >>> cwm.autofreeze("paper", at=0.75)  # doctest: +SKIP
    """
    policy = None
    if at is not None:
        policy = FreezePolicy(
            at_tokens=at if isinstance(at, int) else None,
            at_share=at if isinstance(at, float) else None,
            cooldown_tokens=cooldown_tokens,
            name=name,
            tags=list(tags),
            then=then,
            summary=summary,
        )
    workspace = get_workspace()
    return workspace.run(workspace.manager.autofreeze.set_policy, session or shared.name, policy)

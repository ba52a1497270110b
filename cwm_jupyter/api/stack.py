"""The local stack: start, stop, look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cwm_jupyter.core.job import Job
from cwm_jupyter.stack import launcher
from cwm_jupyter.stack.state import StackState, StackStatus
from cwm_jupyter.verbs import start_stack
from cwm_jupyter.workspace import get_workspace

if TYPE_CHECKING:
    from cwm_jupyter.stack.doctor import Finding

__all__ = ["doctor", "down", "status", "up"]


def up(
    model: str | None = None, *, engine_args: Sequence[str] = (), job: Job | None = None
) -> StackState:
    """Start the local stack, or return the one that runs.

    Parameters
    ----------
    model
        A model's folder, or its name in the local Hugging Face cache; None is the setting, or
        SmolLM2-135M-Instruct.
    engine_args
        More arguments for vLLM.
    job
        Told of the stages; may be cancelled.

    Raises
    ------
    StackError
        It cannot be started, or one with another model is running; the subclass says what is amiss.

    Examples
    --------
    >>> cwm.up()  # doctest: +SKIP
    """
    settings = get_workspace().settings
    return start_stack(settings, job or Job("up"), model=model, engine_args=engine_args)


def down() -> None:
    """Stop the local stack, once all chunks are stored; a remote one is only let go."""
    launcher.down(get_workspace().settings)


def status() -> StackStatus:
    """Return whether the stack runs, server by server."""
    return launcher.status(get_workspace().settings)


def doctor() -> list[Finding]:
    """Return what would go wrong on this machine, and what is well."""
    from cwm_jupyter.stack.doctor import diagnose

    return diagnose(get_workspace().settings)

"""The end of the local stack: what is unstored is stored, then the servers stop, then no trace."""

from __future__ import annotations

import os
import time

from cwm_jupyter.config import Settings
from cwm_jupyter.core.job import Job
from cwm_jupyter.stack import leftovers, processes, state
from cwm_jupyter.stack.servers import Servers
from cwm_jupyter.stack.state import StackState

__all__ = ["clear"]

_GRACE_S = 20.0
_DRAIN_S = 30.0
_POLL_S = 0.1


def clear(settings: Settings, stack: StackState | None, job: Job) -> None:
    """Stop what is left of a stack and remove its traces.

    Parameters
    ----------
    settings
        Its home.
    stack
        What was started; of a remote one only the state is removed.
    job
        Gets the stages.
    """
    if stack is not None and stack.kind == "local":
        _stop(stack, job)
        leftovers.remove(stack.leftovers)
    leftovers.sweep(settings.home)
    state.forget(settings.home)


def _stop(stack: StackState, job: Job) -> None:
    lmcache = stack.parts.get("lmcache")
    if stack.phase == "ready" and lmcache is not None and processes.alive(lmcache):
        job.stage("storing what is not stored yet")
        _drain(stack)
    job.stage("stopping vLLM and LMCache")
    # vLLM first: LMCache can finish the last writes then.
    for part in ("vllm", "lmcache", "watchdog"):
        process = stack.parts.get(part)
        if process is not None and process.pid != os.getpid():  # the watchdog itself calls this
            processes.stop([process], grace_s=_GRACE_S, also=stack.members.get(part, ()))


def _drain(stack: StackState) -> None:
    """Wait, not for ever, until LMCache has stored all that it has to."""
    deadline = time.monotonic() + _DRAIN_S
    with Servers(stack) as servers:
        while servers.unstored() and time.monotonic() < deadline:
            time.sleep(_POLL_S)

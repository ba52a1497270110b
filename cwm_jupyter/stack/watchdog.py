"""Stop a stack that nobody uses: ``python -m cwm_jupyter.stack.watchdog HOME``.

Started by `up` where ``stack.idle_stop_s`` is set. It ends when the stack does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from cwm_jupyter.config import Settings, load
from cwm_jupyter.stack import processes, state
from cwm_jupyter.stack.launcher import down
from cwm_jupyter.stack.servers import Servers
from cwm_jupyter.stack.state import StackState

__all__ = ["watch"]

_POLL_S = 5.0


def watch(
    settings: Settings,
    stack: StackState,
    stop: Callable[[Settings], None],
    *,
    poll_s: float = _POLL_S,
) -> None:
    """Call `stop` when the stack has not worked for ``stack.idle_stop_s`` seconds.

    Parameters
    ----------
    settings
        How long is idle.
    stack
        What to watch; when it is gone or another one runs, the watch ends.
    stop
        Stops the stack.
    poll_s
        How often to look (s).
    """
    idle_s = settings.stack.idle_stop_s
    if idle_s is None:
        return
    with Servers(stack) as servers:
        worked, seen = time.monotonic(), servers.work_done()
        while all(processes.alive(stack.parts[part]) for part in ("vllm", "lmcache")):
            time.sleep(min(poll_s, idle_s))
            done = servers.work_done()
            # No answer is no proof of idleness: an engine that is busy may be slow to tell.
            if done is None or done != seen:
                worked, seen = time.monotonic(), done
            elif time.monotonic() - worked >= idle_s:
                break
        else:
            return
    if _same(state.current(settings.home), stack):
        stop(settings)


def _same(one: StackState | None, other: StackState) -> bool:
    return one is not None and one.started_at == other.started_at


def main(home: str) -> None:
    """Watch the stack that runs in this home."""
    stack = state.current(Path(home))
    if stack is not None:
        watch(load({}, stack.settings), stack, down)


if __name__ == "__main__":
    main(sys.argv[1])

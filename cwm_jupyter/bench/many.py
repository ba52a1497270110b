"""Ten sessions: frozen at once, and thawed beside each other."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import anyio
import psutil

from cwm_jupyter.bench.limits import target_limit
from cwm_jupyter.bench.rows import Row, Yardsticks
from cwm_jupyter.bench.subject import Context, Subject
from cwm_jupyter.core.job import Job
from cwm_jupyter.stack.processes import tree
from cwm_jupyter.stack.state import current

__all__ = ["many_rows", "memory_by_process"]

_MANY = 10
#: characters between the beginnings of the texts: equal ones would share their chunks
_APART = 3_000
_FREEZES_S, _FREEZES_OF_COLD = 5.0, 10
_GROWTH_BYTES = 2_000_000_000


def memory_by_process(subject: Subject) -> dict[str, int]:
    """Return the memory of each process of the stack in bytes, what is shared split up (PSS)."""
    state = current(subject.workspace.settings.home)
    found: dict[str, int] = {}
    for part, process in state.parts.items() if state is not None else ():
        for number, member in enumerate(tree(process), 1):
            try:
                info = psutil.Process(member.pid).memory_full_info()
            except psutil.Error:  # it has just ended
                continue
            found[f"{part} {number}"] = getattr(info, "pss", info.rss)
    return found


def many_rows(subject: Subject, tokens: int, idle: dict[str, int], job: Job) -> list[Row]:
    """Freeze ten sessions at once, thaw all of them, and see what memory has grown by.

    Parameters
    ----------
    subject
        Its stack is used.
    tokens
        Length of each session.
    idle
        `memory_by_process` before the bench touched the stack.
    job
        Told of the stages.
    """
    contexts = []
    for number in range(_MANY):
        job.stage(f"ten sessions of {tokens:,} tokens, {number + 1}")
        made = subject.make(tokens, start=_APART * number, name=f"bench-{number}")
        contexts.append(made)
    job.stage("ten freezes at once")
    took_s = subject.workspace.run(_freeze_all, subject, contexts)
    job.stage("ten thaws")
    complete = subject.workspace.run(_thaw_all, subject, contexts)
    now = memory_by_process(subject)
    growth = {name: size - idle.get(name, 0) for name, size in now.items()}
    cold_s = sum(context.cold_s for context in contexts)
    total = sum(c.size_bytes or 0 for c in contexts)
    common: dict[str, Any] = {
        "store": "vault",
        "codec": subject.codec,
        "tokens": sum(c.first_freeze.window.tokens for c in contexts),
    }
    return [
        Row.timed(
            "PF-009",
            "ten freezes at once, in all, probes included",
            [took_s],
            against=Yardsticks(cold_s=cold_s),
            limit=target_limit(_FREEZES_S, cold_s, _FREEZES_OF_COLD),
            bytes=total,
            **common,
        ),
        Row(
            id="PF-008",
            what="memory with ten thawed sessions, over the stack before the bench",
            runs=1,
            bytes=sum(growth.values()),
            limit=f"at most {_GROWTH_BYTES:,} bytes",
            within=sum(growth.values()) <= _GROWTH_BYTES and complete and bool(now),
            details={
                "growth_bytes": growth,
                "memory_bytes": now,
                "idle_bytes": idle,
                "windows_bytes": total,
                "all_complete": complete,
            },
            **common,
        ),
    ]


async def _freeze_all(subject: Subject, contexts: list[Context]) -> float:
    manager = subject.workspace.manager
    started = time.perf_counter()
    async with anyio.create_task_group() as group:
        for context in contexts:
            group.start_soon(partial(manager.freeze, f"{context.window}-all", context.session))
    return time.perf_counter() - started


async def _thaw_all(subject: Subject, contexts: list[Context]) -> bool:
    """Thaw all from the store, keep the sessions, and return whether all were complete."""
    stack = await subject.workspace.connect()
    await stack.forget([key for context in contexts for key in context.keys])
    return all([(await subject.workspace.manager.thaw(c.window)).complete for c in contexts])

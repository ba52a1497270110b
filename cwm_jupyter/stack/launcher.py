"""The local stack: up, down, status. One at a time for each home folder.

`up` starts LMCache and vLLM side by side, since each spends most of its start importing, warms the
engine, and leaves a `StackState`. Whatever goes wrong on the way, nothing is left running.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime

from cwm_jupyter.config import Settings
from cwm_jupyter.core.files import make_private_dir
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.models import now
from cwm_jupyter.errors import StackError
from cwm_jupyter.stack import processes, state
from cwm_jupyter.stack.environment import check_platform, ensure_environment, locked
from cwm_jupyter.stack.model import ensure_model
from cwm_jupyter.stack.servers import Servers
from cwm_jupyter.stack.shutdown import clear
from cwm_jupyter.stack.startup import logs, start
from cwm_jupyter.stack.state import PartName, PartStatus, StackPhase, StackState, StackStatus

__all__ = ["connect", "down", "logs", "status", "up"]

_SERVERS: tuple[PartName, ...] = ("lmcache", "vllm")


def up(settings: Settings, job: Job | None = None) -> StackState:
    """Start the local stack, or return the one that runs (`StackState.already_running`).

    The first time, the engine environment is built and the embedded model fetched. A stack of which
    one server died is stopped and started anew. Two at once start one.

    Raises
    ------
    StackStartError
        A server died or was not ready within ``stack.start_timeout_s``; nothing is left running.
    StackError
        A remote stack is connected.
    EnvironmentBuildError, ModelError, ResourceExhaustedError
        What is needed for it cannot be had; there is no local engine for Windows and macOS.
    CancelledJobError
        The job was cancelled; nothing is left running.
    """
    job = job or Job("up")
    check_platform(settings)
    with _only_one(settings, job):
        known = state.current(settings.home)
        if known is not None and known.kind == "remote":
            raise StackError(
                f"This home is connected to {known.engine_url}.",
                hint="Disconnect first, with cwm down.",
            )
        if known is not None and _is_well(known):
            return known.replace(already_running=True)
        clear(settings, known, job)
        python = ensure_environment(settings, job)
        model = ensure_model(settings, python, job)
        return start(settings, python, model, job)


def down(settings: Settings, job: Job | None = None) -> None:
    """Stop the stack; of a remote one only the connection is forgotten.

    LMCache first writes what is not stored yet. Without a stack this does nothing.
    """
    job = job or Job("down")
    with _only_one(settings, job):
        clear(settings, state.current(settings.home), job)
    job.finish()


def connect(
    settings: Settings, engine_url: str, lmcache_url: str | None = None, api_key: str | None = None
) -> StackState:
    """Note a stack that others run, so that sessions use it.

    Raises
    ------
    StackError
        A local stack is running.
    StackStartError
        The engine does not answer, or refuses the key.
    """
    with _only_one(settings, Job("connect")):
        known = state.current(settings.home)
        if known is not None and known.kind == "local":
            if _is_well(known):
                raise StackError("The local stack is running.", hint="Stop it with cwm down.")
            clear(settings, known, Job("down"))
        remote = StackState(
            kind="remote",
            phase="ready",
            engine_url=engine_url.rstrip("/"),
            lmcache_url=lmcache_url.rstrip("/") if lmcache_url else None,
            api_key=api_key,
            started_at=now(),
        )
        with Servers(remote) as servers:
            remote = remote.replace(served_model=servers.served_model(), **servers.cache_facts())
        state.save(settings.home, remote)
        return remote


def status(settings: Settings) -> StackStatus:
    """Return what runs now, server by server. A figure that cannot be read is None."""
    known = state.current(settings.home)
    if known is None:
        return StackStatus(phase="down")
    with Servers(known) as servers:
        parts = [_server_status(known, part, servers) for part in _SERVERS]
    if "watchdog" in known.parts:
        parts.append(_process_status(known, "watchdog"))
    phase: StackPhase = "up" if known.phase == "ready" else "starting"
    if {part.phase for part in parts} & {"dead", "unavailable"}:
        phase = "degraded"
    return StackStatus(
        phase=phase,
        kind=known.kind,
        model=known.served_model,
        chunk_tokens=known.chunk_tokens,
        store_dir=known.store_dir,
        parts=parts,
        stages_s=known.stages_s,
    )


@contextlib.contextmanager
def _only_one(settings: Settings, job: Job) -> Iterator[None]:
    make_private_dir(settings.home)
    lock = make_private_dir(settings.run_dir) / "stack.lock"
    with locked(lock, job, "another process starts or stops the stack"):
        yield


def _is_well(stack: StackState) -> bool:
    """Return whether the stack can be used: all its servers live, and none says that it is ill."""
    if stack.phase != "ready" or not all(map(processes.alive, stack.parts.values())):
        return False
    with Servers(stack) as servers:
        return servers.engine_answers() is not False and servers.cache_answers() is not False


def _server_status(stack: StackState, part: PartName, servers: Servers) -> PartStatus:
    url = stack.engine_url if part == "vllm" else stack.lmcache_url
    answers = servers.engine_answers() if part == "vllm" else servers.cache_answers()
    seen = _process_status(stack, part).replace(url=url)
    if seen.phase == "dead" or answers:
        return seen
    return seen.replace(phase="starting" if stack.phase == "starting" else "unavailable")


def _process_status(stack: StackState, part: PartName) -> PartStatus:
    """Return what the process list says; of a remote server that is nothing."""
    process = stack.parts.get(part)
    found = process if process is not None and processes.alive(process) else None
    return PartStatus(
        name=part,
        phase="dead" if process is not None and found is None else "up",
        url=None,
        since=_time(found.created_s) if found else None,
        memory_bytes=processes.memory_bytes(found) if found else None,
        pid=found.pid if found else None,
        log=stack.logs.get(part),
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

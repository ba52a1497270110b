"""The start of the local stack: both servers side by side, watched until they are ready."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from pathlib import Path

from cwm_jupyter.config import Settings
from cwm_jupyter.core.files import make_private_dir
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.models import now
from cwm_jupyter.errors import StackDownError, StackStartError
from cwm_jupyter.stack import commands, leftovers, processes, state
from cwm_jupyter.stack.commands import Plan
from cwm_jupyter.stack.environment import publish_code
from cwm_jupyter.stack.model import Model
from cwm_jupyter.stack.servers import Servers
from cwm_jupyter.stack.shutdown import clear
from cwm_jupyter.stack.state import PartName, StackState

__all__ = ["logs", "start"]

_POLL_S = 0.1
#: of LMCache's memory and of the engine's; more than the windows of a first hour
_TOUCHED_BYTES = 512 * 2**20
#: from the start on, each from the end of the one before: the two servers load side by side
_STAGES = ("lmcache", "vllm", "warm_up")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TELLING = re.compile(r"\w+(Error|Exception)\b: ")


def start(settings: Settings, python: Path, model: Model, job: Job) -> StackState:
    """Start the servers, wait until they are ready and warm, and leave the state.

    Whatever goes wrong, nothing is left running.

    Raises
    ------
    StackStartError
        A server died or was not ready in time; the telling line of its log is in the message.
    """
    job.stage("starting LMCache and vLLM")
    plan = _plan(settings, python, model)
    stack = StackState(
        kind="local",
        phase="starting",
        engine_url=f"http://127.0.0.1:{plan.engine_port}",
        lmcache_url=f"http://127.0.0.1:{plan.lmcache_port}",
        api_key=plan.api_key,
        served_model=plan.served_model,
        model_path=str(model.path),
        store_dir=str(make_private_dir(settings.vault_dir)),
        leftovers=[str(plan.private)],
        logs={part: str(_log_file(settings, part)) for part in ("lmcache", "vllm")},
        started_at=now(),
        settings=settings.to_dict(),
    )
    try:
        for launched in _launched(settings, plan, stack):
            stack = launched
            state.save(settings.home, stack)  # so that a killed `up` leaves a trace
        stack = _ready(settings, stack, job)
        stack = _with_watchdog(settings, stack)
        state.save(settings.home, stack)
    except BaseException:
        clear(settings, stack, Job("down"))
        raise
    job.finish()
    return stack


def logs(settings: Settings, part: PartName = "vllm", lines: int = 50) -> list[str]:
    """Return the last lines that a server of the local stack wrote.

    They stay when the stack has stopped, until the next start.

    Raises
    ------
    StackDownError
        There is no log: no stack was started in this home.
    """
    try:
        text = _log_file(settings, part).read_text("utf-8", "replace")
    except OSError as error:
        raise StackDownError(f"There is no log of {part} in {settings.run_dir}.") from error
    return _COLOUR.sub("", text).splitlines()[-lines:]


def _log_file(settings: Settings, part: str) -> Path:
    return settings.run_dir / "logs" / f"{part}.log"


def _plan(settings: Settings, python: Path, model: Model) -> Plan:
    models = make_private_dir(settings.run_dir / "models")
    name = re.sub(r"[^\w.-]+", "--", model.name)
    link = models / name
    link.unlink(missing_ok=True)
    link.symlink_to(model.path, target_is_directory=True)
    return Plan(
        python=python,
        code=publish_code(settings.run_dir),
        private=Path(tempfile.mkdtemp(prefix="cwm-")),
        models=models,
        model=name,
        served_model=model.name,
        engine_port=processes.free_port(),
        lmcache_port=processes.free_port(),
        shm_name=leftovers.home_tag(settings.home) + secrets.token_hex(4),
        api_key=secrets.token_urlsafe(32),
    )


def _launched(settings: Settings, plan: Plan, stack: StackState) -> Iterator[StackState]:
    """Start the servers side by side, and yield the state after each."""
    make_private_dir(settings.run_dir / "logs")
    calls: dict[PartName, tuple[list[str], dict[str, str]]] = {
        "vllm": (
            commands.engine_command(settings, plan),
            commands.engine_environment(settings, plan),
        ),
        "lmcache": (commands.cache_command(settings, plan), commands.cache_environment(plan)),
    }
    for part, (argv, env) in calls.items():
        log = _log_file(settings, part)
        log.unlink(missing_ok=True)
        process = processes.start(argv, log=log, env=env, cwd=plan.models)
        stack = stack.replace(parts={**stack.parts, part: process})
        yield stack


def _touch_memory(tag: str) -> None:
    """Have the system give LMCache's memory its first pages now, while the engine loads.

    A page is made when it is first written, and on a virtual machine the host has to find it too:
    the first thaw would wait for that. What is in the pages already stays.
    """
    for segment in leftovers.SHM_DIR.glob(f"lmcache_l1_pool_{tag}*"):
        with contextlib.suppress(OSError), segment.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, min(_TOUCHED_BYTES, segment.stat().st_size))


def _ready(settings: Settings, stack: StackState, job: Job) -> StackState:
    """Return the state of the stack when it is ready, with what only then is known."""
    moments = [time.monotonic()]
    deadline = moments[0] + settings.stack.start_timeout_s
    with Servers(stack) as servers:
        _await(servers.cache_answers, settings, stack, deadline, job)
        moments.append(time.monotonic())
        job.stage("loading the engine")
        _touch_memory(leftovers.home_tag(settings.home))
        _await(servers.engine_answers, settings, stack, deadline, job)
        moments.append(time.monotonic())
        job.stage("warming up")
        servers.touch_engine(_TOUCHED_BYTES)
        # Less than a chunk, so that nothing of it is stored.
        servers.complete(settings.stack.chunk_tokens - 8, settings.stack.start_timeout_s)
        moments.append(time.monotonic())
        facts = servers.cache_facts()
    members = {part: processes.tree(process) for part, process in stack.parts.items()}
    return stack.replace(
        phase="ready",
        members=members,
        leftovers=[*stack.leftovers, *leftovers.shm_segments(chain(*members.values()))],
        stages_s={
            stage: round(end - start, 2)
            for stage, (start, end) in zip(_STAGES, pairwise(moments), strict=True)
        },
        **facts,
    )


def _await(
    answers: Callable[[], bool | None],
    settings: Settings,
    stack: StackState,
    deadline: float,
    job: Job,
) -> None:
    while not answers():
        job.check()
        for part, process in stack.parts.items():
            if not processes.alive(process):
                raise _error(settings, part, f"{part} ended while it was starting")
        if time.monotonic() > deadline:
            limit = f"{settings.stack.start_timeout_s:g} s"
            raise _error(settings, "vllm", f"The stack was not ready within {limit}")
        time.sleep(_POLL_S)


def _error(settings: Settings, part: PartName, what: str) -> StackStartError:
    """Return an error with the line of the log that says most."""
    tail = logs(settings, part, lines=200)
    telling = [line for line in tail if _TELLING.search(line)]
    reason = (telling or tail or ["its log is empty"])[-1].strip()
    return StackStartError(f"{what}: {reason}", part=part, log=str(_log_file(settings, part)))


def _with_watchdog(settings: Settings, stack: StackState) -> StackState:
    if settings.stack.idle_stop_s is None:
        return stack
    argv = [sys.executable, "-P", "-m", "cwm_jupyter.stack.watchdog", str(settings.home)]
    process = processes.start(argv, log=_log_file(settings, "watchdog"), env=os.environ)
    return stack.replace(parts={**stack.parts, "watchdog": process})

"""Verbs of the stack: up, down, status, doctor, logs, connect."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cwm_jupyter.errors import StackError, ValidationError
from cwm_jupyter.parsing import natural
from cwm_jupyter.verbs.base import FrontEnd, Verb, argument

if TYPE_CHECKING:
    from cwm_jupyter.config import Settings
    from cwm_jupyter.core.job import Job
    from cwm_jupyter.core.models import Value
    from cwm_jupyter.stack.doctor import Finding
    from cwm_jupyter.stack.state import StackState, StackStatus
    from cwm_jupyter.workspace import Workspace

__all__ = ["VERBS", "start_stack"]


def start_stack(
    settings: Settings, job: Job, *, model: str | None = None, engine_args: Sequence[str] = ()
) -> StackState:
    """Start the local stack with some settings changed, see `cwm_jupyter.stack.launcher.up`.

    Raises
    ------
    StackError
        A stack with another model or other arguments is running.
    """
    import msgspec

    from cwm_jupyter.stack import launcher

    stack = settings.stack
    if model is not None:
        stack = msgspec.structs.replace(stack, model=model)
    if engine_args:
        stack = msgspec.structs.replace(stack, engine_args=tuple(engine_args))
    state = launcher.up(msgspec.structs.replace(settings, stack=stack), job)
    runs = state.settings.get("stack", {})
    asked = stack.model, stack.engine_args
    if state.already_running and (runs.get("model"), tuple(runs.get("engine_args", ()))) != asked:
        raise StackError(
            f"The stack is running already, with another model or arguments: {state.served_model}.",
            hint="Stop it first, with cwm down.",
        )
    return state


def _up(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> StackState:
    from cwm_jupyter.core.job import Job

    with front.progress() as watch:
        return start_stack(
            workspace.settings, Job("up", watch), model=args.model, engine_args=args.engine_args
        )


def _down(workspace: Workspace, _args: argparse.Namespace, front: FrontEnd) -> StackStatus:
    from cwm_jupyter.core.job import Job
    from cwm_jupyter.stack import launcher

    with front.progress() as watch:
        launcher.down(workspace.settings, Job("down", watch))
    return launcher.status(workspace.settings)


def _status(workspace: Workspace, _args: argparse.Namespace, _front: FrontEnd) -> StackStatus:
    from cwm_jupyter.stack import launcher

    return launcher.status(workspace.settings)


def _doctor(workspace: Workspace, _args: argparse.Namespace, _front: FrontEnd) -> list[Finding]:
    from cwm_jupyter.stack import doctor

    return doctor.diagnose(workspace.settings)


def _logs(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> Value:
    from cwm_jupyter.present import LogLines
    from cwm_jupyter.stack import launcher

    lines = launcher.logs(workspace.settings, args.part, args.lines)
    return LogLines(part=args.part, lines=lines)


def _connect(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> StackState:
    from cwm_jupyter.config import check_url
    from cwm_jupyter.stack import launcher

    key = None
    if args.api_key_env is not None:
        key = os.environ.get(args.api_key_env)
        if not key:
            raise ValidationError(f"The environment variable {args.api_key_env} is not set.")
    settings = workspace.settings
    engine = check_url(args.url, settings, what="URL")
    cache = check_url(args.lmcache_url, settings, what="LMCACHE_URL") if args.lmcache_url else None
    return launcher.connect(settings, engine, cache, key)


VERBS = (
    Verb(
        "up",
        "start the local stack: LMCache and vLLM",
        _up,
        [
            argument("--model", metavar="PATH", help="a model's folder (default: SmolLM2-135M)"),
            argument(
                "--engine-arg",
                dest="engine_args",
                action="append",
                default=[],
                metavar="ARG",
                help="one more argument for vLLM; may be repeated",
            ),
        ],
        ["", "--model ~/models/qwen3-0.6b --engine-arg=--max-model-len=16384"],
    ),
    Verb("down", "stop the stack, once all chunks are stored", _down),
    Verb("status", "show whether the stack runs, server by server", _status),
    Verb("doctor", "look for what would go wrong on this machine", _doctor),
    Verb(
        "logs",
        "show what a server of the local stack wrote last",
        _logs,
        [
            argument(
                "part",
                nargs="?",
                choices=("vllm", "lmcache"),
                default="vllm",
                metavar="SERVER",
                help="vllm or lmcache (default: vllm)",
            ),
            argument(
                "-n",
                dest="lines",
                type=natural,
                default=50,
                metavar="N",
                help="how many lines (default: 50)",
            ),
        ],
        ["", "lmcache -n 200"],
    ),
    Verb(
        "connect",
        "use a stack that others run",
        _connect,
        [
            argument("url", metavar="URL", help="of vLLM's server"),
            argument(
                "lmcache_url",
                nargs="?",
                metavar="LMCACHE_URL",
                help="of LMCache's HTTP server; without it nothing can be frozen",
            ),
            argument(
                "--api-key-env",
                metavar="VARIABLE",
                help="environment variable that holds the servers' API key",
            ),
        ],
        ["https://gpu.example:8000 https://gpu.example:8080 --api-key-env VLLM_KEY"],
    ),
)

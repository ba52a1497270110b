"""What is known of the stack: the file in which `up` leaves it, and what `status` makes of it.

The file lies in the home's ``run`` folder, readable by its owner alone, since it holds the key of
the servers. The kernel, the Jupyter server and the command line all read it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from cwm_jupyter.core.files import make_private_dir, write_atomic
from cwm_jupyter.core.models import Value
from cwm_jupyter.core.portable import long_path, read_bytes, remove
from cwm_jupyter.errors import redact
from cwm_jupyter.stack.processes import ProcessId

__all__ = [
    "PartName",
    "PartStatus",
    "StackPhase",
    "StackState",
    "StackStatus",
    "current",
    "forget",
    "save",
]

PartName = Literal["lmcache", "vllm", "watchdog"]
PartPhase = Literal["up", "starting", "dead", "unavailable"]
StackPhase = Literal["up", "starting", "degraded", "down"]


class StackState(Value, frozen=True, kw_only=True):
    """A stack that was started or connected to.

    `kv_model_name` is the model's name in LMCache's keys; `world_size` is the number of workers
    that the KV of a token is spread over. On a remote stack they are None where the servers did
    not tell. `api_key` opens both servers of a local stack: it is in no repr and in no `to_dict`.
    """

    kind: Literal["local", "remote"]
    phase: Literal["starting", "ready"]
    engine_url: str
    lmcache_url: str | None
    api_key: str | None = None
    served_model: str | None = None
    kv_model_name: str | None = None
    model_path: str | None = None
    chunk_tokens: int | None = None
    world_size: int | None = None
    store_dir: str | None = None
    #: the servers, by name, and all processes that belonged to each when it was ready
    parts: dict[PartName, ProcessId] = msgspec.field(default_factory=dict)
    members: dict[PartName, list[ProcessId]] = msgspec.field(default_factory=dict)
    #: segments in /dev/shm, files and folders to remove when the stack is gone
    leftovers: list[str] = msgspec.field(default_factory=list)
    logs: dict[str, str] = msgspec.field(default_factory=dict)
    started_at: str
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    #: what the start spent, one after the other
    stages_s: dict[str, float] = msgspec.field(default_factory=dict)
    #: `up` found this stack running; never in the file
    already_running: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the state JSON-ready, the key redacted."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        hidden: dict[str, Any] = redact({"api_key": self.api_key}) if self.api_key else {}
        return {**document, **hidden}

    def __repr__(self) -> str:
        return f"StackState({self.kind}, {self.phase}, {self.engine_url}, {self.served_model})"


class PartStatus(Value, frozen=True, kw_only=True):
    """One server of the stack at this moment."""

    name: PartName
    phase: PartPhase
    url: str | None
    since: str | None
    memory_bytes: int | None
    pid: int | None
    log: str | None


class StackStatus(Value, frozen=True, kw_only=True):
    """The stack at this moment. ``degraded``: a server is dead or does not answer."""

    phase: StackPhase
    kind: Literal["local", "remote"] | None = None
    model: str | None = None
    chunk_tokens: int | None = None
    store_dir: str | None = None
    parts: list[PartStatus] = msgspec.field(default_factory=list)
    stages_s: dict[str, float] = msgspec.field(default_factory=dict)


def current(home: Path) -> StackState | None:
    """Return the state that the last `up` or `connect` left, None where there is none.

    It says what was started, not what runs now: see `cwm_jupyter.stack.launcher.status`. A file
    that cannot be read counts as none: it describes processes, and nothing durable.
    """
    try:
        return msgspec.json.decode(read_bytes(_file(home)), type=StackState)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def save(home: Path, state: StackState) -> None:
    """Write the state, readable by its owner alone."""
    make_private_dir(_file(home).parent)
    write_atomic(_file(home), msgspec.json.encode(state), mode=0o600)


def forget(home: Path) -> None:
    """Remove the state."""
    remove(_file(home))


def _file(home: Path) -> Path:
    return long_path(home) / "run" / "stack.json"

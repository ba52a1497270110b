"""Start vLLM's processes by forking one that has imported everything.

vLLM for CPUs runs as three processes, and each of them imports the same for a quarter of a minute,
one after the other. Here it is imported once, by a process with a single thread that has computed
nothing yet; a fork server of that process then gives birth to the engine and its worker.

What a fork cannot do again is reading the OpenMP settings: libgomp does that when it is loaded, and
vLLM chooses them for its worker only after the imports. So the settings of a worker are noted, and
the next start loads libgomp with just them. A process that asks for other settings, as the worker
does at the very first start, is spawned in the usual way.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import socket
import sys
from multiprocessing import connection, context, forkserver, popen_forkserver, popen_spawn_posix
from pathlib import Path
from typing import Any

__all__ = ["EngineContext", "EngineProcess", "preload", "reexec", "serve_forks"]

# What libgomp reads when it is loaded, and what vLLM may set for a worker.
_OPENMP = (
    "OMP_NUM_THREADS",
    "OMP_PLACES",
    "OMP_PROC_BIND",
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "KMP_TPAUSE",
)
# What vLLM sets for its children before they import torch.
_INDUCTOR = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_CPP_DYNAMIC_THREADS": "1"}

_MODULES = (
    "vllm.entrypoints.launchers.api_server.entry",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.executor.multiproc_executor",
    "lmcache.integration.vllm.lmcache_mp_connector",
)

# Carries the settings as they were over `os.execv`.
_HANDOVER = "CWM_FORK_HANDOVER"

Openmp = dict[str, str | None]


class _Zygote:
    """What is known of the process that is forked from."""

    #: where a worker's settings are noted
    notes: Path
    #: the settings that libgomp was loaded with, and those of the environment before
    loaded: Openmp
    original: Openmp
    #: the cores of the process, and the one that libgomp bound its thread to
    cores: set[int]
    bound: set[int]


def reexec(notes: Path) -> None:
    """Begin this process anew, once, with an environment that can be forked from.

    libgomp is to be torch's own, for all of the process, and to have a worker's settings. OpenBLAS
    is to start no threads: a process with one thread forks without a doubt.

    Parameters
    ----------
    notes
        File with the settings of the last worker; it may be missing.
    """
    if _HANDOVER in os.environ:
        handover = json.loads(os.environ.pop(_HANDOVER))
        _Zygote.notes, _Zygote.loaded, _Zygote.original = notes, _openmp(), handover["openmp"]
        _Zygote.cores, _Zygote.bound = set(handover["cores"]), os.sched_getaffinity(0)
        os.sched_setaffinity(0, _Zygote.cores)
        _set(_Zygote.original)
        return
    handover = {"openmp": _openmp(), "cores": sorted(os.sched_getaffinity(0))}
    with contextlib.suppress(OSError, ValueError):
        _set(json.loads(notes.read_text()))
    os.environ.update(_INDUCTOR, OPENBLAS_NUM_THREADS="1", **{_HANDOVER: json.dumps(handover)})
    _preload_libgomp()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - no shell is wanted


def preload() -> None:
    """Import all that the three processes need, and make vLLM start processes through us."""
    from vllm.utils import system_utils

    system_utils.get_mp_context = EngineContext
    for name in _MODULES:
        importlib.import_module(name)
    # A worker looks at every attribute of every module that is known, and stumbles over one here:
    # an object that claims to have any attribute, a __dict__ too.
    sys.modules.pop("llvmlite.binding.ffi", None)


def serve_forks() -> None:
    """Fork off the server that further processes are forked from.

    It ends when all processes that could ask it have ended.
    """
    gc.collect()
    gc.freeze()  # or the first collection would write to, and so copy, every page
    listener = socket.socket(socket.AF_UNIX)
    # In a folder of the user's own, since TMPDIR is one.
    listener.bind(connection.arbitrary_address("AF_UNIX"))  # type: ignore[attr-defined]
    listener.listen()
    alive_r, alive_w = os.pipe()
    server: Any = forkserver._forkserver
    # Who asks for a process must not start another server, whoever's child it is.
    server.ensure_running = _nothing
    pid = os.fork()
    if pid == 0:
        os.close(alive_w)
        with contextlib.suppress(SystemExit):
            forkserver.main(listener.detach(), alive_r, [])
        os._exit(0)
    os.close(alive_r)
    server._forkserver_address = listener.getsockname()
    server._forkserver_alive_fd = alive_w
    listener.close()


class EngineProcess(context.ForkServerProcess):
    """A process of vLLM's: forked where its OpenMP settings allow that, else spawned."""

    def start(self) -> None:
        """Start it with the environment as it is now, as a spawned process would be."""
        wanted = _openmp()
        self._environment = dict(os.environ)
        self._cores: set[int] | None = None
        if wanted == _Zygote.original:
            self._cores = _Zygote.cores
        elif wanted == _Zygote.loaded:
            self._cores = _Zygote.bound
        else:
            _Zygote.notes.parent.mkdir(parents=True, exist_ok=True)
            _Zygote.notes.write_text(json.dumps(wanted))
        super().start()

    @staticmethod
    def _Popen(process: Any) -> Any:  # noqa: N802 - the name of multiprocessing's own hook
        spawned = process._cores is None
        return (popen_spawn_posix if spawned else popen_forkserver).Popen(process)

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        if self._cores is not None:
            os.environ.clear()
            os.environ.update(self._environment)
            os.sched_setaffinity(0, self._cores)
        return super()._bootstrap(parent_sentinel)  # type: ignore[misc, no-any-return]


class EngineContext(context.ForkServerContext):
    """What vLLM takes for multiprocessing's context of its start method."""

    Process = EngineProcess


def _openmp() -> Openmp:
    return {name: os.environ.get(name) for name in _OPENMP}


def _set(settings: Openmp) -> None:
    for name, value in settings.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _preload_libgomp() -> None:
    """Have torch's libgomp loaded before all else, as vLLM does it for its workers."""
    torch = importlib.util.find_spec("torch")
    given = os.environ.get("LD_PRELOAD", "")
    if torch is not None and torch.origin and "libgomp" not in given:
        library = Path(torch.origin).parent / "lib" / "libgomp.so.1"
        if library.is_file():
            os.environ["LD_PRELOAD"] = f"{given}:{library}".strip(":")


def _nothing() -> None: ...

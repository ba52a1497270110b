"""What could go wrong, or does: ``cwm doctor``. It looks and changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import psutil

from cwm_jupyter.config import Settings
from cwm_jupyter.core.audit import Audit
from cwm_jupyter.core.models import Value
from cwm_jupyter.errors import CWMError
from cwm_jupyter.stack import environment, state
from cwm_jupyter.stack.commands import computes_in_float32
from cwm_jupyter.stack.cpu import cpu_features, slow_in_bfloat16
from cwm_jupyter.stack.launcher import status
from cwm_jupyter.stack.leftovers import SHM_DIR
from cwm_jupyter.stack.model import find_model
from cwm_jupyter.stack.servers import Servers

__all__ = ["Finding", "diagnose"]

_MODEL_BYTES = 600_000_000  # the embedded one, while it is converted
_EMBEDDED_WEIGHTS_BYTES = 270_000_000  # what it has then
_ENGINE_BYTES = 3 * 2**30  # both servers, without their caches and the weights
Level = Literal["ok", "warn", "error"]
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre"})
_WEIGHTS = ("*.safetensors", "*.bin")  # vLLM takes the first kind that there is
#: user ids of people: macOS counts from 501; and that of nobody, on either
_FIRST_PERSON = 500 if sys.platform == "darwin" else 1000
_NOBODY = frozenset({65534, 2**32 - 2})


class Finding(Value, frozen=True, kw_only=True):
    """One thing that was looked at, and the figures that it was judged by."""

    id: str
    level: Level
    what: str
    hint: str | None = None
    figures: dict[str, Any] = msgspec.field(default_factory=dict)


def diagnose(settings: Settings) -> list[Finding]:
    """Look at everything that the local stack depends on.

    Returns
    -------
    list of Finding
        The good ones too; a check that cannot be made says so in a warning.
    """
    running = state.current(settings.home)
    checks: list[Callable[[], Iterator[Finding]]] = [lambda: _platform(settings)]
    local = environment.has_engine(settings)
    if local:
        checks += [lambda: _environment(settings), lambda: _model(settings)]
    checks.append(lambda: _disk(settings))
    if local and running is None:  # what a running stack has taken is not missing
        checks += [lambda: _memory(settings), lambda: _shared_memory(settings)]
    checks += [lambda: _file_systems(settings), lambda: _users(), lambda: _audit(settings)]
    checks.append(lambda: _stack(settings))
    if local and (running is None or running.kind == "local"):
        checks.append(lambda: _ports(running))
    if running is not None:
        checks += [lambda: _transfer(running), lambda: _exactness(running)]
    return [finding for check in checks for finding in _made(check)]


def _made(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except (OSError, psutil.Error) as error:
        return [Finding(id="unavailable", level="warn", what=f"A check could not be made: {error}")]


def _platform(settings: Settings) -> Iterator[Finding]:
    system = f"{sys.platform} {platform.machine()}"
    if not environment.has_engine(settings):
        yield Finding(
            id="platform",
            level="warn",
            what=f"There is no local engine for {system}.",
            hint="Connect to a stack that runs elsewhere: cwm connect URL.",
        )
        return
    kind = environment.engine_kind()
    yield Finding(
        id="platform",
        level="ok",
        what=f"{system}, {os.cpu_count()} cores, engine for {kind.upper()}",
        figures={"cores": os.cpu_count(), "kind": kind},
    )
    features = cpu_features() if kind == "cpu" else None
    if features is not None:
        slow = slow_in_bfloat16()
        yield Finding(
            id="cpu",
            level="warn" if slow else "ok",
            what="The processor has no AVX-512." if slow else "The processor has AVX-512.",
            hint="The engine works with AVX2, in float32 where you choose no --dtype: slower, and "
            "with twice the bytes a token."
            if slow
            else None,
            figures={
                name: name in features for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
            },
        )


def _environment(settings: Settings) -> Iterator[Finding]:
    python = settings.stack.python or environment.built_python(settings)
    if python is None:
        yield Finding(
            id="environment",
            level="warn",
            what="The engine environment is not built yet.",
            hint="cwm up builds it: "
            f"{environment.BUILD_DOWNLOAD_BYTES / 1e9:.0f} GB to download, "
            f"{environment.BUILD_DISK_BYTES / 1e9:.1f} GB on disk.",
        )
        return
    try:
        versions = environment.installed_versions(python)
    except CWMError as error:
        yield Finding(id="environment", level="error", what=error.message, hint=error.hint)
        return
    missing = [name for name in ("vllm", "lmcache") if versions[name] is None]
    yield Finding(
        id="environment",
        level="error" if missing else "ok",
        what=f"The engine environment lacks {' and '.join(missing)}."
        if missing
        else f"vLLM {versions['vllm']}, LMCache {versions['lmcache']}, torch {versions['torch']}",
        hint="Install it there, or unset stack.python." if missing else None,
        figures=dict(versions),
    )


def _model(settings: Settings) -> Iterator[Finding]:
    try:
        model = find_model(settings)
    except CWMError as error:
        yield Finding(id="model", level="error", what=error.message, hint=error.hint)
        return
    if model is None:
        yield Finding(
            id="model",
            level="warn",
            what="The embedded model is not there yet.",
            hint="cwm up fetches it: 93 MB to download.",
        )
    else:
        yield Finding(id="model", level="ok", what=f"The model {model.name} is there.")


def _disk(settings: Settings) -> Iterator[Finding]:
    if environment.has_engine(settings):
        needed = 0
        if settings.stack.python is None and environment.built_python(settings) is None:
            needed += environment.BUILD_DISK_BYTES
        if settings.stack.model is None:
            needed += _MODEL_BYTES
        what = "the engine environment and the model"
        yield _room("disk.cache", what, settings.cache_dir, needed)
    # A window of 8,192 tokens of a small model takes about 0.2 GB.
    yield _room("disk.vault", "the vault", settings.vault_dir, 2 * 10**9)


def _room(name: str, what: str, folder: Path, needed: int) -> Finding:
    free = shutil.disk_usage(_existing(folder)).free
    good = free >= needed
    return Finding(
        id=name,
        level="ok" if good else "error",
        what=f"{free / 1e9:.1f} GB free for {what} in {folder}",
        hint=None if good else f"About {needed / 1e9:.1f} GB are needed there.",
        figures={"free_bytes": free, "needed_bytes": needed},
    )


def _memory(settings: Settings) -> Iterator[Finding]:
    free = psutil.virtual_memory().available
    stack = settings.stack
    on_gpu = environment.engine_kind() == "gpu"  # which has the weights, and the engine's cache
    caches = int((stack.memory_gib + (0 if on_gpu else stack.kv_cache_gib)) * 2**30)
    weights = 0 if on_gpu else _weights_bytes(settings)
    needed = caches + _ENGINE_BYTES + weights
    good = free >= needed
    yield Finding(
        id="memory",
        level="ok" if good else "warn",
        what=f"{free / 1e9:.1f} GB of memory available, about {needed / 1e9:.1f} GB needed, "
        f"{weights / 1e9:.1f} GB of it for the model",
        hint=None
        if good
        else "Lower stack.kv_cache_gib or stack.memory_gib, or choose a smaller model.",
        figures={"free_bytes": free, "needed_bytes": needed, "weights_bytes": weights},
    )


def _weights_bytes(settings: Settings) -> int:
    """Return what the model's weights take in memory: their files, twice that in float32."""
    try:
        model = find_model(settings)
    except CWMError:  # which another check tells of
        return 0
    if model is None:
        return _EMBEDDED_WEIGHTS_BYTES * (2 if slow_in_bfloat16() else 1)
    kinds = ([path.stat().st_size for path in model.path.glob(kind)] for kind in _WEIGHTS)
    size = sum(next(filter(None, kinds), []))
    return size * (2 if computes_in_float32(model.path) else 1)


def _shared_memory(settings: Settings) -> Iterator[Finding]:
    if not SHM_DIR.is_dir():
        yield Finding(
            id="shm",
            level="error",
            what=f"There is no {SHM_DIR}; LMCache and the engine share memory there.",
        )
        return
    usage = shutil.disk_usage(SHM_DIR)
    # LMCache's own memory, and vLLM's queues between its processes.
    needed = int(settings.stack.memory_gib * 2**30) + 500 * 2**20
    good = usage.free >= needed
    yield Finding(
        id="shm",
        level="ok" if good else "error",
        what=f"{usage.free / 1e9:.1f} GB free in {SHM_DIR}, about {needed / 1e9:.1f} GB needed",
        hint=None
        if good
        else f"Lower stack.memory_gib, or enlarge {SHM_DIR} (in a container: --shm-size).",
        figures={"free_bytes": usage.free, "total_bytes": usage.total, "needed_bytes": needed},
    )


def _file_systems(settings: Settings) -> Iterator[Finding]:
    for name, folder in (("home", settings.home), ("vault", settings.vault_dir)):
        kind = _file_system(_existing(folder))
        network = kind is not None and (kind in _NETWORK or kind.startswith("fuse."))
        yield Finding(
            id=f"filesystem.{name}",
            level="warn" if network or kind is None else "ok",
            what=f"The {name} lies on {kind or 'a file system that cannot be told'}: {folder}",
            hint="Locks and durable writes are not certain on network file systems: choose a "
            f"local disk with {'CWM_HOME' if name == 'home' else 'storage.vault_dir'}."
            if network
            else None,
            figures={"filesystem": kind},
        )


def _file_system(folder: Path) -> str | None:
    real = folder.resolve()
    if real.drive.startswith("\\\\"):  # a share of Windows, which is no partition
        return "smbfs"
    # A share of Windows under a letter calls itself after the other machine's file system.
    mounts = {
        Path(one.mountpoint): "smbfs" if "remote" in one.opts.split(",") else one.fstype
        for one in psutil.disk_partitions(all=True)
    }
    return next((mounts[place] for place in (real, *real.parents) if place in mounts), None)


def _users() -> Iterator[Finding]:
    others = sorted(_other_users())
    yield Finding(
        id="users",
        level="warn" if others else "ok",
        what=f"Other users run programs on this machine: {', '.join(others[:5])}"
        f"{', …' if len(others) > 5 else ''}."
        if others
        else "No other user runs programs on this machine.",
        hint="They share the loopback interface. Without the key in your home the servers tell "
        "them nothing, but they see that these run; see docs/security.md."
        if others
        else None,
        figures={"others": len(others)},
    )


def _other_users() -> set[str]:
    """Return the names of the people, not services, who have processes here."""
    if os.name == "nt":
        return set()
    found = set()
    not_others = _NOBODY | {os.geteuid()}
    for process in psutil.process_iter(["uids", "username"]):
        uids = process.info["uids"]
        if uids is not None and uids.real >= _FIRST_PERSON and uids.real not in not_others:
            found.add(process.info["username"])
    return found


def _audit(settings: Settings) -> Iterator[Finding]:
    """Whether the log of changes is as it was written."""
    try:
        report = Audit(settings.home).read(verdict_only=True)
    except CWMError as error:
        hint = error.hint or "Changes cannot be written down until it can be opened."
        yield Finding(id="audit", level="warn", what=error.message, hint=hint)
        return
    empty = report.intact and not report.lines
    verdict = {
        True: "is intact",
        False: f"is not as it was written ({report.fault_count} faults)",
        None: "cannot be checked as a whole",
    }[report.intact]
    yield Finding(
        id="audit",
        level="ok" if report.intact else "warn",
        what="The audit log is empty." if empty else f"The audit log {verdict}.",
        hint=None if report.intact else "cwm admin audit --check tells what and where.",
        figures={"lines": report.lines, "faults": report.fault_count},
    )


def _stack(settings: Settings) -> Iterator[Finding]:
    now = status(settings)
    if now.phase == "down":
        yield Finding(id="stack", level="ok", what="No stack is running.")
        return
    dead = [part.name for part in now.parts if part.phase in ("dead", "unavailable")]
    yield Finding(
        id="stack",
        level="error" if dead else "ok",
        what=f"{' and '.join(dead)} died or does not answer."
        if dead
        else f"The {now.kind} stack is {now.phase}, with {now.model}.",
        hint="cwm up starts both servers anew; see cwm logs." if dead else None,
        figures={part.name: part.phase for part in now.parts},
    )


def _ports(running: state.StackState | None) -> Iterator[Finding]:
    """Whether the loopback interface has ports to give, or which ones the stack has."""
    if running is not None:
        urls = [url for url in (running.engine_url, running.lmcache_url) if url]
        yield Finding(id="ports", level="ok", what=f"The stack listens at {' and '.join(urls)}.")
        return
    try:
        with socket.create_server(("127.0.0.1", 0)):
            yield Finding(id="ports", level="ok", what="There are free ports on 127.0.0.1.")
    except OSError as error:
        yield Finding(
            id="ports",
            level="error",
            what=f"No port can be had on 127.0.0.1: {error.strerror}.",
            hint="The servers listen there: a container or a firewall may forbid it.",
        )


def _transfer(running: state.StackState) -> Iterator[Finding]:
    """Whether the engine has registered with LMCache, and so hands its KV over."""
    if running.lmcache_url is None:
        return
    with Servers(running) as servers:
        cache = servers.cache_status()
    if cache is None:
        return  # that it does not answer is another finding
    if cache.get("cache_context_meta") or cache.get("non_cuda_context_meta"):
        way = "through shared memory" if cache.get("non_cuda_context_meta") else "on the device"
        what = f"The engine hands its KV to LMCache {way}."
        yield Finding(id="transfer", level="ok", what=what)
        return
    yield Finding(
        id="transfer",
        level="error",
        what="No engine has registered with LMCache: nothing is kept.",
        hint="Restart both, LMCache first; it needs --supported-transfer-mode auto.",
    )


def _exactness(running: state.StackState) -> Iterator[Finding]:
    """Whether what is frozen on the running engine can be exact."""
    with Servers(running) as servers:
        facts, cache = servers.engine_facts(), servers.cache_status()
    if facts is None:
        yield Finding(
            id="exact",
            level="warn",
            what="The engine does not tell what it is, so its fingerprint is largely unknown.",
            hint="Only the local stack and servers with our middleware tell that.",
        )
        return
    block, chunk = facts.get("block_tokens"), (cache or {}).get("chunk_size")
    level: Level = "ok"
    what = "The engine's state can be kept exactly."
    if not facts.get("exact"):
        level, what = "error", f"This model cannot be kept exactly: {facts.get('why_inexact')}."
    elif chunk is not None and block != chunk:
        level = "warn"
        what = f"Blocks of {block} tokens and chunks of {chunk}: a thaw continues inexactly."
    yield Finding(
        id="exact",
        level=level,
        what=what,
        hint=None if level == "ok" else "Choose a model with full attention, chunk = block size.",
        figures={"block_tokens": block, "chunk_tokens": chunk},
    )


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())

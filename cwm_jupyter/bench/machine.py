"""The machine: what it is, and how fast it reads, writes and copies at best."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil

from cwm_jupyter._version import __version__
from cwm_jupyter.core.models import now
from cwm_jupyter.stack.cpu import cpu_features

__all__ = ["Bounds", "describe", "load", "measure_bounds"]

_PIECE_BYTES = 1 << 20
_REPETITIONS = 5
#: what makes a difference to an engine on a processor
_TELLING = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes a second of one thread: from the page cache, to the disk and synced, in memory."""

    read_bytes_per_s: float
    write_bytes_per_s: float
    copy_bytes_per_s: float


def measure_bounds(folder: Path, size_bytes: int) -> Bounds:
    """Measure the machine with a file in `folder`, which is removed.

    Parameters
    ----------
    folder
        On the disk that chunks are kept on.
    size_bytes
        Of the file; a window's worth.
    """
    path = folder / "bounds.tmp"
    source, target = memoryview(bytearray(os.urandom(_PIECE_BYTES))), bytearray(size_bytes)
    view = memoryview(target)

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for _ in range(0, size_bytes, _PIECE_BYTES):
                file.write(source)
            os.fsync(file.fileno())

    def read() -> None:
        with path.open("rb", buffering=0) as file:
            done = 0
            while count := file.readinto(view[done : done + _PIECE_BYTES]):
                done += count

    other = bytearray(size_bytes)

    def copy() -> None:
        view[:] = other

    try:
        write_s, read_s, copy_s = _median_s(write), _median_s(read), _median_s(copy)
    finally:
        view.release()
        path.unlink(missing_ok=True)
    return Bounds(
        read_bytes_per_s=size_bytes / read_s,
        write_bytes_per_s=size_bytes / write_s,
        copy_bytes_per_s=size_bytes / copy_s,
    )


def describe(folder: Path, bounds: Bounds) -> dict[str, Any]:
    """Return what matters about the machine, JSON-ready; None is what the system does not tell."""
    features = cpu_features()
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "flags": None if features is None else [f for f in _TELLING if f in features],
        "memory_bytes": psutil.virtual_memory().total,
        "disk": _disk(folder),
        "system": f"{platform.system()} {platform.machine()}",
        "load": load(),
        "measured_at": now(),
        "bounds": msgspec.to_builtins(bounds),
        "versions": {"cwm-jupyter": __version__, "python": platform.python_version()},
    }


def load() -> float | None:
    """Return how many processes wanted a core in the last minute; None where that is not known."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _median_s(work: Callable[[], None]) -> float:
    times = []
    for _ in range(_REPETITIONS + 1):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])  # the first one also makes pages


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _disk(folder: Path) -> str | None:
    """Return the kind of file system that a folder is on."""
    resolved = folder.resolve()
    mounted = [
        part
        for part in psutil.disk_partitions(all=True)
        if resolved.is_relative_to(part.mountpoint)
    ]
    return max(mounted, key=lambda part: len(part.mountpoint)).fstype if mounted else None

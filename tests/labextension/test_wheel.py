"""The wheel brings the JupyterLab extension, prebuilt: who installs it needs no Node."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest
from extension import ROOT, ensure_built, environ, run

import cwm_jupyter
from cwm_jupyter.stack.environment import uv_binary

_PLACE = "data/share/jupyter/labextensions/cwm-jupyter/"
_LIMIT_BYTES = 100_000


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and an sdist of the checkout."""
    ensure_built()  # the build below has the tools, and leaves what was there
    folder = tmp_path_factory.mktemp("dist")
    _build(ROOT, folder, environ(), "wheel", "sdist")
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    """The wheel."""
    (wheel,) = dist.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def extension(wheel: Path) -> dict[str, bytes]:
    """What the wheel puts where JupyterLab looks: content by name."""
    with ZipFile(wheel) as archive:
        return {
            name.partition(_PLACE)[2]: archive.read(name)
            for name in archive.namelist()
            if _PLACE in name
        }


@pytest.fixture(scope="module")
def bare(dist: Path, wheel: Path) -> dict[str, str]:
    """The environment of a fresh venv with the wheel, and without Node.

    What the wheel depends on is that of the tests' environment, behind the venv's own.
    """
    folder = dist / "venv"
    venv.create(folder)
    python = _python(folder)
    site = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    lent = sysconfig.get_path("purelib")
    Path(site.strip(), "lent.pth").write_text(f"{lent}\n")
    quiet = ("--quiet", "--offline", "--no-deps")
    run(uv_binary(), "pip", "install", *quiet, "--python", python, str(wheel), env=environ())
    private = {
        name: str(dist / name.lower())
        for name in ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    }
    return {**private, "PATH": str(Path(python).parent), "JUPYTER_NO_CONFIG": "0"}


def test_the_wheel_holds_built_javascript(extension: dict[str, bytes]) -> None:
    scripts = [name for name in extension if name.startswith("static/remoteEntry.")]
    assert len(scripts) == 1
    assert {"package.json", "install.json", "schemas/cwm-jupyter/plugin.json"} <= set(extension)


def test_nothing_that_users_do_not_need_is_in_the_wheel(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    unwanted = (".map", ".ts", ".spec.js", "__tests__", "node_modules", "cwm_jupyter/labextension/")
    assert [name for name in names for word in unwanted if word in name] == []


def test_all_but_plotly_is_small(extension: dict[str, bytes]) -> None:
    scripts = {name: text for name, text in extension.items() if name.endswith(".js")}
    ours = {name: len(text) for name, text in scripts.items() if not _is_plotly(text)}
    assert sum(ours.values()) < _LIMIT_BYTES, ours


def test_jupyter_finds_both_extensions_without_node(bare: dict[str, str]) -> None:
    lab = _jupyter(bare, "jupyterlab.labextensions", "list")
    assert f"cwm-jupyter v{cwm_jupyter.__version__} enabled OK (python, cwm-jupyter)" in lab
    server = _jupyter(bare, "jupyter_server.extension.serverextension", "list")
    assert f"cwm_jupyter {cwm_jupyter.__version__} OK" in server


def test_a_wheel_of_the_sdist_is_the_same_and_needs_no_node(dist: Path, wheel: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    (dist / "unpacked").mkdir()
    run("tar", "-xzf", str(sdist), cwd=dist / "unpacked", env=environ())
    (sources,) = (dist / "unpacked").iterdir()
    _build(sources, dist / "again", {**os.environ, "PATH": str(dist)}, "wheel")
    with ZipFile(wheel) as first, ZipFile(dist / "again" / wheel.name) as again:
        assert _contents(first) == _contents(again)


def _is_plotly(script: bytes) -> bool:
    """Return whether this is Plotly's chunk, by what it calls its own properties."""
    return script.count(b"_fullLayout") > 20


def _contents(archive: ZipFile) -> dict[str, int]:
    return {info.filename: info.CRC for info in archive.infolist()}


def _build(sources: Path, folder: Path, environment: dict[str, str], *targets: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    chosen = [word for target in targets for word in ("-t", target)]
    run(*command, *chosen, cwd=sources, env=environment)


def _jupyter(environment: dict[str, str], module: str, *arguments: str) -> str:
    """Return what a command of Jupyter's says, without its colours."""
    binaries = Path(environment["PATH"])
    said = run(str(binaries / "python"), "-m", module, *arguments, cwd=binaries, env=environment)
    return re.sub(r"\x1b\[[\d;]*m", "", said)


def _python(folder: Path) -> str:
    return str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")

"""A real JupyterLab or Notebook 7 on a private configuration, and a real browser in front of it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import nbformat
from extension import ROOT, SOURCES, ensure_built
from playwright.sync_api import Browser, Page, Playwright

__all__ = [
    "Lab",
    "browser",
    "free_port",
    "private_jupyter",
    "running_lab",
    "serious",
    "serving",
    "shoot",
    "use_dark",
]

#: what the pages looked like in the last run, for people
_SHOTS = Path(__file__).parent / ".shots"

_FONTS = "fonts-dejavu-core"
#: a first widget took 13 to 21 s on two busy cores
PATIENCE_MS = 90_000


@dataclass(frozen=True)
class Lab:
    """A running server; `folder` is where its notebooks lie."""

    url: str
    token: str
    folder: Path

    def notebook(self, name: str, *cells: str) -> Path:
        """Write a notebook with these cells."""
        document = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in cells])
        document.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        path = self.folder / name
        nbformat.write(document, path)
        return path

    def open(self, page: Page, name: str, *, place: str = "lab/tree") -> None:
        """Open a notebook, and wait until its kernel is ready."""
        reset = "&reset" if place.startswith("lab") else ""
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{self.url}/{place}/{name}?token={self.token}{reset}")
        page.wait_for_function(
            """() => {
                const app = window.jupyterapp;
                const widget = app && app.shell.currentWidget;
                const context = widget && widget.context && widget.context.sessionContext;
                return context && context.isReady && context.session && context.session.kernel
                    && context.session.kernel.status === "idle";
            }""",
            timeout=PATIENCE_MS,
        )

    def open_lab(self, page: Page) -> None:
        """Open JupyterLab, with nothing in it."""
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{self.url}/lab?token={self.token}&reset")
        page.wait_for_function(
            "() => window.jupyterapp && window.jupyterapp.shell.widgets('main').next().value",
            timeout=PATIENCE_MS,
        )

    def api(self, page: Page, method: str, path: str, body: object = None) -> object:
        """Ask the server extension, as another client would."""
        response = page.request.fetch(
            f"{self.url}/cwm/api/v1/{path}",
            method=method,
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
            data=None if body is None else json.dumps(body),
        )
        assert response.ok, response.text()
        return response.json()

    def command(self, page: Page, name: str) -> None:
        """Run one of Lab's commands, without waiting for what it returns."""
        page.evaluate("name => void window.jupyterapp.commands.execute(name)", name)


def private_jupyter(folder: Path) -> dict[str, str]:
    """Return an environment that lets Jupyter keep all it has in a folder.

    It has the checkout's server extension and JupyterLab extension, as users get them.
    """
    private = {
        name: str(folder / name.lower())
        for name in (
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_DATA_DIR",
            "JUPYTER_RUNTIME_DIR",
            "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
            "IPYTHONDIR",
        )
    }
    quiet = Path(private["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab", "apputils-extension")
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    extensions = Path(private["JUPYTER_DATA_DIR"], "labextensions")
    extensions.mkdir(parents=True)
    (extensions / "cwm-jupyter").symlink_to(ensure_built(), target_is_directory=True)
    enabled = Path(private["JUPYTER_CONFIG_DIR"], "jupyter_server_config.d")
    shutil.copytree(ROOT / "jupyter-config" / "server-config", enabled)
    return private


@contextmanager
def running_lab(folder: Path, environ: dict[str, str]) -> Iterator[Lab]:
    """Run JupyterLab, which serves Notebook 7 too, in a folder; stopped at the end."""
    notebooks = folder / "notebooks"
    notebooks.mkdir(parents=True)
    private = private_jupyter(folder)
    token, port = secrets.token_hex(16), free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        *("lab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"),
        *("--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"),
        *("--expose-app-in-browser", "--JupyterNotebookApp.expose_app_in_browser=True"),
        *("--allow-root", f"--ServerApp.root_dir={notebooks}"),
    ]
    with serving(
        [sys.executable, "-m", "jupyter", *command],
        {**private, **environ},
        f"{url}/api/status?token={token}",
        folder / "lab.log",
    ):
        yield Lab(url, token, notebooks)


@contextmanager
def serving(command: list[str], environ: dict[str, str], url: str, log: Path) -> Iterator[None]:
    """Run a server, from when this URL is answered with 200; stopped at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **environ}, stdout=output, stderr=output
        )
        try:
            _await(url, process, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def browser(playwright: Playwright) -> Browser:
    """Start a browser: the machine's Chromium, else Debian's package, else playwright's own."""
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
    installed = _chromium()
    if installed is None and os.geteuid() == 0 and shutil.which("apt-get"):
        _run("apt-get", "update", "-q")
        _run("apt-get", "install", "-qy", "--no-install-recommends", "chromium", _FONTS)
        installed = _chromium()
    if installed is None:
        _run(sys.executable, "-m", "playwright", "install", "chromium")
    return playwright.chromium.launch(executable_path=installed, args=arguments)


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


def _run(*command: str) -> None:
    """Run a command that installs something; where it fails, the browser's start tells."""
    subprocess.run(command, check=False, timeout=600, stdout=subprocess.DEVNULL)


def shoot(page: Page, name: str) -> None:
    """Keep a picture of the page."""
    _SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=_SHOTS / f"{name}.png")


def use_dark(page: Page) -> None:
    """Change to Lab's dark theme, and wait until it is there."""
    page.evaluate(
        "() => void window.jupyterapp.commands.execute("
        "'apputils:change-theme', {theme: 'JupyterLab Dark'})"
    )
    page.wait_for_function("() => document.body.dataset.jpThemeName === 'JupyterLab Dark'")
    page.wait_for_timeout(1500)  # it fades in


def serious(page: Page, selector: str) -> list[str]:
    """Return what axe-core finds in a part of the page that is serious or worse."""
    page.evaluate((SOURCES / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("selector => axe.run(selector)", selector)
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes']]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx2.get(url, trust_env=False).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"The server did not start: {log.read_text(errors='replace')[-2000:]}")

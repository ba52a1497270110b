"""A real JupyterHub with its proxy: who logs in gets a JupyterLab behind it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from browser.lab import PATIENCE_MS, free_port, private_jupyter, serving
from extension import SOURCES
from extension import environ as with_node
from playwright.sync_api import Page

__all__ = ["Hub", "running_hub"]

_READY = "() => window.jupyterapp && window.jupyterapp.shell.widgets('main').next().value"


@dataclass(frozen=True)
class Hub:
    """A running hub."""

    url: str

    def api(self, user: str) -> str:
        """Where our server extension is in a user's server."""
        return f"{self.url}/user/{user}/cwm/api/v1"

    def log_in(self, page: Page, user: str) -> None:
        """Log in by the hub's page, which starts the user's server."""
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{self.url}/hub/login")
        page.fill("[name=username]", user)
        page.fill("[name=password]", "any")
        page.click("[type=submit]")

    def open_lab(self, page: Page, user: str) -> None:
        """Log in, and wait for JupyterLab."""
        self.log_in(page, user)
        page.wait_for_function(_READY, timeout=PATIENCE_MS)


@contextmanager
def running_hub(folder: Path, environ: dict[str, str]) -> Iterator[Hub]:
    """Run a hub in a folder, below a base URL of its own; `environ` is that of users' servers.

    Everybody may log in; all servers belong to the user that the tests run as.
    """
    url = f"http://127.0.0.1:{free_port()}/team"
    servers = Path(sys.executable).parent
    config = {
        "JupyterHub": {
            "bind_url": f"{url}/",
            "hub_bind_url": f"http://127.0.0.1:{free_port()}",
            "db_url": f"sqlite:///{folder / 'hub.sqlite'}",
            "cookie_secret_file": str(folder / "cookie"),
            "authenticator_class": "dummy",
            "spawner_class": "simple",
        },
        "ConfigurableHTTPProxy": {
            "command": [str(SOURCES / "node_modules" / ".bin" / "configurable-http-proxy")],
            "api_url": f"http://127.0.0.1:{free_port()}",
            "pid_file": str(folder / "proxy.pid"),
        },
        "Authenticator": {"allow_all": True},
        "SimpleLocalProcessSpawner": {"home_dir_template": f"{folder}/homes/{{username}}"},
        "Spawner": {
            "cmd": [str(servers / "jupyterhub-singleuser")],
            "args": ["--allow-root", "--LabApp.expose_app_in_browser=True"],
            "default_url": "/lab",
            "environment": {**private_jupyter(folder), **environ},
            "start_timeout": 90,
            "http_timeout": 90,
        },
    }
    file = folder / "jupyterhub_config.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    command = [str(servers / "jupyterhub"), "--config", str(file)]
    proxy = {"PATH": with_node()["PATH"]}
    with serving(command, proxy, f"{url}/hub/api/", folder / "hub.log"):
        yield Hub(url)

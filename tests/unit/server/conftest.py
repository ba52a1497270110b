"""A Jupyter server with the extension, in the test's own event loop, on a fake stack."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from fake_stack import FakeStack
from jupyter_server.auth import Authorizer
from pytest_jupyter.jupyter_core import (  # noqa: F401
    echo_kernel_spec,
    jp_config_dir,
    jp_data_dir,
    jp_env_config_path,
    jp_env_jupyter_path,
    jp_environ,
    jp_home_dir,
    jp_kernel_dir,
    jp_runtime_dir,
    jp_system_config_path,
    jp_system_jupyter_path,
)
from pytest_jupyter.jupyter_server import (  # noqa: F401
    jp_argv,
    jp_auth_header,
    jp_base_url,
    jp_configurable_serverapp,
    jp_fetch,
    jp_http_port,
    jp_logging_stream,
    jp_nbconvert_templates,
    jp_root_dir,
    jp_server_cleanup,
    jp_serverapp,
    jp_web_app,
)
from pytest_jupyter.pytest_tornasync import (  # noqa: F401
    http_server,
    http_server_client,
    http_server_port,
)
from tornado.httpclient import HTTPClientError
from tornado.httputil import HTTPHeaders

from cwm_jupyter.server.app import CWMServer
from cwm_jupyter.server.service import Service


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the Jupyter server say what is deprecated in itself."""
    for item in items:
        if __file__.rpartition("/")[0] in str(item.path):
            for module in ("jupyter_server", "jupyter_events", "traitlets", "zmq"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::DeprecationWarning:{module}"))


class Recorded(Authorizer):
    """Notes what it is asked, and allows it where `allows`."""

    allows = True
    asked: list[tuple[str, str]] = []  # noqa: RUF012

    def is_authorized(self, handler: Any, user: Any, action: str, resource: str) -> bool:
        del handler, user
        self.asked.append((action, resource))
        return type(self).allows


@pytest.fixture
def authorizer(monkeypatch: pytest.MonkeyPatch) -> type[Recorded]:
    """Who allows all, until a test says otherwise."""
    monkeypatch.setattr(Recorded, "allows", True)
    monkeypatch.setattr(Recorded, "asked", [])
    return Recorded


@pytest.fixture
async def jp_asyncio_loop() -> asyncio.AbstractEventLoop:
    """The test's own loop: the server runs in it, and no plugin brings another."""
    return asyncio.get_running_loop()


@pytest.fixture
def jp_server_config(fake_stack: FakeStack, authorizer: type[Recorded]) -> dict[str, Any]:
    """A server with the extension and nothing else, which lets nobody in unasked."""
    del fake_stack
    return {
        "ServerApp": {
            "jpserver_extensions": {"cwm_jupyter": True, "jupyter_server_terminals": False},
            "allow_unauthenticated_access": False,
            "authorizer_class": authorizer,
        }
    }


class Answer(NamedTuple):
    """What the server answered."""

    status: int
    document: Any
    headers: HTTPHeaders
    body: bytes


Call = Callable[..., Awaitable[Answer]]


@pytest.fixture
def call(jp_fetch: Any) -> Call:  # noqa: F811
    """Ask the API and return the answer, whatever its status."""

    async def call(method: str, path: str, document: Any = None, **more: Any) -> Answer:
        if method in ("POST", "PATCH") and "body" not in more:
            more["body"] = "" if document is None else json.dumps(document)
        if "body" in more:
            more["headers"] = {"Content-Type": "application/json", **more.get("headers", {})}
        try:
            given = await jp_fetch("cwm", "api", "v1", *path.split("/"), method=method, **more)
        except HTTPClientError as error:
            if error.response is None:
                raise
            given = error.response
        body = given.body or b""
        kind = given.headers.get("Content-Type", "")
        parsed = json.loads(body) if body and kind.startswith("application/json") else None
        return Answer(given.code, parsed, given.headers, body)

    return call


@pytest.fixture
def service(jp_serverapp: Any) -> Service:  # noqa: F811
    """What the server's requests share."""
    apps = jp_serverapp.extension_manager.extension_apps["cwm_jupyter"]
    (app,) = (app for app in apps if isinstance(app, CWMServer))
    return app.service


class Home:
    """Shortcuts to what a server's home has."""

    def __init__(self, service: Service, call: Call) -> None:
        self._service, self._call = service, call

    async def talk(self, name: str, question: str = "What is the capital of France? " * 4) -> None:
        """Say something in a new session."""

        async def say(workspace: Any) -> None:
            await workspace.manager.create_session(name)
            await workspace.manager.say(name, question)

        await self._service.run(say)

    async def frozen(self, name: str) -> None:
        """Have a session and a window, both of this name."""
        await self.talk(name)
        await self._service.run(lambda w: w.manager.freeze(name, name))

    async def thawed(self, name: str, session: str) -> None:
        """Thaw a window into a session of this name."""
        await self._service.run(lambda w: w.manager.thaw(name, as_session=session))

    async def ended(self, job: dict[str, Any]) -> dict[str, Any]:
        """Wait until a job has ended."""
        while job["state"] == "running":
            await asyncio.sleep(0.01)
            job = (await self._call("GET", f"jobs/{job['id']}")).document
        return job


@pytest.fixture
def kept(service: Service, call: Call) -> Home:
    """The home that the server looks at."""
    return Home(service, call)

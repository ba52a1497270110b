"""The server extension in a Jupyter server of its own, below a hub's kind of URL, on the stack."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from stack_driver import Driver

from cwm_jupyter.config import Settings
from cwm_jupyter.server.table import TABLE
from cwm_jupyter.stack.state import StackState, current

pytestmark = pytest.mark.stack

#: as JupyterHub gives each user's server one
_BASE = "/user/some%40one/"


class Server:
    """A Jupyter server, asked over HTTP."""

    def __init__(self, client: httpx2.AsyncClient, log: Path) -> None:
        self.client, self.log = client, log

    async def ask(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """Return the answer's document."""
        answer = await self.client.request(method, path, json=body, params=params)
        assert answer.is_success, answer.text
        return answer.json()

    async def done(self, path: str, body: Any = None) -> Any:
        """Begin a job, wait for its end and return its result."""
        job = await self.ask("POST", path, body)
        while job["state"] == "running":
            await asyncio.sleep(0.1)
            job = await self.ask("GET", f"jobs/{job['id']}")
        assert job["state"] == "done", job
        return job["result"]


@pytest.fixture
async def server(
    stack: StackState, stack_settings: Settings, tmp_path: Path
) -> AsyncIterator[Server]:
    """A server whose home is that of the shared stack."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    token, log = secrets.token_hex(16), tmp_path / "server.log"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    environ |= {
        "CWM_HOME": str(stack_settings.home),
        "CWM_CACHE_DIR": str(stack_settings.cache_dir),
        **{f"JUPYTER_{of}_DIR": str(tmp_path / of) for of in ("CONFIG", "DATA", "RUNTIME")},
    }
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "jupyter", "server", "--no-browser", "--ip=127.0.0.1", f"--port={port}"),
            *(f"--IdentityProvider.token={token}", f"--ServerApp.base_url={_BASE}"),
            *("--ServerApp.port_retries=0", "--allow-root", "--debug"),
            f"--ServerApp.root_dir={tmp_path}",
            "--ServerApp.jpserver_extensions={'cwm_jupyter': True}",
            env=environ,
            stdout=output,
            stderr=output,
        )
    try:
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}{_BASE}cwm/api/v1/",
            headers={"Authorization": f"token {token}"},
            timeout=120,
            trust_env=False,
        ) as client:
            async with asyncio.timeout(120):
                while not await _answers(client):
                    assert process.returncode is None, log.read_text()
                    await asyncio.sleep(0.2)
            yield Server(client, log)
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 60)


async def _answers(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("version")).is_success
    except httpx2.TransportError:
        return False


async def _hear(server: Server, kinds: set[str]) -> None:
    """Listen until events of all these kinds have come."""
    async with server.client.stream("GET", "events") as stream:
        async for line in stream.aiter_lines():
            kinds.discard(line.removeprefix("event: "))
            if not kinds:
                return


async def test_a_windows_life_over_http(
    server: Server, stack_settings: Settings, driver: Driver, name: str
) -> None:
    version = await server.ask("GET", "version")
    assert version["home"] == str(stack_settings.home)
    assert version["stack"]["phase"] == "ready"
    listening = asyncio.create_task(_hear(server, {"index", "job", "statistics"}))

    # A kernel's session: made here, frozen by the server.
    await driver.talk(name, driver.text(900))
    frozen = await server.done("windows", {"name": name, "session": name, "tags": [name]})
    assert frozen["window"]["proof"]["level"] == "verified"
    listed = await server.ask("GET", "windows", tags=name)
    assert [window["id"] for window in listed["items"]] == [frozen["window"]["id"]]

    path = f"windows/{quote(name, safe='')}"
    strip = await server.ask("GET", f"{path}/chunks")
    assert strip["places"] == ["disk"] * frozen["window"]["chunks"]
    assert (await server.done(f"{path}/verify"))["intact"]
    warmed = await server.done(f"{path}/prefetch")
    assert warmed["chunks_found"] == frozen["window"]["chunks"]
    thawed = await server.done(f"{path}/thaw", {"as_session": f"{name}-again"})
    assert thawed["complete"]
    assert thawed["cached_tokens"] == thawed["expected_cached_tokens"]
    assert thawed["probe"]["passed"]

    await server.ask("POST", f"{path}/clone", {"name": f"{name}-2"})
    await server.ask("DELETE", path)
    assert (await server.client.get(path)).status_code == 404
    await server.ask("POST", f"{path}/undo")

    statistics = await server.ask("GET", "statistics")
    assert statistics["engine"]["prompt_tokens"] > 0
    assert statistics["cache"]["l2_used_bytes"] > 0
    overview = await server.ask("GET", "overview")
    assert overview["thaws"] >= 1
    assert overview["stored_bytes"] > 0
    assert "cwm_engine_prompt_tokens" in (await server.client.get("metrics")).text
    await asyncio.wait_for(listening, 60)
    await _has_no_secret(server, stack_settings, driver, name)


async def _has_no_secret(server: Server, settings: Settings, driver: Driver, name: str) -> None:
    """Look for salts and keys in all that can be read, and in what the server wrote."""
    state = current(settings.home)
    session = await driver.manager.session(name)
    facts = await (await driver.workspace.connect()).facts()
    salt = driver.workspace.library.lineages.salt(session.lineage_id, facts.fingerprint)
    secret = [salt, state.api_key]
    params = {"window": name, "a": name, "b": f"{name}-2", "part": "lmcache", "lines": 500}
    asked = {
        "figures/{name}": ("window",),
        "tree": ("window",),
        "compare": ("a", "b"),
        "stack/logs": ("part", "lines"),
    }
    for row in TABLE:
        if row.method != "GET" or row.path in ("events", "jobs/{id}"):
            continue
        path = row.path.replace("{name}", "thaw_waterfall" if "figures" in row.path else name)
        given = {key: params[key] for key in asked.get(row.path, ())}
        answer = await server.client.get(path, params=given)
        assert answer.is_success, (path, answer.text)
        assert not any(one in answer.text for one in secret), path
    log = server.log.read_text()
    assert "cwm/api/v1/windows" in log
    assert not any(one in log for one in secret)

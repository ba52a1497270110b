"""The workspace: one background loop for everybody, one connection, a clean Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import httpx2
import pytest
from anyio import to_thread
from fake_stack import FakeStack

from cwm_jupyter import workspace as module
from cwm_jupyter.clients.lmcache import LMCacheClient
from cwm_jupyter.clients.vllm import VLLMClient
from cwm_jupyter.config import LimitSettings, SecuritySettings, Settings, VLLMSettings
from cwm_jupyter.errors import ConfigError, StackDownError, VLLMConnectionError
from cwm_jupyter.stack.state import StackState, forget, save
from cwm_jupyter.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(Settings(home=tmp_path / "home"))
    yield workspace
    workspace.close()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeStack:
    """What answers at every address."""
    fake = FakeStack(tmp_path / "vault")
    transport = httpx2.MockTransport(fake._handle)
    monkeypatch.setattr(module, "VLLMClient", partial(VLLMClient, transport=transport))
    monkeypatch.setattr(module, "LMCacheClient", partial(LMCacheClient, transport=transport))
    return fake


def state(**fields: object) -> StackState:
    values: dict[str, object] = {
        "kind": "remote",
        "phase": "ready",
        "engine_url": "http://127.0.0.1:1",
        "lmcache_url": "http://127.0.0.1:2",
        "started_at": "2026-01-02T03:04:05Z",
    }
    return StackState(**{**values, **fields})  # type: ignore[arg-type]


async def add(a: int, b: int) -> int:
    await anyio.lowlevel.checkpoint()
    return a + b


async def fail() -> None:
    raise ZeroDivisionError("no")


def test_work_gives_its_result_or_its_error(workspace: Workspace) -> None:
    assert workspace.run(add, 1, 2) == 3
    with pytest.raises(ZeroDivisionError, match="no"):
        workspace.run(fail)
    assert workspace.start(add, 3, 4).result() == 7


async def test_work_runs_where_a_loop_runs_already(workspace: Workspace) -> None:
    assert workspace.run(add, 1, 2) == 3
    assert await workspace.arun(add, 3, 4) == 7
    with pytest.raises(ZeroDivisionError):
        await workspace.arun(fail)


def test_all_work_shares_one_loop(workspace: Workspace) -> None:
    async def loop() -> tuple[int, int]:
        return id(asyncio.get_running_loop()), threading.get_ident()

    first = workspace.run(loop)
    assert workspace.run(loop) == first
    assert first[1] != threading.get_ident()


class Patient:
    """Work that waits for ever, and takes a while to put everything in order."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.in_order = False

    async def __call__(self) -> None:
        try:
            self.started.set()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)
                self.in_order = True


def test_cancelling_the_future_cancels_the_work(workspace: Workspace) -> None:
    work = Patient()
    future = workspace.start(work)
    work.started.wait()
    assert future.cancel()
    workspace.close()
    assert work.in_order


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="POSIX signals")
def test_ctrl_c_cancels_the_work_and_is_raised_when_all_is_in_order(workspace: Workspace) -> None:
    work, main = Patient(), threading.main_thread().ident or 0

    async def interrupted() -> None:
        while sys._current_frames()[main].f_code.co_name != "wait":  # noqa: ASYNC110
            await anyio.sleep(0.001)
        signal.pthread_kill(main, signal.SIGINT)
        await work()

    with pytest.raises(KeyboardInterrupt):
        workspace.run(interrupted)
    assert work.in_order
    assert workspace.run(add, 1, 2) == 3


def test_closing_can_be_repeated_and_work_goes_on_after_it(workspace: Workspace) -> None:
    workspace.run(add, 1, 2)
    workspace.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "cwm"]
    workspace.close()
    assert workspace.run(add, 1, 2) == 3


def test_closing_waits_for_a_freeze_and_holds_up_nobody_else(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, go_on = threading.Event(), threading.Event()

    async def finished() -> None:
        waiting.set()
        await to_thread.run_sync(go_on.wait)

    monkeypatch.setattr(workspace.manager.autofreeze, "finished", finished)
    workspace.run(add, 1, 2)
    closing = threading.Thread(target=workspace.close)
    closing.start()
    waiting.wait()
    try:
        assert workspace.start(add, 3, 4).result(30) == 7
        assert closing.is_alive()
    finally:
        go_on.set()
        closing.join()
    assert not [thread for thread in threading.enumerate() if thread.name == "cwm"]


def test_without_a_stack(workspace: Workspace) -> None:
    with pytest.raises(StackDownError, match="No stack is running") as caught:
        workspace.run(workspace.connect)
    assert "%cwm up" in (caught.value.hint or "")


def test_a_stack_that_is_starting(workspace: Workspace) -> None:
    save(workspace.settings.home, state(phase="starting"))
    with pytest.raises(StackDownError, match="still starting"):
        workspace.run(workspace.connect)


def test_a_connection_is_kept_while_the_stack_is_the_same(
    workspace: Workspace, fake: FakeStack
) -> None:
    save(workspace.settings.home, state())
    first = workspace.run(workspace.connect)
    assert (first.model, first.kv_model_name, first.chunk_tokens) == ("toy", "toy", 16)
    assert first.store is None
    asked = len(fake.calls)
    assert workspace.run(workspace.connect) is first
    assert len(fake.calls) == asked


def test_another_stack_is_connected_to_anew(
    workspace: Workspace, fake: FakeStack, tmp_path: Path
) -> None:
    home = workspace.settings.home
    save(home, state())
    first = workspace.run(workspace.connect)
    save(home, state(engine_url="http://127.0.0.1:3", store_dir=str(tmp_path / "vault")))
    second = workspace.run(workspace.connect)
    assert second.engine.url == "http://127.0.0.1:3"
    assert second.store is not None
    assert first.engine._http._client.is_closed
    forget(home)
    with pytest.raises(StackDownError):
        workspace.run(workspace.connect)
    assert second.engine._http._client.is_closed


def test_other_timeouts_hold_from_the_next_connection_on(
    workspace: Workspace, fake: FakeStack
) -> None:
    save(workspace.settings.home, state())
    first = workspace.run(workspace.connect)
    for settings in (
        Settings(home=workspace.settings.home, limits=LimitSettings(max_tokens=3)),
        Settings(home=workspace.settings.home, vllm=VLLMSettings(connect_timeout_s=1.5)),
    ):
        workspace.reconfigure(settings)
        second = workspace.run(workspace.connect)
        assert (second is first) is (settings.vllm == VLLMSettings())
    assert second.engine._http._client.timeout.connect == 1.5
    assert not first.engine._http._client.is_closed  # work may be using it
    workspace.run(workspace.disconnect)
    assert first.engine._http._client.is_closed
    assert second.engine._http._client.is_closed


def test_two_that_connect_at_once_share_the_connection(
    workspace: Workspace, fake: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(request: httpx2.Request) -> httpx2.Response:
        for _ in range(50):  # long enough for the other to come by
            await to_thread.run_sync(int)
        return await fake._handle(request)

    transport = httpx2.MockTransport(slow)
    monkeypatch.setattr(module, "VLLMClient", partial(VLLMClient, transport=transport))
    save(workspace.settings.home, state())

    async def both() -> bool:
        one, other = await asyncio.gather(workspace.connect(), workspace.connect())
        return one is other

    assert workspace.run(both)


def test_a_connection_that_fails_leaves_nothing_open(
    workspace: Workspace, fake: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients: list[VLLMClient] = []
    make = module.VLLMClient
    monkeypatch.setattr(
        module,
        "VLLMClient",
        lambda *a, **k: clients.append(make(*a, **{**k, "retries": 0})) or clients[-1],
    )

    def gone(call: str) -> None:
        raise httpx2.ConnectError("refused")

    fake.before = gone
    save(workspace.settings.home, state(lmcache_url=None))
    with pytest.raises(VLLMConnectionError):
        workspace.run(workspace.connect)
    assert [client._http._client.is_closed for client in clients] == [True]
    fake.before = lambda call: None
    assert workspace.run(workspace.connect).cache is None


def test_closing_closes_the_connection(workspace: Workspace, fake: FakeStack) -> None:
    save(workspace.settings.home, state())
    connected = workspace.run(workspace.connect)
    workspace.close()
    assert connected.engine._http._client.is_closed


def test_the_process_has_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_shared", None)
    one = module.get_workspace()
    assert module.get_workspace() is one
    assert one.settings.home == home
    one.close()


@pytest.mark.usefixtures("home")
def test_it_has_a_keyring_where_it_is_to_encrypt_or_there_is_a_key(tmp_path: Path) -> None:
    off, on = (
        Settings(home=tmp_path / "h", security=SecuritySettings(encrypt=encrypt))
        for encrypt in (False, True)
    )
    assert Workspace(off).keyring is None
    encrypting = Workspace(on)
    assert encrypting.keyring is not None
    assert encrypting.keyring.encrypts
    assert encrypting.library.keyring is encrypting.keyring
    again = Workspace(off).keyring
    assert again is not None
    assert (again.encrypts, again.current_id) == (False, encrypting.keyring.current_id)


def test_a_malformed_key_in_the_environment_is_told_at_once(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CWM_ENCRYPTION_KEY", "not-a-key")
    with pytest.raises(ConfigError, match="CWM_ENCRYPTION_KEY does not hold a key"):
        Workspace(Settings(home=home))

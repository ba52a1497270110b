"""Workspace: the manager with everything it needs, for programs, notebooks and the command line.

Async code uses `Workspace.manager` in its own event loop. Everybody else uses `Workspace.run`,
which hands work to one event loop in a background thread (an anyio portal): so it also works where
a loop runs already, as in a notebook, and Ctrl-C cancels the work instead of leaving it behind.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
from anyio import to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

from cwm_jupyter import config
from cwm_jupyter.clients.lmcache import LMCacheClient
from cwm_jupyter.clients.vllm import VLLMClient
from cwm_jupyter.config import LMCacheSettings, Settings, VLLMSettings
from cwm_jupyter.core.cancellation import Cancellation
from cwm_jupyter.core.chunks import ChunkStore
from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.identity import home_id
from cwm_jupyter.core.library import Library
from cwm_jupyter.core.manager import Manager
from cwm_jupyter.core.rotation import open_keyring
from cwm_jupyter.errors import CancelledJobError, StackDownError, StackError
from cwm_jupyter.stack.state import StackState, current
from cwm_jupyter.vault.files import Vault
from cwm_jupyter.vault.fs import FsStore
from cwm_jupyter.vault.store import VaultStore

__all__ = ["Workspace", "get_workspace", "opened_workspace"]

_T = TypeVar("_T")
#: how long cancelled work may take to put everything in order
_CANCEL_S = 30.0
#: how long work that was just handed over may take to begin
_BEGIN_S = 1.0


class Workspace:
    """A home folder, its manager and the connection to the running stack.

    Parameters
    ----------
    settings
        None takes the process's settings, see `cwm_jupyter.config`.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or config.get_settings()
        #: opens what is encrypted, and knows whether to encrypt; None: there is no key
        self.keyring = open_keyring(self.settings.home, encrypts=self.settings.security.encrypt)
        self.library = Library(self.settings.home, self.keyring)
        self._store = self._open_store(self.settings.vault_dir)
        self.manager = Manager(self.library, self.connect, self._store, self.settings)
        self._connected: tuple[StackState, ConnectedStack] | None = None
        #: what the clients were opened with, and older ones that work may still be using
        self._opened_with: tuple[VLLMSettings, LMCacheSettings] | None = None
        self._outdated: list[ConnectedStack] = []
        self._connecting = anyio.Lock()
        self._exit = ExitStack()
        self._portal: BlockingPortal | None = None
        self._lock = threading.Lock()
        self._closing = threading.Lock()

    def reconfigure(self, settings: Settings) -> None:
        """Use other settings from the next piece of work on; what is under way keeps its own.

        Home, vault and keyring stay as they were opened.
        """
        self.settings = self.manager.settings = settings

    async def connect(self) -> ConnectedStack:
        """Return the running stack; clients are kept while it is the same one.

        Where none runs, one is connected to whose URL is in the settings.

        Raises
        ------
        StackDownError
            None is running, or it is not ready yet.
        StackError
            It was started without the encryption that is wanted.
        """
        async with self._connecting:
            return await self._connect()

    async def _connect(self) -> ConnectedStack:
        state = await to_thread.run_sync(current, self.settings.home)
        if state is None and self.settings.vllm.url is not None:
            state = await to_thread.run_sync(self._connect_to, self.settings.vllm.url)
        if state is None:
            await self.disconnect()
            raise StackDownError("No stack is running.")
        if state.phase != "ready":
            raise StackDownError(
                "The stack is still starting.", hint="Wait for cwm up to finish; see cwm status."
            )
        encrypts = state.settings.get("security", {}).get("encrypt", False)
        if state.kind == "local" and self.settings.security.encrypt and not encrypts:
            raise StackError(
                "The stack was started without encryption: it would store chunks plain.",
                hint="Start it anew: cwm down, then cwm up.",
            )
        if self._connected is not None and self._connected[0] != state:
            await self.disconnect()
        if self._connected is not None and self._opened_with != self._client_settings():
            self._outdated.append(self._connected[1])
            self._connected = None
        if self._connected is None:
            self._opened_with = self._client_settings()
            self._connected = state, await self._open(state)
        return self._connected[1]

    def _connect_to(self, url: str) -> StackState:
        from cwm_jupyter.stack import launcher

        settings = self.settings
        return launcher.connect(settings, url, settings.lmcache.url, settings.vllm.api_key)

    def _client_settings(self) -> tuple[VLLMSettings, LMCacheSettings]:
        return self.settings.vllm, self.settings.lmcache

    async def _open(self, state: StackState) -> ConnectedStack:
        vllm, lmcache = self._client_settings()
        engine = VLLMClient(
            state.engine_url,
            api_key=state.api_key,
            model=state.served_model,
            connect_timeout_s=vllm.connect_timeout_s,
            request_timeout_s=vllm.request_timeout_s,
            retries=vllm.retries,
            max_connections=vllm.max_connections,
        )
        cache = None
        if state.lmcache_url is not None:
            cache = LMCacheClient(
                state.lmcache_url,
                api_key=state.api_key,
                request_timeout_s=lmcache.request_timeout_s,
            )
        try:
            return await ConnectedStack.open(
                engine,
                cache,
                store=None if state.store_dir is None else self._store_in(Path(state.store_dir)),
                kv_model_name=state.kv_model_name,
                world_size=state.world_size,
                chunk_tokens=state.chunk_tokens,
            )
        except BaseException:
            with anyio.CancelScope(shield=True):
                await engine.aclose()
                if cache is not None:
                    await cache.aclose()
            raise

    def _store_in(self, folder: Path) -> ChunkStore:
        """Return the store of a stack, which may have been started with other settings."""
        if folder == self.settings.vault_dir:
            return self._store
        return self._open_store(folder)

    def _open_store(self, folder: Path) -> ChunkStore:
        """Open the store that a stack of these settings fills."""
        storage = self.settings.storage
        if storage.store == "fs":
            return FsStore(folder)
        vault = Vault(
            folder,
            codec=storage.codec,
            quota_bytes=storage.quota_bytes,
            keyring=self.keyring,
            home=home_id(self.library.home),
        )
        return VaultStore(vault)

    async def disconnect(self) -> None:
        """Close the clients."""
        open_, self._outdated = self._outdated, []
        connected, self._connected = self._connected, None
        if connected is not None:
            open_.append(connected[1])
        for stack in open_:
            await stack.aclose()

    def start(self, work: Callable[..., Awaitable[_T]], *args: Any) -> Future[_T]:
        """Start ``work(*args)`` in the background loop; cancelling the future cancels the work."""
        with self._lock:
            if self._portal is None:
                self._portal = self._exit.enter_context(start_blocking_portal(name="cwm"))
            return self._portal.start_task_soon(work, *args)

    def run(self, work: Callable[..., Awaitable[_T]], *args: Any) -> _T:
        """Run ``work(*args)`` in the background loop and return its result.

        Ctrl-C cancels the work, waits until it has put everything in order, and is then raised. So
        does a `Cancellation` that is over the caller, and `CancelledJobError` is raised.
        """
        begun, ended = threading.Event(), threading.Event()
        scopes: list[anyio.CancelScope] = []

        async def watched() -> _T:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                loop = asyncio.get_running_loop()
                Cancellation.join(partial(loop.call_soon_threadsafe, scope.cancel))
                begun.set()
                try:
                    return await work(*args)
                finally:
                    ended.set()
            raise CancelledJobError("Interrupted.")

        future: Future[_T] | None = None
        try:
            future = self.start(watched)
            return future.result()
        except KeyboardInterrupt:
            if future is not None:
                future.cancel()
                ended.wait(_CANCEL_S)
            elif begun.wait(_BEGIN_S):  # it came while the work was being started
                self.start(_cancel, scopes[0])
                ended.wait(_CANCEL_S)
            raise

    async def arun(self, work: Callable[..., Awaitable[_T]], *args: Any) -> _T:
        """Await ``work(*args)`` from any event loop; it runs in the background one."""
        return await asyncio.wrap_future(self.start(work, *args))

    def close(self) -> None:
        """Close the clients and end the background thread, once no session is being frozen.

        Work that is started meanwhile is not held up, and work that is started later begins another
        thread.
        """
        with self._closing:
            if self._portal is not None:
                self._portal.call(self.manager.autofreeze.finished)
            with self._lock:
                portal, self._portal = self._portal, None
                ended = self._exit.pop_all()
            if portal is not None:
                portal.call(self.disconnect)
            ended.close()


async def _cancel(scope: anyio.CancelScope) -> None:
    scope.cancel()


_shared: Workspace | None = None
_shared_lock = threading.Lock()


def get_workspace() -> Workspace:
    """Return the process's one workspace, made on first use and closed when the program ends."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = Workspace()
            closer = threading.Thread(
                target=_close_at_end, args=(_shared,), name="cwm-close", daemon=True
            )
            closer.start()
        return _shared


def opened_workspace() -> Workspace | None:
    """Return the process's one workspace if it has been made, None otherwise."""
    return _shared


def _close_at_end(workspace: Workspace) -> None:
    """Wait for the main thread and close the workspace.

    A program that is over waits for its threads, and those of the background loop wait for work:
    somebody has to close it before that wait, and so before anything registered with `atexit`.
    """
    threading.main_thread().join()
    workspace.close()

"""A real kernel, and a page's side of its widgets: what it would show, and what it would send."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

__all__ = ["CellError", "Kernel", "running_kernel"]

_PATIENCE_S = 120.0


class CellError(Exception):
    """A cell failed: the error's name, and what the user sees of it."""

    def __init__(self, name: str, shown: Sequence[str]) -> None:
        super().__init__("\n".join(shown))
        self.name = name


class Kernel:
    """A running kernel; `comms` has the state of each widget that is open, by its comm's id."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.comms: dict[str, dict[str, Any]] = {}
        self._manager, self._client = manager, client

    def start(self, code: str) -> str:
        """Start a cell, and return the id of its message."""
        return str(self._client.execute(code))

    def run(self, code: str) -> str:
        """Run a cell, and return what it printed; an error in it is raised."""
        return self.finish(self.start(code))

    def finish(self, cell: str) -> str:
        """Wait for a cell's end, and return what it printed; an error in it is raised."""
        printed: list[str] = []
        errors: list[CellError] = []

        def ended() -> bool:
            message = self._hear()
            if message is None or message["parent_header"].get("msg_id") != cell:
                return False
            content = message["content"]
            if message["msg_type"] == "stream":
                printed.append(content["text"])
            elif message["msg_type"] == "error":
                errors.append(CellError(content["ename"], content["traceback"]))
            return bool(content.get("execution_state") == "idle")

        self._until(ended)
        if errors:
            raise errors[0]
        return "".join(printed)

    def shows(self, true: Callable[[str], Any]) -> None:
        """Wait until a cell that was started shows, as text, what one waits for."""

        def now() -> bool:
            message = self._hear()
            data = {} if message is None else message["content"].get("data", {})
            return bool(true(data.get("text/plain", "")))

        self._until(now)

    def interrupt(self) -> None:
        """Press the button that stops a cell."""
        self._manager.interrupt_kernel()

    def show(self, code: str) -> str:
        """Run a cell that shows a panel, and return the comm's id."""
        before = set(self.comms)
        self.run(code)
        (new,) = (one for one in set(self.comms) - before if "listing" in self.comms[one])
        return new

    def send(self, comm: str, **message: Any) -> None:
        """Send a widget what a click sends."""
        self._post("comm_msg", comm, {"method": "custom", "content": message})

    def close(self, comm: str) -> None:
        """Close a widget's comm, as a page does."""
        self._post("comm_close", comm, {})

    def until(self, comm: str, true: Callable[[Mapping[str, Any]], Any]) -> Any:
        """Wait until something is true of a widget's state, and return it."""

        def now() -> Any:
            return true(self.comms[comm]) or (self._hear() and None)

        return self._until(now)

    def _post(self, kind: str, comm: str, data: Mapping[str, Any]) -> None:
        session = self._client.session
        self._client.shell_channel.send(session.msg(kind, {"comm_id": comm, "data": data}))

    def _hear(self) -> dict[str, Any] | None:
        """Take a message that the kernel published, and keep the widgets' state."""
        with suppress(Empty):
            message: dict[str, Any] = self._client.get_iopub_msg(timeout=0.1)
            content = message["content"]
            if message["msg_type"] == "comm_open":
                self.comms[content["comm_id"]] = content["data"]["state"]
            elif message["msg_type"] == "comm_msg" and content["data"].get("method") == "update":
                self.comms[content["comm_id"]].update(content["data"]["state"])
            elif message["msg_type"] == "comm_close":
                del self.comms[content["comm_id"]]
            return message
        return None

    def _until(self, true: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + _PATIENCE_S
        while not (found := true()):
            assert time.monotonic() < deadline, f"it did not happen; the widgets: {self.comms}"
        return found


@contextmanager
def running_kernel(folder: Path, environ: Mapping[str, str]) -> Iterator[Kernel]:
    """Run a kernel, with a profile of its own in a folder; stopped at the end."""
    manager = KernelManager(transport="ipc", ip=str(folder / "kernel"))
    manager.start_kernel(env={**os.environ, "IPYTHONDIR": str(folder / "ipython"), **environ})
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=_PATIENCE_S)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
        manager.cleanup_resources()

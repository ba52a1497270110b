"""The panel in a real kernel, by its comm: it hears, answers, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kernel import Kernel, running_kernel

_COUNT = """
import asyncio, comm, gc, json, threading
from ipywidgets import Widget
from cwm_jupyter.notebook.panel import Panel
from cwm_jupyter.workspace import get_workspace

async def tasks():
    return len(asyncio.all_tasks())

gc.collect()
print(json.dumps({
    "comms": len(comm.get_comm_manager().comms),
    "panels": sum(isinstance(one, Panel) for one in gc.get_objects()),
    "tasks": get_workspace().run(tasks),
    # The loop's idle workers are a pool, which ends them after some seconds.
    "threads": sum("worker" not in one.name for one in threading.enumerate()),
}))
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A kernel with an empty home and no stack."""
    folder = tmp_path_factory.mktemp("kernel")
    environ = {"CWM_HOME": str(folder / "home"), "CWM_CACHE_DIR": str(folder / "cache")}
    with running_kernel(folder, environ) as kernel:
        kernel.run("import cwm_jupyter as cwm")
        yield kernel


def count(kernel: Kernel) -> dict[str, int]:
    counted: dict[str, int] = json.loads(kernel.run(_COUNT))
    return counted


def settled(kernel: Kernel, before: dict[str, int]) -> None:
    """Wait until there is no more than there was before."""
    for _ in range(50):
        now = count(kernel)
        if all(now[what] <= before[what] for what in now):
            return
        kernel.run("import time; time.sleep(0.2)")
    pytest.fail(f"{before} became {count(kernel)}")


def test_a_click_is_heard_and_answered(kernel: Kernel) -> None:
    panel = kernel.show("panel = cwm.panel()")
    assert kernel.comms[panel]["listing"]["total"] == 0
    kernel.send(panel, do="thaw", window="nothing")
    notice: Any = kernel.until(panel, lambda state: state["notice"])
    assert notice["kind"] == "error"
    assert "nothing" in notice["text"]
    kernel.run("panel.close()")
    assert panel not in kernel.comms


def test_a_hundred_panels_leave_no_comms_threads_or_tasks(kernel: Kernel) -> None:
    kernel.run("one = cwm.panel(); one.close(); del one")
    before = count(kernel)
    for _ in range(10):
        kernel.run("panels = [cwm.panel() for _ in range(10)]")
        opened = [comm for comm, state in kernel.comms.items() if "listing" in state]
        assert len(opened) == 10
        for comm in opened:
            kernel.send(comm, do="open", view=comm)
        assert count(kernel)["tasks"] == before["tasks"] + 10
        kernel.run("for panel in panels: panel.close()\ndel panel, panels")
    settled(kernel, before)
    assert kernel.comms == {}


def test_a_comm_that_the_page_closes_ends_the_panel(kernel: Kernel) -> None:
    kernel.run("one = cwm.panel(); one.close(); del one")
    before = count(kernel)
    panel = kernel.show("panel = cwm.panel()")
    kernel.send(panel, do="open", view="v")
    assert count(kernel)["tasks"] == before["tasks"] + 1
    kernel.close(panel)
    kernel.run("del panel")
    settled(kernel, before)

"""What the tests of the front ends share: a process with a home of its own and a fake stack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_stack import FakeStack
from windows_disk import WindowsDisk

from cwm_jupyter import current, workspace
from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.workspace import Workspace


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of files again in a folder as Windows has it, where they are marked so."""
    marker = metafunc.definition.get_closest_marker("every_system")
    if marker is not None:
        metafunc.parametrize("system", marker.args or ["here", "windows"], indirect=True)


@pytest.fixture(autouse=True)
def system(request: pytest.FixtureRequest) -> Iterator[None]:
    """The system on which a test's folder seems to be."""
    if getattr(request, "param", "here") == "here":
        yield
        return
    with WindowsDisk(request.getfixturevalue("tmp_path")):
        yield


@pytest.fixture
def own_process(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a process has one of, made anew: its workspace and its present session."""
    monkeypatch.setattr(workspace, "_shared", None)
    monkeypatch.setattr(workspace, "_close_at_end", lambda workspace: None)
    monkeypatch.setattr(current.shared, "_name", None)
    monkeypatch.setattr(current.shared, "_used", set())
    yield
    if workspace._shared is not None:
        workspace._shared.close()


@pytest.fixture
def fake_stack(home: Path, monkeypatch: pytest.MonkeyPatch) -> FakeStack:
    """A running stack without a model, which every workspace finds."""
    stack = FakeStack(home / "vault")

    async def connect(self: Workspace) -> ConnectedStack:
        if self._connected is None:
            self._connected = None, await stack.connect()
        return self._connected[1]

    monkeypatch.setattr(Workspace, "connect", connect)
    return stack

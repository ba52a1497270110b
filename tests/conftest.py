"""What all tests share."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from acceptance import HERE, RECORD, TABLE
from acceptance_plugin import Recorder
from hypothesis import settings as hypothesis_settings
from stack_driver import Driver

from cwm_jupyter import config
from cwm_jupyter.config import Settings, reset_settings
from cwm_jupyter.stack import launcher
from cwm_jupyter.stack.state import StackState
from cwm_jupyter.workspace import Workspace

# Speed is never asserted in a test, and a machine may be busy.
hypothesis_settings.register_profile("patient", deadline=None)
hypothesis_settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Record what the tests show of the acceptance table."""
    config.pluginmanager.register(Recorder(TABLE, RECORD, HERE), "acceptance")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests that leave no stack behind last: a start for those after them takes a minute."""
    items.sort(key=lambda item: item.get_closest_marker("leaves_no_stack") is not None)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home for the product, and no setting from the outside."""
    for name in [name for name in os.environ if name.startswith("CWM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CWM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CWM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "jupyter"))
    reset_settings()
    yield tmp_path / "home"
    reset_settings()


@pytest.fixture(scope="session")
def stack_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of the one real stack that all tests share; it is stopped at the end.

    The engine environment and the model are the user's, or those of CWM_CACHE_DIR.
    """
    cache = {n: os.environ[n] for n in ("CWM_CACHE_DIR",) if n in os.environ}
    home = tmp_path_factory.mktemp("stack") / "home"
    settings = config.load(cache, {"home": home})
    with pytest.MonkeyPatch.context() as patch:
        # Only for tests: a route that empties the engine's own prefix cache.
        patch.setenv("VLLM_SERVER_DEV_MODE", "1")
        yield settings
    launcher.down(settings)


@pytest.fixture
def stack(stack_settings: Settings) -> StackState:
    """The shared stack, running: started by the first test, and by one after a test stopped it."""
    return launcher.up(stack_settings)


@pytest.fixture
async def workspace(stack: StackState, stack_settings: Settings) -> AsyncIterator[Workspace]:
    """A workspace on the shared stack, for use in the test's own event loop."""
    workspace = Workspace(stack_settings)
    yield workspace
    await workspace.disconnect()


@pytest.fixture
def driver(workspace: Workspace) -> Driver:
    """Shortcuts on the shared stack."""
    return Driver(workspace)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for a session or window that no other test uses."""
    return f"{request.node.name[:60].translate(str.maketrans('[]', '__'))}-{uuid.uuid4().hex[:6]}"

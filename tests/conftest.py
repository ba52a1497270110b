"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance import HERE, RECORD, TABLE
from acceptance_plugin import Recorder

from cwm_jupyter.config import reset_settings


def pytest_configure(config: pytest.Config) -> None:
    """Record what the tests show of the acceptance table."""
    config.pluginmanager.register(Recorder(TABLE, RECORD, HERE), "acceptance")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home for the product, and no setting from the outside."""
    for name in [name for name in os.environ if name.startswith("CWM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CWM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CWM_CACHE_DIR", str(tmp_path / "cache"))
    reset_settings()
    yield tmp_path / "home"
    reset_settings()

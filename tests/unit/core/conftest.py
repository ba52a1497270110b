"""What the tests of the core share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from bench import Bench
from entries import make_session

from cwm_jupyter.core.index import Index
from cwm_jupyter.core.models import Session


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def index(folder: Path) -> Index:
    return Index(folder)


@pytest.fixture
def chat(index: Index) -> Session:
    """A session that is in the index."""
    return index.add_session(make_session("s1", "chat"))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A home and a stack of one test."""
    bench = Bench(tmp_path)
    yield bench
    await bench.reconnect()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a store for failed after 0.05 s instead of a second and more."""
    monkeypatch.setattr("cwm_jupyter.core.freeze._patience_s", lambda chunks: 0.05)

"""What the tests of the core share."""

from __future__ import annotations

from pathlib import Path

import pytest
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

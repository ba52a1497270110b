"""Tests of what is otherwise on other systems; docs/platforms.md says what they cannot show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from windows_disk import WindowsDisk


@pytest.fixture
def windows(tmp_path: Path) -> Iterator[WindowsDisk]:
    """The test's folder as on Windows."""
    with WindowsDisk(tmp_path) as disk:
        yield disk

"""What the tests of settings share: folders for files, and a process of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def user(home: Path, tmp_path: Path) -> Path:
    """The user's folder of Jupyter configuration, and no other one."""
    folder = tmp_path / "jupyter"
    folder.mkdir()
    return folder


@pytest.fixture
def project(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, in the user's home directory."""
    folder = tmp_path / "me" / "project"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.chdir(folder)
    return folder

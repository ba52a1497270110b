"""The id of a home: made once, whoever asks first, and no other home has it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cwm_jupyter.config import Settings
from cwm_jupyter.core.identity import home_id
from cwm_jupyter.core.models import ChunkRef
from cwm_jupyter.vault.store import VaultStore
from cwm_jupyter.workspace import Workspace

pytestmark = pytest.mark.every_system


def test_it_is_made_once_and_moves_with_the_home(tmp_path: Path) -> None:
    first = home_id(tmp_path / "one")
    assert home_id(tmp_path / "one") == first
    assert home_id(tmp_path / "two") != first
    (tmp_path / "one").rename(tmp_path / "moved")
    assert home_id(tmp_path / "moved") == first
    if os.name != "nt":
        assert (tmp_path / "moved" / "keys" / "home.id").stat().st_mode & 0o777 == 0o600


def test_all_who_ask_at_once_are_told_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(home_id, [tmp_path / "home"] * 8))) == 1


@pytest.mark.parametrize("damage", [b"", b"ab" * 15, b"ab" * 16 + b"\n", b"\xff" * 32])
def test_a_damaged_one_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    first = home_id(tmp_path)
    (tmp_path / "keys" / "home.id").write_bytes(damage)
    assert home_id(tmp_path) == home_id(tmp_path) != first


async def test_what_a_workspace_holds_is_its_home_s(tmp_path: Path) -> None:
    workspace = Workspace(Settings(home=tmp_path / "home"))
    store = workspace.manager.parts.store
    assert isinstance(store, VaultStore)
    # The ref is that of a window which was frozen where files cannot be seen.
    await store.hold("window", [], [ChunkRef(chunk_hash="ab", digest="", size_bytes=None)])
    hold = store.vault.holds()["window"]
    assert (hold.home, hold.contents) == (home_id(tmp_path / "home"), [])

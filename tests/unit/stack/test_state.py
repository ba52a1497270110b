"""The state that `up` leaves: private, without its key wherever it is shown, and swept after."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cwm_jupyter.core.models import now
from cwm_jupyter.stack import leftovers, processes, state
from cwm_jupyter.stack.state import StackState

KEY = "a-key-that-nobody-may-see"


def stack(**changes: object) -> StackState:
    return StackState(
        kind="local",
        phase="ready",
        engine_url="http://127.0.0.1:1",
        lmcache_url="http://127.0.0.1:2",
        api_key=KEY,
        parts={"vllm": processes.identify(os.getpid())},
        started_at=now(),
    ).replace(**changes)


def test_the_state_is_read_back_whole(home: Path) -> None:
    state.save(home, stack())
    found = state.current(home)
    assert found is not None
    assert found.api_key == KEY
    assert processes.alive(found.parts["vllm"])
    state.forget(home)
    state.forget(home)
    assert state.current(home) is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permission bits")
def test_the_file_is_its_owners_alone(home: Path) -> None:
    state.save(home, stack())
    file = home / "run" / "stack.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_the_key_is_shown_nowhere() -> None:
    shown = stack()
    assert KEY not in repr(shown)
    assert KEY not in str(shown)
    assert KEY not in json.dumps(shown.to_dict())
    assert shown.to_dict()["api_key"] == "[redacted]"
    assert stack(api_key=None).to_dict()["api_key"] is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"kind": "local"}', b"\xff"])
def test_a_state_that_cannot_be_read_counts_as_none(home: Path, content: bytes) -> None:
    state.save(home, stack())
    (home / "run" / "stack.json").write_bytes(content)
    assert state.current(home) is None


def test_leftovers_are_removed_and_missing_ones_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    leftovers.remove([str(tmp_path / name) for name in ("folder", "file", "gone")])
    assert list(tmp_path.iterdir()) == []


def test_only_our_own_shared_memory_is_swept(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "SHM_DIR", tmp_path)
    dead = 2**22 + 1  # above the largest pid
    kept = ["psm_other", f"lmcache_kv_{os.getpid()}_0", "lmcache_l1_pool_cwm-00000000-x"]
    gone = [f"lmcache_l1_pool_{leftovers.home_tag(home)}ab", f"lmcache_kv_{dead}_0"]
    for name in kept + gone:
        (tmp_path / name).write_text("x")
    leftovers.sweep(home)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_homes_do_not_share_a_tag(tmp_path: Path) -> None:
    assert leftovers.home_tag(tmp_path / "a") != leftovers.home_tag(tmp_path / "b")

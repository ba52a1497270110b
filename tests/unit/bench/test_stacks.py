"""The bench's own stacks: in homes of their own, and nothing left of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cwm_jupyter.bench import stacks as bench_stacks
from cwm_jupyter.bench.stacks import Stacks
from cwm_jupyter.config import Settings, get_settings
from cwm_jupyter.core.job import Job


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Settings]]:
    """What was asked of the launcher, which does nothing."""
    seen: list[tuple[str, Settings]] = []
    for name in ("up", "down"):
        monkeypatch.setattr(
            bench_stacks.launcher,
            name,
            lambda settings, job=None, name=name: seen.append((name, settings)),
        )
    return seen


def test_each_stack_has_a_home_and_is_stopped(
    home: Path, calls: list[tuple[str, Settings]]
) -> None:
    folder = home / "bench"
    with Stacks(get_settings(), folder, Job("bench")) as stacks:
        workspace = stacks.start("fs", store="fs", model="a-model")
        settings = workspace.settings
        assert settings.home == folder / "fs"
        assert settings.vault_dir == folder / "fs" / "vault"
        assert (settings.storage.store, settings.stack.model) == ("fs", "a-model")
        stacks.start("vault")
        stacks.stop("vault")
        stacks.stop("vault")
        stacks.stop("never-started")
    asked = [(what, s.home.name) for what, s in calls]
    assert asked == [("up", "fs"), ("up", "vault"), ("down", "vault"), ("down", "fs")]
    assert not folder.exists()


def test_what_a_killed_bench_left_is_stopped_and_removed(
    home: Path, calls: list[tuple[str, Settings]]
) -> None:
    folder = home / "bench"
    state = folder / "vault" / "run" / "stack.json"
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    with Stacks(get_settings(), folder, Job("bench")):
        assert [(what, s.home) for what, s in calls] == [("down", folder / "vault")]
        assert list(folder.iterdir()) == []


def test_a_start_that_fails_is_cleared_too(
    home: Path, calls: list[tuple[str, Settings]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(settings: Settings, job: Job) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_stacks.launcher, "up", fail)
    with (
        pytest.raises(KeyboardInterrupt),
        Stacks(get_settings(), home / "bench", Job("bench")) as stacks,
    ):
        stacks.start("vault")
    assert [what for what, _ in calls] == ["down"]
    assert not (home / "bench").exists()

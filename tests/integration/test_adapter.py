"""The vault as LMCache's server sees it: the real LMCache, and no engine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import acceptance
import pytest

import cwm_jupyter
from cwm_jupyter.config import Settings
from cwm_jupyter.core.job import Job
from cwm_jupyter.stack.environment import ensure_environment

pytestmark = pytest.mark.stack


@pytest.fixture
def python(stack_settings: Settings) -> Path:
    """The engine environment's interpreter."""
    return ensure_environment(stack_settings, Job("test"))


def run(python: Path, what: str, folder: Path) -> dict[str, Any]:
    """Run the driver there, and return what it says."""
    driver = acceptance.HERE / "adapter_driver.py"
    modules = Path(cwm_jupyter.__file__).parents[1]
    ended = subprocess.run(
        [python, driver, what, folder],
        env={**os.environ, "PYTHONPATH": str(modules)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


@pytest.mark.covers("KV-002", "KV-018", "KV-021")
def test_everything_that_lmcache_calls(python: Path, tmp_path: Path) -> None:
    """Also where a call of the vault raises: LMCache gets an answer, and nothing else."""
    assert run(python, "check", tmp_path / "vault") == {
        "stored": True,
        "told": True,
        "looked up": [True, True, True, False],
        "loaded": True,
        "right": True,
        "accessed": True,
        "wrong size": [False, True],
        "pinned": 3,
        "unpinned": 0,
        "listed": [30, 10, None],
        "by salt": {"salt": 40 * 5000},
        "usage": True,
        "status": [True, "planes", 41],
        "held": [True],
        "deleted": [True, [False]],
        "failing": [False, False, False, True],
        "damaged": [[True, True], [False, True]],
        "healed": [True],
        "closed": 64,
    }


@pytest.mark.covers("KV-001", "KV-012", "KV-028", "KV-029")
def test_a_full_memory_gives_up_what_the_disk_has_and_gets_it_back(
    python: Path, tmp_path: Path
) -> None:
    """LMCache's own tiers, with a memory of 16 MB: least recently used first, byte for byte."""
    assert run(python, "tiers", tmp_path / "vault") == {
        "all on disk": True,
        "in memory": [0, 1, True],
        "oldest first": True,
        "from the disk": [0, 3],
        "then from memory": [3, 0],
        "right": True,
    }


def test_loading_beside_the_stock_adapter(
    python: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures, and no limits: the machine may be busy."""
    said = run(python, "speed", tmp_path)
    rates = {
        name: f"{said['bytes'] / said[f'{name} load_s'] / 1e9:.2f} GB/s"
        f" ({said[f'{name} load_s'] * 1000:.0f} ms, best {said[f'{name} best_s'] * 1000:.0f},"
        f" processor {said[f'{name} cpu_s'] * 1000:.0f})"
        for name in ("raw", "planes", "fs")
    }
    with capsys.disabled():
        print(f"\n  loading {said['bytes'] / 1e6:.0f} MB: {rates}", end="")

"""A freeze that is killed at any step leaves the old state or the new one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import anyio
import freeze_crash
import pytest
from bench import Bench
from vaults import in_order


@pytest.mark.covers("TF-005")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the killed processes are forked")
async def test_a_freeze_killed_at_each_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tmp_path / "template"
    bench = Bench(template)
    session = await bench.talk("talk")
    await bench.reconnect()
    shutil.copytree(template, tmp_path / "whole")
    total = int(await _script("count", tmp_path / "whole"))
    (tmp_path / "killed").mkdir()
    killed = await _script("die", template, tmp_path / "killed", total)
    assert int(killed) == total + 1

    found: Counter[str] = Counter()
    with in_order():
        for copy in sorted((tmp_path / "killed").iterdir()):
            found[await _state(copy, session.id)] += 1
    assert found.keys() == {"not frozen", "frozen"}
    with capsys.disabled():
        print(f"\n  freeze: killed at {total} steps: {dict(found)}, nothing lost", end="")


async def _state(folder: Path, session_id: str) -> str:
    """Look at a home as the next process finds it, and go on with it."""
    bench = Bench(folder)
    session = await bench.manager.session(session_id)
    window = bench.library.index.find_window("paper")
    assert (session.state == "frozen") == (window is not None)
    if window is None:
        await bench.manager.freeze("paper", "talk")  # nothing stands in its way
    report = await bench.manager.verify("paper")
    assert report.intact
    holds = bench.stack.vault.holds()
    frozen = bench.window("paper")
    assert len(holds[frozen.id].records) == frozen.chunks
    thawed = await bench.manager.thaw("paper")
    assert thawed.complete
    assert thawed.probe.max_abs_logprob_diff == 0
    await bench.reconnect()
    bench.stack.vault.close()
    return "not frozen" if window is None else "frozen"


async def _script(*arguments: object) -> str:
    command = [sys.executable, freeze_crash.__file__, *map(str, arguments)]
    done = await anyio.run_process(command, stderr=subprocess.STDOUT)
    return done.stdout.decode()

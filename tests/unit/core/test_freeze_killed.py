"""A freeze, a clone or an import that is killed at any step leaves the old state or the new one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import freeze_crash
import pytest
from bench import Bench
from vaults import in_order

from cwm_jupyter.core import leftovers
from cwm_jupyter.vault import room

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the killed processes are forked")

#: says which state a home is in, and goes on with it
Look = Callable[[Bench], Awaitable[str]]


@pytest.mark.covers("TF-005")
async def test_a_freeze_killed_at_each_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tmp_path / "template"
    bench = Bench(template)
    session = await bench.talk("talk")
    await bench.reconnect()

    async def look(bench: Bench) -> str:
        state = (await bench.manager.session(session.id)).state
        window = bench.library.index.find_window("paper")
        assert (state == "frozen") == (window is not None)
        if window is None:
            await bench.manager.freeze("paper", "talk")  # nothing stands in its way
        await _assert_whole(bench, "paper")
        return "not frozen" if window is None else "frozen"

    total, found = await _killed("freeze", template, tmp_path, look)
    assert found.keys() == {"not frozen", "frozen"}
    with capsys.disabled():
        print(f"\n  freeze: killed at {total} steps: {dict(found)}, nothing lost", end="")


async def test_an_update_killed_at_each_step(tmp_path: Path) -> None:
    """What has the name is the old version or the new one, and the old one is never lost."""
    template = tmp_path / "template"
    bench = Bench(template)
    await bench.talk("talk")
    first = (await bench.manager.freeze("paper", "talk")).window
    await bench.talk("talk", "And then?")
    await bench.reconnect()

    async def look(bench: Bench) -> str:
        newest = bench.window("paper")
        assert [w.version for w in bench.library.index.versions("paper")] == (
            [1] if newest.id == first.id else [2, 1]
        )
        if newest.id == first.id:
            await bench.manager.freeze("paper", "talk", update=True)
        await _assert_whole(bench, "paper", "paper@v1")
        return "old" if newest.id == first.id else "new"

    _, found = await _killed("update", template, tmp_path, look)
    assert found.keys() == {"old", "new"}


async def test_a_clone_killed_at_each_step(tmp_path: Path) -> None:
    template = tmp_path / "template"
    bench = Bench(template)
    window = await bench.frozen("paper")
    await bench.reconnect()

    async def look(bench: Bench) -> str:
        assert bench.window("paper") == window
        clone = bench.library.index.find_window("other")
        if clone is None:
            await bench.manager.branches.clone("paper", "other")
        await _assert_whole(bench, "paper", "other")
        return "not cloned" if clone is None else "cloned"

    _, found = await _killed("clone", template, tmp_path, look)
    assert found.keys() == {"not cloned", "cloned"}


async def test_an_import_killed_at_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is the window or there is not, and garbage collection finds what is left of it."""
    monkeypatch.setattr(leftovers, "_ABANDONED_S", -1.0)
    monkeypatch.setattr(room, "_FREEZING_S", -1.0)
    template = tmp_path / "template"
    there, bench = Bench(tmp_path / "there"), Bench(template)
    there.stack.answer_tokens = bench.stack.answer_tokens = 4  # a step is a step
    await there.frozen("paper", "What is the capital of France?")
    await there.manager.archives.export(["paper"], template / "paper.cwm")
    for name in ("one", "two"):
        await bench.frozen(name, f"This is question number {name}.")
    for each in (there, bench):
        await each.reconnect()
    files = {path.name for path in bench.stack.files()}
    documents = {path.name for path in bench.library.documents()}

    async def look(bench: Bench) -> str:
        imported = bench.library.index.find_window("paper") is not None
        await bench.manager.collect_garbage()
        if not imported:
            assert {path.name for path in bench.stack.files()} == files
            assert {path.name for path in bench.library.documents()} == documents
            assert len(bench.library.lineages.ids()) == 2
            await freeze_crash.take_in(bench)
        await _assert_whole(bench, "paper")
        return "imported" if imported else "not imported"

    _, found = await _killed("take_in", template, tmp_path, look)
    assert found.keys() == {"imported", "not imported"}


async def _killed(what: str, template: Path, folder: Path, look: Look) -> tuple[int, Counter[str]]:
    """Kill the work at each step, and look at each home as the next process finds it.

    Returns
    -------
    tuple
        How many steps there are, and how often each state was found.
    """
    shutil.copytree(template, folder / "whole")
    total = int(await _script("count", what, folder / "whole"))
    (folder / "killed").mkdir()
    assert int(await _script("die", what, template, folder / "killed", total)) == total + 1
    found: Counter[str] = Counter()
    with in_order():
        for copy in sorted((folder / "killed").iterdir()):
            bench = Bench(copy)
            found[await look(bench)] += 1
            await bench.reconnect()
            bench.stack.vault.close()
    return total, found


async def _assert_whole(bench: Bench, *names: str) -> None:
    """Each is intact and held, and gives back what was frozen to the bit."""
    holds = bench.stack.vault.holds()
    for name in names:
        window = bench.window(name)
        assert len(holds[window.id].records) == window.chunks
        assert (await bench.manager.verify(name)).intact
        bench.stack.restart()
        thawed = await bench.manager.thaw(name)
        assert thawed.complete
        assert thawed.probe.max_abs_logprob_diff == 0


async def _script(*arguments: object) -> str:
    command = [sys.executable, freeze_crash.__file__, *map(str, arguments)]
    done = await anyio.run_process(command, stderr=subprocess.STDOUT)
    return done.stdout.decode()

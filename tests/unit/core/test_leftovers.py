"""Leftovers: what is cleared up of a home, and when nothing is."""

from __future__ import annotations

import os
import time

import pytest
from bench import Bench

from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.errors import IndexCorruptError

pytestmark = pytest.mark.every_system


def age(bench: Bench) -> None:
    """Make all files old enough to be garbage."""
    old = time.time() - 2 * 86400
    for folder in (bench.home, bench.stack.vault.folder.path):
        for path in folder.rglob("*"):
            os.utime(path, (old, old))


async def test_nothing_is_cleared_up_while_a_damaged_index_lies_there(bench: Bench) -> None:
    window = await bench.frozen("paper")
    bench.library.index.path.write_bytes(b"{")
    assert bench.library.index.get_window(window.id) is None  # the last change is lost
    age(bench)
    before = bench.stack.files(), bench.manifests()
    for dry_run in (True, False):
        with pytest.raises(IndexCorruptError, match=r"index\.corrupt-") as refused:
            await bench.manager.collect_garbage(dry_run=dry_run)
        assert "move that file away" in (refused.value.hint or "")
    assert (bench.stack.files(), bench.manifests()) == before
    for path in bench.home.glob("index.corrupt-*"):
        path.unlink()
    assert (await bench.manager.collect_garbage()).leftovers == 1


async def test_what_is_left_of_windows_that_are_there_is_no_sign_of_a_lost_index(
    bench: Bench,
) -> None:
    for name in ("one", "two"):
        window = await bench.frozen(name)
        manifest = bench.library.manifest(window)
        bench.library.replace_manifest(manifest.replace(recomputed=["ab"]), lambda w: w)
    for number in range(3):
        bench.library.write_transcript(f"lost{number}", Transcript(messages=[]))
    age(bench)
    assert (await bench.manager.collect_garbage()).leftovers == 5
    assert (await bench.manager.verify()).intact

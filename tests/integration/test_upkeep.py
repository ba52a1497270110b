"""Verify, repair and purge on the real stack."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.stack


def contents(stack, library, window):
    """The files of a window's contents, in order."""
    manifest = library.manifest(library.index.require_window(window.id))
    return [stack.store.vault.folder.content(ref.digest) for ref in manifest.refs]


def flip(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


@pytest.mark.parametrize("which", ["one", "all"])
async def test_a_damaged_window_is_repaired_to_the_bit(driver, name, which) -> None:
    """Of one turn: computed again in the same shape, it is what was frozen."""
    manager, library = driver.manager, driver.workspace.library
    stack = await driver.workspace.connect()
    await driver.talk(name, driver.text(2400))
    window = (await manager.freeze(name, name)).window
    live = await driver.go_on(name, tokens=8)
    paths = contents(stack, library, window)
    before = [path.read_bytes() for path in paths]
    assert (await manager.verify(name)).intact
    bad = range(len(paths)) if which == "all" else [2]
    for i in bad:
        flip(paths[i])
    report = await manager.verify(name)
    assert not report.intact
    [check] = report.windows
    assert (check.state, check.chunks_corrupt) == ("damaged", len(bad))

    lineages = set(library.lineages.ids())
    repaired = await manager.repair(name)
    assert repaired.turns_differed == 0
    assert repaired.outcomes == [
        "bit-equal" if i in bad else "intact" for i in range(window.chunks)
    ]
    assert (repaired.window.state, repaired.computed_tokens) == ("intact", window.tokens)
    assert [path.read_bytes() for path in paths] == before
    assert (await manager.verify(name)).intact
    assert set(library.lineages.ids()) == lineages  # nothing of the replay is left

    thawed = await manager.thaw(name)
    assert thawed.complete
    assert (thawed.probe.tolerance, thawed.probe.max_abs_logprob_diff) == (0, 0)
    again = await driver.go_on(thawed.session, tokens=8)
    assert (again.token_ids, again.logprobs) == (live.token_ids, live.logprobs)


async def test_only_the_damaged_turn_of_several_is_computed(driver, name) -> None:
    """Also where the answer was sampled: then the rest is right, and said to be other bytes."""
    manager, library = driver.manager, driver.workspace.library
    stack = await driver.workspace.connect()
    await driver.talk(name, driver.text(1400), "Go on.")
    await manager.say(name, "And then?", max_tokens=140, temperature=1.0, seed=7)
    window = (await manager.freeze(name, name)).window
    turns = library.manifest(window).transcript.turns
    paths = contents(stack, library, window)
    flip(paths[-1])
    repaired = await manager.repair(name)
    assert repaired.computed_tokens < window.tokens
    assert repaired.turns_replayed < len(turns)
    assert repaired.outcomes[:-1] == ["intact"] * (window.chunks - 1)
    assert repaired.outcomes[-1] == ("recomputed" if repaired.turns_differed else "bit-equal")
    assert (await manager.verify(name)).intact
    thawed = await manager.thaw(name)
    assert thawed.complete
    assert thawed.chunks_recomputed == repaired.chunks_recomputed
    assert thawed.probe.passed

"""Branches on the real stack: clones diverge from one prefix, and share what they had."""

from __future__ import annotations

import pytest

from cwm_jupyter.core.models import Window

pytestmark = pytest.mark.stack


def exact(continuation) -> tuple[list[int], list[float]]:
    return continuation.token_ids, continuation.logprobs


def refs(driver, window: Window) -> list[str]:
    library = driver.workspace.library
    manifest = library.manifest(library.index.get_window(window.id))
    return [ref.digest for ref in manifest.refs]


@pytest.mark.covers("E2E-003")
async def test_clones_diverge_exactly_and_store_only_what_is_new(driver, name) -> None:
    manager, stack = driver.manager, await driver.workspace.connect()
    await driver.talk(name, driver.text(1500), max_tokens=8)
    source = (await manager.freeze(name, name)).window
    # The second is longer than a chunk: what is stored of it must not help who asks it again.
    questions = "What is this?", f"And this? {driver.text(600, start=4000)}"
    live = [exact(await driver.ask(name, question, tokens=12)) for question in questions]
    assert live[0] != live[1]

    clone = await manager.branches.clone(name, f"{name}-clone")
    a, b = f"{name}-a", f"{name}-b"
    for window, session in ((source, a), (clone, b)):
        thawed = await manager.thaw(window.name, as_session=session)
        assert thawed.complete
        assert thawed.probe.max_abs_logprob_diff == 0
        # Each answers as the session would have that was never frozen.
        answers = [exact(await driver.ask(session, question, tokens=12)) for question in questions]
        assert answers == live
        assert await stack.forget((await driver.held(name)).keys)  # the next comes from the disk

    more = driver.text(600, start=8000), driver.text(600, start=12000)
    for session, question in zip((a, b), more, strict=True):
        await manager.say(session, question, max_tokens=8)
    before = await stack.store.shares()
    frozen = [await manager.freeze(f"{session}-2", session) for session in (a, b)]
    after = await stack.store.shares()
    chunk = await driver.chunk_bytes()
    for report in frozen:
        new = report.window.chunks - source.chunks
        assert new > 0
        assert refs(driver, report.window)[: source.chunks] == refs(driver, source)
        # Some may have been stored before the freeze, as the answer came.
        assert 0 <= report.newly_stored_bytes <= new * chunk
        assert report.already_stored_bytes >= source.size_bytes
        own = set(refs(driver, report.window)) - set(refs(driver, source))
        assert len(own) == new
        assert after.owners[report.window.id].exclusive_bytes > 0
    assert after.owners[clone.id].held_bytes == before.owners[source.id].held_bytes

    compared = await manager.branches.compare(f"{a}-2", f"{b}-2")
    assert source.tokens <= compared.common_tokens < min(w.window.tokens for w in frozen)
    assert (compared.common_turns, compared.parting.message) == (1, 3)
    assert compared.shared_bytes == compared.common_chunks * chunk
    assert [(n.name, n.level) for n in (await manager.branches.tree(name)).nodes] == [
        (name, 0),
        (clone.name, 1),
        (f"{b}-2", 2),
        (f"{a}-2", 1),
    ]


@pytest.mark.covers("TD-003")
async def test_a_purged_sibling_takes_nothing_from_the_others(driver, name) -> None:
    manager, stack = driver.manager, await driver.workspace.connect()
    await driver.talk(name, driver.text(1500), max_tokens=8)
    source = (await manager.freeze(name, name)).window
    live = await driver.go_on(name, tokens=12)
    before = await stack.store.shares()
    clone = await manager.branches.clone(name, f"{name}-clone")
    after = await stack.store.shares()
    assert (after.contents, after.stored_bytes) == (before.contents, before.stored_bytes)
    assert after.owners[clone.id].exclusive_bytes == 0
    assert after.owners[clone.id].held_bytes == before.owners[source.id].held_bytes

    await manager.remove_session(name)
    await manager.remove_window(name)
    assert (await manager.purge([name])).freed_bytes == 0
    assert (await manager.verify(clone.name)).intact
    thawed = await manager.thaw(clone.name)
    assert thawed.complete
    assert thawed.probe.max_abs_logprob_diff == 0
    assert exact(await driver.go_on(thawed.session, tokens=12)) == exact(live)
    assert [node.state for node in (await manager.branches.tree(clone.name)).nodes] == [
        "gone",
        "intact",
    ]


async def test_an_update_keeps_the_earlier_version(driver, name) -> None:
    manager = driver.manager
    await driver.talk(name, driver.text(1500), max_tokens=8)
    first = (await manager.freeze(name, name)).window
    live = await driver.go_on(name, tokens=12)
    await driver.talk(name, driver.text(600, start=4000), max_tokens=8)
    report = await manager.freeze(name, name, update=True)
    assert (report.window.version, report.window.parent_window_id) == (2, first.id)
    thawed = await manager.thaw(f"{name}@v1", as_session=f"{name}-back")
    assert (thawed.tokens, thawed.complete) == (first.tokens, True)
    again = await driver.go_on(thawed.session, tokens=12)
    assert again.token_ids == live.token_ids
    assert (await manager.verify(f"{name}@v1")).intact
    await manager.remove_window(name)
    assert (await manager.status(window=name)).window.id == first.id
    assert (await manager.restore_window(name)).version == 2

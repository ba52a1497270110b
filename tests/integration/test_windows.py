"""Freeze and thaw on the real stack, without a restart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cwm_jupyter.core.freeze import settle
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.models import FreezePlan
from cwm_jupyter.errors import (
    SessionEmptyError,
    SessionExistsError,
    WindowExistsError,
    WindowNotFoundError,
)

pytestmark = pytest.mark.stack


@pytest.mark.covers("TF-001", "TF-002", "SR-019", "TS-001", "TS-002", "TL-002", "TL-003")
async def test_freezing_says_what_it_will_store_and_makes_a_window(driver, name) -> None:
    manager = driver.manager
    await driver.talk(name, driver.text(1500))
    plans: list[FreezePlan] = []
    job = Job("freeze")
    report = await manager.freeze(
        name, name, tags=["one", name], note="a note", on_plan=plans.append, job=job
    )
    window = report.window
    assert plans[0].size_bytes == window.size_bytes == window.chunks * await driver.chunk_bytes()
    assert report.already_stored_bytes + report.newly_stored_bytes == window.size_bytes
    assert window.tokens == window.chunks * 128 + report.tail_tokens
    stages = [stage.name for stage in job.state.stages]
    assert stages == ["look", "store", "verify", "probe", "index"]
    assert (await manager.session(name)).state == "frozen"
    assert (await manager.windows(tags=["one", name])).items == [window]
    status = await manager.status(window=name)
    assert status.chunks_present == window.chunks
    assert status.window.note == "a note"
    assert window.tokens - status.probe.position_tokens == (window.tokens % 128 == 0)
    again = await manager.freeze(f"{name}-again", name)
    assert again.newly_stored_bytes == 0
    assert again.window.parent_window_id == window.id
    await manager.say(name, "Go on.", max_tokens=4)
    assert (await manager.session(name)).state == "active"


@pytest.mark.covers("TF-003")
async def test_a_second_window_of_the_name_is_refused(driver, name) -> None:
    await driver.talk(name, "Hello.")
    first = await driver.manager.freeze(name, name)
    with pytest.raises(WindowExistsError):
        await driver.manager.freeze(name.upper(), name)
    assert (await driver.manager.status(window=name)).window == first.window


async def test_an_empty_session_is_refused(driver, name) -> None:
    await driver.manager.create_session(name)
    with pytest.raises(SessionEmptyError):
        await driver.manager.freeze(name, name)


@pytest.mark.covers("TT-001", "TT-003")
async def test_thaw_without_a_restart(driver, name) -> None:
    manager = driver.manager
    await driver.talk(name, driver.text(1500))
    await manager.freeze(name, name)
    with pytest.raises(WindowNotFoundError, match=name):
        await manager.thaw(name[:-1])
    with pytest.raises(SessionExistsError):
        await manager.thaw(name, as_session=name)
    report = await manager.thaw(name, as_session=f"{name}-b")
    assert report.complete
    assert report.probe.max_abs_logprob_diff == 0
    session = await manager.session(f"{name}-b")
    assert session.state == "thawed"
    assert (await manager.status(window=name)).window.thaws == 1


async def test_a_failed_store_is_stored_again(driver, name) -> None:
    """Chunks that are in memory alone: LMCache would not store them a second time by itself."""
    manager, stack = driver.manager, await driver.workspace.connect()
    await driver.talk(name, driver.text(1500))
    held = await driver.held(name)
    await settle(
        stack,
        stack.store,
        held.keys,
        held.transcript.token_ids,
        held.salt,
        job=Job("t"),
        timeout_s=20,
    )
    assert await stack.store.delete(held.keys[1:3]) == 2
    report = await manager.freeze(name, name)
    assert report.newly_stored_bytes == 2 * await driver.chunk_bytes()
    assert None not in await stack.store.stat(held.keys)
    assert (await manager.thaw(name)).complete


async def test_a_stack_whose_files_we_cannot_read_proves_presence(driver, name) -> None:
    """As with servers that somebody else runs: counted, not verified."""
    manager = driver.manager
    stack = await driver.workspace.connect()
    await driver.talk(name, driver.text(1500))
    state, connected = driver.workspace._connected
    driver.workspace._connected = state, replace(connected, store=None)
    report = await manager.freeze(name, name)
    assert report.window.proof.level == "present"
    assert report.window.size_bytes == report.window.chunks * await driver.chunk_bytes()
    thawed = await manager.thaw(name)
    assert thawed.complete
    assert thawed.probe.max_abs_logprob_diff == 0
    assert stack.store is not None


@pytest.mark.covers("TD-001")
async def test_a_removed_window_is_gone_until_it_is_restored(driver, name) -> None:
    manager = driver.manager
    await driver.talk(name, "Hello.")
    await manager.freeze(name, name)
    await manager.remove_window(name)
    with pytest.raises(WindowNotFoundError):
        await manager.status(window=name)
    await manager.restore_window(name)
    assert (await manager.thaw(name)).probe.passed

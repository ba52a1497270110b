"""Export and import on the real stack."""

from __future__ import annotations

import pytest
from archives import Kit

from cwm_jupyter.core.archive.signing import Signers
from cwm_jupyter.errors import WindowNotFoundError

pytestmark = pytest.mark.stack


async def exported(driver, name, path, **options):
    """A window of two turns in a file, and nothing of it left in the home and the stack."""
    manager = driver.manager
    await driver.talk(name, driver.text(1700, start=4000), "Go on.")
    window = (await manager.freeze(name, name, tags=["archive"], note="a note")).window
    live = await driver.go_on(name)
    await manager.archives.export([name], path, **options)
    await manager.remove_window(name)
    await manager.remove_session(name)
    await manager.purge()
    with pytest.raises(WindowNotFoundError):
        await manager.status(window=name)
    await driver.forget_in_engine()
    return window, live


@pytest.mark.parametrize("passphrase", [None, "correct horse"], ids=["plain", "encrypted"])
async def test_a_window_comes_back_from_its_file_alone(driver, name, tmp_path, passphrase) -> None:
    """In a new lineage, so under other keys: and yet every chunk is taken, to the bit."""
    path = tmp_path / "window.cwm"
    window, live = await exported(driver, name, path, passphrase=passphrase)
    report = await driver.manager.archives.import_file(path, passphrase=passphrase)
    assert report.signer.trusted  # it is this home's own
    assert (report.recomputed, report.differences) == (None, [])
    [imported] = report.windows
    assert imported.window.lineage_id != window.lineage_id
    assert imported.window.size_bytes == window.size_bytes
    assert (imported.window.tags, imported.window.note) == (["archive"], "a note")
    assert (await driver.manager.verify(name)).intact
    thawed = await driver.manager.thaw(name, as_session=f"{name}-b")
    assert thawed.complete
    assert thawed.cached_tokens == window.chunks * window.chunk_tokens
    assert (thawed.probe.tolerance, thawed.probe.max_abs_logprob_diff) == (0, 0)
    again = await driver.go_on(thawed.session)
    assert (again.token_ids, again.logprobs) == (live.token_ids, live.logprobs)


async def test_kv_of_a_stranger_is_computed_anew(driver, name, tmp_path) -> None:
    """A stranger's archive with KV that is none: the model never sees it."""
    path = tmp_path / "window.cwm"
    window, live = await exported(driver, name, path)
    kit = Kit.of(path)
    kit.contents = [bytes(len(data)) for data in kit.contents]
    kit.contents = kit.contents[:1]
    kit.details[0]["contents"] = [0] * len(kit.details[0]["contents"])
    kit.write(path, Signers(tmp_path / "stranger"))
    report = await driver.manager.archives.import_file(path)
    assert not report.signer.trusted
    assert report.recomputed == "untrusted"
    [imported] = report.windows
    assert imported.window.chunks == window.chunks
    assert imported.as_shown
    assert imported.probe.passed  # within the tolerance: it was computed in other shapes
    thawed = await driver.manager.thaw(name, as_session=f"{name}-b")
    assert thawed.complete
    assert (thawed.probe.tolerance, thawed.probe.max_abs_logprob_diff) == (0, 0)
    again = await driver.go_on(thawed.session, tokens=8)
    assert again.token_ids == live.token_ids[:8]

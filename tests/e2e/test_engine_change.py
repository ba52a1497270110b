"""The real engine restarted with a setting that changes the KV's bytes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest
from stack_driver import Driver

from cwm_jupyter.core.connection import ConnectedStack, EngineFacts
from cwm_jupyter.errors import EngineMismatchError, ProbeError
from cwm_jupyter.stack import launcher
from cwm_jupyter.workspace import Workspace

pytestmark = [pytest.mark.stack, pytest.mark.leaves_no_stack]


@pytest.mark.covers("TT-004")
async def test_another_layout_is_refused_and_the_probe_would_catch_it(
    workspace, stack_settings, name, monkeypatch
) -> None:
    """With other blocks the engine reads the same bytes as other tokens' keys and values."""
    driver = Driver(workspace)
    await driver.talk(name, driver.text(3000))
    frozen = await workspace.manager.freeze(name, name)
    facts = await (await workspace.connect()).facts()
    await workspace.disconnect()

    other = msgspec.structs.replace(
        stack_settings,
        stack=msgspec.structs.replace(stack_settings.stack, engine_args=("--block-size", "64")),
    )
    await asyncio.to_thread(launcher.down, stack_settings)
    await asyncio.to_thread(launcher.up, other)
    workspace = Workspace(other)
    manager = workspace.manager
    try:
        with pytest.raises(EngineMismatchError, match="block_tokens") as refusal:
            await manager.thaw(name)
        differences = refusal.value.context["differences"]
        assert [(d["frozen"], d["engine"]) for d in differences] == [(128, 64)]
        assert await manager.find_session(f"{name}-2") is None

        # The check bypassed: the engine is taken for the window's, so its salt opens the chunks.
        async def pretend(self: ConnectedStack) -> EngineFacts:
            return replace(facts)

        with monkeypatch.context() as patch:
            patch.setattr(ConnectedStack, "facts", pretend)
            with pytest.raises(ProbeError) as caught:
                await manager.thaw(name)
        report = caught.value.context["report"]
        assert report["cached_tokens"] > 0  # it was hit, and it was garbage
        assert report["probe"]["repeated"]
        assert await manager.find_session(f"{name}-2") is None
        assert (await manager.status(window=name)).window == frozen.window

        # Built anew from its tokens it is right on this engine too.
        anew = await manager.thaw(name, recompute=True)
        assert (anew.recompute, anew.cached_tokens) == (True, 0)
        assert anew.probe.passed
    finally:
        await workspace.disconnect()
        await asyncio.to_thread(launcher.down, other)

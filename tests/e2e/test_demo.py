"""The demo as a user starts it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import anyio
import pytest

from cwm_jupyter.stack.servers import Servers

pytestmark = pytest.mark.stack

_KEYS = {
    "prompt_tokens",
    "cold_ttft_s",
    "live_ttft_s",
    "restore_s",
    "next_ttft_s",
    "expected_cached_tokens",
    "thaw_cached_tokens",
    "identical_tokens",
    "max_abs_logprob_diff",
    "probe_passed",
    "freeze_commit_s",
    "freeze_probe_s",
    "window_bytes",
    "model",
    "versions",
}


async def test_the_demo_shows_an_exact_restore(stack, stack_settings) -> None:
    cwm = Path(sys.executable).with_name("cwm")
    with Servers(stack) as servers:
        facts = await asyncio.to_thread(servers.engine_facts)
    assert facts is not None
    done = await anyio.run_process(
        [cwm, "demo", "--json"],
        env={
            **os.environ,
            "CWM_HOME": str(stack_settings.home),
            "CWM_CACHE_DIR": str(stack_settings.cache_dir),
        },
        stderr=None,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert result.keys() == _KEYS
    assert 5500 <= result["prompt_tokens"] <= 6500
    assert result["identical_tokens"] is True
    assert result["max_abs_logprob_diff"] == 0
    assert result["probe_passed"] is True
    assert result["thaw_cached_tokens"] == result["expected_cached_tokens"]
    assert result["expected_cached_tokens"] == (result["prompt_tokens"] - 1) // 128 * 128
    assert result["window_bytes"] == result["expected_cached_tokens"] * facts["kv_bytes_per_token"]
    assert result["versions"]["vllm"].endswith("0.32.0")
    assert await asyncio.to_thread((stack_settings.home / "index.json").exists)

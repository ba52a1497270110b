"""The real stack: ready, private, watched, and brought back when its engine is killed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import httpx2
import psutil
import pytest

from cwm_jupyter.config import Settings
from cwm_jupyter.stack import launcher, processes
from cwm_jupyter.stack.doctor import diagnose
from cwm_jupyter.stack.servers import Servers
from cwm_jupyter.stack.state import StackState

pytestmark = pytest.mark.stack


def test_up_on_a_running_stack_says_so(stack: StackState, stack_settings: Settings) -> None:
    again = launcher.up(stack_settings)
    assert again.already_running
    assert again.parts == stack.parts


def test_status_names_both_servers_and_what_they_take(
    stack: StackState, stack_settings: Settings
) -> None:
    seen = launcher.status(stack_settings)
    assert (seen.phase, seen.model) == ("up", stack.served_model)
    memory = {part.name: part.memory_bytes or 0 for part in seen.parts}
    assert memory["vllm"] > 500e6
    assert memory["lmcache"] > 100e6


def test_the_keys_of_chunks_do_not_say_where_the_model_lies(stack: StackState) -> None:
    assert stack.kv_model_name is not None
    assert "/" not in stack.kv_model_name
    assert stack.world_size == 1


def test_both_servers_want_the_key(stack: StackState) -> None:
    with httpx2.Client(trust_env=False) as nobody:
        for url in (
            f"{stack.lmcache_url}/status",
            f"{stack.lmcache_url}/metrics",
            f"{stack.engine_url}/v1/models",
            f"{stack.engine_url}/cwm/facts",
        ):
            assert nobody.get(url).status_code == 401, url


def test_the_key_is_on_no_command_line(stack: StackState) -> None:
    key = stack.api_key
    assert key
    for process in stack.parts.values():
        assert not any(key in argument for argument in psutil.Process(process.pid).cmdline())


def test_the_servers_listen_on_loopback_alone(stack: StackState) -> None:
    members = [member for one in stack.parts.values() for member in processes.tree(one)]
    listening = [
        connection.laddr.ip
        for member in members
        for connection in psutil.Process(member.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 2
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_what_the_stack_leaves_on_disk_is_private(
    stack: StackState, stack_settings: Settings
) -> None:
    private = [Path(stack.leftovers[0]), stack_settings.run_dir, stack_settings.vault_dir]
    assert [stat.S_IMODE(path.stat().st_mode) for path in private] == [0o700] * 3
    segments = [Path(path) for path in stack.leftovers if path.startswith("/dev/shm/")]
    assert segments
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in segments)


def test_the_engine_tells_all_that_shapes_its_bytes(stack: StackState) -> None:
    with Servers(stack) as servers:
        facts = servers.engine_facts()
    assert facts is not None
    assert facts["exact"] is True
    assert facts["block_tokens"] == stack.chunk_tokens
    unknown = {name for name, value in facts.items() if value is None}
    assert unknown == {"why_inexact"}
    assert facts["threads"] <= (os.cpu_count() or 1)


def test_the_doctor_finds_no_error(stack: StackState, stack_settings: Settings) -> None:
    findings = {one.id: one for one in diagnose(stack_settings)}
    assert [one.what for one in findings.values() if one.level == "error"] == []
    assert findings["exact"].level == "ok"
    assert "shared memory" in findings["transfer"].what
    assert stack.engine_url in findings["ports"].what


def test_logs_tell_how_the_engine_started(stack: StackState, stack_settings: Settings) -> None:
    assert stack.api_key is not None
    for part in ("vllm", "lmcache"):
        text = "\n".join(launcher.logs(stack_settings, part, lines=10_000))
        assert "Started server process" in text
        assert stack.api_key not in text


def test_a_killed_engine_is_noticed_and_up_brings_the_pair_back(
    stack: StackState, stack_settings: Settings
) -> None:
    psutil.Process(stack.parts["vllm"].pid).kill()
    while processes.alive(stack.parts["vllm"]):
        pass
    seen = launcher.status(stack_settings)
    assert seen.phase == "degraded"
    assert {part.name: part.phase for part in seen.parts}["vllm"] == "dead"
    again = launcher.up(stack_settings)
    assert not again.already_running
    members = [one for part in stack.members.values() for one in part]
    assert not any(map(processes.alive, members))
    assert not any(Path(path).exists() for path in stack.leftovers)
    assert launcher.status(stack_settings).phase == "up"
    with Servers(again) as servers:
        assert servers.served_model() == stack.served_model

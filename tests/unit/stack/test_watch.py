"""The watchdog stops what idles and nothing else; the doctor tells what it sees."""

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from cwm_jupyter.config import Settings
from cwm_jupyter.core.audit import Audit
from cwm_jupyter.stack import commands, doctor, processes, state, watchdog
from cwm_jupyter.stack.doctor import Finding, diagnose
from cwm_jupyter.stack.servers import Servers
from cwm_jupyter.stack.state import StackState


@pytest.fixture
def idle(settings: Settings) -> Settings:
    stack = msgspec.structs.replace(settings.stack, idle_stop_s=0.05)
    return msgspec.structs.replace(settings, stack=stack)


@pytest.fixture
def stack(idle: Settings) -> StackState:
    own = processes.identify(os.getpid())
    stack = StackState(
        kind="local",
        phase="ready",
        engine_url="http://127.0.0.1:9",
        lmcache_url="http://127.0.0.1:9",
        parts={"vllm": own, "lmcache": own},
        started_at="2026-01-01T00:00:00Z",
    )
    state.save(idle.home, stack)
    return stack


def work(monkeypatch: pytest.MonkeyPatch, figures: Iterator[float | None]) -> None:
    monkeypatch.setattr(Servers, "work_done", lambda _: next(figures))


def test_an_idle_stack_is_stopped_once_its_work_stands_still(
    idle: Settings, stack: StackState, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [1.0, 2.0, None, 3.0, *[4.0] * 1000]
    figures = iter(seen)
    work(monkeypatch, figures)
    stopped: list[Settings] = []
    watchdog.watch(idle, stack, stopped.append, poll_s=0.01)
    assert stopped == [idle]
    assert next(figures) == 4.0


def test_another_stack_is_left_alone(
    idle: Settings, stack: StackState, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(monkeypatch, iter([1.0] * 1000))
    state.save(idle.home, stack.replace(started_at="2026-01-02T00:00:00Z"))
    watchdog.watch(idle, stack, lambda _: pytest.fail("stopped"), poll_s=0.01)


def test_the_watch_ends_with_the_stack(
    idle: Settings, stack: StackState, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(monkeypatch, iter([1.0] * 3))
    dead = stack.parts["vllm"].replace(created_s=0.0)
    gone = stack.replace(parts={"vllm": dead, "lmcache": dead})
    watchdog.watch(idle, gone, lambda _: pytest.fail("stopped"), poll_s=0.01)


def finding(settings: Settings, wanted: str) -> Finding:
    return next(one for one in diagnose(settings) if one.id == wanted)


def test_an_empty_home_gets_a_whole_report(settings: Settings) -> None:
    findings = diagnose(settings)
    ids = [one.id for one in findings]
    assert len(ids) == len(set(ids))
    assert {"platform", "environment", "model", "memory", "shm", "stack", "users"} <= set(ids)
    for one in findings:
        assert one.level == "ok" or one.hint


def test_an_audit_log_that_was_changed_is_told(settings: Settings) -> None:
    assert finding(settings, "audit").what == "The audit log is empty."
    with Audit(settings.home).entry("freeze", window="paper"):
        pass
    assert finding(settings, "audit").what == "The audit log is intact."
    log = settings.home / "audit" / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b"paper", b"pager"))
    found = finding(settings, "audit")
    assert (found.level, found.figures) == ("warn", {"lines": 2, "faults": 1})
    assert "not as it was written" in found.what
    log.unlink()
    log.mkdir()
    assert "cannot be read" in finding(settings, "audit").what


def test_a_machine_that_gives_no_ports_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(address: tuple[str, int]) -> None:
        raise OSError(1, "Operation not permitted")

    assert finding(settings, "ports").level == "ok"
    monkeypatch.setattr(doctor.socket, "create_server", refuse)
    found = finding(settings, "ports")
    assert found.level == "error"
    assert "Operation not permitted" in found.what


def test_too_little_memory_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    little = namedtuple("svmem", "available")(10**9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: little)
    found = finding(settings, "memory")
    assert found.level == "warn"
    assert found.figures["free_bytes"] == 10**9
    assert "1.0 GB of memory" in found.what


def test_too_little_shared_memory_is_an_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = msgspec.structs.replace(settings.stack, memory_gib=65_000.0)
    found = finding(msgspec.structs.replace(settings, stack=stack), "shm")
    assert found.level == "error"
    assert "--shm-size" in (found.hint or "")


@pytest.mark.parametrize(("kind", "level"), [("ext4", "ok"), ("nfs4", "warn"), ("fuse.s3", "warn")])
def test_a_network_file_system_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, kind: str, level: str
) -> None:
    root = namedtuple("sdiskpart", "mountpoint fstype opts")("/", kind, "rw,relatime")
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: [root])  # noqa: A006
    monkeypatch.setattr(Path, "resolve", lambda path: Path("/somewhere"))
    assert finding(settings, "filesystem.vault").level == level


def test_other_users_are_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_other_users", lambda: {"eve"})
    found = finding(settings, "users")
    assert found.level == "warn"
    assert "eve" in found.what


def test_a_dead_stack_is_an_error(settings: Settings, stack: StackState) -> None:
    dead = stack.parts["vllm"].replace(created_s=0.0)
    state.save(settings.home, stack.replace(parts={"vllm": dead, "lmcache": dead}))
    found = finding(settings, "stack")
    assert found.level == "error"
    assert found.figures == {"vllm": "dead", "lmcache": "dead"}


def test_a_missing_model_is_an_error(settings: Settings) -> None:
    stack = msgspec.structs.replace(settings.stack, model="org/none")
    assert finding(msgspec.structs.replace(settings, stack=stack), "model").level == "error"


def test_a_check_that_cannot_be_made_is_a_warning(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> set[str]:
        raise psutil.AccessDenied

    monkeypatch.setattr(doctor, "_other_users", refuse)
    assert finding(settings, "unavailable").level == "warn"


@pytest.mark.parametrize(("slow", "kind", "times"), [(False, "cpu", 1), (True, "cpu", 2)])
def test_the_weights_count_in_the_memory_that_is_needed(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    slow: bool,
    kind: str,
    times: int,
) -> None:
    """Without AVX-512 the engine computes in float32, twice what the files have."""
    for module in (commands, doctor):
        monkeypatch.setattr(module, "slow_in_bfloat16", lambda: slow)
    monkeypatch.setattr(commands, "engine_kind", lambda: kind)
    monkeypatch.setattr(doctor.environment, "engine_kind", lambda: kind)
    without = finding(settings, "memory").figures
    assert without["weights_bytes"] == times * doctor._EMBEDDED_WEIGHTS_BYTES
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    for part, size in (("a.safetensors", 3000), ("b.safetensors", 4000), ("c.bin", 7000)):
        (model / part).write_bytes(bytes(size))
    stack = msgspec.structs.replace(settings.stack, model=str(model))
    given = msgspec.structs.replace(settings, stack=stack)
    figures = finding(given, "memory").figures
    assert figures["weights_bytes"] == times * 7000
    caches = (settings.stack.kv_cache_gib + settings.stack.memory_gib) * 2**30
    assert figures["needed_bytes"] == caches + doctor._ENGINE_BYTES + times * 7000
    (model / "config.json").write_text('{"quantization_config": {"bits": 4}}')
    assert finding(given, "memory").figures["weights_bytes"] == 7000
    for part in model.glob("*.safetensors"):
        part.unlink()
    assert finding(given, "memory").figures["weights_bytes"] == 7000
    lost = msgspec.structs.replace(settings, stack=msgspec.structs.replace(stack, model="/none"))
    assert finding(lost, "memory").figures["weights_bytes"] == 0


def test_a_gpu_has_the_weights_and_the_engine_s_cache_itself(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.environment, "engine_kind", lambda: "gpu")
    figures = finding(settings, "memory").figures
    assert figures["weights_bytes"] == 0
    assert figures["needed_bytes"] == settings.stack.memory_gib * 2**30 + doctor._ENGINE_BYTES

"""Starting, watching and stopping with servers of a few lines, in place of the real ones."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import psutil
import pytest

from cwm_jupyter.config import Settings
from cwm_jupyter.core.job import Job
from cwm_jupyter.errors import CancelledJobError, StackDownError, StackError, StackStartError
from cwm_jupyter.stack import commands, launcher, processes, state
from cwm_jupyter.stack.model import Model

# Both servers in one: what the launcher asks of either, behind the key.
_SERVER = """
import http.server, json, os, sys
KEY = "Bearer " + os.environ.get("VLLM_API_KEY", os.environ.get("LMCACHE_HTTP_KEY", ""))
STATUS = {"chunk_size": 128, "storage_manager": {
    "store_controller": {"pending_keys_count": 0, "in_flight_task_count": 0}},
    "non_cuda_context_meta": {"1": {"model_name": "tiny", "world_size": 1, "block_size": 128}}}
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, code=200):
        if self.headers.get("Authorization") != KEY:
            code = 401
        body = json.dumps(STATUS).encode()
        if self.path == "/metrics":
            body = b"vllm:prompt_tokens_total{} 5.0"
        self.send_response(code); self.send_header("Content-Length", str(len(body)))
        self.end_headers(); self.wfile.write(body)
    do_GET = answer
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"])); self.answer()
    def log_message(self, *_): pass
print("serving", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
_BROKEN = "print('loading'); raise ValueError('no such block size')"


class Fakes:
    """The command lines that take the servers' places."""

    def __init__(self) -> None:
        self.vllm = self.lmcache = _SERVER

    def engine(self, _: Settings, plan: commands.Plan) -> list[str]:
        return [sys.executable, "-c", self.vllm, str(plan.engine_port)]

    def cache(self, _: Settings, plan: commands.Plan) -> list[str]:
        return [sys.executable, "-c", self.lmcache, str(plan.lmcache_port)]


@pytest.fixture
def fakes(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fakes = Fakes()
    (tmp_path / "tiny").mkdir()
    monkeypatch.setattr(commands, "engine_command", fakes.engine)
    monkeypatch.setattr(commands, "cache_command", fakes.cache)
    monkeypatch.setattr(launcher, "ensure_environment", lambda *_: Path(sys.executable))
    monkeypatch.setattr(launcher, "ensure_model", lambda *_: Model("tiny", tmp_path / "tiny"))
    yield fakes
    launcher.down(settings)


def running(stack: state.StackState) -> list[bool]:
    return [processes.alive(process) for process in stack.parts.values()]


def test_up_starts_both_and_down_leaves_nothing(settings: Settings, fakes: Fakes) -> None:
    job = Job("up")
    stack = launcher.up(settings, job)
    assert running(stack) == [True, True]
    assert not stack.already_running
    assert (stack.kv_model_name, stack.world_size, stack.chunk_tokens) == ("tiny", 1, 128)
    assert set(stack.stages_s) == {"lmcache", "vllm", "warm_up"}
    assert "warming up" in {stage.name for stage in job.state.stages}
    private = Path(stack.leftovers[0])
    assert private.stat().st_mode & 0o777 == 0o700
    launcher.down(settings)
    assert running(stack) == [False, False]
    assert not private.exists()
    assert state.current(settings.home) is None


def test_up_on_a_running_stack_says_so(settings: Settings, fakes: Fakes) -> None:
    first = launcher.up(settings)
    second = launcher.up(settings)
    assert second.already_running
    assert second.parts == first.parts


def test_two_ups_at_once_start_one(settings: Settings, fakes: Fakes) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: launcher.up(settings), range(2))
    assert one.parts == other.parts
    assert sorted([one.already_running, other.already_running]) == [False, True]


@pytest.mark.parametrize("part", ["vllm", "lmcache"])
def test_a_dead_server_is_noticed_and_up_brings_the_pair_back(
    settings: Settings, fakes: Fakes, part: state.PartName
) -> None:
    stack = launcher.up(settings)
    psutil.Process(stack.parts[part].pid).kill()
    while processes.alive(stack.parts[part]):
        pass
    seen = launcher.status(settings)
    assert seen.phase == "degraded"
    assert {one.name: one.phase for one in seen.parts}[part] == "dead"
    again = launcher.up(settings)
    assert not again.already_running
    assert running(stack) == [False, False]
    assert running(again) == [True, True]


def test_status_tells_what_runs_and_nothing_of_what_does_not(
    settings: Settings, fakes: Fakes
) -> None:
    assert launcher.status(settings).phase == "down"
    launcher.up(settings)
    seen = launcher.status(settings)
    assert (seen.phase, seen.kind, seen.model) == ("up", "local", "tiny")
    for part in seen.parts:
        assert part.phase == "up"
        assert part.memory_bytes is not None
        assert part.since is not None


@pytest.mark.parametrize("part", ["vllm", "lmcache"])
def test_a_server_that_ends_while_starting_is_explained(
    settings: Settings, fakes: Fakes, part: state.PartName
) -> None:
    setattr(fakes, part, _BROKEN)
    with pytest.raises(StackStartError, match="ValueError: no such block size") as raised:
        launcher.up(settings)
    assert raised.value.context["part"] == part
    assert launcher.status(settings).phase == "down"
    assert "loading" in launcher.logs(settings, part)


def test_a_server_that_never_answers_is_given_up(settings: Settings, fakes: Fakes) -> None:
    fakes.vllm = "import time; time.sleep(60)"
    stack = msgspec.structs.replace(settings.stack, start_timeout_s=0.5)
    with pytest.raises(StackStartError, match=r"not ready within 0\.5 s"):
        launcher.up(msgspec.structs.replace(settings, stack=stack))
    assert launcher.status(settings).phase == "down"


def test_a_cancelled_start_leaves_nothing(settings: Settings, fakes: Fakes) -> None:
    fakes.vllm = "import time; time.sleep(60)"
    started: list[state.StackState] = []

    def cancel_once_started(_: object) -> None:
        known = state.current(settings.home)
        if known is not None and len(known.parts) == 2:
            started.append(known)
            job.cancel()

    job = Job("up", cancel_once_started)
    with pytest.raises(CancelledJobError):
        launcher.up(settings, job)
    assert running(started[0]) == [False, False]


def test_what_a_killed_up_has_started_is_cleared_by_the_next(
    settings: Settings, fakes: Fakes
) -> None:
    left = launcher.up(settings).replace(phase="starting")
    state.save(settings.home, left)
    stack = launcher.up(settings)
    assert running(left) == [False, False]
    assert running(stack) == [True, True]


def test_logs_of_no_stack(settings: Settings) -> None:
    with pytest.raises(StackDownError, match="no log of vllm"):
        launcher.logs(settings)


def test_an_engine_that_does_not_answer_is_not_connected_to(settings: Settings) -> None:
    url = f"http://127.0.0.1:{processes.free_port()}"
    with pytest.raises(StackStartError, match=url):
        launcher.connect(settings, url)
    assert state.current(settings.home) is None


def test_a_remote_stack_is_not_replaced_by_a_local_one(settings: Settings) -> None:
    remote = state.StackState(
        kind="remote",
        phase="ready",
        engine_url="http://127.0.0.1:9",
        lmcache_url=None,
        started_at="2026-01-01T00:00:00Z",
    )
    state.save(settings.home, remote)
    with pytest.raises(StackError, match="connected to"):
        launcher.up(settings)
    assert launcher.status(settings).phase == "degraded"
    launcher.down(settings)
    assert launcher.status(settings).phase == "down"


def test_the_servers_get_private_logs(settings: Settings, fakes: Fakes) -> None:
    stack = launcher.up(settings)
    for log in map(Path, stack.logs.values()):
        assert log.stat().st_mode & 0o777 == 0o600
    assert launcher.logs(settings, "lmcache") == ["serving"]


def test_the_environment_of_this_process_is_left_alone(settings: Settings, fakes: Fakes) -> None:
    before = dict(os.environ)
    launcher.up(settings)
    assert dict(os.environ) == before


def test_an_idle_stack_is_stopped_by_its_watchdog(settings: Settings, fakes: Fakes) -> None:
    stack = msgspec.structs.replace(settings.stack, idle_stop_s=0.2)
    started = launcher.up(msgspec.structs.replace(settings, stack=stack))
    watchdog = psutil.Process(started.parts["watchdog"].pid)
    gone, _ = psutil.wait_procs([watchdog], timeout=30)
    assert gone
    assert running(started) == [False, False, False]
    assert state.current(settings.home) is None

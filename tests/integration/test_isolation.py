"""Isolation on the real stack: between lineages, and between the users of a machine.

What another user can do is tried as another user, which only root can become.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import stat
from pathlib import Path

import nbformat
import psutil
import pytest
from nbclient import NotebookClient
from second_user import REFUSED, attempt, is_root
from stack_driver import Driver

from cwm_jupyter import config
from cwm_jupyter.cli import main
from cwm_jupyter.errors import CWMError
from cwm_jupyter.stack import processes
from cwm_jupyter.stack.state import StackState

pytestmark = pytest.mark.stack
needs_root = pytest.mark.skipif(not is_root(), reason="only root can become another user")


@pytest.mark.covers("SC-001")
async def test_the_same_tokens_in_another_lineage_hit_nothing(driver: Driver, name: str) -> None:
    manager, question = driver.manager, driver.text(1500, start=4000)
    await driver.talk(name, question)
    await manager.freeze(name, name)
    one = await driver.held(name)
    stack = await driver.workspace.connect()

    async def found(salt: str) -> int:
        result = await stack.cache.prefetch(
            one.transcript.token_ids,
            model_name=stack.kv_model_name,
            world_size=stack.world_size,
            cache_salt=salt,
        )
        return result.found

    guesses = ["", "0" * 32, one.session.lineage_id, one.session.id]
    for forget in (False, True):  # from the engine's own cache, and from LMCache
        if forget:
            await driver.forget_in_engine()
        other = f"{name}-{forget}"
        await manager.create_session(other)
        reply = await manager.say(other, question, max_tokens=4)
        assert reply.cached_tokens == 0
        two = await driver.held(other)
        shared = one.transcript.token_ids[: reply.turn.prompt_end]
        assert shared == two.transcript.token_ids[: reply.turn.prompt_end]
        assert two.salt != one.salt
        assert not set(one.keys) & set(two.keys)
    for guess in guesses:
        assert await found(guess) == 0
        generation = await stack.engine.complete(
            one.transcript.token_ids, cache_salt=guess or "none", max_tokens=1
        )
        assert not generation.cached_tokens
    assert await found(one.salt) == len(one.keys)


_CELLS = (
    "%load_ext cwm_jupyter",
    "%%cwm -s {name}\nWhat is the capital of France?",
    "%freeze {name} -s {name} -o report",
    "%thaw {name} --as {name}-b -o thawed",
    "%cwm show {name}",
    "%cwm ls",
    "%cwm status",
    "%cwm admin audit",
    "print(report, thawed, report.to_dict(), thawed.to_dict())",
    "from cwm_jupyter.workspace import get_workspace\nw = get_workspace()\n"
    "print(w.settings, w.keyring, w.manager, w.library)",
    "%thaw nothing-like-it",
    "%freeze {name}/x",
)


@pytest.mark.covers("SC-001")
async def test_salts_and_keys_are_nowhere_to_be_seen(
    driver: Driver, name: str, stack: StackState, monkeypatch, tmp_path, capsys
) -> None:
    home = driver.workspace.settings.home
    monkeypatch.setenv("CWM_HOME", str(home))
    monkeypatch.setenv("CWM_CACHE_DIR", str(driver.workspace.settings.cache_dir))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    config.reset_settings()
    name = name[-20:]
    shown = {"notebook": await _notebook(name, tmp_path)}
    for arguments in _commands(name, tmp_path):
        await asyncio.to_thread(main, arguments)
        captured = capsys.readouterr()
        shown[" ".join(arguments)] = captured.out + captured.err
    shown |= _written(stack, home, tmp_path)
    shown["figures"] = str(await (await driver.workspace.connect()).cache.figures())
    shown["arguments"] = _all_arguments()
    secrets = await _secrets(driver, stack)
    assert len(secrets) > 6
    assert name in shown["notebook"]
    for (where, text), (what, secret) in itertools.product(shown.items(), secrets.items()):
        assert secret not in text, f"{what} in {where}"


def _written(stack: StackState, home: Path, folder: Path) -> dict[str, str]:
    """What the servers and we wrote: logs, names of files, exports, the index, the audit log."""
    files = [Path(log) for log in stack.logs.values()]
    files += [home / "audit" / "audit.jsonl", home / "index.json"]
    files += [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".cwm" for path in files)
    folders = [home, Path(stack.store_dir or ""), Path(stack.leftovers[0]), Path("/dev/shm")]
    names = [str(path) for one in folders for path in one.rglob("*")]
    return {
        "names of files": "\n".join(names),
        **{str(path): path.read_bytes().decode("latin-1") for path in files},
    }


async def _notebook(name: str, folder: Path) -> str:
    cells = [nbformat.v4.new_code_cell(cell.replace("{name}", name)) for cell in _CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(
        notebook, timeout=300, allow_errors=True, resources={"metadata": {"path": str(folder)}}
    )
    await client.async_execute()
    failed = [cell.source for cell in cells if any(o.output_type == "error" for o in cell.outputs)]
    assert failed == [cell.source for cell in cells[-2:]]
    return nbformat.writes(notebook)


def _commands(name: str, folder: Path) -> list[list[str]]:
    commands = [
        ["status"], ["ls"], ["show", name], ["show", "-s", name], ["doctor"],
        ["logs", "vllm", "-n", "10000"], ["logs", "lmcache", "-n", "10000"],
        ["verify", name], ["repair", name], ["tree"], ["compare", name, name],
        ["clone", name, f"{name}-c"], ["show", "no-such-window"], ["freeze", f"{name}:x"],
        ["export", name, str(folder / "out.cwm"), "--force"],
        ["export", "--text", name, str(folder / "out.md"), "--force"],
        ["admin", "du"], ["admin", "gc", "--dry-run"], ["admin", "purge", "--dry-run"],
        ["admin", "audit"], ["admin", "config"], ["verify", "--deleted"],
    ]  # fmt: skip
    return [[*one, *extra] for one in commands for extra in ([], ["--json"])]


def _all_arguments() -> str:
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return "\n".join(lines)


async def _secrets(driver: Driver, stack: StackState) -> dict[str, str]:
    """Everything that nobody else may know, as it would look in a text."""
    library, home = driver.workspace.library, driver.workspace.settings.home
    connected = await driver.workspace.connect()
    fingerprint = (await connected.facts()).fingerprint
    secrets = {"key of the servers": stack.api_key or ""}
    for number, lineage in enumerate(library.lineages.ids()):
        secrets[f"salt {number}"] = library.lineages.salt(lineage, fingerprint)
        secrets[f"secret {number}"] = library.lineages.path(lineage).read_bytes().hex()
        secrets[f"raw secret {number}"] = library.lineages.path(lineage).read_text("latin-1")
    secrets["key of the audit log"] = (home / "keys" / "audit.key").read_bytes().hex()
    secrets["secret of the vault"] = (Path(stack.store_dir or "") / "secret").read_bytes().hex()
    return secrets


@pytest.mark.covers("SC-001")
def test_nothing_of_the_stack_is_open_to_others(stack: StackState) -> None:
    members = [m for one in stack.parts.values() for m in processes.tree(one)]
    segments = _segments(members)
    assert any("lmcache" in path.name for path in segments)
    for path in segments:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    for member in members:
        environ = Path(f"/proc/{member.pid}/environ")
        assert stat.S_IMODE(environ.stat().st_mode) & 0o077 == 0
        for connection in psutil.Process(member.pid).net_connections("unix"):
            if connection.laddr:
                assert Path(stack.leftovers[0]) in Path(connection.laddr).parents
    assert stat.S_IMODE(Path(stack.leftovers[0]).stat().st_mode) == 0o700


@needs_root
@pytest.mark.covers("SC-001")
async def test_what_another_user_can_do(driver: Driver, stack: StackState, name: str) -> None:
    """They see that it runs; they get nothing out of it, and it goes on."""
    await driver.talk(name, driver.text(1500))
    await driver.manager.freeze(name, name)
    held = await driver.held(name)
    engine, cache = stack.engine_url, stack.lmcache_url
    body = {"model": stack.served_model, "prompt": held.transcript.token_ids, "max_tokens": 1}
    salted = {**body, "cache_salt": held.salt}
    refused = [
        *(("http", "GET", f"{engine}{path}") for path in _ENGINE_ROUTES),
        *(("http", "GET", f"{cache}{path}") for path in _CACHE_ROUTES),
        ("http", "POST", f"{engine}/v1/completions", salted),
        ("http", "POST", f"{engine}/v1/completions", salted, "not-the-key"),
        ("http", "POST", f"{engine}/invocations", salted),
        ("http", "POST", f"{engine}/scale_elastic_ep", {"new_data_parallel_size": 2}),
        ("http", "POST", f"{engine}/tokenize", {"prompt": "a"}),
        ("http", "OPTIONS", f"{engine}/v1/completions"),
        ("http", "POST", f"{cache}/cache/clear", {}),
        ("http", "POST", f"{cache}/cache/prefetches", salted),
        ("http", "DELETE", f"{cache}/cache/objects", {}),
    ]
    assert attempt(refused) == [401] * len(refused)
    private = Path(stack.leftovers[0])
    members = [m for one in stack.parts.values() for m in processes.tree(one)]
    segments = _segments(members)
    closed = [
        ("list", str(private)),
        ("create", str(private)),
        ("unix", str(private / "lmcache.sock")),
        *(("read", str(path)) for path in segments),
        *(("write", str(path)) for path in segments),
        *(("unlink", str(path)) for path in segments),
        *(("read", f"/proc/{member.pid}/environ") for member in members),
        *(("read", f"/proc/{member.pid}/mem") for member in members),
        *(("signal", member.pid) for member in members),
    ]
    assert set(attempt(closed)) == {REFUSED}
    seen = attempt([("read", f"/proc/{member.pid}/cmdline") for member in members])
    assert all(isinstance(size, int) and size > 0 for size in seen)
    # The engine's own parts would talk through these if it had several; nobody is served there.
    ports = {
        connection.laddr.port
        for member in members
        for connection in psutil.Process(member.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    served = {int(url.rpartition(":")[2]) for url in (engine, cache or "")}
    assert served < ports
    answers = attempt([("tcp", port) for port in sorted(ports - served)] * 2)
    assert set(answers) <= {"", "ConnectionResetError", "ConnectionRefusedError", "BrokenPipeError"}
    await driver.forget_in_engine()
    report = await driver.manager.thaw(name)
    assert report.complete
    assert report.probe.max_abs_logprob_diff == 0


_ENGINE_ROUTES = (
    "/health", "/metrics", "/version", "/ping", "/load", "/v1/models", "/cwm/facts", "/docs",
    "/openapi.json", "/server_info", "//v1/models", "/v1/../health",
)  # fmt: skip
_CACHE_ROUTES = (
    "/", "/status", "/metrics", "/config", "/config/adapters", "/cache/objects", "/healthcheck",
    "/quota/x", "/openapi.json", "/docs", "//metrics",
)  # fmt: skip


def _segments(members: list[processes.ProcessId]) -> list[Path]:
    """The shared memory that these processes have mapped."""
    maps = [Path(f"/proc/{member.pid}/maps") for member in members]
    mapped = "".join(one.read_text(errors="replace") for one in maps if one.exists())
    return [path for path in Path("/dev/shm").iterdir() if str(path) in mapped]


async def test_errors_and_logs_of_ours_hold_no_salt(driver: Driver, name: str) -> None:
    await driver.talk(name, driver.text(600))
    held = await driver.held(name)
    stack = await driver.workspace.connect()
    with pytest.raises(CWMError) as failed:
        await stack.engine.complete([], cache_salt=held.salt, max_tokens=1)
    error = failed.value
    assert held.salt not in f"{error!r} {error} {json.dumps(error.to_dict())} {error.to_log_dict()}"
    assert held.salt not in repr(stack)
    assert os.environ.get("VLLM_API_KEY") is None

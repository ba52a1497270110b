"""How the servers are called: the flags that the facts demand, and no secret among them."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from cwm_jupyter.config import Settings
from cwm_jupyter.stack import commands
from cwm_jupyter.stack.commands import Plan

KEY = "a-key-that-nobody-may-see"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(
        python=Path("/env/bin/python"),
        code=tmp_path / "lib",
        private=tmp_path / "private",
        models=tmp_path / "models",
        model="smollm2",
        served_model="org/smollm2",
        engine_port=1001,
        lmcache_port=1002,
        shm_name="cwm-test",
        api_key=KEY,
    )


def option(argv: list[str], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_chunk_and_block_are_equal(settings: Settings, plan: Plan) -> None:
    stack = msgspec.structs.replace(settings.stack, chunk_tokens=64)
    settings = msgspec.structs.replace(settings, stack=stack)
    assert option(commands.cache_command(settings, plan), "--chunk-size") == "64"
    assert option(commands.engine_command(settings, plan), "--block-size") == "64"


def test_a_failed_transfer_is_recomputed_and_answers_are_stored_too(
    settings: Settings, plan: Plan
) -> None:
    argv = commands.engine_command(settings, plan)
    transfer = json.loads(option(argv, "--kv-transfer-config"))
    assert transfer["kv_load_failure_policy"] == "recompute"
    assert transfer["kv_connector_extra_config"]["lmcache.mp.save_decode_cache"] is True


def test_both_servers_meet_at_a_socket_in_the_private_folder(
    settings: Settings, plan: Plan
) -> None:
    argv = commands.engine_command(settings, plan)
    extra = json.loads(option(argv, "--kv-transfer-config"))["kv_connector_extra_config"]
    socket = commands.cache_environment(plan)["LMCACHE_REQUEST_SOCKET"]
    assert extra["lmcache.mp.server_urls"] == [f"ipc://{socket}"]
    assert Path(socket).parent == plan.private
    assert "--port" not in commands.cache_command(settings, plan)


def test_the_servers_listen_on_this_machine_alone(settings: Settings, plan: Plan) -> None:
    assert option(commands.engine_command(settings, plan), "--host") == "127.0.0.1"
    assert option(commands.cache_command(settings, plan), "--http-host") == "127.0.0.1"


def test_the_key_is_in_the_environments_and_in_no_argument(settings: Settings, plan: Plan) -> None:
    arguments = commands.engine_command(settings, plan) + commands.cache_command(settings, plan)
    assert not any(KEY in argument for argument in arguments)
    assert commands.engine_environment(settings, plan)["VLLM_API_KEY"] == KEY
    assert commands.cache_environment(plan)["LMCACHE_HTTP_KEY"] == KEY
    assert KEY not in repr(plan)


def test_the_kernels_own_python_does_not_reach_the_servers(
    settings: Settings, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/kernel")
    monkeypatch.setenv("VIRTUAL_ENV", "/kernel")
    for env in (commands.cache_environment(plan), commands.engine_environment(settings, plan)):
        assert env["PYTHONPATH"] == str(plan.code)
        assert "VIRTUAL_ENV" not in env
        assert env["DO_NOT_TRACK"] == "1"


def test_the_users_arguments_come_last_and_win(settings: Settings, plan: Plan) -> None:
    stack = msgspec.structs.replace(
        settings.stack, max_model_len=4096, engine_args=("--max-num-seqs", "4")
    )
    argv = commands.engine_command(msgspec.structs.replace(settings, stack=stack), plan)
    assert option(argv, "--max-model-len") == "4096"
    assert argv[-2:] == ["--max-num-seqs", "4"]


def test_the_vault_is_where_lmcache_writes(settings: Settings, plan: Plan) -> None:
    adapter = json.loads(option(commands.cache_command(settings, plan), "--l2-adapter"))
    assert adapter["adapter_params"]["folder"] == str(settings.vault_dir)


def slow_cpu(monkeypatch: pytest.MonkeyPatch, *, slow: bool = True, kind: str = "cpu") -> None:
    monkeypatch.setattr(commands, "slow_in_bfloat16", lambda: slow)
    monkeypatch.setattr(commands, "engine_kind", lambda: kind)


def model_config(plan: Plan, text: str) -> None:
    (plan.models / plan.model).mkdir(parents=True)
    (plan.models / plan.model / "config.json").write_text(text, encoding="utf-8")


def test_a_processor_without_avx512_computes_in_float32(
    settings: Settings, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_cpu(monkeypatch)
    model_config(plan, '{"model_type": "llama", "dtype": "bfloat16"}')
    assert option(commands.engine_command(settings, plan), "--dtype") == "float32"


@pytest.mark.parametrize(("slow", "kind"), [(False, "cpu"), (True, "gpu"), (False, "gpu")])
def test_elsewhere_the_model_chooses_its_data_type(
    settings: Settings, plan: Plan, monkeypatch: pytest.MonkeyPatch, slow: bool, kind: str
) -> None:
    slow_cpu(monkeypatch, slow=slow, kind=kind)
    assert "--dtype" not in commands.engine_command(settings, plan)


@pytest.mark.parametrize("given", [("--dtype", "bfloat16"), ("--dtype=bfloat16",)])
def test_the_users_data_type_comes_after_ours_and_wins(
    settings: Settings, plan: Plan, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]
) -> None:
    slow_cpu(monkeypatch)
    stack = msgspec.structs.replace(settings.stack, engine_args=given)
    argv = commands.engine_command(msgspec.structs.replace(settings, stack=stack), plan)
    assert argv.index("--dtype") <= argv.index(given[0])
    assert argv[-len(given) :] == list(given)


def test_quantised_weights_keep_their_data_type(
    settings: Settings, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_cpu(monkeypatch)
    model_config(plan, '{"quantization_config": {"quant_method": "awq"}}')
    assert "--dtype" not in commands.engine_command(settings, plan)


@pytest.mark.parametrize("text", ["", "[]", "\udcff"])
def test_a_model_without_a_readable_config_is_left_to_vllm(
    settings: Settings, plan: Plan, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    slow_cpu(monkeypatch)
    (plan.models / plan.model).mkdir(parents=True)
    config = plan.models / plan.model / "config.json"
    config.write_text(text, encoding="utf-8", errors="surrogateescape")
    assert option(commands.engine_command(settings, plan), "--dtype") == "float32"

"""How the two servers are called: their arguments and environments.

The flags, and why: LMCache needs ``--supported-transfer-mode auto``, or an engine without a GPU
cannot register; with ``--shm-name`` chunks travel through shared memory. Its chunk is as long as
vLLM's block, so that continuing after a thaw computes the same tail in the same shape. vLLM must
recompute what LMCache fails to deliver (``kv_load_failure_policy``), or such a failure kills it.
On a processor without AVX-512 it computes in float32, which is more than twice as fast there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from cwm_jupyter.config import Settings
from cwm_jupyter.core.cipher import KEY_VARIABLE
from cwm_jupyter.stack.cpu import slow_in_bfloat16
from cwm_jupyter.stack.environment import engine_kind

__all__ = [
    "Plan",
    "cache_command",
    "cache_environment",
    "computes_in_float32",
    "engine_command",
    "engine_environment",
]

_LMCACHE_ANSWERS_S = 30.0

# Of the kernel's own Python, and so wrong for the servers'; and what an engine need not know.
_KEPT_BACK = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    KEY_VARIABLE,
)


class Plan(NamedTuple):
    """All that a start has decided on.

    `model` is the path given to vLLM, relative to `models`, its working folder: LMCache's keys
    contain it, and so they do not depend on where the model lies. `private` is a short-named folder
    of the user's own for sockets and temporary files, `code` where the servers import us from.
    """

    python: Path
    code: Path
    private: Path
    models: Path
    model: str
    served_model: str
    engine_port: int
    lmcache_port: int
    shm_name: str
    api_key: str

    @property
    def cache_socket(self) -> Path:
        """Where LMCache listens for the engine."""
        return self.private / "lmcache.sock"

    def __repr__(self) -> str:
        return f"Plan({self.served_model}, {self.engine_port}, {self.lmcache_port})"


def cache_command(settings: Settings, plan: Plan) -> list[str]:
    """Return the command line of LMCache's server."""
    return [
        str(plan.python),
        "-P",  # import nothing from the working folder
        "-m",
        "cwm_jupyter.engine.cache",
        *("--http-host", "127.0.0.1", "--http-port", str(plan.lmcache_port)),
        *("--chunk-size", str(settings.stack.chunk_tokens)),
        *("--l1-size-gb", f"{settings.stack.memory_gib:g}", "--no-l1-use-lazy"),
        *("--eviction-policy", "LRU"),
        # What was read from the vault stays in memory, until that is full.
        *("--l2-prefetch-policy", "retain"),
        *("--supported-transfer-mode", "auto", "--shm-name", plan.shm_name),
        *("--l2-adapter", json.dumps(_store(settings))),
    ]


def _store(settings: Settings) -> dict[str, Any]:
    """Return what LMCache keeps chunks in: the vault, or for comparison its own ``fs`` tier."""
    storage = settings.storage
    if storage.store == "fs":
        return {"type": "fs", "base_path": str(settings.vault_dir)}
    return {
        "type": "plugin",
        "module_path": "cwm_jupyter.vault.adapter",
        "class_name": "VaultAdapter",
        "adapter_params": {
            "folder": str(settings.vault_dir),
            "codec": storage.codec,
            "quota_bytes": storage.quota_bytes,
            "home": str(settings.home),  # where the keyring is
            "encrypts": settings.security.encrypt,
        },
    }


def engine_command(settings: Settings, plan: Plan) -> list[str]:
    """Return the command line of vLLM's API server."""
    connector = {
        "kv_connector": "LMCacheMPConnector",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {
            "lmcache.mp.server_urls": [f"ipc://{plan.cache_socket}"],
            "lmcache.mp.save_decode_cache": True,
            # Of an LMCache that hangs; the default, five minutes, is longer than people wait.
            "lmcache.mp.mq_timeout": _LMCACHE_ANSWERS_S,
        },
    }
    stack = settings.stack
    length = () if stack.max_model_len is None else ("--max-model-len", str(stack.max_model_len))
    return [
        str(plan.python),
        "-P",  # import nothing from the working folder
        "-m",
        "cwm_jupyter.engine.serve",
        *("--host", "127.0.0.1", "--port", str(plan.engine_port)),
        *("--model", plan.model, "--served-model-name", plan.served_model),
        *("--block-size", str(stack.chunk_tokens)),
        *("--kv-cache-memory-bytes", str(int(stack.kv_cache_gib * 2**30))),
        *("--kv-transfer-config", json.dumps(connector)),
        "--enable-prefix-caching",
        "--enable-prompt-tokens-details",
        "--enforce-eager",
        "--disable-uvicorn-access-log",
        *("--middleware", "cwm_jupyter.engine.facts.FactsMiddleware"),
        *("--middleware", "cwm_jupyter.engine.auth.RequireEngineKey"),
        *("--worker-extension-cls", "cwm_jupyter.engine.worker.WorkerExtension"),
        *length,
        *_dtype(plan),
        *stack.engine_args,  # last, so that the user's own win
    ]


def _dtype(plan: Plan) -> tuple[str, ...]:
    """Return the data type where the model's own would be slow, nothing where it is right."""
    return ("--dtype", "float32") if computes_in_float32(plan.models / plan.model) else ()


def computes_in_float32(model: Path) -> bool:
    """Return whether the engine is started in float32 here, whatever the model's own type is."""
    return engine_kind() == "cpu" and slow_in_bfloat16() and not _is_quantised(model)


def _is_quantised(model: Path) -> bool:
    """Return whether the weights are quantised: their kernels take no float32."""
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # vLLM will say what is wrong with it
    return isinstance(config, dict) and config.get("quantization_config") is not None


def cache_environment(plan: Plan) -> dict[str, str]:
    """Return the environment of LMCache's server, which writes the vault and so needs its key."""
    given = {name: os.environ[name] for name in (KEY_VARIABLE,) if name in os.environ}
    return {
        **_common(plan),
        **given,
        "LMCACHE_HTTP_KEY": plan.api_key,
        "LMCACHE_REQUEST_SOCKET": str(plan.cache_socket),
    }


def engine_environment(settings: Settings, plan: Plan) -> dict[str, str]:
    """Return the environment of vLLM. The key is in it, since all users can read arguments."""
    return {
        **_common(plan),
        "VLLM_API_KEY": plan.api_key,
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_RPC_BASE_PATH": str(plan.private),
        "VLLM_CACHE_ROOT": str(settings.cache_dir / "vllm"),
        "HF_HUB_OFFLINE": "1",
        # Little is compiled where the model is not, yet it costs the first request seconds and
        # needs a C++ compiler.
        "TORCHDYNAMO_DISABLE": "1",
    }


def _common(plan: Plan) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _KEPT_BACK}
    return {
        **kept,
        "PYTHONPATH": str(plan.code),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(plan.private),
        "DO_NOT_TRACK": "1",
        "LMCACHE_TRACK_USAGE": "false",
        "LMCACHE_DISABLE_BANNER": "1",
    }

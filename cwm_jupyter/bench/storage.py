"""Bytes stored against the formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from cwm_jupyter.bench.coding import element_bytes
from cwm_jupyter.bench.rows import Row
from cwm_jupyter.bench.speed import Series, of_context

__all__ = ["formula_bytes", "storage_row"]

#: of the acceptance table, within reach of models with few and small layers alone
_TARGET_BYTES = 50_000_000
#: a content's header and its record, for each chunk
_OVERHEAD = 1.01


def formula_bytes(model: Path, dtype: object, tokens: int) -> int:
    """Return ``2 x layers x kv_heads x head_dim x bytes`` for so many tokens of a model.

    Parameters
    ----------
    model
        Its folder; the figures are from its config.json.
    dtype
        Of the KV, by vLLM's name.
    tokens
        How many.
    """
    config: dict[str, Any] = msgspec.json.decode((model / "config.json").read_bytes())
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    kv_heads = config.get("num_key_value_heads") or heads
    layers = config["num_hidden_layers"]
    return int(2 * layers * kv_heads * head_dim * element_bytes(dtype) * tokens)


def storage_row(series: Series, stored_bytes: int, model: Path, dtype: object) -> Row:
    """Hold what a context takes on disk against the formula.

    Parameters
    ----------
    series
        Of the context.
    stored_bytes
        Of its contents' files, headers included.
    model, dtype
        As in `formula_bytes`.
    """
    window = series.context.first_freeze.window
    expected = formula_bytes(model, dtype, window.chunks * window.chunk_tokens)
    fields = {**of_context(series.context), "bytes": stored_bytes}
    return Row(
        id="PF-007",
        what="bytes on disk against 2 x layers x kv_heads x head_dim x bytes",
        store="vault",
        codec=series.subjects[0].codec,
        runs=1,
        limit=f"at most {_OVERHEAD:g} times {expected:,} bytes",
        within=stored_bytes <= _OVERHEAD * expected and window.size_bytes == expected,
        details={
            "formula_bytes": expected,
            "raw_bytes": window.size_bytes,
            "bytes_per_token": expected // (window.chunks * window.chunk_tokens),
            "target_bytes": _TARGET_BYTES,
            "within_target": stored_bytes <= _TARGET_BYTES,
        },
        **fields,
    )

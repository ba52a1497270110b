"""An independent look at stored chunks: transformers computes the same keys, values and attention.

Runs in the engine environment: ``python kv_reference.py MODEL_DIR DTYPE TOKENS.json CHUNK…``,
DTYPE the engine's and the chunks in order from the first. The reference is transformers in the next
wider type, float32 for bfloat16 and float64 for float32. Prints one JSON object with the error of
each layer (norm of the difference over norm of the reference) of what is stored, and of
transformers' own run in DTYPE beside it: what that type's rounding alone makes.

vLLM's CPU backend keeps a block of one layer as keys ``[head, dim, token]`` and values
``[head, token, dim]`` (instruction set "vec"); LMCache's chunk has, layer by layer, keys and then
values, each head's block cut into rows of one block length with the heads interleaved.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

TENSORS = ("keys", "values", "attention")
WIDER = {torch.bfloat16: torch.float32, torch.float32: torch.float64}


def decode(raw: bytes, dtype: torch.dtype, layers: int, heads: int, dim: int) -> tuple:
    """Return keys and values of a chunk, in the wider type, each [layer, head, token, dim]."""
    flat = torch.frombuffer(bytearray(raw), dtype=dtype).to(WIDER[dtype])
    tokens = flat.numel() // (2 * layers * heads * dim)
    blocks = flat.view(layers, 2, dim, heads, tokens).transpose(2, 3)
    keys = blocks[:, 0].transpose(2, 3)
    values = blocks[:, 1].reshape(layers, heads, tokens, dim)
    return keys, values


def run(model_dir: str, token_ids: list[int], dtype: torch.dtype, wide: torch.dtype) -> tuple:
    """Return the model, each layer's queries before the rotation, and keys, values, attention.

    Computed in `dtype`, returned in `wide`.
    """
    model = AutoModelForCausalLM.from_pretrained(
        model_dir, dtype=dtype, attn_implementation="eager"
    )
    queries: list[torch.Tensor] = []
    for layer in model.model.layers:
        layer.self_attn.q_proj.register_forward_hook(
            lambda _module, _input, out: queries.append(out[0].to(wide))
        )
    with torch.no_grad():
        out = model(torch.tensor([token_ids]), use_cache=True, output_attentions=True)
    keys = torch.stack([layer.keys[0].to(wide) for layer in out.past_key_values.layers])
    values = torch.stack([layer.values[0].to(wide) for layer in out.past_key_values.layers])
    attention = torch.stack([a[0].to(wide) for a in out.attentions])
    return model, queries, (keys, values, attention)


def weights(model: torch.nn.Module, queries: list[torch.Tensor], keys: torch.Tensor):
    """Return the attention weights of queries over keys, [layer, head, token, token]."""
    config, count = model.config, keys.shape[2]
    cos, sin = model.model.rotary_emb(keys, torch.arange(count)[None])
    future = torch.full((count, count), float("-inf")).triu(1)
    rows = []
    for query, key in zip(queries, keys, strict=True):
        heads = query.view(count, config.num_attention_heads, config.head_dim)
        rotated, _ = apply_rotary_pos_emb(heads.transpose(0, 1)[None], key[None], cos, sin)
        groups = config.num_attention_heads // config.num_key_value_heads
        scores = rotated @ repeat_kv(key[None], groups).transpose(2, 3) / config.head_dim**0.5
        rows.append((scores[0] + future).softmax(-1))
    return torch.stack(rows)


def error(measured: torch.Tensor, reference: torch.Tensor) -> list[float]:
    """Return the relative error of each layer."""
    difference = (measured - reference).flatten(1).norm(dim=1)
    return (difference / reference.flatten(1).norm(dim=1)).tolist()


def main(model_dir: str, engine_dtype: str, tokens_file: str, *chunk_files: str) -> None:
    """Compare and print."""
    dtype = getattr(torch, engine_dtype)
    wide = WIDER[dtype]
    token_ids = json.loads(Path(tokens_file).read_text())
    model, queries, own = run(model_dir, token_ids, dtype, wide)
    config = model.config
    shape = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
    decoded = [decode(Path(file).read_bytes(), dtype, *shape) for file in chunk_files]
    keys = torch.cat([k for k, _ in decoded], dim=2)
    values = torch.cat([v for _, v in decoded], dim=2)
    stored = (keys, values, weights(model, queries, keys))
    _, _, reference = run(model_dir, token_ids, wide, wide)
    print(
        json.dumps(
            {
                "tokens": len(token_ids),
                "stored": {n: error(*p) for n, *p in zip(TENSORS, stored, reference, strict=True)},
                "rounding": {n: error(*p) for n, *p in zip(TENSORS, own, reference, strict=True)},
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

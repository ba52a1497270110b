"""An independent look at stored chunks: transformers computes the same keys, values and attention.

Runs in the engine environment: ``python kv_reference.py MODEL_DIR TOKENS.json CHUNK…``, the chunks
in order from the first. The reference is transformers in float32. Prints one JSON object with the
error of each layer (norm of the difference over norm of the reference) of what is stored, and of
transformers' own bfloat16 run beside it: what bf16 rounding alone makes.

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


def decode(raw: bytes, layers: int, heads: int, dim: int, tokens: int) -> tuple:
    """Return keys and values of a chunk, float32, each [layer, head, token, dim]."""
    flat = torch.frombuffer(bytearray(raw), dtype=torch.bfloat16).float()
    blocks = flat.view(layers, 2, dim, heads, tokens).transpose(2, 3)
    keys = blocks[:, 0].transpose(2, 3)
    values = blocks[:, 1].reshape(layers, heads, tokens, dim)
    return keys, values


def run(model_dir: str, token_ids: list[int], dtype: torch.dtype) -> tuple:
    """Return the model, each layer's queries before the rotation, and keys, values, attention."""
    model = AutoModelForCausalLM.from_pretrained(
        model_dir, dtype=dtype, attn_implementation="eager"
    )
    queries: list[torch.Tensor] = []
    for layer in model.model.layers:
        layer.self_attn.q_proj.register_forward_hook(
            lambda _module, _input, out: queries.append(out[0].float())
        )
    with torch.no_grad():
        out = model(torch.tensor([token_ids]), use_cache=True, output_attentions=True)
    keys = torch.stack([layer.keys[0].float() for layer in out.past_key_values.layers])
    values = torch.stack([layer.values[0].float() for layer in out.past_key_values.layers])
    attention = torch.stack([a[0].float() for a in out.attentions])
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


def main(model_dir: str, tokens_file: str, *chunk_files: str) -> None:
    """Compare and print."""
    chunks = [Path(file).read_bytes() for file in chunk_files]
    token_ids = json.loads(Path(tokens_file).read_text())
    model, queries, bf16 = run(model_dir, token_ids, torch.bfloat16)
    config = model.config
    layers, heads, dim = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
    length = len(chunks[0]) // (2 * layers * heads * dim * 2)
    decoded = [decode(chunk, layers, heads, dim, length) for chunk in chunks]
    keys = torch.cat([k for k, _ in decoded], dim=2)
    values = torch.cat([v for _, v in decoded], dim=2)
    stored = (keys, values, weights(model, queries, keys))
    _, _, reference = run(model_dir, token_ids, torch.float32)
    print(
        json.dumps(
            {
                "tokens": len(token_ids),
                "stored": {n: error(*p) for n, *p in zip(TENSORS, stored, reference, strict=True)},
                "bf16": {n: error(*p) for n, *p in zip(TENSORS, bf16, reference, strict=True)},
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

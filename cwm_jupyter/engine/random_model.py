"""Make a small model of random weights.

``python -m cwm_jupyter.engine.random_model SOURCE FOLDER``, for measuring long contexts where a
real model would take hours: it has SOURCE's tokenizer, but few and small layers.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["make"]

_SEED = 20240229
_POSITIONS = 40_960


def make(source: Path, folder: Path) -> None:
    """Write the model and its tokenizer into a new folder; the same weights each time."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(source)
    torch.manual_seed(_SEED)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=_POSITIONS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))

"""Convert a GGUF model to safetensors: ``python -m cwm_jupyter.engine.convert FILE FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["convert"]


def convert(gguf: Path, folder: Path) -> None:
    """Write the model and its tokenizer as bfloat16 safetensors into a new folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))

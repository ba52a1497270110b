"""Digests of a model's files. The weights' are cached by path, size and time: they take a while."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import blake3

__all__ = ["file_digest", "model_digests"]

# What vLLM loads, in its order of preference.
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
)


def model_digests(model: Any, chat_template: str | None) -> dict[str, str | bool | None]:
    """Return the digests of weights, configuration, tokenizer and chat template, in hex.

    Parameters
    ----------
    model
        vLLM's model configuration.
    chat_template
        vLLM's argument of that name: a template, or a file that has one.
    """
    names = "weights_digest", "model_config_digest", "tokenizer_digest", "chat_template_digest"
    folder, tokenizer = Path(model.model), Path(model.tokenizer or model.model)
    if not folder.is_dir() or not tokenizer.is_dir():
        return dict.fromkeys(names)
    return {
        "weights_digest": _weights(folder),
        "model_config_digest": _config(folder, model.hf_overrides),
        "tokenizer_digest": _files(tokenizer / name for name in _TOKENIZER),
        "chat_template_digest": _template(tokenizer, chat_template),
    }


def file_digest(path: Path, cache: dict[str, str]) -> str:
    """Return a file's blake3 digest, from `cache` where size and time are as they were.

    A digest that had to be computed is added to `cache`.
    """
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{status.st_ino}"
    if key not in cache:
        hasher = blake3.blake3(max_threads=blake3.blake3.AUTO)
        cache[key] = hasher.update_mmap(path).hexdigest()
    return cache[key]


def _weights(folder: Path) -> str | None:
    found = next((files for glob in _WEIGHTS if (files := sorted(folder.glob(glob)))), None)
    if found is None:
        return None
    notes = Path(os.environ.get("VLLM_CACHE_ROOT", folder)) / "digests.json"
    cache: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        cache = json.loads(notes.read_text())
    known = len(cache)
    digests = {path.name: file_digest(path, cache) for path in found}
    if len(cache) > known:
        with contextlib.suppress(OSError):
            part = notes.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(cache))
            part.replace(notes)
    return _digest(digests)


def _config(folder: Path, overrides: Any) -> str | None:
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    return _digest([config, repr(overrides) if overrides else None])


def _files(paths: Iterable[Path]) -> str | None:
    digests = {
        path.name: blake3.blake3(path.read_bytes()).hexdigest() for path in paths if path.is_file()
    }
    return _digest(digests) if digests else None


def _template(folder: Path, given: str | None) -> str:
    """Digest the chat template that is used; a model without one has none."""
    if given is not None:
        path = Path(given)
        return _digest(path.read_text() if path.is_file() else given)
    with contextlib.suppress(OSError):
        return _digest((folder / "chat_template.jinja").read_text())
    with contextlib.suppress(OSError, ValueError):
        config = json.loads((folder / "tokenizer_config.json").read_bytes())
        return _digest(config.get("chat_template"))
    return _digest(None)


def _digest(value: Any) -> str:
    return blake3.blake3(json.dumps(value, sort_keys=True).encode()).hexdigest()

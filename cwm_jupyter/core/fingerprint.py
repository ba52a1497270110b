"""Fingerprints: what describes an engine, and whether a window fits it.

Layout fields shape the bytes of the KV: another value there must never be hit, so they go into the
salt and a thaw refuses. Numeric fields shape the last digits or the text: a thaw refuses too, but
the user can accept, and then the probe decides. What the engine does not tell is unknown; unknown
is never taken for equal.

The facts come from `cwm_jupyter.engine.facts`, which runs inside the engine. Of a server without
that route only the block size and the model's name are known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cwm_jupyter.core.models import Fingerprint, Value
from cwm_jupyter.errors import EngineMismatchError, ModelError

__all__ = [
    "LAYOUT_FIELDS",
    "NUMERIC_FIELDS",
    "SAME_WORDS",
    "Difference",
    "check",
    "collect",
    "compare",
    "surely_differ",
]

LAYOUT_FIELDS = (
    "weights_digest",
    "model_config_digest",
    "dtype",
    "kv_cache_dtype",
    "block_tokens",
    "kv_layout",
    "attention_backend",
    "cpu_isa",
    "tensor_parallel",
    "pipeline_parallel",
    "lora",
    "rope",
    "quantization",
    "chunk_tokens",
    "hash_algorithm",
    "kv_model_name",
)
NUMERIC_FIELDS = (
    "vllm_version",
    "torch_version",
    "lmcache_version",
    "threads",
    "tokenizer_digest",
    "chat_template_digest",
)


#: where these differ the same token ids are other words
SAME_WORDS = ("tokenizer_digest",)


class Difference(Value, frozen=True, kw_only=True):
    """One field in which a window's engine and the running one differ."""

    field: str
    kind: str
    frozen: str | int | float | bool | None
    engine: str | int | float | bool | None

    def __str__(self) -> str:
        if self.kind == "unknown":
            side = "the engine" if self.engine is None else "the window"
            return f"{self.field}: unknown to {side}"
        return f"{self.field}: frozen with {self.frozen}, the engine has {self.engine}"


def collect(
    facts: Mapping[str, Any] | None,
    *,
    chunk_tokens: int | None,
    hash_algorithm: str | None,
    kv_model_name: str,
) -> Fingerprint:
    """Return the fingerprint of an engine.

    Parameters
    ----------
    facts
        What the engine tells of itself; None where it has no such route.
    chunk_tokens, hash_algorithm
        LMCache's chunk size and hash, from its status.
    kv_model_name
        The model's name in LMCache's keys.

    Raises
    ------
    ModelError
        LMCache cannot keep this model's KV exactly.
    """
    facts = dict(facts or {})
    if facts.get("exact") is False:
        raise ModelError(
            f"This model's cache cannot be kept exactly: {facts.get('why_inexact')}.",
            hint="Freezing needs a model with full attention in every layer and no LoRA.",
        )
    facts |= {
        "chunk_tokens": chunk_tokens,
        "hash_algorithm": hash_algorithm,
        "kv_model_name": kv_model_name,
    }
    return Fingerprint(
        layout={name: facts.get(name) for name in LAYOUT_FIELDS},
        numeric={name: facts.get(name) for name in NUMERIC_FIELDS},
    )


def compare(frozen: Fingerprint, engine: Fingerprint) -> list[Difference]:
    """Return where two fingerprints differ: kinds ``layout``, ``numeric`` and ``unknown``.

    ``unknown`` are layout fields that one side does not know.
    """
    differences = []
    for kind, old, new in (
        ("layout", frozen.layout, engine.layout),
        ("numeric", frozen.numeric, engine.numeric),
    ):
        for name in sorted(old.keys() | new.keys()):
            a, b = old.get(name), new.get(name)
            unknown = kind == "layout" and (a is None or b is None)
            if unknown or a != b:
                differences.append(
                    Difference(field=name, kind="unknown" if unknown else kind, frozen=a, engine=b)
                )
    return differences


def surely_differ(frozen: Fingerprint, engine: Fingerprint, fields: Iterable[str]) -> list[str]:
    """Return which of the fields both sides know, and know otherwise."""
    old, new = {**frozen.layout, **frozen.numeric}, {**engine.layout, **engine.numeric}
    return [f for f in fields if None not in (old.get(f), new.get(f)) and old[f] != new[f]]


def check(
    window: str,
    differences: list[Difference],
    *,
    accept_engine: bool,
    accept_unknown: Collection[str] = (),
) -> list[str]:
    """Refuse an engine that a window does not fit, and return the differences accepted.

    Parameters
    ----------
    window
        The window's name, for the message.
    differences
        From `compare`.
    accept_engine
        Accept numeric differences.
    accept_unknown
        Layout fields that may be unknown.

    Raises
    ------
    EngineMismatchError
        With every difference spelled out.
    """
    layout = [d for d in differences if d.kind == "layout"]
    unknown = [d for d in differences if d.kind == "unknown" and d.field not in accept_unknown]
    numeric = [d for d in differences if d.kind == "numeric"]
    if layout:
        refused, hint = layout, f"Build it anew from its tokens: %thaw {window} --recompute"
    elif unknown:
        fields = " ".join(f"--accept-unknown {d.field}" for d in unknown)
        refused, hint = unknown, f"If you know that they are equal: %thaw {window} {fields}"
    elif numeric and not accept_engine:
        refused = numeric
        hint = f"Accept it and let the probe decide: %thaw {window} --accept-engine"
    else:
        return [str(d) for d in differences]
    raise EngineMismatchError(
        f"The window {window!r} was frozen on another engine: "
        + "; ".join(str(d) for d in refused)
        + ".",
        hint=hint,
        differences=[d.to_dict() for d in refused],
    )

"""Fingerprints: which engines a window fits, and why not."""

from __future__ import annotations

from typing import Any

import pytest

from cwm_jupyter.core.fingerprint import LAYOUT_FIELDS, NUMERIC_FIELDS, check, collect, compare
from cwm_jupyter.core.models import Fingerprint
from cwm_jupyter.errors import EngineMismatchError, ModelError

FACTS: dict[str, Any] = {name: f"{name} 1" for name in (*LAYOUT_FIELDS, *NUMERIC_FIELDS)}


def fingerprint(facts: dict[str, Any] | None = None, **changes: Any) -> Fingerprint:
    return collect(
        {**(FACTS if facts is None else facts), **changes},
        chunk_tokens=changes.get("chunk_tokens", 128),
        hash_algorithm=changes.get("hash_algorithm", "blake3"),
        kv_model_name=changes.get("kv_model_name", "m"),
    )


def test_equal_engines_do_not_differ() -> None:
    assert compare(fingerprint(), fingerprint()) == []
    assert check("w", [], accept_engine=False) == []


@pytest.mark.parametrize("name", LAYOUT_FIELDS)
def test_a_layout_difference_is_refused_whatever_is_accepted(name: str) -> None:
    differences = compare(fingerprint(), fingerprint(**{name: "other"}))
    assert [(d.field, d.kind, d.engine) for d in differences] == [(name, "layout", "other")]
    with pytest.raises(EngineMismatchError) as caught:
        check("paper", differences, accept_engine=True, accept_unknown=LAYOUT_FIELDS)
    old = fingerprint().layout[name]
    assert f"{name}: frozen with {old}, the engine has other" in caught.value.message
    assert caught.value.hint == "Build it anew from its tokens: %thaw paper --recompute"
    assert caught.value.context["differences"] == [differences[0].to_dict()]


@pytest.mark.parametrize("name", NUMERIC_FIELDS)
def test_a_numeric_difference_can_be_accepted(name: str) -> None:
    differences = compare(fingerprint(), fingerprint(**{name: "other"}))
    assert [(d.field, d.kind) for d in differences] == [(name, "numeric")]
    with pytest.raises(EngineMismatchError, match="the engine has other") as caught:
        check("paper", differences, accept_engine=False)
    assert "--accept-engine" in (caught.value.hint or "")
    assert check("paper", differences, accept_engine=True) == [str(differences[0])]


@pytest.mark.parametrize(
    ("frozen", "engine", "says"),
    [
        (None, None, "cpu_isa: unknown to the engine"),
        ("vec", None, "cpu_isa: unknown to the engine"),
        (None, "vec", "cpu_isa: unknown to the window"),
    ],
)
def test_unknown_is_never_equal(frozen: str | None, engine: str | None, says: str) -> None:
    differences = compare(fingerprint(cpu_isa=frozen), fingerprint(cpu_isa=engine))
    assert [str(d) for d in differences] == [says]
    with pytest.raises(EngineMismatchError, match=says) as caught:
        check("paper", differences, accept_engine=True, accept_unknown=["dtype"])
    assert caught.value.hint == (
        "If you know that they are equal: %thaw paper --accept-unknown cpu_isa"
    )
    accepted = check("paper", differences, accept_engine=False, accept_unknown=["cpu_isa"])
    assert accepted == [says]


def test_accepting_unknown_fields_accepts_no_numeric_one() -> None:
    differences = compare(fingerprint(), fingerprint(cpu_isa=None, threads=64))
    with pytest.raises(EngineMismatchError, match="threads") as caught:
        check("paper", differences, accept_engine=False, accept_unknown=["cpu_isa"])
    assert "cpu_isa" not in caught.value.message


def test_a_field_of_another_release_counts() -> None:
    """A window may name a layout field that this release no longer has, and the other way."""
    newer = fingerprint()
    older = newer.replace(layout={**newer.layout, "gone": 1})
    assert [(d.field, d.kind) for d in compare(older, newer)] == [("gone", "unknown")]
    assert [(d.field, d.kind) for d in compare(newer, older)] == [("gone", "unknown")]


def test_a_server_that_tells_nothing_is_unknown_but_for_what_lmcache_tells() -> None:
    silent = collect(None, chunk_tokens=16, hash_algorithm="blake3", kv_model_name="m")
    known = {name: value for name, value in silent.layout.items() if value is not None}
    assert known == {"chunk_tokens": 16, "hash_algorithm": "blake3", "kv_model_name": "m"}
    assert set(silent.numeric.values()) == {None}
    assert {d.kind for d in compare(silent, silent)} == {"unknown"}


def test_a_model_that_cannot_be_kept_exactly_is_refused() -> None:
    facts = {**FACTS, "exact": False, "why_inexact": "sliding windows in 12 layers"}
    with pytest.raises(ModelError, match="sliding windows in 12 layers"):
        collect(facts, chunk_tokens=16, hash_algorithm="blake3", kv_model_name="m")

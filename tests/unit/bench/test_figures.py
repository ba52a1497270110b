"""The bench without a stack: rows, limits, the machine, the index, the form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cwm_jupyter.bench import show
from cwm_jupyter.bench.coding import Coding, codec_rows, element_bytes
from cwm_jupyter.bench.indexing import index_rows
from cwm_jupyter.bench.limits import at_most, target_limit
from cwm_jupyter.bench.machine import Bounds, describe, measure_bounds
from cwm_jupyter.bench.rows import BenchResult, Row, Yardsticks, bound_s
from cwm_jupyter.bench.storage import formula_bytes
from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.present import html, text
from cwm_jupyter.vault.files import Vault
from cwm_jupyter.vault.store import VaultStore

_BOUNDS = Bounds(read_bytes_per_s=4e9, write_bytes_per_s=1e9, copy_bytes_per_s=4e9)


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, Any]:
    return describe(tmp_path, _BOUNDS)


def test_a_row_is_the_median_over_what_it_is_held_against() -> None:
    row = Row.timed(
        "PF-005",
        "thaw",
        [3.0, 1.0, 2.0],
        against=Yardsticks(cold_s=40.0, live_s=1.0, bound_s=0.5),
        limit=target_limit(1.0, 40.0, 20),
        tokens=8_000,
    )
    assert (row.seconds, row.min_s, row.max_s, row.runs) == (2.0, 1.0, 3.0, 3)
    assert (row.ratio_to_cold, row.ratio_to_live_hit, row.ratio_to_bound) == (0.05, 2.0, 4.0)
    assert row.within is True
    assert row.limit == "at most 1 s or 1/20 of the cold prefill (2.0 s), the longer"
    assert Row.from_dict(json.loads(json.dumps(row.to_dict()))) == row


def test_what_was_not_measured_is_null() -> None:
    row = Row.timed("x", "x", [1.0])
    assert (row.ratio_to_cold, row.ratio_to_bound, row.limit, row.within) == (None,) * 4
    assert bound_s(_BOUNDS, None) is None
    assert bound_s(_BOUNDS, 4_000_000_000) == 2.0


def test_a_limit_is_the_looser_of_target_and_share() -> None:
    assert target_limit(2.0, 20.0, 20).seconds == 2.0
    assert target_limit(2.0, 80.0, 20).seconds == 4.0
    assert at_most(1.5, 0.2, "a live hit").seconds == pytest.approx(0.3)
    assert at_most(1 / 60, 60.0, "cold").words == "at most 1/60 of cold (1 min 00 s)"


def test_the_machine_is_measured_and_described(tmp_path: Path) -> None:
    bounds = measure_bounds(tmp_path, 1 << 20)
    assert min(bounds.read_bytes_per_s, bounds.write_bytes_per_s, bounds.copy_bytes_per_s) > 0
    assert list(tmp_path.iterdir()) == []
    machine = describe(tmp_path, bounds)
    assert machine["cores"] >= 1
    assert machine["memory_bytes"] > 0
    assert json.loads(json.dumps(machine)) == machine


def test_the_formula(tmp_path: Path) -> None:
    config = {"num_hidden_layers": 30, "num_attention_heads": 9, "hidden_size": 576}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**config, "num_key_value_heads": 3}))
    assert formula_bytes(tmp_path, "bfloat16", 1) == 23_040
    assert formula_bytes(tmp_path, "float32", 128) == 128 * 46_080
    path.write_text(json.dumps(config))
    assert formula_bytes(tmp_path, "fp8_e4m3", 1) == 30 * 2 * 9 * 64


def test_operations_of_an_index_are_measured_on_one_that_can_be_read(tmp_path: Path) -> None:
    rows = index_rows(tmp_path, 200)
    names = ["open", "find", "list", "tag", "page", "add", "see"]
    names += ["commit"] if Path("/dev/shm").is_dir() else []
    assert [row.id for row in rows] == [f"index-{name}" for name in names]
    assert all(row.seconds is not None and row.runs == 7 for row in rows)


async def test_contents_are_exchanged_and_stay_what_they_are(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault")
    store = VaultStore(vault)
    numbers = b"".join(bytes((i % 251, 63)) for i in range(4_096))
    key = ChunkKey(chunk_hash=b"h" * 32, model_name="m", kv_rank=1, cache_salt="s")
    await store.write({key: numbers})
    refs = [ref for ref in await store.seal([key]) if ref is not None]
    coding = Coding(vault, element_bytes("bfloat16"))
    coding.add(refs)
    coding.add(refs)
    path = vault.folder.content(refs[0].digest)
    for codec in ("planes", "raw", "raw"):
        coding.use(codec)
        assert await store.read(key) == numbers
        assert path.stat().st_size == coding.stored_bytes(refs, codec)
    assert coding.stored_bytes(refs, "planes") < coding.stored_bytes(refs, "raw")
    ratio, *speeds = codec_rows(coding, refs, "bfloat16")
    assert ratio.details["ratio"] > 1.9
    assert ratio.within is True
    assert [row.id for row in speeds] == ["codec-encode", "codec-decode"]
    vault.close()


def test_a_result_is_shown_with_what_was_over_its_limit(machine: dict[str, Any]) -> None:
    rows = [
        Row.timed("PF-005", "thaw", [1.0], limit=target_limit(2.0, 40.0, 20), store="vault"),
        Row.timed("aim-x", "thaw", [1.0], limit=at_most(1.5, 0.2, "a live hit"), tokens=8_000),
        Row(id="PF-007", what="bytes", bytes=10**6, limit="at most 2 MB", within=True),
    ]
    result = BenchResult(machine={**machine, "notes": ["fs was left out"]}, rows=rows)
    assert show.shown is show.blocks.dispatch(BenchResult)
    said = text(result)
    assert "PF-005: thaw: 1.0 s, within (at most 2 s or 1/20" in said
    assert "aim-x: thaw: 1.0 s, OVER (at most 1.5 times a live hit" in said
    assert "PF-007: bytes: 1.00 MB, within" in said
    assert "1 of 3 limits were not." in said
    assert "fs was left out" in said
    assert "OVER" in html(result)
    assert result.row("aim-x").tokens == 8_000
    with pytest.raises(KeyError):
        result.row("none")

"""Chunk keys: equal to LMCache's, whose own code gave the fixed vectors here (lmcache 0.5.6)."""

from __future__ import annotations

import struct

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.core.chunks import ChunkKey, chunk_hashes, chunk_keys, kv_ranks, usable_chunks

TOKENS = st.lists(st.integers(0, 2**32 - 1), max_size=50)
CHUNK_TOKENS = st.integers(1, 20)

#: ``TokenHasher(chunk_size, "blake3").compute_chunk_hashes(tokens)``
VECTORS = {
    4: (
        list(range(1, 11)),
        [
            "6309ed506b8721905753f5c73c070bb21c3aafbd9b474b1e231f41368b71123c",
            "98efc76eafb06cfe774c31ff151f300b61a614c27982a211bb8cdbd83a8c0e19",
        ],
    ),
    128: (
        [i * 7919 % 49152 for i in range(300)],
        [
            "a1a555fd40a303a74f0d2b795d7ff0acf6b3216e7216480862c9bd58070802ba",
            "f9ab77e2a5a549c6cc4ee5b6f598777e4ef541c522978c08cfbb7e074240cf95",
        ],
    ),
    2: (
        [0, 2**32 - 1, 5, 6],
        [
            "d9c8af8be0ba544ea9986e5cae85610bc9e9f94ba8d0886ad7663fa2e9a2094f",
            "32805616345495304336726ca8939d51842530dfade26c0b20a13b37f833382e",
        ],
    ),
}
#: ``ObjectKey.ComputeKVRank(world_size, rank, world_size, rank)``
KV_RANKS = {
    1: [16777472],
    2: [33554944, 33620481],
    4: [67109888, 67175425, 67240962, 67306499],
}


@pytest.mark.covers("KV-010")
@pytest.mark.parametrize("chunk_tokens", VECTORS)
def test_hashes_equal_those_of_lmcache(chunk_tokens: int) -> None:
    tokens, expected = VECTORS[chunk_tokens]
    assert [h.hex() for h in chunk_hashes(tokens, chunk_tokens)] == expected


@pytest.mark.covers("KV-010")
@pytest.mark.parametrize("world_size", KV_RANKS)
def test_ranks_equal_those_of_lmcache(world_size: int) -> None:
    assert kv_ranks(world_size) == KV_RANKS[world_size]


@given(TOKENS, CHUNK_TOKENS)
def test_hashes_equal_the_plain_formula(tokens: list[int], chunk_tokens: int) -> None:
    expected = []
    state = blake3.blake3(b"\0" * 8 + b"\0" * 4).digest()
    while len(tokens) >= chunk_tokens * (len(expected) + 1):
        start = len(expected) * chunk_tokens
        words = b"".join(struct.pack(">I", t) for t in tokens[start : start + chunk_tokens])
        state = blake3.blake3(state + words).digest()
        expected.append(state)
    assert chunk_hashes(tokens, chunk_tokens) == expected


@given(TOKENS, TOKENS, CHUNK_TOKENS)
def test_what_follows_changes_no_hash_before_it(
    prefix: list[int], rest: list[int], chunk_tokens: int
) -> None:
    hashes = chunk_hashes(prefix, chunk_tokens)
    assert chunk_hashes([*prefix, *rest], chunk_tokens)[: len(hashes)] == hashes


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), CHUNK_TOKENS, st.data())
def test_a_token_changes_every_hash_from_its_chunk_on(
    tokens: list[int], chunk_tokens: int, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(tokens) - 1))
    other = [*tokens[:at], tokens[at] + 1, *tokens[at + 1 :]]
    same = [
        a == b
        for a, b in zip(
            chunk_hashes(tokens, chunk_tokens), chunk_hashes(other, chunk_tokens), strict=True
        )
    ]
    assert same == [index < at // chunk_tokens for index in range(len(same))]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(0, 0), (1, 0), (15, 0), (16, 0), (17, 1), (32, 1), (33, 2)],
)
def test_one_token_at_least_is_computed(tokens: int, expected: int) -> None:
    assert usable_chunks(tokens, 16) == expected


@pytest.mark.parametrize("chunk_tokens", [0, -1])
def test_a_chunk_has_tokens(chunk_tokens: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        chunk_hashes([1, 2, 3], chunk_tokens)


def test_keys_go_chunk_by_chunk_and_rank_by_rank() -> None:
    a, b = bytes(32), bytes([1]) * 32
    keys = chunk_keys([a, b], model_name="m", world_size=2, cache_salt="s")
    assert [(key.chunk_hash, key.kv_rank) for key in keys] == [
        (a, KV_RANKS[2][0]),
        (a, KV_RANKS[2][1]),
        (b, KV_RANKS[2][0]),
        (b, KV_RANKS[2][1]),
    ]
    assert {(key.model_name, key.object_group_id, key.cache_salt) for key in keys} == {
        ("m", 0, "s")
    }


def test_a_key_s_repr_shows_no_salt() -> None:
    key = ChunkKey(chunk_hash=bytes(32), model_name="m", kv_rank=1, cache_salt="thesalt")
    assert "thesalt" not in repr(key)
    assert "thesalt" not in f"{[key]}"

"""Salts: from nothing that others can see."""

from __future__ import annotations

import blake3
import msgspec
import pytest
from bench import QUESTION, Bench
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.core.chunks import chunk_hashes, chunk_keys
from cwm_jupyter.core.lineage import make_salt
from cwm_jupyter.core.models import Fingerprint

pytestmark = pytest.mark.covers("SC-001")


async def test_the_same_words_in_two_lineages_have_no_key_in_common(tmp_path) -> None:
    bench = Bench(tmp_path)
    one, two = await bench.talk("one"), await bench.talk("two")
    tokens = [bench.transcript(session).token_ids for session in (one, two)]
    assert tokens[0] == tokens[1]
    stack = await bench.connect()
    fingerprint = (await stack.facts()).fingerprint
    salts = [bench.library.lineages.salt(s.lineage_id, fingerprint) for s in (one, two)]
    keys = [set(stack.keys(tokens[0], salt)) for salt in salts]
    assert keys[0]
    assert not keys[0] & keys[1]
    await bench.reconnect()


async def test_a_second_lineage_computes_everything_itself(tmp_path) -> None:
    bench = Bench(tmp_path)
    await bench.frozen("one")
    await bench.manager.create_session("two")
    reply = await bench.manager.say("two", QUESTION)
    assert reply.cached_tokens == 0
    again = await bench.manager.say("two", QUESTION)
    assert again.cached_tokens
    await bench.reconnect()


async def test_without_the_salt_the_cache_has_nothing(tmp_path) -> None:
    bench = Bench(tmp_path)
    window = await bench.frozen("one")
    session = await bench.manager.session("one")
    tokens = bench.transcript(session).token_ids
    stack = await bench.connect()
    assert stack.cache is not None
    fingerprint = (await stack.facts()).fingerprint
    right = bench.library.lineages.salt(session.lineage_id, fingerprint)
    guesses = ["", "0" * 32, window.lineage_id, session.id, window.id, window.manifest_digest[:32]]
    for salt in guesses:
        hashes = chunk_hashes(tokens, stack.chunk_tokens)
        keys = chunk_keys(hashes, model_name="toy", world_size=1, cache_salt=salt)
        found = await stack.cache.prefetch(tokens, model_name="toy", world_size=1, cache_salt=salt)
        assert found.found == 0
        assert stack.store is not None
        assert await stack.store.stat(keys) == [None] * len(keys)
    found = await stack.cache.prefetch(tokens, model_name="toy", world_size=1, cache_salt=right)
    assert found.found == found.total > 0
    await bench.reconnect()


@given(st.binary(min_size=32, max_size=32), st.dictionaries(st.text(max_size=5), st.integers()))
def test_a_salt_is_a_keyed_hash_and_not_one_of_what_is_public(secret, layout) -> None:
    """All but the secret may be known: the layout, the lineage's id, the algorithm."""
    fingerprint = Fingerprint(layout=layout, numeric={})
    salt = make_salt(secret, fingerprint)
    public = msgspec.json.encode(fingerprint.layout, order="sorted")
    assert len(bytes.fromhex(salt)) == 16
    assert salt not in blake3.blake3(public).hexdigest()
    assert salt != make_salt(bytes(32), fingerprint) or secret == bytes(32)
    assert secret.hex() not in salt


async def test_secrets_are_random_and_in_no_other_file(tmp_path) -> None:
    bench = Bench(tmp_path)
    await bench.frozen("one")
    await bench.manager.thaw("one", as_session="two")
    for name in ("three", "four"):
        await bench.talk(name)
    lineages = bench.library.lineages
    secrets = [lineages.path(one).read_bytes() for one in lineages.ids()]
    assert len(secrets) == 3  # what was thawed is of the lineage of its window
    assert len(set(secrets)) == 3
    stack = await bench.connect()
    fingerprint = (await stack.facts()).fingerprint
    words = [lineages.salt(one, fingerprint).encode() for one in lineages.ids()]
    words += [secret.hex().encode() for secret in secrets] + secrets
    for path in bench.home.rglob("*"):
        if path.is_file() and path.suffix != ".secret":
            whole = path.read_bytes()
            assert not any(word in whole for word in words), path
        assert not any(word.decode("latin-1") in path.name for word in words)
    vault = tmp_path / "vault"
    for path in vault.rglob("*"):
        assert not any(word.decode("latin-1") in str(path) for word in words)
    await bench.reconnect()

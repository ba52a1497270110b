"""A vault against a simple model: whatever is done to it, in whatever order."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from vaults import SIZE, get, keys, noise, put

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.errors import ResourceExhaustedError
from cwm_jupyter.vault.content import HEADER_BYTES
from cwm_jupyter.vault.files import Vault

KEYS = [*keys(4), *keys(3, salt="other")]
OWNERS = ("one", "two")
KEY = st.sampled_from(KEYS)


class VaultModel(RuleBasedStateMachine):
    """The model: for each key the bytes that it may give, and whether it must.

    A key that is not sure may have been evicted, or damaged.
    """

    @initialize(codec=st.sampled_from(["raw", "planes"]), room=st.sampled_from([None, 3, 5]))
    def begin(self, codec: str, room: int | None) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.fsync, os.fsync = os.fsync, lambda handle: None
        self.codec, self.quota = codec, room and room * (SIZE + HEADER_BYTES)
        self.bytes: dict[ChunkKey, bytes] = {}
        self.sure: set[ChunkKey] = set()
        self.held: dict[str, set[ChunkKey]] = {}
        self.open()

    def open(self) -> None:
        self.vault = Vault(Path(self.folder.name), codec=self.codec, quota_bytes=self.quota)

    def all_held(self) -> set[ChunkKey]:
        return set().union(*self.held.values())

    @rule(chunks=st.dictionaries(KEY, st.integers(0, 3), min_size=1, max_size=4))
    def store(self, chunks: dict[ChunkKey, int]) -> None:
        evicted = self.vault.counters.evicted
        outcomes = put(self.vault, {key: noise(number) for key, number in chunks.items()})
        if self.vault.counters.evicted != evicted:
            self.sure &= self.all_held()
        for (key, number), outcome in zip(chunks.items(), outcomes, strict=True):
            if outcome == "stored":
                assert key not in self.sure
                self.bytes[key] = noise(number)
            if outcome == "failed":
                assert self.quota is not None
                self.vault.holds()  # the reason is not that one of these is damaged
            elif self.quota is None or len(chunks) == 1:
                self.sure.add(key)

    @rule(key=KEY)
    def load(self, key: ChunkKey) -> None:
        read = get(self.vault, key)
        assert read in (None, self.bytes.get(key))
        assert read is not None or key not in self.sure

    @rule(key=KEY)
    def delete(self, key: ChunkKey) -> None:
        (gone,) = self.vault.delete([key])
        if key in self.all_held():
            assert not gone
        else:
            assert gone or key not in self.sure
            self.sure.discard(key)
            self.bytes.pop(key, None)

    @rule(owner=st.sampled_from(OWNERS), held=st.sets(KEY, max_size=2))
    def hold(self, owner: str, held: set[ChunkKey]) -> None:
        self.vault.hold(owner, sorted(held, key=repr))
        self.held[owner] = held

    @rule(owner=st.sampled_from(OWNERS))
    def release(self, owner: str) -> None:
        assert self.vault.release(owner) == (owner in self.held)
        self.held.pop(owner, None)

    @rule(key=KEY, at=st.integers(0, HEADER_BYTES + SIZE - 1), cut=st.booleans())
    def corrupt(self, key: ChunkKey, at: int, cut: bool) -> None:
        record = self.vault.record(key)
        if record is None:
            return
        path = self.vault.folder.content(record.content)
        if not path.exists():
            return
        data = bytearray(path.read_bytes())
        place = at % len(data)
        data[place] ^= 0x10
        path.write_bytes(data[:place] if cut else data)
        same = {k for k, b in self.bytes.items() if b == self.bytes[key]}
        self.sure -= same
        self.load(key)

    @rule()
    def verify(self) -> None:
        for key in KEYS:
            found = self.vault.check(key)
            assert found.state in ("intact", "missing", "corrupt")
            assert found.state == "intact" or key not in self.sure

    @rule(dry_run=st.booleans())
    def collect(self, dry_run: bool) -> None:
        self.vault.room.collect(set(self.held), dry_run=dry_run)

    @rule(room=st.sampled_from([2, 4]))
    def evict(self, room: int) -> None:
        with self.vault.folder.locked():
            before, self.vault.room.quota_bytes = self.vault.room.quota_bytes, room * SIZE
            with contextlib.suppress(ResourceExhaustedError):
                self.vault.room.make(1, keep=())
            self.vault.room.quota_bytes = before
        self.sure &= self.all_held()

    @rule()
    def reopen(self) -> None:
        self.vault.close()
        self.open()

    @invariant()
    def what_is_sure_is_found(self) -> None:
        if hasattr(self, "vault"):
            assert all(self.vault.lookup(sorted(self.sure, key=repr)))
            page, cursor = self.vault.page(limit=100)
            assert {record.key for record in page} >= self.sure
            assert cursor is None

    def teardown(self) -> None:
        if hasattr(self, "vault"):
            for key in self.sure:
                assert get(self.vault, key) == self.bytes[key]
            self.vault.close()
            os.fsync = self.fsync
            self.folder.cleanup()


TestVault = VaultModel.TestCase
TestVault.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

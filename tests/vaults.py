"""What the tests of the vault share: chunks, vaults, and disks that fail or die at a given step."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import blake3
import numpy as np

from cwm_jupyter.core.chunks import ChunkKey, chunk_hashes, chunk_keys
from cwm_jupyter.errors import CWMError
from cwm_jupyter.vault import files, room
from cwm_jupyter.vault.content import HEADER_BYTES
from cwm_jupyter.vault.files import Vault
from cwm_jupyter.vault.storing import Item, Stored

#: bytes of a chunk in most tests
SIZE = 600


def keys(count: int, salt: str = "salt", model_name: str = "org/m") -> list[ChunkKey]:
    hashes = chunk_hashes(range(count * 4), 4)
    return chunk_keys(hashes, model_name=model_name, world_size=1, cache_salt=salt)


def noise(number: int, size: int = SIZE) -> bytes:
    return blake3.blake3(number.to_bytes(8, "big")).digest(length=size)


def kv(number: int, count: int = 4096, dtype: str = "bfloat16") -> bytes:
    """Numbers that are like KV: normal, of one scale a channel."""
    rng = np.random.default_rng(number)
    values = rng.normal(size=(count // 64, 64)) * rng.uniform(0.2, 2, 64)
    if dtype == "bfloat16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    return values.astype(dtype).tobytes()


def put(vault: Vault, chunks: Mapping[ChunkKey, bytes], element_bytes: int = 2) -> list[str]:
    return [one.state for one in stored(vault, chunks, element_bytes)]


def stored(vault: Vault, chunks: Mapping[ChunkKey, bytes], element_bytes: int = 2) -> list[Stored]:
    return vault.store(
        [
            Item(key=key, raw=memoryview(data), element_bytes=element_bytes)
            for key, data in chunks.items()
        ]
    )


def get(vault: Vault, key: ChunkKey) -> bytes | None:
    return vault.read(key)[1]


def content_path(vault: Vault, key: ChunkKey) -> Path:
    record = vault.record(key)
    assert record is not None
    return vault.folder.content(record.content)


def record_path(vault: Vault, key: ChunkKey) -> Path:
    return vault.folder.record(vault.name(key))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# Disks that fail


#: every way in which the vault changes a disk
STEPS = ("open", "write", "fsync", "replace", "unlink")


@contextlib.contextmanager
def steps(on_step: Callable[[int, str, bool], None]) -> Iterator[Counter[str]]:
    """Call `on_step` with number, name and whether it is over, around every step on the disk."""
    counts: Counter[str] = Counter()
    real = {name: getattr(os, name) for name in STEPS}

    def around(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            number = counts.total()
            counts[name] += 1
            on_step(number, name, False)
            try:
                return None if name == "fsync" else real[name](*args, **kwargs)
            finally:
                on_step(number, name, True)

        return call

    for name in STEPS:
        setattr(os, name, around(name))
    try:
        yield counts
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def fail_at(step: int, number: int) -> Callable[[int, str, bool], None]:
    """Make one step fail with this errno."""

    def on_step(at: int, name: str, over: bool) -> None:
        if at == step and not over:
            raise OSError(number, os.strerror(number))

    return on_step


def fail_from(step: int, number: int = errno.ENOSPC) -> Callable[[int, str, bool], None]:
    """Make a step and all writing after it fail: a disk that stays full."""

    def on_step(at: int, name: str, over: bool) -> None:
        if at >= step and not over and name in ("write", "fsync", "replace"):
            raise OSError(number, os.strerror(number))

    return on_step


def die_at(step: int, after: bool) -> Callable[[int, str, bool], None]:
    """Let the process be killed before a step, or after it."""

    def on_step(at: int, name: str, over: bool) -> None:
        if at == step and over == after:
            os.kill(os.getpid(), signal.SIGKILL)

    return on_step


def killed_at_each_step(
    template: Path, folder: Path, total: int, work: Callable[[Path], object]
) -> int:
    """Do work in copies of a template, killed before each step, or after the last; count the kills.

    Each is done in a child of this process, so it needs ``fork``, and no threads that matter.
    """
    killed = 0
    for step in range(total + 1):
        copy = copy_of(template, folder / str(step))
        child = os.fork()
        if child == 0:
            with in_order(), steps(die_at(min(step, total - 1), step == total)):
                work(copy)
            os._exit(0)
        killed += os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    return killed


# What may be interrupted: a vault in which two chunks are held, and one more lies.

KEYS = keys(6)
TWIN = keys(6, salt="other")[3]
CHUNKS = {key: noise(i) for i, key in enumerate(KEYS)} | {TWIN: noise(3)}
HELD, FREE, NEW = KEYS[:2], KEYS[2], KEYS[3:5]
_BYTES = SIZE + HEADER_BYTES


def prepare(folder: Path) -> None:
    """Make the vault that an action starts from, with all sorts of garbage in it."""
    vault = Vault(folder)
    put(vault, {key: CHUNKS[key] for key in (*HELD, FREE, KEYS[5])})
    vault.hold("window", HELD)
    vault.hold("nobody", [KEYS[5]])
    long_ago = time.time() - 100_000
    os.utime(vault.folder.hold("nobody"), (long_ago, long_ago))
    content_path(vault, KEYS[5]).unlink()  # a record that means nothing
    (vault.folder.contents / ("ab" * 32 + ".kv")).write_bytes(b"meant by nobody")
    for where in (vault.folder.contents, vault.folder.records, vault.folder.holds):
        (where / "1-2.tmp").write_bytes(b"left by a crash")
        os.utime(where / "1-2.tmp", (long_ago, long_ago))
    (vault.folder.quarantine / "1-x.kv").write_bytes(b"damaged")
    vault.close()


def _store(vault: Vault) -> None:
    wanted = (FREE, *NEW, TWIN)
    outcomes = put(vault, {key: CHUNKS[key] for key in wanted})
    for key, outcome in zip(wanted, outcomes, strict=True):
        if outcome != "failed":
            PROMISED.append(key)
    if "failed" in outcomes:
        raise OSError("some were not stored")


def _heal(vault: Vault) -> None:
    path = content_path(vault, FREE)
    path.write_bytes(path.read_bytes()[:-1])
    if put(vault, {FREE: CHUNKS[FREE]}) != ["stored"]:
        raise OSError("not stored")
    PROMISED.append(FREE)


def _evict(vault: Vault) -> None:
    vault.room.quota_bytes = 4 * _BYTES
    _store_one(vault, NEW[0])
    _store_one(vault, NEW[1])


def _store_one(vault: Vault, key: ChunkKey) -> None:
    if put(vault, {key: CHUNKS[key]}) == ["failed"]:
        raise OSError("not stored")


def _point(vault: Vault) -> None:
    record = vault.record(FREE)
    assert record is not None
    key = ChunkKey(chunk_hash=b"\1" * 32, model_name="org/m", kv_rank=0, cache_salt="new")
    vault.point(key, record.content, record.size_bytes)


ACTIONS: dict[str, Callable[[Vault], object]] = {
    "store": _store,
    "heal": _heal,
    "hold": lambda vault: vault.hold("another", [FREE, *NEW]),
    "hold again": lambda vault: vault.hold("window", [*HELD, FREE]),
    "release": lambda vault: vault.release("nobody"),
    "delete": lambda vault: vault.delete([HELD[0], FREE]),
    "evict": _evict,
    "gc": lambda vault: vault.room.collect({"window"}),
    "point": _point,
}
#: chunks that an action said were durable
PROMISED: list[ChunkKey] = []


def perform(folder: Path, action: str) -> str:
    """Perform an action on the vault, and return how it ended; only what it may raise is caught."""
    PROMISED.clear()
    try:
        vault = Vault(folder)
    except (OSError, CWMError):
        return "not opened"
    try:
        ACTIONS[action](vault)
    except (OSError, CWMError):
        return "refused"
    finally:
        vault.close()
    return "done"


def examine(folder: Path, action: str, promised: list[ChunkKey]) -> Counter[str]:
    """Check all that must hold of a vault after anything whatever, and count what was found."""
    found: Counter[str] = Counter()
    vault = Vault(folder)
    try:
        for key, data in CHUNKS.items():
            read = get(vault, key)
            assert read in (data, None), "a wrong byte"
            found["intact" if read else "missed"] += 1
            assert read or key not in HELD, "a held chunk was lost"
            assert read or key not in promised, "what was called durable was lost"
        assert {name for hold in vault.holds().values() for name in hold.records} >= {
            vault.name(key) for key in HELD
        }
        vault.room.collect({"window", "another"})
        meant = {record.content for _, record in vault.records()}
        there = {path.stem for path in vault.folder.contents.iterdir()}
        assert there <= meant, "garbage was left"
        if action != "heal":  # which begins with a damaged file
            assert vault.counters.corrupt == 0, "something half-written had its name"
        states = put(vault, CHUNKS)
        assert "failed" not in states
        assert all(get(vault, key) == data for key, data in CHUNKS.items()), "not healed"
    finally:
        vault.close()
    return found


@contextlib.contextmanager
def in_order() -> Iterator[None]:
    """Let a vault work on one thread, so that its steps have an order; garbage is old at once."""
    before = files._THREADS, room._ABANDONED_S
    files._THREADS, room._ABANDONED_S = 1, -1.0
    try:
        yield
    finally:
        files._THREADS, room._ABANDONED_S = before


def copy_of(template: Path, folder: Path) -> Path:
    shutil.copytree(template, folder)
    return folder


def number_of_steps(template: Path, folder: Path, action: str) -> Counter[str]:
    """Return how many steps an action has, by kind."""
    copy_of(template, folder)
    with steps(lambda at, name, over: None) as counts:
        assert perform(folder, action) == "done"
    return counts

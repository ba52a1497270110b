"""Run in the engine environment, without an engine: LMCache's side of the vault's adapter.

``adapter_driver.py check FOLDER`` tries every call; ``tiers`` stores more than LMCache's memory
takes; ``speed`` loads a window's worth of chunks, beside LMCache's own disk adapter. Prints one
line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lmcache.v1.distributed.api import (
    GroupedObjectKeys,
    MemoryLayoutDesc,
    ObjectKey,
    PrefetchLockMode,
    PrefetchTaskSpec,
)
from lmcache.v1.distributed.config import parse_args
from lmcache.v1.distributed.l2_adapters.fs_l2_adapter import FSL2Adapter, FSL2AdapterConfig
from lmcache.v1.distributed.storage_manager import StorageManager

from cwm_jupyter.vault.adapter import VaultAdapter
from cwm_jupyter.vault.files import Vault


class Memory:
    """What is used of a memory object of LMCache's."""

    def __init__(self, data: bytes | None = None, size: int = 0) -> None:
        self.array = (ctypes.c_ubyte * (len(data) if data is not None else size))()
        if data is not None:
            ctypes.memmove(self.array, data, len(data))

    @property
    def byte_array(self) -> memoryview:
        return memoryview(self.array)

    def get_dtype(self) -> torch.dtype:
        return torch.bfloat16

    def get_size(self) -> int:
        return len(self.array)

    def value(self) -> bytes:
        return bytes(self.array)


class Listener:
    """Notes what LMCache's eviction is told."""

    def __init__(self) -> None:
        self.stored: list[ObjectKey] = []
        self.accessed: list[ObjectKey] = []
        self.deleted: list[ObjectKey] = []

    def on_l2_keys_stored(self, keys: list[ObjectKey], sizes: list[int]) -> None:
        self.stored += keys

    def on_l2_keys_accessed(self, keys: list[ObjectKey]) -> None:
        self.accessed += keys

    def on_l2_keys_deleted(self, keys: list[ObjectKey]) -> None:
        self.deleted += keys


def key(number: int, salt: str = "salt") -> ObjectKey:
    return ObjectKey(
        chunk_hash=number.to_bytes(32, "big"),
        model_name="org/m",
        kv_rank=0x01000100,
        cache_salt=salt,
    )


def ended(descriptor: int, ask: Callable[[], Any]) -> Any:
    """Wait for the event, as LMCache does, and return the result."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        ready, _, _ = select.select([descriptor], [], [], 5)
        if ready:
            os.read(descriptor, 8)
        result = ask()
        if result:
            return result
        if result is not None and not isinstance(result, dict):
            return result
    raise TimeoutError


def store(adapter: Any, keys: list[ObjectKey], memories: list[Memory]) -> bool:
    task = adapter.submit_store_task(keys, memories)
    results = ended(adapter.get_store_event_fd(), adapter.pop_completed_store_tasks)
    assert list(results) == [task]
    assert not adapter.pop_completed_store_tasks()
    return bool(results[task].is_successful())


def lookup(adapter: Any, keys: list[ObjectKey]) -> list[bool]:
    task = adapter.submit_lookup_and_lock_task(keys, {})
    found = ended(
        adapter.get_lookup_and_lock_event_fd(), lambda: adapter.query_lookup_and_lock_result(task)
    )
    assert adapter.query_lookup_and_lock_result(task) is None
    return [found.test(i) for i in range(len(keys))]


def load(adapter: Any, keys: list[ObjectKey], memories: list[Memory]) -> list[bool]:
    task = adapter.submit_load_task(keys, memories)
    found = ended(adapter.get_load_event_fd(), lambda: adapter.query_load_result(task))
    assert adapter.query_load_result(task) is None
    return [found.test(i) for i in range(len(keys))]


def check(folder: Path) -> dict[str, Any]:
    said: dict[str, Any] = {}
    adapter = VaultAdapter({"folder": str(folder), "codec": "planes"})
    listener = Listener()
    adapter.register_listener(listener)
    data = [bytes([i]) * 5000 for i in range(40)]
    keys = [key(i) for i in range(40)]
    said["stored"] = store(adapter, keys, [Memory(one) for one in data])
    said["told"] = listener.stored == keys
    said["looked up"] = lookup(adapter, [*keys[:3], key(99)])
    memories = [Memory(size=5000) for _ in keys]
    said["loaded"] = all(load(adapter, keys, memories))
    said["right"] = [one.value() for one in memories] == data
    said["accessed"] = listener.accessed == keys
    said["wrong size"] = load(adapter, keys[:2], [Memory(size=10), Memory(size=5000)])
    said["pinned"] = len(adapter._vault.room._pins)
    adapter.submit_unlock([*keys[:3], key(99), key(0)])
    said["unpinned"] = len(adapter._vault.room._pins)

    page = adapter.list_l2_keys(page_size=30)
    rest = adapter.list_l2_keys(page_size=30, cursor=page.next_page_token)
    said["listed"] = [len(page.entries), len(rest.entries), rest.next_page_token]
    usage = adapter.get_usage()
    said["by salt"] = dict(usage.bytes_by_cache_salt)
    on_disk = sum(path.stat().st_size for path in (folder / "contents").iterdir())
    said["usage"] = usage.total_bytes_used == on_disk
    status = adapter.report_status()
    json.dumps(status)
    said["status"] = [status["is_healthy"], status["codec"], status["counters"]["hits"]]

    window = Vault(folder)
    window.hold("window", [_ours(keys[38])])
    window.close()
    adapter.delete([keys[38]])
    said["held"] = lookup(adapter, [keys[38]])
    adapter.delete([keys[39], key(99)])
    said["deleted"] = [listener.deleted == [keys[39]], lookup(adapter, [keys[39]])]

    said["failing"] = failing(adapter, keys)

    # Damage between look-up and load: one of them is a miss, and a store heals it.
    found = lookup(adapter, keys[:2])
    record = adapter._vault.lookup([_ours(keys[0])])
    path = adapter._vault.folder.content(record[0])
    path.write_bytes(path.read_bytes()[:-1])
    said["damaged"] = [found, load(adapter, keys[:2], memories[:2])]
    store(adapter, keys[:1], [Memory(data[0])])
    said["healed"] = load(adapter, keys[:1], memories[:1])

    # Closing waits for what was begun.
    late = [key(i, "late") for i in range(64)]
    adapter.submit_store_task(late, [Memory(os.urandom(50_000)) for _ in late])
    adapter.close()
    adapter = VaultAdapter({"folder": str(folder)})
    said["closed"] = sum(lookup(adapter, late))
    adapter.close()
    return said


def _ours(theirs: ObjectKey) -> Any:
    from cwm_jupyter.vault.adapter import _ours as convert

    return convert(theirs)


def failing(adapter: VaultAdapter, keys: list[ObjectKey]) -> list[Any]:
    """Let each call of the vault raise something that nobody expects."""

    def fail(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("unexpected")

    said: list[Any] = []
    for name, call in (
        ("store", lambda: store(adapter, keys[:2], [Memory(b"1"), Memory(b"2")])),
        ("lookup", lambda: any(lookup(adapter, keys[:2]))),
        ("load_all", lambda: any(load(adapter, keys[:2], [Memory(size=9), Memory(size=9)]))),
    ):
        setattr(adapter._vault, name, fail)
        said.append(call())
        delattr(adapter._vault, name)
    said.append(all(lookup(adapter, keys[:2])))
    return said


def tiers(folder: Path) -> dict[str, Any]:
    """Store 40 MB and more through a memory of 16 MB, and ask for what is not in it any more."""
    size, memory = 2**20, 16 * 2**20
    adapter = {
        "type": "plugin",
        "module_path": "cwm_jupyter.vault.adapter",
        "class_name": "VaultAdapter",
        "adapter_params": {"folder": str(folder)},
    }
    config = parse_args(
        [
            *("--l1-size-gb", str(memory / 2**30), "--no-l1-use-lazy"),
            *("--eviction-policy", "LRU", "--eviction-trigger-watermark", "0.9"),
            *("--eviction-ratio", "0.5"),
            *("--l2-prefetch-policy", "retain", "--l2-adapter", json.dumps(adapter)),
        ]
    )
    manager = StorageManager(config)
    layout = MemoryLayoutDesc(shapes=[torch.Size([size])], dtypes=[torch.uint8])
    keys: list[ObjectKey] = []
    # Until half of the memory has just been given up: it is then left alone for a while.
    while len(keys) < 40 or manager.get_l1_usage()[0] > 10 * size:
        data = bytes([len(keys)]) * size
        new = key(len(keys))
        until(lambda new=new, data=data: put(manager, layout, new, data))  # type: ignore[misc]
        keys.append(new)
    vault = Vault(folder)
    ours = [_ours(one) for one in keys]
    until(lambda: None not in vault.lookup(ours))
    in_memory = [asked(manager, layout, [one], skip_l2=True)[0] for one in keys]
    said: dict[str, Any] = {
        "all on disk": None not in vault.lookup(ours),
        "in memory": [min(in_memory), max(in_memory), sum(in_memory) * size <= memory],
        "oldest first": in_memory == sorted(in_memory),
        "from the disk": asked(manager, layout, keys[:3]),
        "then from memory": asked(manager, layout, keys[:3], skip_l2=True),
        "right": read(manager, keys[:3]) == [bytes([i]) * size for i in range(3)],
    }
    manager.close()
    vault.close()
    return said


def put(manager: StorageManager, layout: MemoryLayoutDesc, one: ObjectKey, data: bytes) -> bool:
    """Write a chunk into LMCache's memory, and return whether there was room."""
    reserved = manager.reserve_write([one], layout)
    if one not in reserved:
        return False
    memoryview(reserved[one].byte_array).cast("B")[:] = data
    manager.finish_write([one])
    return True


def asked(
    manager: StorageManager,
    layout: MemoryLayoutDesc,
    keys: list[ObjectKey],
    *,
    skip_l2: bool = False,
) -> list[int]:
    """Ask for chunks, and return how many memory had and how many came from the disk."""
    row = GroupedObjectKeys(keys=keys, object_group_id=0, layout_desc=layout)
    spec = PrefetchTaskSpec(key_groups=[row], lock_mode=PrefetchLockMode.NO_LOCK)
    handle = manager.submit_prefetch_task(spec, skip_l2=skip_l2)
    assert manager.wait_prefetch_status(handle, 60)
    result = manager.query_prefetch_status(handle)
    assert result is not None
    return [result.l1_hit_count, result.l2_hit_count]


def read(manager: StorageManager, keys: list[ObjectKey]) -> list[bytes]:
    """Return the bytes of chunks that are in LMCache's memory."""
    row = GroupedObjectKeys(
        keys=keys,
        object_group_id=0,
        layout_desc=MemoryLayoutDesc(shapes=[torch.Size([2**20])], dtypes=[torch.uint8]),
    )
    handle = manager.submit_prefetch_task(PrefetchTaskSpec(key_groups=[row]))
    assert manager.wait_prefetch_status(handle, 60)
    manager.query_prefetch_status(handle)
    with manager.read_prefetched_results(keys) as objects:
        assert objects is not None
        found = [bytes(memoryview(one.byte_array).cast("B")) for one in objects]
    manager.finish_read_prefetched(keys)
    return found


def until(done: Callable[[], bool]) -> None:
    """Wait until it is done; LMCache stores and evicts on threads of its own."""
    deadline = time.monotonic() + 60
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


def speed(folder: Path) -> dict[str, Any]:
    """Load 62 chunks of SmolLM2's size, in turns, from each adapter."""
    count, size, rounds = 62, 2_949_120, 7
    rng = torch.Generator().manual_seed(1)
    data = [
        torch.randn(size // 2, generator=rng).to(torch.bfloat16).view(torch.uint8).numpy().tobytes()
        for _ in range(4)
    ]
    chunks = [i.to_bytes(8, "big") + data[i % 4][8:] for i in range(count)]
    keys = [key(i) for i in range(count)]
    adapters: dict[str, Any] = {
        "raw": VaultAdapter({"folder": str(folder / "raw")}),
        "planes": VaultAdapter({"folder": str(folder / "planes"), "codec": "planes"}),
        "fs": FSL2Adapter(FSL2AdapterConfig(str(folder / "fs"))),
    }
    said: dict[str, Any] = {"bytes": count * size}
    memories = [Memory(size=size) for _ in range(count)]
    for name, adapter in adapters.items():
        started = time.perf_counter()
        assert store(adapter, keys, [Memory(one) for one in chunks])
        said[f"{name} store_s"] = time.perf_counter() - started
    times: dict[str, list[float]] = {name: [] for name in adapters}
    work: dict[str, list[float]] = {name: [] for name in adapters}
    for _ in range(rounds):
        for name, adapter in adapters.items():
            started, worked = time.perf_counter(), time.process_time()
            assert all(load(adapter, keys, memories))
            times[name].append(time.perf_counter() - started)
            work[name].append(time.process_time() - worked)
        assert [one.value() for one in memories] == chunks
    for name, seconds in times.items():
        said[f"{name} load_s"] = statistics.median(seconds)
        said[f"{name} best_s"] = min(seconds)
        said[f"{name} cpu_s"] = statistics.median(work[name])
        adapters[name].close()
    return said


if __name__ == "__main__":
    run = {"check": check, "tiers": tiers, "speed": speed}[sys.argv[1]]
    print("RESULT " + json.dumps(run(Path(sys.argv[2]))))

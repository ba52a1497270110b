"""The vault inside LMCache's server: its L2 adapter (lmcache 0.5.6).

LMCache loads it by name (``{"type": "plugin", "module_path": "cwm_jupyter.vault.adapter",
"class_name": "VaultAdapter", "adapter_params": {…}}``) and calls it from two threads, which must
never wait and never see an exception: one in the retrieve path would hang the engine. So every task
runs on threads of ours, and whatever goes wrong in it is an answer: a miss, or a failed store.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lmcache.lmcache_native import Bitmap
from lmcache.logging import init_logger
from lmcache.v1.distributed.api import KeyEntry, KeyListPage, ObjectKey
from lmcache.v1.distributed.internal_api import L2StoreResult
from lmcache.v1.distributed.l2_adapters.base import AdapterUsage, L2AdapterInterface
from lmcache.v1.platform import create_event_notifier

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.cipher import KEY_VARIABLE, Keyring
from cwm_jupyter.errors import CWMError
from cwm_jupyter.vault.files import Item, Vault

__all__ = ["VaultAdapter"]

logger = init_logger(__name__)
#: how many chunks a store writes before it gives them their names: a freeze waits for these
_BATCH = 32


class _Tasks:
    """One kind of task: its results by id, and the event that says that there are new ones."""

    def __init__(self) -> None:
        self.event = create_event_notifier()
        self.results: dict[int, Any] = {}


class VaultAdapter(L2AdapterInterface):  # type: ignore[misc]  # LMCache has no types
    """LMCache's L2 adapter over a `Vault`.

    Parameters
    ----------
    params
        ``folder``; ``codec`` and ``quota_bytes`` if they are set; ``home``, of the keyring, and
        with it ``encrypts``.
    l1_memory_desc
        LMCache's memory; not needed, since chunks are read straight into the objects.
    """

    def __init__(self, params: dict[str, Any], l1_memory_desc: Any = None) -> None:
        super().__init__()
        self._vault = open_vault(params)
        self._store, self._lookup, self._load = _Tasks(), _Tasks(), _Tasks()
        self._lock = threading.Lock()
        self._next_id = 0
        self._pinned: dict[ObjectKey, list[str]] = {}
        self._last_failure: str | None = None
        # Stores must not make a thaw wait, so they have a thread of their own.
        self._storing = ThreadPoolExecutor(1, thread_name_prefix="cwm-store")
        self._serving = ThreadPoolExecutor(2, thread_name_prefix="cwm-serve")
        logger.info("The vault in %s is open", self._vault.folder.path)

    # Events

    def get_store_event_fd(self) -> int:
        """Return the descriptor that tells of ended stores."""
        return int(self._store.event.fileno())

    def get_lookup_and_lock_event_fd(self) -> int:
        """Return the descriptor that tells of ended look-ups."""
        return int(self._lookup.event.fileno())

    def get_load_event_fd(self) -> int:
        """Return the descriptor that tells of ended loads."""
        return int(self._load.event.fileno())

    # Storing

    def submit_store_task(self, keys: list[ObjectKey], objects: list[Any]) -> int:
        """Begin to store; done once the chunks are durable."""
        return self._submit(
            self._store,
            self._storing,
            lambda: self._do_store(keys, objects),
            L2StoreResult(False, 0),
        )

    def pop_completed_store_tasks(self) -> dict[int, L2StoreResult]:
        """Return the results of the stores that ended since the last call."""
        with self._lock:
            ended, self._store.results = self._store.results, {}
        return ended

    def _do_store(self, keys: list[ObjectKey], objects: list[Any]) -> L2StoreResult:
        items = [
            Item(key=_ours(key), raw=_bytes(obj), element_bytes=_element_bytes(obj))
            for key, obj in zip(keys, objects, strict=True)
        ]
        failed, written = 0, 0
        for start in range(0, len(items), _BATCH):
            outcomes = self._vault.store(items[start : start + _BATCH])
            pairs = list(zip(keys[start:], outcomes, strict=False))
            new = [(key, one) for key, one in pairs if one.state == "stored"]
            if new:
                self._notify_keys_stored([k for k, _ in new], [one.raw_bytes for _, one in new])
            written += sum(one.stored_bytes for one in outcomes)
            for one in outcomes:
                if one.state == "failed":
                    failed += 1
                    self._last_failure = one.reason
        if failed:
            logger.error(
                "%d of %d chunks were not stored: %s", failed, len(items), self._last_failure
            )
        else:
            self._last_failure = None
        return L2StoreResult(not failed, written)

    # Looking up

    def submit_lookup_and_lock_task(
        self, keys: list[ObjectKey], group_layout_descs: dict[int, Any]
    ) -> int:
        """Begin to look up which chunks are there, and keep those from eviction."""
        return self._submit(
            self._lookup, self._serving, lambda: self._do_lookup(keys), Bitmap(len(keys))
        )

    def query_lookup_and_lock_result(self, task_id: int) -> Bitmap | None:
        """Return a look-up's result once, None while it runs."""
        with self._lock:
            return self._lookup.results.pop(task_id, None)

    def _do_lookup(self, keys: list[ObjectKey]) -> Bitmap:
        found = self._vault.lookup([_ours(key) for key in keys])
        self._vault.room.pin(content for content in found if content is not None)
        there = Bitmap(len(keys))
        with self._lock:
            for i, (key, content) in enumerate(zip(keys, found, strict=True)):
                if content is not None:
                    there.set(i)
                    self._pinned.setdefault(key, []).append(content)
        return there

    def submit_unlock(self, keys: list[ObjectKey]) -> None:
        """Undo one look-up's lock of each key."""
        contents = []
        with self._lock:
            for key in keys:
                pinned = self._pinned.get(key)
                if pinned:
                    contents.append(pinned.pop())
                    if not pinned:
                        del self._pinned[key]
        self._vault.room.unpin(contents)

    # Loading

    def submit_load_task(self, keys: list[ObjectKey], objects: list[Any]) -> int:
        """Begin to read chunks into LMCache's memory, each checked to its last byte."""
        return self._submit(
            self._load, self._serving, lambda: self._do_load(keys, objects), Bitmap(len(keys))
        )

    def query_load_result(self, task_id: int) -> Bitmap | None:
        """Return a load's result once, None while it runs."""
        with self._lock:
            return self._load.results.pop(task_id, None)

    def _do_load(self, keys: list[ObjectKey], objects: list[Any]) -> Bitmap:
        wanted = [(_ours(key), _bytes(obj)) for key, obj in zip(keys, objects, strict=True)]
        loaded = Bitmap(len(keys))
        hits = []
        for i, found in enumerate(self._vault.load_all(wanted)):
            if found.state == "intact":
                loaded.set(i)
                hits.append(keys[i])
        if hits:
            self._notify_keys_accessed(hits)
        return loaded

    # LMCache's own surface

    def delete(self, keys: list[ObjectKey]) -> None:
        """Delete chunks that no window holds; what cannot be deleted now stays."""
        try:
            self._delete(keys)
        except (OSError, CWMError):
            logger.exception("Chunks were not deleted")

    def _delete(self, keys: list[ObjectKey]) -> None:
        ours = [_ours(key) for key in keys]
        sizes = [record.size_bytes if (record := self._vault.record(k)) else 0 for k in ours]
        gone = self._vault.delete(ours)
        deleted = [(key, s) for key, s, was in zip(keys, sizes, gone, strict=True) if was]
        if deleted:
            self._notify_keys_deleted([key for key, _ in deleted], [size for _, size in deleted])

    def list_l2_keys(
        self, model_name: str | None = None, page_size: int = 500, cursor: str | None = None
    ) -> KeyListPage:
        """List the keys of all chunks."""
        if page_size < 1:
            raise ValueError("page_size must be positive")
        records, token = self._vault.page(limit=page_size, cursor=cursor, model_name=model_name)
        entries = tuple(
            KeyEntry(key=_theirs(record.key).to_encoded_object_key(), size_bytes=record.size_bytes)
            for record in records
        )
        return KeyListPage(entries=entries, next_page_token=token)

    def get_usage(self) -> AdapterUsage:
        """Return what the disk holds: bytes stored in all, raw bytes by salt."""
        room = self._vault.room
        return AdapterUsage(
            total_bytes_used=room.stored_bytes(),
            total_capacity_bytes=room.quota_bytes or 0,
            bytes_by_cache_salt=MappingProxyType(room.raw_bytes_by_salt()),
        )

    def report_status(self) -> dict[str, Any]:
        """Describe the vault for LMCache's ``/status``, without reading through it."""
        return {
            "is_healthy": True,  # a full disk makes no server ill: `last_failure` tells of it
            "type": type(self).__name__,
            "folder": str(self._vault.folder.path),
            "codec": self._vault.codec,
            "encrypts": self._vault.keyring is not None and self._vault.keyring.encrypts,
            "quota_bytes": self._vault.room.quota_bytes,
            "last_failure": self._last_failure,
            "counters": self._vault.counters.to_dict(),
        }

    def close(self) -> None:
        """Wait for what was begun: no store in flight is lost."""
        self._storing.shutdown(wait=True)
        self._serving.shutdown(wait=True)
        self._vault.close()
        for tasks in (self._store, self._lookup, self._load):
            tasks.event.close()

    def _submit(
        self, tasks: _Tasks, pool: ThreadPoolExecutor, work: Callable[[], Any], failed: Any
    ) -> int:
        with self._lock:
            task_id = self._next_id
            self._next_id += 1

        def run() -> None:
            try:
                result = work()
            except Exception:  # whatever it is: LMCache waits for an answer
                logger.exception("A task of the vault failed")
                result = failed
            with self._lock:
                tasks.results[task_id] = result
            tasks.event.notify()

        try:
            pool.submit(run)
        except RuntimeError:  # it is closed: answer all the same
            with self._lock:
                tasks.results[task_id] = failed
        return task_id


def open_vault(params: dict[str, Any]) -> Vault:
    """Open the vault that an adapter's parameters describe.

    The key of the environment is taken out of it: LMCache tells its environment to who asks.
    """
    environ = {KEY_VARIABLE: os.environ.pop(KEY_VARIABLE, "")}
    keyring = None
    if "home" in params:
        keyring = Keyring.watch(Path(params["home"]), environ, encrypts=params["encrypts"])
    return Vault(
        Path(params["folder"]),
        codec=params.get("codec", "raw"),
        quota_bytes=params.get("quota_bytes"),
        keyring=keyring,
    )


def _ours(key: ObjectKey) -> ChunkKey:
    return ChunkKey(
        chunk_hash=key.chunk_hash,
        model_name=key.model_name,
        kv_rank=key.kv_rank,
        object_group_id=key.object_group_id,
        cache_salt=key.cache_salt,
    )


def _theirs(key: ChunkKey) -> ObjectKey:
    return ObjectKey(
        chunk_hash=key.chunk_hash,
        model_name=key.model_name,
        kv_rank=key.kv_rank,
        object_group_id=key.object_group_id,
        cache_salt=key.cache_salt,
    )


def _bytes(obj: Any) -> memoryview:
    view = memoryview(obj.byte_array)
    return view if view.format == "B" else view.cast("B")


def _element_bytes(obj: Any) -> int:
    dtype = obj.get_dtype()
    return int(dtype.itemsize) if dtype is not None else 1

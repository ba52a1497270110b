"""Keep salts out of the servers' logs: LMCache prints whole keys where a store fails."""

from __future__ import annotations

from typing import Any

__all__ = ["hide_salts"]


def hide_salts() -> None:
    """Have LMCache's keys print themselves without their salts, in this process and its forks."""
    from lmcache.v1.distributed.api import ObjectKey
    from lmcache.v1.multiprocess.custom_types import IPCCacheServerKey

    ObjectKey.__repr__ = _object_key
    IPCCacheServerKey.__repr__ = _request_key


def _object_key(key: Any) -> str:
    group = f", group {key.object_group_id}" if key.object_group_id else ""
    return f"<{key.chunk_hash.hex()[:16]}…, {key.model_name}, rank {key.kv_rank:#x}{group}>"


def _request_key(key: Any) -> str:
    return f"<tokens {key.start} to {key.end} of request {key.request_id}, {key.model_name}>"

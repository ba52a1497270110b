"""Statistics: what the caches hold and have done, read from the servers at one moment."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from cwm_jupyter.clients.metrics import CacheFigures, EngineFigures
from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.models import Value, now
from cwm_jupyter.core.parts import Parts
from cwm_jupyter.errors import CWMError, StackDownError

__all__ = ["Statistics", "statistics"]

_T = TypeVar("_T")


class Statistics(Value, frozen=True, kw_only=True):
    """The figures of one moment; what could not be read is null, and never 0.

    `running` is whether there is a stack to ask. `engine_used_bytes` of `engine_total_bytes` are
    the blocks of the engine's own KV cache; the tiers below it are in `cache`.
    """

    at: str
    running: bool
    engine: EngineFigures | None = None
    cache: CacheFigures | None = None
    engine_used_bytes: int | None = None
    engine_total_bytes: int | None = None
    quota_bytes: int | None = None


async def statistics(parts: Parts) -> Statistics:
    """Ask both servers for their figures."""
    quota = parts.settings.storage.quota_bytes
    try:
        stack = await parts.connect()
    except StackDownError:
        return Statistics(at=now(), running=False, quota_bytes=quota)
    except CWMError:  # there is one, and it cannot be asked
        return Statistics(at=now(), running=True, quota_bytes=quota)
    engine = await _asked(stack.engine.metrics())
    cache = None if stack.cache is None else await _asked(stack.cache.figures())
    used, total = await _engine_bytes(stack, engine)
    return Statistics(
        at=now(),
        running=True,
        engine=engine,
        cache=cache,
        engine_used_bytes=used,
        engine_total_bytes=total,
        quota_bytes=quota,
    )


async def _asked(question: Awaitable[_T]) -> _T | None:
    try:
        return await question
    except CWMError:
        return None


async def _engine_bytes(
    stack: ConnectedStack, engine: EngineFigures | None
) -> tuple[int | None, int | None]:
    """Return the bytes used and there in the engine's own cache."""
    if engine is None or None in (engine.kv_cache_blocks, engine.block_size_tokens):
        return None, None
    facts = await _asked(stack.facts())
    if facts is None or facts.kv_bytes_per_token is None:
        return None, None
    blocks, tokens = engine.kv_cache_blocks or 0, engine.block_size_tokens or 0
    total = blocks * tokens * facts.kv_bytes_per_token
    if engine.kv_cache_usage_ratio is None:
        return None, total
    return round(engine.kv_cache_usage_ratio * total), total

"""Warm: have LMCache load a window into its memory, so that a thaw that follows is quick.

No session is made and the engine is not asked to compute anything.
"""

from __future__ import annotations

import time

from anyio import to_thread

from cwm_jupyter.core import fingerprint
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.models import Value
from cwm_jupyter.core.parts import Parts

__all__ = ["WarmReport", "warm"]


class WarmReport(Value, frozen=True, kw_only=True):
    """What is in LMCache's memory after a window was loaded.

    `chunks_found` are the chunks there, from the first on; a thaw computes the other ones anew.
    """

    window: str
    chunks_expected: int
    chunks_found: int
    size_bytes: int | None
    warm_s: float


async def warm(parts: Parts, name: str, job: Job | None = None) -> WarmReport:
    """Load a window's chunks into LMCache's memory.

    Parameters
    ----------
    parts
        What the manager works with.
    name
        Of the window.
    job
        Told of the stages; may be cancelled between them.

    Raises
    ------
    WindowNotFoundError
        With the nearest names.
    StackDownError
        No stack is running.
    EngineMismatchError
        The engine is not the window's, so that it could not use what would be loaded.
    KVStoreError
        The stack has no LMCache, or it did not load the chunks in time.
    """
    job = job or Job(f"prefetch {name}")
    window = await to_thread.run_sync(parts.library.index.require_window, name)
    stack = await parts.connect()
    cache = stack.keeper()
    started = time.perf_counter()
    job.stage("check")
    manifest = await to_thread.run_sync(parts.library.manifest, window)
    facts = await stack.facts()
    fingerprint.check(
        window.known_as,
        fingerprint.compare(manifest.fingerprint, facts.fingerprint),
        accept_engine=False,
    )
    job.stage("load", total=window.size_bytes, unit="bytes")
    found = 0
    if manifest.refs:
        prefetched = await cache.prefetch(
            manifest.transcript.token_ids,
            model_name=stack.kv_model_name,
            world_size=stack.world_size,
            cache_salt=parts.library.lineages.salt(window.lineage_id, facts.fingerprint),
            timeout_s=parts.settings.lmcache.prefetch_timeout_s,
        )
        found = prefetched.found
    job.finish()
    return WarmReport(
        window=window.known_as,
        chunks_expected=window.chunks,
        chunks_found=found // stack.world_size,
        size_bytes=window.size_bytes,
        warm_s=time.perf_counter() - started,
    )

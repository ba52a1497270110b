"""Overview: all windows and sessions in a few figures."""

from __future__ import annotations

from collections.abc import Sequence

from anyio import to_thread

from cwm_jupyter.core.kept import KeptStore
from cwm_jupyter.core.models import Value, Window
from cwm_jupyter.core.parts import Parts

__all__ = ["Overview", "overview", "saved_s"]


class Overview(Value, frozen=True, kw_only=True):
    """What is kept, what it takes and what it has saved; what cannot be told is null.

    `tokens` and `size_bytes` are those of all windows, each counted whole; `stored_bytes` is what
    they take on the disk together, where equal chunks lie once. `saved_s` is null where no thaw was
    measured.
    """

    windows: int
    damaged: int
    deleted: int
    sessions: int
    tokens: int
    size_bytes: int | None
    stored_bytes: int | None
    thaws: int
    saved_s: float | None


def saved_s(window: Window) -> float | None:
    """Return the seconds that a window's thaws have saved, None where that was not measured.

    Each thaw is taken for as long as the latest one, and held against the prefill that the state
    once took; both were measured.
    """
    if not window.prefill_s or not window.last_thaws:
        return None
    return window.thaws * max(window.prefill_s - window.last_thaws[0].restore_s, 0.0)


async def overview(parts: Parts) -> Overview:
    """Return the figures of a home; needs no running stack."""
    index = parts.library.index
    everything: Sequence[Window] = await to_thread.run_sync(index.all_windows)
    sessions = await to_thread.run_sync(index.sessions)
    windows = [window for window in everything if window.state != "deleted"]
    sizes = [window.size_bytes for window in windows]
    saved = [one for one in map(saved_s, windows) if one is not None]
    store = parts.store
    shares = await store.shares() if isinstance(store, KeptStore) else None
    return Overview(
        windows=len(windows),
        damaged=sum(window.state == "damaged" for window in windows),
        deleted=len(everything) - len(windows),
        sessions=sessions.total,
        tokens=sum(window.tokens for window in windows),
        size_bytes=None if None in sizes else sum(size or 0 for size in sizes),
        stored_bytes=None if shares is None else shares.stored_bytes,
        thaws=sum(window.thaws for window in windows),
        saved_s=sum(saved) if saved else None,
    )

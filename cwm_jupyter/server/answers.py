"""Answers that are the server's own; all others are the values of the core."""

from __future__ import annotations

from typing import Any, Literal, Self

from cwm_jupyter.core.models import Page, Session, Value, Window
from cwm_jupyter.server.jobs import JobView

__all__ = [
    "Health",
    "JobListing",
    "LogTail",
    "PartHealth",
    "SessionListing",
    "StackView",
    "VersionView",
    "WindowListing",
]


class _Listing(Value, frozen=True, kw_only=True):
    """A page of the index; `generation` is another one when that has changed."""

    items: list[Any]
    total: int
    limit: int | None
    offset: int
    generation: str

    @classmethod
    def of(cls, page: Page, generation: str) -> Self:
        """Return a page as it is answered."""
        return cls(
            items=page.items,
            total=page.total,
            limit=page.limit,
            offset=page.offset,
            generation=generation,
        )


class WindowListing(_Listing, frozen=True, kw_only=True):
    """A page of windows; `generation` is another one when the index has changed."""

    items: list[Window]


class SessionListing(_Listing, frozen=True, kw_only=True):
    """A page of sessions; `generation` is another one when the index has changed."""

    items: list[Session]


class JobListing(Value, frozen=True, kw_only=True):
    """The jobs that are kept, the newest first."""

    items: list[JobView]


class LogTail(Value, frozen=True, kw_only=True):
    """The last lines of a server's log."""

    part: Literal["lmcache", "vllm"]
    lines: list[str]


class PartHealth(Value, frozen=True, kw_only=True):
    """Whether a part can do its work, and if not, why."""

    name: Literal["index", "lmcache", "vllm", "watchdog"]
    ready: bool
    detail: str | None = None


class Health(Value, frozen=True, kw_only=True):
    """The server lives if it answers; it is ready if all its parts are."""

    live: bool
    ready: bool
    parts: list[PartHealth]


class StackView(Value, frozen=True, kw_only=True):
    """Which stack a home uses."""

    kind: Literal["local", "remote"]
    phase: Literal["starting", "ready"]
    engine_url: str
    lmcache_url: str | None
    model: str | None
    started_at: str


class VersionView(Value, frozen=True, kw_only=True):
    """What answers here, and what it looks at: a kernel elsewhere may look at another home."""

    api_version: int
    package_version: str
    home: str
    index: str
    generation: str
    stack: StackView | None

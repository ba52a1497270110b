"""What requests may hold: strict structs, of which every field is checked and named if refused."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cwm_jupyter.core.lifetime import ttl_s
from cwm_jupyter.core.names import check_name, check_tag, check_unicode
from cwm_jupyter.core.query import Query, duration_s, moment, size_bytes
from cwm_jupyter.server.failures import about

__all__ = [
    "AuditQuery",
    "CloneBody",
    "CompareQuery",
    "EditBody",
    "FigureQuery",
    "FreezeBody",
    "LogsQuery",
    "SessionEditBody",
    "SessionsQuery",
    "StartBody",
    "ThawBody",
    "TreeQuery",
    "WindowsQuery",
]

Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
PageSize = Annotated[int, Meta(ge=0, le=1000)]
Name = Annotated[str, Meta(min_length=1, max_length=300)]
Note = Annotated[str, Meta(max_length=10_000)]
Tags = Annotated[tuple[Annotated[str, Meta(max_length=300)], ...], Meta(max_length=100)]
Fields = Annotated[tuple[Annotated[str, Meta(max_length=100)], ...], Meta(max_length=100)]


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base: unknown fields are refused, since they may be misspelt ones."""


class SessionsQuery(_Strict, frozen=True, kw_only=True):
    """See `cwm_jupyter.core.query.Query`."""

    tags: tuple[str, ...] = ()
    model: str | None = None
    text: str | None = None
    state: tuple[str, ...] = ()
    older_than: str | None = None
    newer_than: str | None = None
    sort: str | None = None
    limit: PageSize = 100
    offset: Count = 0

    def __post_init__(self) -> None:
        for field in ("older_than", "newer_than"):
            if getattr(self, field) is not None:
                with about(field):
                    moment(getattr(self, field))

    @property
    def timeless(self) -> bool:
        """Whether the answer is the same until the index changes."""
        return self.older_than is None and self.newer_than is None

    @property
    def query(self) -> Query:
        """What is asked of the index."""
        return Query(**{**msgspec.structs.asdict(self), "state": self.state or None})


class WindowsQuery(SessionsQuery, frozen=True, kw_only=True):
    """See `cwm_jupyter.core.query.Query`."""

    session: str | None = None
    min_size: str | None = None
    max_size: str | None = None
    versions: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("min_size", "max_size"):
            if getattr(self, field) is not None:
                with about(field):
                    size_bytes(getattr(self, field))


class FreezeBody(_Strict, frozen=True, kw_only=True):
    """A window to be: see `cwm_jupyter.core.manager.Manager.freeze`."""

    name: Name
    session: Name
    tags: Tags = ()
    note: Note = ""
    ttl: str | None = None
    update: bool = False

    def __post_init__(self) -> None:
        with about("name"):
            check_name(self.name)
        _check_kept(self.tags, "tags", self.note, self.ttl)


class EditBody(_Strict, frozen=True, kw_only=True):
    """What is to change of a window: see `cwm_jupyter.core.keeping.Keeping.edit_window`."""

    name: Name | None = None
    add_tags: Tags = ()
    remove_tags: Tags = ()
    note: Note | None = None
    ttl: str | None = None
    pinned: bool | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            with about("name"):
                check_name(self.name)
        _check_kept(self.add_tags, "add_tags", self.note, self.ttl)


class SessionEditBody(_Strict, frozen=True, kw_only=True):
    """What is to change of a session: see `cwm_jupyter.core.keeping.Keeping.edit_session`."""

    name: Name | None = None
    add_tags: Tags = ()
    remove_tags: Tags = ()
    ttl: str | None = None
    pinned: bool | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            with about("name"):
                check_name(self.name, "session")
        _check_kept(self.add_tags, "add_tags", None, self.ttl)


class CloneBody(_Strict, frozen=True, kw_only=True):
    """A clone to be."""

    name: Name
    tags: Tags = ()
    note: Note = ""

    def __post_init__(self) -> None:
        with about("name"):
            check_name(self.name)
        _check_kept(self.tags, "tags", self.note, None)


class ThawBody(_Strict, frozen=True, kw_only=True):
    """A session to be: see `cwm_jupyter.core.manager.Manager.thaw`."""

    as_session: Name | None = None
    recompute: bool = False
    accept_engine: bool = False
    accept_unknown: Fields = ()

    def __post_init__(self) -> None:
        if self.as_session is not None:
            with about("as_session"):
                check_name(self.as_session, "session")


class TreeQuery(_Strict, frozen=True, kw_only=True):
    """Whose family; without it all."""

    window: Name | None = None


class CompareQuery(_Strict, frozen=True, kw_only=True):
    """Two windows."""

    a: Name
    b: Name


class StartBody(_Strict, frozen=True, kw_only=True):
    """How to start the stack."""

    model: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None


class LogsQuery(_Strict, frozen=True, kw_only=True):
    """Whose log, and how many of its last lines."""

    part: Literal["lmcache", "vllm"] = "vllm"
    lines: Annotated[int, Meta(ge=1, le=2000)] = 100


class AuditQuery(_Strict, frozen=True, kw_only=True):
    """Which lines of the audit log: the last so many that match."""

    last: Annotated[int, Meta(ge=1, le=500)] = 50
    action: str | None = None
    name: str | None = None
    since: str | None = None

    def __post_init__(self) -> None:
        if self.since is not None:
            with about("since"):
                duration_s(self.since)


class FigureQuery(_Strict, frozen=True, kw_only=True):
    """What a figure is drawn of; which figure needs which is in its description."""

    window: Name | None = None
    session: Name | None = None


def _check_kept(tags: tuple[str, ...], field: str, note: str | None, ttl: str | None) -> None:
    """Check what is said of windows, as the manager does, but name the field."""
    with about(field):
        for tag in tags:
            check_tag(tag)
    with about("note"):
        check_unicode(note or "", "note")
    with about("ttl"):
        ttl_s(ttl)

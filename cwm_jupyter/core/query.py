"""What is asked of the index's listings: filters, an order, a page.

A `Query` holds it as people write it, and is checked when it is made; `Listed` says what can be
asked of one kind of entry, and chooses among its documents. Durations and sizes are read here too,
for everything that takes them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cwm_jupyter.core.models import Value
from cwm_jupyter.core.names import name_key
from cwm_jupyter.errors import ValidationError

__all__ = ["SESSION_SORTS", "WINDOW_SORTS", "Listed", "Query", "duration_s", "moment", "size_bytes"]

#: As TinyDB has them; shared between readers, so never changed in place.
Document = Mapping[str, Any]

_DURATIONS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST_S = 100 * 365 * 86_400  # beyond it, times leave what a clock can show
_SIZES: dict[str, int] = {"": 1, "b": 1, "bytes": 1} | {
    f"{prefix}{unit}b": base ** (power + 1)
    for unit, base in (("", 1000), ("i", 1024))
    for power, prefix in enumerate("kmgt")
}
_FIGURE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([a-z]*)", re.ASCII)

#: What windows and sessions are sorted by. None counts as least: what was never used comes before
#: all that was, what is of unknown size before the smallest.
WINDOW_SORTS: Mapping[str, Callable[[Document], Any]] = {
    "name": lambda each: name_key(each["name"]),
    "created": lambda each: each["created_at"],
    "used": lambda each: each["used_at"] or "",
    "tokens": lambda each: each["tokens"],
    "bytes": lambda each: -1 if each["size_bytes"] is None else each["size_bytes"],
}
SESSION_SORTS: Mapping[str, Callable[[Document], Any]] = {
    "name": WINDOW_SORTS["name"],
    "created": WINDOW_SORTS["created"],
    "used": lambda each: each["updated_at"],
    "tokens": WINDOW_SORTS["tokens"],
}
_TEXTS = ("model", "session", "text", "older_than", "newer_than", "sort")
_OF_WINDOWS = ("session", "min_size", "max_size", "versions")


class Query(Value, frozen=True, kw_only=True):
    """What to list. All filters must hold; names, tags and text are compared case aside.

    Parameters
    ----------
    tags
        Those that have all these tags.
    model
        Those of this model.
    session
        Windows that were frozen from the session of this name or id.
    text
        Those in whose name, note or tags each of these words occurs, be it within another word.
    state
        Those in this state, or in one of these; without it, all that are not deleted.
    older_than, newer_than
        Those that were made before or after: a duration back from now, ``7d``, or an RFC 3339 time.
    min_size, max_size
        Windows of at least or at most this size, ``10MB`` or a number of bytes; those whose size is
        unknown are neither.
    sort
        ``name``, ``created``, ``used``, ``tokens``, and of windows ``bytes``; ``-created`` is the
        other way round. Without it windows come newest first, and sessions oldest first. So does
        what is equal.
    limit, offset
        The page; None is all from `offset` on.
    versions
        Superseded windows too.

    Raises
    ------
    ValidationError
        Something in it cannot be.
    """

    tags: Sequence[str] = ()
    model: str | None = None
    session: str | None = None
    text: str | None = None
    state: str | Sequence[str] | None = None
    older_than: str | None = None
    newer_than: str | None = None
    min_size: str | int | None = None
    max_size: str | int | None = None
    sort: str | None = None
    limit: int | None = None
    offset: int = 0
    versions: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without knowing what is listed."""
        if isinstance(self.tags, str) or not all(isinstance(tag, str) for tag in self.tags):
            raise ValidationError(f"Tags are a list of texts, not {self.tags!r}.")
        for field in _TEXTS:
            value = getattr(self, field)
            if not isinstance(value, str | None):
                raise ValidationError(f"{field} is a text, not {value!r}.")
        for time in (self.older_than, self.newer_than):
            if time is not None:
                moment(time)
        for size in (self.min_size, self.max_size):
            if size is not None:
                size_bytes(size)
        for field in ("limit", "offset"):
            value = getattr(self, field)
            if value is None and field == "limit":
                continue
            if not isinstance(value, int):
                raise ValidationError(f"{field} is a whole number, not {value!r}.")
            if value < 0:
                raise ValidationError(f"{field} cannot be negative: {value}.")

    @property
    def states(self) -> tuple[str, ...]:
        """The states that are asked for; none are all but deleted."""
        if self.state is None:
            return ()
        return (self.state,) if isinstance(self.state, str) else tuple(self.state)


@dataclass(frozen=True)
class Listed:
    """What can be asked of one kind of entry.

    Parameters
    ----------
    what
        ``window`` or ``session``.
    states
        That it may be in.
    sorts
        By name, what they sort by.
    order
        Where none is asked for, and among equals.
    """

    what: str
    states: tuple[str, ...]
    sorts: Mapping[str, Callable[[Document], Any]]
    order: str

    def check(self, query: Query) -> None:
        """Refuse what cannot be asked of these.

        Raises
        ------
        ValidationError
            An unknown state or sort, with those that there are; a filter that windows alone have.
        """
        for state in query.states:
            if state not in self.states:
                raise ValidationError(
                    f"There is no {self.what} state {state!r}.",
                    hint=f"States are: {', '.join(self.states)}.",
                    state=state,
                )
        name = (query.sort or self.order).removeprefix("-")
        if name not in self.sorts:
            close = difflib.get_close_matches(name, self.sorts, n=1)
            raise ValidationError(
                f"There is no {self.what} sort {name!r}.",
                hint=(f"Did you mean {close[0]}? " if close else "")
                + f"Sorts are: {', '.join(self.sorts)}; with a - before it, the other way round.",
                sort=name,
            )
        if self.what == "session":
            plain = Query()
            for field in _OF_WINDOWS:
                if getattr(query, field) != getattr(plain, field):
                    raise ValidationError(f"{field} chooses windows; it cannot choose sessions.")

    def conditions(
        self, query: Query, session_ids: Collection[str]
    ) -> list[Callable[[Document], bool]]:
        """Return what a document has to meet: the cheap conditions first.

        `session_ids` are those of the session in the query, if it names one.
        """
        met = [_shown(query)]
        if query.model is not None:
            model, key = query.model, name_key(query.model)
            met.append(lambda each: each["model"] == model or name_key(each["model"]) == key)
        if query.session is not None:
            met.append(lambda each: each["session_id"] in session_ids)
        if query.older_than is not None:
            before = moment(query.older_than)
            met.append(lambda each: each["created_at"] < before)
        if query.newer_than is not None:
            after = moment(query.newer_than)
            met.append(lambda each: each["created_at"] > after)
        if query.min_size is not None:
            least = size_bytes(query.min_size)
            met.append(lambda each: each["size_bytes"] is not None and each["size_bytes"] >= least)
        if query.max_size is not None:
            most = size_bytes(query.max_size)
            met.append(lambda each: each["size_bytes"] is not None and each["size_bytes"] <= most)
        if query.tags:
            tags = {name_key(tag) for tag in query.tags}
            met.append(lambda each: bool(each["tags"]) and tags <= {*map(name_key, each["tags"])})
        if words := name_key(query.text or "").split():
            met.append(_says(words))
        return met

    def sort(self, query: Query, documents: list[Document]) -> None:
        """Sort in place; what is equal in all respects stays in the order it was added in."""
        for order in (self.order, query.sort):
            if order is not None:
                key = self.sorts[order.removeprefix("-")]
                documents.sort(key=key, reverse=order.startswith("-"))


def duration_s(text: str) -> float:
    """Return a duration in seconds: ``30m``, ``12h``, ``7d``, ``2w``, ``1.5h``.

    Raises
    ------
    ValidationError
        It is not one, is zero, or is longer than 100 years.
    """
    number, unit = _figure(text)
    if number is None or unit not in _DURATIONS_S:
        raise ValidationError(
            f"Not a duration: {text!r}.", hint="Write it like 90s, 30m, 12h, 7d or 2w."
        )
    seconds = number * _DURATIONS_S[unit]
    if not 0 < seconds <= _LONGEST_S:
        raise ValidationError(f"A duration is more than 0 and at most 100 years, not {text!r}.")
    return seconds


def moment(text: str) -> str:
    """Return a time as the index has them: RFC 3339 in UTC, to the microsecond.

    Parameters
    ----------
    text
        How long ago it was, as `duration_s` reads it; or the time or date itself, which is local
        where it names no zone.

    Raises
    ------
    ValidationError
        It is neither.
    """
    try:
        if _figure(text)[1] in _DURATIONS_S:
            time = datetime.now(UTC) - timedelta(seconds=duration_s(text))
        else:
            time = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValidationError(
            f"Not a time: {text!r}.", hint="Write it like 7d, 2026-01-31 or 2026-01-31T18:00Z."
        ) from None
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def size_bytes(text: str | int) -> int:
    """Return a size in bytes: ``10MB``, ``1.5GB``, ``512KiB``, or a whole number of bytes.

    Units go by thousands, as everywhere here, and with an ``i`` by 1024; case does not matter.

    Raises
    ------
    ValidationError
        It is not one, or is negative.
    """
    number, unit = _figure(str(text))
    if number is None or unit not in _SIZES or isinstance(text, bool):
        raise ValidationError(
            f"Not a size: {text!r}.", hint="Write it like 500kB, 10MB, 1.5GB or 2GiB."
        )
    return round(number * _SIZES[unit])


def _figure(text: str) -> tuple[float | None, str]:
    """Split a figure into its number and its unit in small letters."""
    match = _FIGURE.fullmatch(text.strip().lower())
    return (float(match[1]), match[2]) if match else (None, "")


def _shown(query: Query) -> Callable[[Document], bool]:
    """Return the condition on states and versions."""
    states, versions = query.states, query.versions

    def shown(document: Document) -> bool:
        state = document["state"]
        if state not in states if states else state == "deleted":
            return False
        # A deleted version has no place among the others: it is listed as what it is.
        return versions or state == "deleted" or not document.get("superseded")

    return shown


def _says(words: Sequence[str]) -> Callable[[Document], bool]:
    """Return the condition that each word is in name, note or tags."""

    def says(document: Document) -> bool:
        # A line break, which no word has, keeps what is in two fields apart.
        said = name_key("\n".join([document["name"], document.get("note", ""), *document["tags"]]))
        return all(word in said for word in words)

    return says

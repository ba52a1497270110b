"""Figures as people read them. None is a figure that could not be read: it is never shown as 0."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

__all__ = ["UNAVAILABLE", "age", "count", "megabytes", "nats", "seconds", "total"]

UNAVAILABLE = "unavailable"


def count(number: int | None) -> str:
    """Return a whole number with separators, as in ``5,993``."""
    return UNAVAILABLE if number is None else f"{number:,}"


def total(figures: Iterable[int | None]) -> int | None:
    """Return the sum, None where one of the figures could not be read."""
    known = list(figures)
    return None if None in known else sum(figure for figure in known if figure is not None)


def megabytes(size_bytes: int | None) -> str:
    """Return a number of bytes in the decimal unit that fits, to three digits: ``136 MB``."""
    if size_bytes is None:
        return UNAVAILABLE
    value, unit = float(size_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    if unit == "bytes":
        return f"{size_bytes} {unit}"
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def seconds(duration_s: float | None) -> str:
    """Return a duration with as many digits as matter: ``4 ms``, ``0.31 s``, ``2 min 05 s``."""
    if duration_s is None:
        return UNAVAILABLE
    if duration_s < 0.0995:
        return f"{duration_s * 1000:.{0 if duration_s >= 0.001 else 1}f} ms"
    if duration_s < 59.5:
        return f"{duration_s:.{2 if duration_s < 0.995 else 1 if duration_s < 9.95 else 0}f} s"
    minutes, rest = divmod(round(duration_s), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def nats(difference: float | None) -> str:
    """Return a log-probability difference: ``0.131 nats``."""
    return UNAVAILABLE if difference is None else f"{difference:.3g} nats"


def age(time: str | None, *, present: datetime | None = None) -> str:
    """Return how long ago an RFC 3339 time was: ``3 h ago``; from a month on, the date."""
    if time is None:
        return UNAVAILABLE
    then = datetime.fromisoformat(time)
    past_s = ((present or datetime.now(UTC)) - then).total_seconds()
    if past_s < 60:
        return "just now"
    for unit_s, unit, below in ((60, "min", 60), (3600, "h", 24), (86400, "days", 31)):
        number = int(past_s // unit_s)
        if number < below:
            return f"{number} {'day' if (number, unit) == (1, 'days') else unit} ago"
    return then.date().isoformat()

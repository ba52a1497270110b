"""How people write durations, times and sizes."""

from __future__ import annotations

import re

from cwm_jupyter.errors import ValidationError

__all__ = ["duration_s", "size_bytes"]

_DURATIONS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST_S = 100 * 365 * 86_400  # beyond it, times leave what a clock can show
_SIZES = {"": 1, "b": 1, "bytes": 1} | {
    f"{prefix}{unit}b": base ** (power + 1)
    for unit, base in (("", 1000), ("i", 1024))
    for power, prefix in enumerate("kmgt")
}
_FIGURE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([a-z]*)", re.ASCII)


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

"""Queries: how people write durations and sizes, and what may be asked."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.core.query import duration_s, size_bytes
from cwm_jupyter.errors import ValidationError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1_800),
        ("12h", 43_200),
        ("7d", 604_800),
        ("2w", 1_209_600),
        ("1.5H", 5_400),
        (" 3 d ", 259_200),
        ("36500d", 3_153_600_000),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "7", "d", "7 days", "-1d", "1d2h", "٣d", "1e3s", "nan", "7D!"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValidationError, match="Not a duration") as caught:
        duration_s(text)
    assert "30m, 12h, 7d or 2w" in str(caught.value)


@pytest.mark.parametrize("text", ["0d", "0.0s", "36501d", "999999999999999w"])
def test_durations_out_of_range(text: str) -> None:
    with pytest.raises(ValidationError, match="more than 0 and at most 100 years"):
        duration_s(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        (4096, 4096),
        ("512", 512),
        ("512 bytes", 512),
        ("10MB", 10_000_000),
        ("1.5GB", 1_500_000_000),
        ("2gib", 2 * 2**30),
        ("1 KiB", 1024),
        ("0.5kB", 500),
        ("3TB", 3 * 10**12),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MB", "10 M", "10XB", "-1", -1, "1,5GB", "1e9", True])
def test_what_is_no_size(text: str | int) -> None:
    with pytest.raises(ValidationError, match="Not a size"):
        size_bytes(text)


@given(st.text())
def test_any_text_is_a_figure_or_a_clear_error(text: str) -> None:
    for parse in (duration_s, size_bytes):
        with suppress(ValidationError):
            assert parse(text) >= 0

"""References: what is a turn, and what belongs to the name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.core.reference import Reference


@pytest.mark.parametrize(
    ("text", "window", "turn"),
    [
        ("paper", "paper", None),
        ("paper@3", "paper", 3),
        ("paper@0", "paper", 0),
        ("paper@v2", "paper@v2", None),
        ("paper@v2@3", "paper@v2", 3),
        ("paper@2@3", "paper@2", 3),
        ("a b (c)@12", "a b (c)", 12),
        ("@3", "@3", None),
        ("paper@", "paper@", None),
        ("paper@-1", "paper@-1", None),
        ("paper@3 ", "paper@3 ", None),
        ("paper@٣", "paper@٣", None),
        ("paper@1234567890", "paper@1234567890", None),
        ("", "", None),
    ],
)
def test_the_part_after_the_last_at_is_a_turn_where_it_is_a_number(
    text: str, window: str, turn: int | None
) -> None:
    assert Reference.parse(text) == (window, turn)


@given(st.text(min_size=1), st.none() | st.integers(0, 999_999_999))
def test_what_is_written_is_read_back(window: str, turn: int | None) -> None:
    if turn is None:
        window = window.replace("@", "a")
    assert Reference.parse(str(Reference(window, turn))) == (window, turn)

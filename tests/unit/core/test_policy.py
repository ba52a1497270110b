"""Freeze policies: which there can be, when they trigger, what their windows are called."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from entries import make_session, make_window
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.core.models import FreezePolicy
from cwm_jupyter.core.names import MAX_NAME_LENGTH, check_name, name_key
from cwm_jupyter.core.policy import check_policy, is_due, threshold_tokens, window_name
from cwm_jupyter.errors import ValidationError

DAY = date(2026, 3, 4)


def policy(**fields: Any) -> FreezePolicy:
    when = {} if {"at_tokens", "at_share"} & fields.keys() else {"at_tokens": 1000}
    return FreezePolicy(**when, **fields)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"at_tokens": None}, "at_tokens"),
        ({"at_tokens": 10, "at_share": 0.5}, "at_tokens"),
        ({"at_tokens": 0}, "at_tokens"),
        ({"at_tokens": 9000}, "at_tokens"),
        ({"at_share": 0.0}, "at_share"),
        ({"at_share": 1.01}, "at_share"),
        ({"at_share": float("nan")}, "at_share"),
        ({"cooldown_tokens": -1}, "cooldown_tokens"),
        ({"name": "{"}, "name"),
        ({"name": "{other}"}, "name"),
        ({"name": "{}"}, "name"),
        ({"name": "{n:>9}"}, "name"),
        ({"name": "{session!r}"}, "name"),
        ({"name": "{session.__class__}"}, "name"),
        ({"name": "a/{n}"}, "name"),
        ({"name": ""}, "name"),
        ({"tags": ["a b"]}, "tags"),
        ({"then": "stop"}, "then"),
        ({"then": "fresh"}, "summary"),
        ({"then": "fresh", "summary": "  "}, "summary"),
        ({"summary": "So far."}, "summary"),
    ],
)
def test_a_policy_that_cannot_be_names_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=rf"policy: {field} ") as refused:
        check_policy(policy(**fields), 8192)
    assert refused.value.context["field"] == field


def test_policies_that_can_be() -> None:
    assert check_policy(policy(at_share=1.0), 8192).at_share == 1
    assert check_policy(policy(at_tokens=9000)).at_tokens == 9000  # the context is unknown
    assert check_policy(policy(tags=["e\u0301"])).tags == ["\u00e9"]
    assert check_policy(policy(then="fresh", summary="So far.", name="{date} {session} {turn}"))


def test_when_it_triggers() -> None:
    assert threshold_tokens(policy(at_share=0.75), 8192) == 6144
    assert threshold_tokens(policy(at_share=0.75), None) is None
    assert threshold_tokens(policy(at_tokens=100), None) == 100


@given(
    tokens=st.integers(0, 5000),
    frozen=st.none() | st.integers(0, 5000),
    threshold=st.integers(1, 5000),
    cooldown=st.integers(0, 5000),
)
def test_due_is_at_the_threshold_and_after_each_cooldown(
    tokens: int, frozen: int | None, threshold: int, cooldown: int
) -> None:
    window = None if frozen is None else make_window(tokens=frozen)
    session = make_session(
        tokens=tokens,
        window_id=None if frozen is None else "w1",
        policy=FreezePolicy(at_tokens=threshold, cooldown_tokens=cooldown),
    )
    due = is_due(session, lambda window_id: window)
    assert not due or tokens >= threshold
    if frozen is None or frozen < threshold:
        assert due == (tokens >= threshold)
    else:
        assert due == (tokens > frozen and tokens >= frozen + cooldown)


def test_not_due() -> None:
    def lost(window_id: str) -> None:
        return None

    ready = make_session(tokens=2000, policy=policy())
    assert is_due(ready, lost)
    assert not is_due(ready.replace(policy=None), lost)
    for state in ("frozen", "thawed", "expired", "deleted"):
        assert not is_due(ready.replace(state=state), lost)
    assert not is_due(ready.replace(policy=policy(at_share=0.1)), lost)  # of an unknown context
    assert is_due(ready.replace(window_id="purged"), lost)


def test_names_are_filled_in_and_numbered() -> None:
    session = make_session(name="chat", turns=7)
    taken = {name_key(name) for name in ("CHAT-1", "chat-2", "fixed", "fixed-2")}
    assert window_name(policy(), session, taken, DAY) == "chat-3"
    assert window_name(policy(name="fixed"), session, taken, DAY) == "fixed-3"
    pattern = "{date} {session} {turn} {n}"
    assert window_name(policy(name=pattern), session, taken, DAY) == "2026-03-04 chat 7 1"


@given(
    st.text("aé漢", min_size=1, max_size=128), st.sampled_from(["{session}-{n}", "{session} at"])
)
def test_a_long_session_s_name_is_cut(name: str, pattern: str) -> None:
    session = make_session(name=name)
    first = window_name(policy(name=pattern), session, (), DAY)
    second = window_name(policy(name=pattern), session, {name_key(first)}, DAY)
    for one in (first, second):
        assert check_name(one) == one
        assert len(one) <= MAX_NAME_LENGTH
    assert name_key(first) != name_key(second)

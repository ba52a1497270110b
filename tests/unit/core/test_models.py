"""Sessions and windows as documents, and the states that they may go through."""

from __future__ import annotations

import itertools
import json
from typing import Any, get_args

import pytest
from entries import TIME, make_session, make_window
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.core.models import SESSION_STATES, Page, Session, Window, WindowState, now
from cwm_jupyter.errors import IndexCorruptError, StateTransitionError

NAMES = st.text(min_size=1, max_size=20)
COUNTS = st.integers(0, 2**53)
TAGS = st.lists(st.text(max_size=10), max_size=4)
METADATA = st.dictionaries(
    st.text(max_size=5), st.none() | st.booleans() | COUNTS | st.text() | st.lists(COUNTS)
)
SESSIONS = st.builds(
    make_session,
    NAMES,
    NAMES,
    state=st.sampled_from(SESSION_STATES),
    tokens=COUNTS,
    max_context_tokens=st.none() | COUNTS,
    previous_states=st.lists(st.sampled_from(SESSION_STATES), max_size=2),
    tags=TAGS,
    metadata=METADATA,
)
WINDOWS = st.builds(
    make_window,
    NAMES,
    NAMES,
    state=st.sampled_from(get_args(WindowState)),
    used_at=st.none() | st.just(TIME),
    tokens=COUNTS,
    size_bytes=COUNTS,
    parent_window_id=st.none() | NAMES,
    tags=TAGS,
    note=st.text(),
)
SESSION_WAYS = {
    ("active", "frozen"),
    ("frozen", "active"),
    ("thawed", "active"),
    ("thawed", "frozen"),
    *itertools.product(("active", "frozen", "thawed"), ("expired",)),
    *itertools.product(("active", "frozen", "thawed", "expired"), ("deleted",)),
}
WINDOW_WAYS = {
    ("intact", "damaged"),
    ("damaged", "intact"),
    ("intact", "deleted"),
    ("damaged", "deleted"),
}


@pytest.mark.covers("SR-027", "SR-028")
@given(SESSIONS)
def test_a_session_survives_the_way_through_json(session: Session) -> None:
    assert Session.from_dict(json.loads(json.dumps(session.to_dict()))) == session


@pytest.mark.covers("SR-029", "SR-030")
@given(WINDOWS)
def test_a_window_survives_the_way_through_json(window: Window) -> None:
    assert Window.from_dict(json.loads(json.dumps(window.to_dict()))) == window


@pytest.mark.covers("SR-029")
def test_figures_carry_their_units_and_unknown_ones_are_null() -> None:
    document = make_window().to_dict()
    assert document["size_bytes"] == document["proof"]["size_bytes"] == 5_898_240
    assert document["used_at"] is None
    assert make_session().to_dict()["max_context_tokens"] is None


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({**make_session().to_dict(), "tokens": "many"}, r"\$\.tokens"),
        ({**make_session().to_dict(), "state": "asleep"}, r"\$\.state"),
        ({k: v for k, v in make_session().to_dict().items() if k != "name"}, "name"),
    ],
)
def test_a_document_that_is_no_session_is_refused_with_the_field(
    document: dict[str, Any], field: str
) -> None:
    with pytest.raises(IndexCorruptError, match=f"Not a Session: .*{field}"):
        Session.from_dict(document)


@pytest.mark.covers("SR-006", "SR-007")
@pytest.mark.parametrize(("old", "new"), list(itertools.product(SESSION_STATES, repeat=2)))
def test_a_session_goes_the_allowed_ways_and_no_other(old: Any, new: Any) -> None:
    session = make_session(state=old)
    if (old, new) in SESSION_WAYS:
        assert session.to(new).state == new
    else:
        with pytest.raises(StateTransitionError, match=f"is {old} and cannot become {new}"):
            session.to(new)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(get_args(WindowState), repeat=2)))
def test_a_window_goes_the_allowed_ways_and_no_other(old: Any, new: Any) -> None:
    window = make_window(state=old)
    if (old, new) in WINDOW_WAYS:
        assert window.to(new).state == new
    else:
        with pytest.raises(StateTransitionError, match=f"is {old} and cannot become {new}"):
            window.to(new)


@pytest.mark.covers("SR-006")
@pytest.mark.parametrize("before", ["active", "frozen", "thawed"])
@pytest.mark.parametrize("hidden", ["expired", "deleted"])
def test_a_session_comes_back_as_what_it_was_and_as_nothing_else(before: Any, hidden: Any) -> None:
    gone = make_session(state=before).to(hidden)
    assert gone.to(before).state == before
    for other in {"active", "frozen", "thawed"} - {before}:
        with pytest.raises(StateTransitionError):
            gone.to(other)


@pytest.mark.parametrize("before", ["intact", "damaged"])
def test_a_deleted_window_comes_back_as_what_it_was(before: Any) -> None:
    assert make_window(state=before).to("deleted").to(before).state == before


def test_a_state_change_is_dated_and_leaves_the_old_value_alone() -> None:
    session = make_session()
    assert session.to("frozen").updated_at > session.updated_at
    assert session.state == "active"


def test_times_sort_as_text() -> None:
    times = [now() for _ in range(100)]
    assert times == sorted(times)
    assert all(len(t) == len(TIME) and t.endswith("Z") for t in times)


def test_a_page_shows_its_items_as_dicts() -> None:
    page = Page(items=[make_session()], total=7, limit=1, offset=3)
    assert page.to_dict() == {
        "items": [make_session().to_dict()],
        "total": 7,
        "limit": 1,
        "offset": 3,
    }

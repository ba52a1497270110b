"""Listings: each filter, each sort, pages; and all of them against a model that is a plain list."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from entries import make_session, make_window
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cwm_jupyter.core.index import Index
from cwm_jupyter.core.models import Session, Window, rfc3339
from cwm_jupyter.core.names import name_key
from cwm_jupyter.core.query import Query, moment
from cwm_jupyter.errors import SessionNotFoundError, ValidationError


def ago(**span: float) -> str:
    return rfc3339((datetime.now(UTC) - timedelta(**span)).timestamp())


def names(page: Any) -> list[str]:
    return [item.name for item in page.items]


@pytest.fixture
def shelf(index: Index, chat: Session) -> Index:
    """Four windows of two sessions, and a deleted one."""
    index.add_session(make_session("s2", "talk", state="frozen"))
    for id_, name, fields in (
        ("w1", "Paper", {"note": "The first chapter", "tags": ["draft"], "tokens": 300}),
        ("w2", "essay", {"note": "Straße", "tags": ["Draft", "done"], "tokens": 100}),
        ("w3", "zoo", {"session_id": "s2", "model": "Qwen", "tokens": 200, "size_bytes": 7}),
        ("w4", "ark", {"state": "damaged", "tags": ["chapter-2"], "size_bytes": None}),
        ("w5", "gone", {"state": "deleted", "note": "chapter"}),
    ):
        index.add_window(make_window(id_, name, created_at=ago(days=10 - int(id_[1])), **fields))
    index.update_window("w2", lambda w: w.replace(used_at=ago(days=3)))
    index.update_window("w1", lambda w: w.replace(used_at=ago(days=1)))
    return index


FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["ark", "zoo", "essay", "Paper"]),
    ({"tags": ["draft"]}, ["essay", "Paper"]),
    ({"tags": ["DRAFT", "done"]}, ["essay"]),
    ({"tags": ["draf"]}, []),
    ({"model": "qwen"}, ["zoo"]),
    ({"model": "qwe"}, []),
    ({"session": "TALK"}, ["zoo"]),
    ({"session": "s1"}, ["ark", "essay", "Paper"]),
    ({"text": "chapter"}, ["ark", "Paper"]),
    ({"text": "CHAPTER first"}, ["Paper"]),
    ({"text": "pap"}, ["Paper"]),
    ({"text": "strasse"}, ["essay"]),
    ({"text": "essay Straße done"}, ["essay"]),
    ({"text": " "}, ["ark", "zoo", "essay", "Paper"]),
    ({"state": "damaged"}, ["ark"]),
    ({"state": ["deleted", "damaged"]}, ["gone", "ark"]),
    ({"older_than": "7.5d"}, ["essay", "Paper"]),
    ({"newer_than": "1w"}, ["ark"]),
    ({"newer_than": "204h", "older_than": "180h"}, ["essay"]),
    ({"older_than": "2000-01-01"}, []),
    ({"newer_than": "2000-01-01T00:00+05:00"}, ["ark", "zoo", "essay", "Paper"]),
    ({"min_size": "1MB"}, ["essay", "Paper"]),
    ({"max_size": 7}, ["zoo"]),
    ({"min_size": "8", "max_size": "5MB"}, []),
    ({"text": "chapter", "tags": ["draft"], "min_size": 1, "state": "intact"}, ["Paper"]),
]


@pytest.mark.covers("TL-002", "TL-003", "TL-006")
@pytest.mark.parametrize(("asked", "found"), FILTERS, ids=lambda value: str(value))
def test_windows_are_chosen_by(shelf: Index, asked: dict[str, Any], found: list[str]) -> None:
    page = shelf.windows(Query(**asked))
    assert names(page) == found
    assert page.total == len(found)
    assert shelf.windows(**asked) == page


@pytest.mark.covers("TL-005")
@pytest.mark.parametrize(
    ("sort", "found"),
    [
        ("name", ["ark", "essay", "Paper", "zoo"]),
        ("created", ["Paper", "essay", "zoo", "ark"]),
        ("used", ["ark", "zoo", "essay", "Paper"]),  # the two that never were, newest first
        ("tokens", ["essay", "zoo", "ark", "Paper"]),  # two of 300
        ("bytes", ["ark", "zoo", "essay", "Paper"]),  # unknown, small, two of a size
    ],
)
def test_windows_are_sorted_both_ways(shelf: Index, sort: str, found: list[str]) -> None:
    assert names(shelf.windows(sort=sort)) == found
    other = names(shelf.windows(sort=f"-{sort}"))
    if sort in ("name", "created"):
        assert other == found[::-1]
    for order, way in ((sort, found), (f"-{sort}", other)):
        pages = [names(shelf.windows(sort=order, limit=1, offset=n)) for n in range(4)]
        assert [name for page in pages for name in page] == way


def test_equals_come_newest_first_whatever_the_direction(shelf: Index) -> None:
    assert names(shelf.windows(sort="-tokens"))[:2] == ["ark", "Paper"]
    assert names(shelf.windows(sort="tokens"))[2:] == ["ark", "Paper"]


@pytest.mark.covers("SL-002", "SL-003", "SR-010", "SR-011", "SR-012")
def test_sessions_are_chosen_and_sorted(index: Index) -> None:
    for id_, name, fields in (
        ("a", "Paper", {"tags": ["draft"], "tokens": 5, "state": "frozen"}),
        ("b", "essay", {"model": "Qwen", "tokens": 9}),
        ("c", "zoo", {"state": "deleted", "tags": ["draft", "x"]}),
        ("d", "ark", {"state": "expired", "tokens": 7}),
    ):
        index.add_session(
            make_session(id_, name, created_at=ago(days=ord("e") - ord(id_)), **fields)
        )
    index.update_session("a", lambda s: s.replace(updated_at=ago(days=0)))
    expected: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["Paper", "essay", "ark"]),
        ({"text": "draft"}, ["Paper"]),
        ({"tags": ["draft"], "state": ("frozen", "deleted")}, ["Paper", "zoo"]),
        ({"model": "QWEN"}, ["essay"]),
        ({"older_than": "2d", "newer_than": "84h"}, ["essay"]),
        ({"sort": "name"}, ["ark", "essay", "Paper"]),
        ({"sort": "-used"}, ["Paper", "essay", "ark"]),
        ({"sort": "-tokens", "limit": 2}, ["essay", "ark"]),
    ]
    for asked, found in expected:
        assert names(index.sessions(Query(**asked))) == found, asked


def test_windows_of_a_session_that_is_gone(index: Index) -> None:
    index.add_session(make_session("s1", "chat"))
    index.add_window(make_window("w1", "old"))
    index.update_session("s1", lambda s: s.to("deleted"))
    assert names(index.windows(session="chat")) == names(index.windows(session="s1")) == ["old"]
    index.add_session(make_session("s2", "chat"))
    assert names(index.windows(session="chat")) == []  # the live one is meant
    index.remove_session("s1")
    assert names(index.windows(session="s1")) == ["old"]
    with pytest.raises(SessionNotFoundError, match="Did you mean chat"):
        index.windows(session="cha")


def test_superseded_versions_are_listed_where_asked(index: Index, chat: Session) -> None:
    with index.transaction() as transaction:
        for number in (1, 2, 3):
            transaction.add_version(
                make_window(f"v{number}", "paper", created_at=f"2026-01-0{number}")
            )
    assert [w.version for w in index.windows().items] == [3]
    assert [w.version for w in index.windows(versions=True).items] == [3, 2, 1]
    assert [w.version for w in index.windows(state="intact").items] == [3]
    index.update_window("v2", lambda w: w.to("deleted"))
    assert [w.version for w in index.windows(versions=True).items] == [3, 1]
    assert [w.version for w in index.windows(state="deleted").items] == [2]


@pytest.mark.covers("SL-004")
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"sort": "craeted"}, "no window sort 'craeted'.\nDid you mean created? Sorts are: name,"),
        ({"sort": "-"}, "no window sort ''"),
        ({"state": "gone"}, "no window state 'gone'.\nStates are: intact, damaged, deleted"),
        ({"state": ["intact", "frozen"]}, "no window state 'frozen'"),
        ({"limit": -1}, "limit cannot be negative: -1"),
        ({"offset": -2}, "offset cannot be negative: -2"),
        ({"limit": "5"}, "limit is a whole number, not '5'"),
        ({"offset": None}, "offset is a whole number, not None"),
        ({"tags": "draft"}, "Tags are a list of texts, not 'draft'"),
        ({"tags": [1]}, "Tags are a list of texts, not [1]"),
        ({"text": 5}, "text is a text, not 5"),
        ({"older_than": "yesterday"}, "Not a time: 'yesterday'.\nWrite it like 7d, 2026-01-31"),
        ({"newer_than": "0d"}, "A duration is more than 0"),
        ({"min_size": "big"}, "Not a size: 'big'"),
        ({"max_size": -1}, "Not a size: -1"),
    ],
)
def test_what_cannot_be_asked_of_windows(index: Index, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        index.windows(**asked)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"sort": "bytes"}, "no session sort 'bytes'.\nSorts are: name, created, used, tokens;"),
        ({"session": "x"}, "session chooses windows"),
        ({"min_size": 0}, "min_size chooses windows"),
        ({"versions": True}, "versions chooses windows"),
    ],
)
def test_what_cannot_be_asked_of_sessions(
    index: Index, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        index.sessions(**asked)
    assert message in str(caught.value)


def test_a_query_comes_from_a_document_too() -> None:
    query = Query(tags=["x"], state="damaged", min_size="1MB", limit=3)
    assert Query.from_dict(query.to_dict()) == query
    assert msgspec.convert({"limit": "3", "tags": ["x"]}, Query, strict=False).limit == 3
    with pytest.raises(ValidationError):
        Query.from_dict({"older_than": "soon"})
    with pytest.raises(ValidationError):
        query.replace(limit=-1)


def test_a_listing_changes_nothing_that_the_index_holds(shelf: Index) -> None:
    before = shelf.windows()
    shelf.windows().items[0].tags.append("mine")
    assert shelf.windows() == before


# Against a model


TIMES = [f"2026-01-0{day}T00:00:00.000000Z" for day in range(1, 6)]
TAGS = st.lists(st.sampled_from(["x", "X", "yy", "ü"]), max_size=2)
FIELDS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["alpha", "Beta", "gamma x", "ümlaut", "yy"]),
        "created_at": st.sampled_from(TIMES),
        "used_at": st.none() | st.sampled_from(TIMES),
        "tokens": st.integers(0, 3),
        "size_bytes": st.none() | st.integers(0, 3),
        "tags": TAGS,
        "note": st.sampled_from(["", "Alpha and omega", "x-ray"]),
        "model": st.sampled_from(["m", "n"]),
        "session_id": st.sampled_from(["s1", "s2"]),
    }
)
QUERIES = st.fixed_dictionaries(
    {},
    optional={
        "tags": TAGS,
        "model": st.sampled_from(["m", "N", "o"]),
        "session": st.sampled_from(["s1", "two"]),
        "text": st.sampled_from(["", "alp", "X", "alpha x", "ÜMLAUT"]),
        "state": st.sampled_from(["intact", ["damaged", "deleted"], []]),
        "older_than": st.sampled_from([*TIMES, "1d"]),
        "newer_than": st.sampled_from(TIMES),
        "min_size": st.integers(0, 4),
        "max_size": st.integers(0, 4),
        "sort": st.sampled_from(
            [f"{way}{key}" for key in ("name", "created", "used", "tokens", "bytes") for way in "-"]
            + ["name", "created", "used", "tokens", "bytes"]
        ),
        "limit": st.integers(0, 4),
        "offset": st.integers(0, 4),
    },
)
KEYS = {
    "name": lambda w: name_key(w.name),
    "created": lambda w: w.created_at,
    "used": lambda w: w.used_at or "",
    "tokens": lambda w: w.tokens,
    "bytes": lambda w: -1 if w.size_bytes is None else w.size_bytes,
}


class ListingMachine(RuleBasedStateMachine):
    """The model holds the windows in the order in which they were added, and looks at each."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.index = Index(Path(self.folder.name))
        for id_, name in (("s1", "one"), ("s2", "two")):
            self.index.add_session(make_session(id_, name))
        self.windows: list[Window] = []
        self.count = 0

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(fields=FIELDS)
    def add(self, fields: dict[str, Any]) -> None:
        self.count += 1
        # Of a name there is one at a time, so each name has a number.
        fields = {**fields, "name": f"{fields['name']} {self.count}"}
        self.windows.append(self.index.add_window(make_window(f"w{self.count}", **fields)))

    @precondition(lambda self: self.windows)
    @rule(data=st.data(), fields=FIELDS, state=st.sampled_from(["intact", "damaged", "deleted"]))
    def change(self, data: st.DataObject, fields: dict[str, Any], state: Any) -> None:
        at = data.draw(st.integers(0, len(self.windows) - 1))
        old = self.windows[at]
        moves = state != old.state and old.state != "deleted"
        del fields["name"]
        self.windows[at] = self.index.update_window(
            old.id, lambda w: (w.to(state) if moves else w).replace(**fields)
        )

    @precondition(lambda self: self.windows)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.windows) - 1))
        self.index.remove_window(self.windows.pop(at).id)

    @rule()
    def restart(self) -> None:
        self.index = Index(Path(self.folder.name))

    @rule(asked=QUERIES)
    def list(self, asked: dict[str, Any]) -> None:
        found = [w for w in self.windows if meets(w, asked)]
        found.sort(key=KEYS["created"], reverse=True)
        if "sort" in asked:
            key, backwards = asked["sort"].removeprefix("-"), asked["sort"].startswith("-")
            found.sort(key=KEYS[key], reverse=backwards)
        page = self.index.windows(**asked)
        first = asked.get("offset", 0)
        assert page.total == len(found)
        assert page.items == found[first:][: asked.get("limit")]

    @invariant()
    def all_are_there(self) -> None:
        assert self.index.all_windows() == self.windows


def meets(window: Window, asked: dict[str, Any]) -> bool:
    """Say what a query means, once more and slowly."""
    said = name_key("\n".join([window.name, window.note, *window.tags]))
    states = [asked["state"]] if isinstance(asked.get("state"), str) else asked.get("state")
    size = -1 if window.size_bytes is None else window.size_bytes
    session = {"two": "s2"}.get(asked.get("session", ""), asked.get("session"))
    return all(
        (
            window.state in states if states else window.state != "deleted",
            {name_key(t) for t in asked.get("tags", [])} <= {name_key(t) for t in window.tags},
            name_key(asked.get("model", window.model)) == name_key(window.model),
            session in (None, window.session_id),
            all(word in said for word in name_key(asked.get("text", "")).split()),
            "older_than" not in asked or window.created_at < moment(asked["older_than"]),
            "newer_than" not in asked or window.created_at > moment(asked["newer_than"]),
            "min_size" not in asked or (size >= 0 and size >= asked["min_size"]),
            "max_size" not in asked or 0 <= size <= asked["max_size"],
        )
    )


TestListingMachine = ListingMachine.TestCase
ListingMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)

"""The index: what it stores, finds and refuses."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from entries import make_session, make_window

from cwm_jupyter.core import files
from cwm_jupyter.core.index import Index
from cwm_jupyter.core.models import SESSION_STATES, Session, Window
from cwm_jupyter.core.names import new_id
from cwm_jupyter.errors import (
    SessionExistsError,
    SessionNotFoundError,
    StateTransitionError,
    ValidationError,
    WindowExistsError,
    WindowNotFoundError,
)


def names(page: Any) -> list[str]:
    return [item.name for item in page.items]


# Sessions


@pytest.mark.covers("SR-003", "SR-005")
def test_a_session_is_found_by_id_with_all_that_it_has(index: Index) -> None:
    session = make_session(metadata={"nested": {"list": [1, None, "ü"]}}, tags=["draft"])
    index.add_session(session)
    assert index.get_session("s1") == index.find_session("s1") == session


@pytest.mark.covers("SR-002")
def test_a_duplicate_session_id_is_refused_even_of_a_deleted_one(index: Index) -> None:
    index.add_session(make_session("s1", "old", state="deleted"))
    with pytest.raises(SessionExistsError, match="with the id s1"):
        index.add_session(make_session("s1", "new"))
    assert names(index.sessions(state="deleted")) == ["old"]


@pytest.mark.parametrize("name", ["chat", "CHAT", "ｃhat", "s1"])
def test_a_name_that_a_live_session_has_is_refused(index: Index, chat: Session, name: str) -> None:
    with pytest.raises(SessionExistsError, match="There is a session 'chat' already"):
        index.add_session(make_session("s2", name))
    assert index.sessions().items == [chat]


def test_ids_are_fresh_for_each_session(index: Index) -> None:
    for number in range(50):
        index.add_session(make_session(new_id(), f"session {number}"))
    assert len({session.id for session in index.sessions().items}) == 50


@pytest.mark.covers("SR-004", "TS-006")
def test_an_unknown_session_is_none_or_an_error_with_the_nearest_name(
    index: Index, chat: Session
) -> None:
    assert index.get_session("chta") is None
    assert index.find_session("chta") is None
    with pytest.raises(SessionNotFoundError, match="Did you mean chat"):
        index.require_session("chta")
    assert index.require_session("Chat") == chat


def test_a_deleted_session_is_hidden_and_comes_back(index: Index, chat: Session) -> None:
    index.update_session("s1", lambda s: s.to("deleted"))
    assert index.find_session("chat") is index.find_session("s1") is None
    assert names(index.sessions()) == []
    assert names(index.sessions(state="deleted")) == ["chat"]
    with pytest.raises(SessionNotFoundError):
        index.require_session("chat")
    index.update_session("s1", lambda s: s.to("active"))
    assert index.require_session("chat").state == "active"


def test_a_session_whose_name_was_taken_meanwhile_cannot_come_back(
    index: Index, chat: Session
) -> None:
    index.update_session("s1", lambda s: s.to("deleted"))
    index.add_session(make_session("s2", "Chat"))
    with pytest.raises(SessionExistsError):
        index.update_session("s1", lambda s: s.to("active"))
    back = index.update_session("s1", lambda s: s.to("active").replace(name="chat 2"))
    assert index.require_session("chat 2") == back


@pytest.mark.covers("SR-007")
@pytest.mark.parametrize("way", [("frozen", "thawed"), ("active", "thawed"), ("expired", "frozen")])
def test_a_state_that_cannot_be_reached_changes_nothing(index: Index, way: tuple[Any, Any]) -> None:
    before = index.add_session(make_session(state=way[0]))
    for change in (lambda s: s.to(way[1]), lambda s: s.replace(state=way[1], tokens=9)):
        with pytest.raises(StateTransitionError, match=f"is {way[0]} and cannot become {way[1]}"):
            index.update_session("s1", change)
    assert index.get_session("s1") == before


@pytest.mark.covers("SR-017")
def test_token_counts_are_updated(index: Index, folder: Path, chat: Session) -> None:
    index.update_session("s1", lambda s: s.replace(tokens=s.tokens + 130, turns=1))
    index.update_session("s1", lambda s: s.replace(tokens=s.tokens + 20, turns=2))
    stored = Index(folder).require_session("chat")
    assert (stored.tokens, stored.turns) == (150, 2)


@pytest.mark.covers("SR-018")
def test_updating_or_removing_an_unknown_session_is_an_error(index: Index) -> None:
    with pytest.raises(SessionNotFoundError, match="There is no session 'nobody'"):
        index.update_session("nobody", lambda s: s)
    with pytest.raises(SessionNotFoundError):
        index.remove_session("nobody")


def test_the_id_of_a_session_cannot_change(index: Index, chat: Session) -> None:
    with pytest.raises(ValidationError, match="id of a session cannot change"):
        index.update_session("s1", lambda s: s.replace(id="s2"))
    assert index.sessions().items == [chat]


def test_a_removed_session_leaves_its_windows(index: Index, chat: Session) -> None:
    index.add_window(make_window(name="paper"))
    index.remove_session("s1")
    assert index.get_session("s1") is None
    assert names(index.windows()) == ["paper"]


def test_what_a_caller_does_to_metadata_stays_with_the_caller(index: Index) -> None:
    index.add_session(make_session(metadata={"a": {"b": [1]}}))
    found = index.get_session("s1")
    assert found is not None
    found.metadata["a"]["b"].append(2)
    assert index.get_session("s1") == make_session(metadata={"a": {"b": [1]}})


@pytest.mark.covers("SL-001", "TL-001")
def test_an_empty_index_lists_nothing_and_makes_no_file(index: Index) -> None:
    for page in (index.sessions(), index.windows()):
        assert (page.items, page.total, page.limit, page.offset) == ([], 0, None, 0)
    assert not index.path.exists()


@pytest.fixture
def five(index: Index) -> list[Session]:
    """Five sessions, one in each state, of two models; the last two are of one time."""
    times = ["2026-01-03", "2026-01-01", "2026-01-02", "2026-01-04", "2026-01-04"]
    return [
        index.add_session(
            make_session(f"s{i}", state=state, created_at=time, model="a" if i % 2 else "b")
        )
        for i, (state, time) in enumerate(zip(SESSION_STATES, times, strict=True))
    ]


@pytest.mark.covers("SR-010", "SL-002")
def test_live_sessions_are_listed_oldest_first(index: Index, five: list[Session]) -> None:
    assert index.sessions().items == [five[1], five[2], five[0], five[3]]
    assert index.sessions().total == 4


@pytest.mark.covers("SR-011", "SL-003")
def test_sessions_are_listed_by_state(index: Index, five: list[Session]) -> None:
    for session in five:
        assert index.sessions(state=session.state).items == [session]


@pytest.mark.covers("SR-012")
def test_sessions_are_listed_by_model(index: Index, five: list[Session]) -> None:
    assert index.sessions(model="a").items == [five[1], five[3]]
    assert index.sessions(model="a", state="frozen").items == [five[1]]
    assert index.sessions(model="none").items == []


@pytest.mark.covers("SL-004")
def test_an_unknown_state_is_refused_with_the_allowed_ones(index: Index) -> None:
    with pytest.raises(ValidationError, match="There is no session state 'asleep'") as caught:
        index.sessions(state="asleep")
    assert all(state in str(caught.value) for state in SESSION_STATES)
    with pytest.raises(ValidationError, match="intact, damaged, deleted"):
        index.windows(state="frozen")


@pytest.mark.covers("SR-013", "TL-004")
def test_pages_in_any_size_make_the_whole_list(index: Index, chat: Session) -> None:
    with index.transaction() as transaction:
        for i in random.Random(7).sample(range(23), 23):
            time = f"2026-01-{1 + i % 4:02}"
            transaction.add_session(make_session(f"p{i}", created_at=time))
            transaction.add_window(make_window(f"p{i}", created_at=time))
    for listing in (index.sessions, index.windows):
        whole = listing().items
        for size in (1, 5, 23, 100):
            pages = [listing(limit=size, offset=o) for o in range(0, len(whole), size)]
            assert [item for page in pages for item in page.items] == whole
            assert all(page.total == len(whole) for page in pages)
        assert listing(limit=0).items == listing(offset=100).items == []
        assert listing(offset=20).items == whole[20:]


@pytest.mark.parametrize("bounds", [{"limit": -1}, {"offset": -1}])
def test_a_negative_page_is_refused(index: Index, bounds: dict[str, int]) -> None:
    for listing in (index.sessions, index.windows):
        with pytest.raises(ValidationError, match="cannot be negative: -1"):
            listing(**bounds)


# Windows


@pytest.mark.covers("SR-019", "SR-021", "SR-022")
def test_a_window_is_found_by_id_and_by_name(index: Index, folder: Path, chat: Session) -> None:
    window = make_window("w1", "Paper", tags=["draft"], note="ü")
    assert index.add_window(window) == window
    other = Index(folder)
    assert other.get_window("w1") == other.find_window("paper") == window
    assert other.require_window("PAPER") == other.require_window("w1") == window


@pytest.mark.covers("SR-020")
def test_a_window_for_an_unknown_session_is_refused(index: Index, chat: Session) -> None:
    with pytest.raises(SessionNotFoundError, match="'s9'"):
        index.add_window(make_window(session_id="s9"))
    assert index.windows().total == 0


@pytest.mark.covers("TF-003")
@pytest.mark.parametrize("name", ["paper", "PAPER", "w1"])
def test_a_duplicate_window_name_is_refused_and_the_first_untouched(
    index: Index, chat: Session, name: str
) -> None:
    first = index.add_window(make_window("w1", "paper", note="first"))
    bytes_before = index.path.read_bytes()
    with pytest.raises(WindowExistsError, match="There is a window 'paper' already"):
        index.add_window(make_window("w2", name, note="second"))
    assert index.windows().items == [first]
    assert index.path.read_bytes() == bytes_before


@pytest.mark.covers("TF-004")
@pytest.mark.parametrize("name", ["", "a/b", "paper@2", "nul", "x" * 129, " a"])
def test_no_invalid_name_gets_in(index: Index, chat: Session, name: str) -> None:
    window = make_window().replace(name=name)
    with pytest.raises(ValidationError):
        index.add_window(window)
    with pytest.raises(ValidationError):
        index.update_session("s1", lambda s: s.replace(name=name))
    assert index.windows().total == 0
    assert index.sessions().items == [chat]


def test_no_id_gets_in_that_is_no_file_name(index: Index) -> None:
    with pytest.raises(ValidationError, match="Not the id of a session"):
        index.add_session(make_session("../up", "chat"))


def test_names_are_stored_composed(index: Index, chat: Session) -> None:
    assert index.add_window(make_window(name="u\u0308ber")).name == "über"
    assert index.require_window("u\u0308ber").name == "über"


@pytest.mark.covers("TL-002", "SR-023")
def test_windows_are_listed_newest_first(index: Index, chat: Session) -> None:
    for i, time in enumerate(["2026-01-02", "2026-01-03", "2026-01-01", "2026-01-03"]):
        index.add_window(make_window(f"w{i}", f"n{i}", created_at=time))
    assert names(index.windows()) == ["n1", "n3", "n0", "n2"]


@pytest.mark.covers("SR-024", "TL-003")
def test_windows_are_listed_by_tags_of_which_all_must_match(index: Index, chat: Session) -> None:
    for name, tags in {"a": ["x"], "b": ["x", "y"], "c": ["Y", "x", "z"], "d": []}.items():
        index.add_window(make_window(name, f"window {name}", tags=tags))
    assert names(index.windows(tags=["x", "y"])) == ["window b", "window c"]
    assert names(index.windows(tags=["X"])) == ["window a", "window b", "window c"]
    assert names(index.windows(tags=["x", "nope"])) == []
    assert index.windows(tags=["x"], limit=1, offset=1).total == 3


@pytest.mark.covers("SR-025")
def test_a_window_is_deleted_softly_or_for_good(index: Index, chat: Session) -> None:
    window = index.add_window(make_window("w1", "paper"))
    index.update_window("w1", lambda w: w.to("deleted"))
    assert index.windows().items == []
    assert index.find_window("paper") is None
    assert names(index.windows(state="deleted")) == ["paper"]
    again = index.add_window(make_window("w2", "paper"))
    with pytest.raises(WindowExistsError):
        index.update_window("w1", lambda w: w.to("intact"))
    index.remove_window("w2")
    assert index.get_window(again.id) is None
    assert index.update_window("w1", lambda w: w.to("intact")) == window


@pytest.mark.covers("SR-026", "TD-002", "TS-005")
def test_an_unknown_window_is_an_error_with_the_nearest_name(index: Index, chat: Session) -> None:
    index.add_window(make_window("w1", "paper"))
    for ask in (
        index.require_window,
        index.remove_window,
        lambda name: index.update_window(name, lambda w: w),
    ):
        with pytest.raises(WindowNotFoundError, match="Did you mean paper"):
            ask("papre")


# Versions


@pytest.fixture
def versions(index: Index, chat: Session) -> list[Window]:
    """Three windows of one name, the newest first."""
    with index.transaction() as transaction:
        for number in (1, 2, 3):
            transaction.add_version(make_window(f"v{number}", "Paper"))
    return [entry for id_ in ("v3", "v2", "v1") if (entry := index.get_window(id_))]


def test_the_newest_version_has_the_name_and_each_its_number(
    index: Index, versions: list[Window]
) -> None:
    assert [(w.version, w.superseded) for w in versions] == [(3, False), (2, True), (1, True)]
    assert index.versions("paper") == versions
    assert index.require_window("paper") == versions[0]
    for version in versions:
        assert index.require_window(f"PAPER@v{version.version}") == version
    assert index.windows().items == versions[:1]


def test_an_unknown_version_is_an_error_with_those_that_there_are(
    index: Index, versions: list[Window]
) -> None:
    assert index.find_window("paper@v4") is None
    with pytest.raises(WindowNotFoundError, match=r"'paper@v4'.") as caught:
        index.require_window("paper@v4")
    assert "Paper@v3" in str(caught.value)
    with pytest.raises(WindowNotFoundError, match=r"'Papre@v1'.\nDid you mean Paper"):
        index.require_window("Papre@v1")


def test_a_deleted_version_is_not_found(index: Index, versions: list[Window]) -> None:
    index.update_window("v2", lambda w: w.to("deleted"))
    assert index.find_window("paper@v2") is None
    assert index.versions("paper") == [versions[0], versions[2]]
    index.update_window("v2", lambda w: w.to("intact"))  # whose name is taken, and may be
    assert index.versions("paper") == versions


# Transactions


def test_a_freeze_writes_window_and_session_in_one_generation(
    index: Index, chat: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    generations = []
    write = files.write_atomic

    def note(path: Path, data: bytes, mode: int = 0o600) -> None:
        generations.append(path.name)
        write(path, data, mode)

    monkeypatch.setattr(files, "write_atomic", note)
    with index.transaction() as transaction:
        transaction.update_session("s1", lambda s: s.to("frozen").replace(window_id="w1"))
        transaction.add_window(make_window("w1"))
    assert generations == ["index.json"]
    session = index.require_session("chat")
    assert (session.state, session.window_id) == ("frozen", "w1")


def test_a_freeze_whose_session_cannot_be_frozen_adds_no_window(index: Index) -> None:
    index.add_session(make_session(state="expired"))

    def freeze() -> None:
        with index.transaction() as transaction:
            transaction.add_window(make_window())
            transaction.update_session("s1", lambda s: s.to("frozen"))

    with pytest.raises(StateTransitionError):
        freeze()
    assert index.windows().total == 0


def test_a_transaction_sees_its_own_writes_and_others_see_none(index: Index, chat: Session) -> None:
    before = index.path.read_bytes()

    def write_and_fail() -> None:
        with index.transaction() as transaction:
            transaction.add_window(make_window("w1"))
            transaction.update_window("w1", lambda w: w.replace(note="seen"))
            transaction.remove_session("s1")
            assert [w.note for w in transaction.windows().items] == ["seen"]
            assert transaction.find_session("chat") is None
            assert index.find_session("chat") == chat
            assert index.windows().total == 0
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        write_and_fail()
    assert index.path.read_bytes() == before
    assert index.sessions().items == [chat]


def test_a_transaction_that_changes_nothing_writes_nothing(index: Index, chat: Session) -> None:
    before = index.path.stat()
    with index.transaction() as transaction:
        transaction.require_session("chat")
    index.update_session("s1", lambda s: s)
    assert index.path.stat() == before


def test_writing_through_the_index_inside_a_transaction_is_refused(
    index: Index, chat: Session
) -> None:
    with pytest.raises(RuntimeError, match="cannot hold another"), index.transaction():
        index.remove_session("s1")
    assert index.sessions().items == [chat]


def test_types_of_entries_are_kept(index: Index, chat: Session) -> None:
    index.add_window(make_window())
    assert isinstance(index.sessions().items[0], Session)
    assert isinstance(index.windows().items[0], Window)

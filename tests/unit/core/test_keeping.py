"""Edits, pins and times to live; what expires, and what is brought back."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from bench import Bench
from entries import make_session, make_window
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cwm_jupyter import config
from cwm_jupyter.core.lifetime import lasting, overdue, renewed, ttl_s
from cwm_jupyter.core.models import Session, Window, now
from cwm_jupyter.errors import (
    ConfigError,
    SessionBusyError,
    SessionExistsError,
    SessionNotFoundError,
    StateTransitionError,
    ValidationError,
    WindowExistsError,
    WindowNotFoundError,
)

PAST = "2020-01-01T00:00:00.000000Z"


def place(bench: Bench, *entries: Session | Window) -> None:
    """Put entries into the index, with files for none of them."""
    for entry in entries:
        if isinstance(entry, Session):
            bench.library.index.add_session(entry)
        else:
            bench.library.index.add_window(entry)


def due_in(entry: Session | Window) -> float:
    """Return the days until an entry expires, rounded."""
    assert entry.expires_at is not None
    left = datetime.fromisoformat(entry.expires_at) - datetime.fromisoformat(now())
    return round(left / timedelta(days=1), 2)


# --- lifetimes ------------------------------------------------------------------------------------


@given(st.floats(1, 1e9))
def test_a_lifetime_counts_from_the_last_use(seconds: float) -> None:
    window = lasting(make_window(), seconds)
    assert not overdue(window, now())
    assert overdue(window.replace(expires_at=PAST), now())
    again = renewed(window.replace(expires_at=PAST))
    assert (again.ttl_s, overdue(again, now())) == (seconds, False)
    for_good = lasting(window, None)
    assert (for_good.ttl_s, for_good.expires_at, renewed(for_good)) == (None, None, for_good)


def test_how_a_lifetime_is_said() -> None:
    assert [ttl_s(text) for text in (None, "never", " Never ", "7d")] == [None, None, None, 604800]
    with pytest.raises(ValidationError, match="Not a duration"):
        ttl_s("soon")


# --- edits ----------------------------------------------------------------------------------------


async def test_a_window_is_edited_in_one_step(bench: Bench) -> None:
    place(bench, make_session(), make_window("w1", "paper", tags=["draft", "mine"], note="old"))
    window = await bench.manager.keeping.edit_window(
        "paper",
        name="Article",
        add_tags=["Draft", "done"],
        remove_tags=["MINE"],
        note="new",
        ttl="7d",
        pinned=True,
    )
    assert window == bench.window("article")
    assert (window.id, window.name, window.note, window.pinned) == ("w1", "Article", "new", True)
    assert window.tags == ["draft", "done"]
    assert due_in(window) == 7
    with pytest.raises(WindowNotFoundError):
        bench.window("paper")
    window = await bench.manager.keeping.edit_window("Article", note="", ttl="never", pinned=False)
    assert (window.note, window.ttl_s, window.expires_at, window.pinned) == ("", None, None, False)


async def test_a_name_may_change_its_case_alone(bench: Bench) -> None:
    place(bench, make_session("s1", "chat"), make_window("w1", "paper"))
    assert (await bench.manager.keeping.edit_window("paper", name="Paper")).name == "Paper"
    assert (await bench.manager.keeping.edit_session("CHAT", name="Chat")).name == "Chat"


async def test_all_versions_of_a_window_get_its_new_name(bench: Bench) -> None:
    place(bench, make_session(), make_window("w1", "paper"))
    with bench.library.index.transaction() as transaction:
        transaction.add_version(make_window("w2", "paper"))
    await bench.manager.keeping.edit_window("paper", name="article")
    names = {w.id: w.known_as for w in bench.library.index.all_windows()}
    assert names == {"w1": "article@v1", "w2": "article"}


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({}, ValidationError, "Nothing was said"),
        ({"name": "a/b"}, ValidationError, "'/'"),
        ({"name": "taken"}, WindowExistsError, "taken"),
        ({"add_tags": ["a b"]}, ValidationError, "tag"),
        ({"remove_tags": ["none"]}, ValidationError, "has no tag none"),
        ({"ttl": "soon"}, ValidationError, "duration"),
    ],
)
async def test_an_edit_that_cannot_be_changes_nothing(
    bench: Bench, changes: dict[str, object], error: type[Exception], said: str
) -> None:
    place(bench, make_session(), make_window("w1", "paper"), make_window("w2", "taken"))
    before = bench.library.index.all_windows()
    with pytest.raises(error, match=said):
        await bench.manager.keeping.edit_window(
            "paper", **{"note": "new", **changes} if changes else {}
        )
    assert bench.library.index.all_windows() == before


async def test_a_session_is_edited(bench: Bench) -> None:
    place(bench, make_session("s1", "chat"), make_session("s2", "taken"))
    keeping = bench.manager.keeping
    session = await keeping.edit_session("chat", name="talk", add_tags=["x"], ttl="2w", pinned=True)
    assert (session.name, session.tags, session.pinned, due_in(session)) == (
        "talk",
        ["x"],
        True,
        14,
    )
    with pytest.raises(SessionExistsError):
        await keeping.edit_session("talk", name="Taken")
    with pytest.raises(SessionNotFoundError):
        await keeping.edit_session("chat", name="other")


# --- expiry ---------------------------------------------------------------------------------------


@pytest.mark.covers("SR-014")
async def test_what_was_not_used_expires_and_what_is_pinned_stays(bench: Bench) -> None:
    for number, state in enumerate(("active", "frozen", "thawed")):
        place(bench, make_session(f"s{number}", state, state=state, expires_at=PAST, ttl_s=9.0))
    place(
        bench,
        make_session("s7", "kept", expires_at=PAST, pinned=True),
        make_session("s8", "young", expires_at="2999-01-01T00:00:00.000000Z"),
        make_session("s9", "ever"),
        make_window("w0", "old", session_id="s9", expires_at=PAST),
        make_window("w1", "broken", session_id="s9", state="damaged", expires_at=PAST),
        make_window("w2", "kept", session_id="s9", expires_at=PAST, pinned=True),
        make_window("w3", "ever", session_id="s9"),
    )
    before = bench.library.index.all_sessions(), bench.library.index.all_windows()
    looked = await bench.manager.keeping.expire(dry_run=True)
    assert (bench.library.index.all_sessions(), bench.library.index.all_windows()) == before
    report = await bench.manager.keeping.expire()
    assert (looked.removed, report.removed) == (False, True)
    assert looked.entries == report.entries
    outcomes = {(e.kind, e.name): e.outcome for e in report.entries}
    assert outcomes == {
        ("session", "active"): "expired",
        ("session", "frozen"): "expired",
        ("session", "thawed"): "expired",
        ("session", "kept"): "pinned",
        ("window", "old"): "expired",
        ("window", "broken"): "expired",
        ("window", "kept"): "pinned",
    }
    states = {s.name: s.state for s in bench.library.index.all_sessions()}
    assert states == dict.fromkeys(("active", "frozen", "thawed"), "expired") | dict.fromkeys(
        ("kept", "young", "ever"), "active"
    )
    assert {w.name for w in bench.library.index.windows().items} == {"kept", "ever"}
    assert [e.outcome for e in (await bench.manager.keeping.expire()).entries] == ["pinned"] * 2


async def test_what_expired_is_brought_back_and_its_time_counts_anew(bench: Bench) -> None:
    place(
        bench,
        make_session("s1", "chat", state="frozen", expires_at=PAST, ttl_s=86400.0),
        make_window("w1", "paper", state="damaged", expires_at=PAST, ttl_s=86400.0),
    )
    await bench.manager.keeping.expire()
    with pytest.raises(StateTransitionError):
        await bench.manager.say("chat", "Still there?")
    session = await bench.manager.keeping.restore_session("Chat")
    window = await bench.manager.restore_window("paper")
    assert (session.state, due_in(session)) == ("frozen", 1)
    assert (window.state, due_in(window)) == ("damaged", 1)
    assert (await bench.manager.keeping.expire()).entries == []


async def test_a_session_that_is_being_used_does_not_expire(bench: Bench) -> None:
    place(bench, make_session("s1", "chat", expires_at=PAST))
    with bench.library.using(bench.library.index.require_session("chat")):
        for dry_run in (True, False):
            report = await bench.manager.keeping.expire(dry_run=dry_run)
            assert [e.outcome for e in report.entries] == ["busy"]
        with pytest.raises(SessionBusyError):
            await bench.manager.remove_session("chat")
    assert (await bench.manager.session("chat")).state == "active"


async def test_use_moves_the_end_on(bench: Bench) -> None:
    """A turn and a freeze use a session, a thaw uses a window."""
    await bench.talk("chat")
    index = bench.library.index
    await bench.manager.keeping.edit_session("chat", ttl="7d")
    window = (await bench.manager.freeze("paper", "chat", ttl="3d")).window
    assert due_in(window) == 3
    for use in ("say", "freeze"):
        index.update_session(window.session_id, lambda s: s.replace(expires_at=PAST))
        if use == "say":
            await bench.manager.say("chat", "And then?")
        else:
            await bench.manager.freeze("again", "chat")
        assert due_in(await bench.manager.session("chat")) == 7
    index.update_window(window.id, lambda w: w.replace(expires_at=PAST))
    await bench.manager.thaw("paper")
    assert due_in(bench.window("paper")) == 3


async def test_new_ones_have_the_times_of_the_settings(bench: Bench) -> None:
    settings = bench.manager.settings
    limits = replace(settings.limits, session_ttl="2d", window_ttl="5d")
    bench.manager.settings = replace(settings, limits=limits)
    session = await bench.talk("chat")
    assert due_in(session) == 2
    assert due_in((await bench.manager.freeze("paper", "chat")).window) == 5
    assert due_in(await bench.manager.branches.clone("paper", "copy")) == 5
    ever = (await bench.manager.freeze("ever", "chat", ttl="never")).window
    assert (ever.ttl_s, ever.expires_at) == (None, None)
    thawed = await bench.manager.thaw("ever")
    assert due_in(await bench.manager.session(thawed.session)) == 2
    with pytest.raises(ValidationError, match="duration"):
        await bench.manager.freeze("wrong", "chat", ttl="-1d")


# --- bringing sessions back -----------------------------------------------------------------------


async def test_a_removed_session_comes_back_as_it_was(bench: Bench) -> None:
    place(bench, make_session("s1", "chat", state="thawed"))
    await bench.manager.remove_session("chat")
    place(bench, make_session("s2", "chat"))
    with pytest.raises(SessionExistsError):
        await bench.manager.keeping.restore_session("chat")
    await bench.manager.keeping.edit_session("s2", name="other")
    assert (await bench.manager.keeping.restore_session("chat")).state == "thawed"
    with pytest.raises(SessionNotFoundError):
        await bench.manager.keeping.restore_session("chat")


async def test_of_several_removed_the_one_used_last_comes_back(bench: Bench) -> None:
    for number in (1, 2):
        place(bench, make_session(f"s{number}", "chat"))
        await bench.manager.remove_session("chat")
    assert (await bench.manager.keeping.restore_session("chat")).id == "s2"
    await bench.manager.remove_session("chat")
    assert (await bench.manager.keeping.restore_session("s1")).id == "s1"


async def test_what_expired_before_it_was_removed_comes_back_step_by_step(bench: Bench) -> None:
    place(bench, make_session("s1", "chat", expires_at=PAST))
    await bench.manager.keeping.expire()
    await bench.manager.remove_session("chat")
    states = [(await bench.manager.keeping.restore_session("chat")).state for _ in range(2)]
    assert states == ["expired", "active"]


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["session_ttl", "window_ttl"])
def test_a_time_to_live_among_the_settings_is_checked(field: str) -> None:
    settings = config.load({}, {f"limits.{field}": "30d"})
    assert getattr(settings.limits, field) == "30d"
    variable = f"CWM_LIMITS_{field.upper()}"
    assert getattr(config.load({variable: "never"}).limits, field) == "never"
    with pytest.raises(ConfigError, match=rf"limits\.{field} cannot be 'soon'") as refused:
        config.load({variable: "soon"})
    assert "Not a duration" in str(refused.value)
    assert variable in str(refused.value)

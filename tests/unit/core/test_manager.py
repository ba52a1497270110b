"""The manager: sessions, listings, status, and what deletion keeps."""

from __future__ import annotations

import dataclasses
import os

import pytest
from bench import Bench
from fake_stack import render

from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.models import Message, SessionStatus, WindowStatus
from cwm_jupyter.core.names import MAX_NAME_LENGTH
from cwm_jupyter.core.status import Status
from cwm_jupyter.errors import (
    SessionExistsError,
    SessionNotFoundError,
    StackDownError,
    ValidationError,
    WindowExistsError,
    WindowNotFoundError,
)


@pytest.mark.covers("SR-001")
async def test_a_session_has_an_id_a_lineage_and_a_salt_of_its_own(bench: Bench) -> None:
    one, other = [await bench.manager.create_session(name) for name in ("one", "other")]
    assert (one.state, one.model, one.tokens, one.turns) == ("active", "toy", 0, 0)
    assert one.id != other.id
    assert one.lineage_id != other.lineage_id
    facts = await (await bench.connect()).facts()
    salts = {bench.library.lineages.salt(s.lineage_id, facts.fingerprint) for s in (one, other)}
    assert len(salts) == 2


async def test_lineages_share_no_cache(bench: Bench) -> None:
    """Word for word the same, and yet nothing of the one is taken for the other."""
    await bench.talk("one")
    await bench.talk("other")
    one, other = [bench.transcript(await bench.manager.session(n)) for n in ("one", "other")]
    assert one.token_ids == other.token_ids
    assert other.turns[0].cached_tokens == 0


async def test_a_session_can_begin_with_a_conversation(bench: Bench) -> None:
    given = [Message(role="user", content="a"), Message(role="assistant", content="b")]
    await bench.manager.create_session("talk", system="Short.", messages=given)
    await bench.manager.say("talk", "c")
    assert bench.stack.prompts == [
        render(
            [Message(role="system", content="Short."), *given, Message(role="user", content="c")]
        )
    ]


async def test_a_session_s_name_is_free_or_refused(bench: Bench) -> None:
    await bench.manager.create_session("talk")
    with pytest.raises(SessionExistsError, match="'TALK' already"):
        await bench.manager.create_session("TALK")
    with pytest.raises(ValidationError):
        await bench.manager.create_session("a/b")
    assert len(list((bench.home / "sessions").glob("*.json"))) == 1


async def test_a_session_that_cannot_be_entered_leaves_no_transcript(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of one name at the same moment: both have found it free."""
    await bench.manager.create_session("talk")
    monkeypatch.setattr(bench.library.index, "find_session", lambda name: None)
    with pytest.raises(SessionExistsError):
        await bench.manager.create_session("talk")
    assert len(list((bench.home / "sessions").glob("*.json"))) == 1


async def test_removing_a_session_keeps_its_windows(bench: Bench) -> None:
    await bench.frozen("paper")
    assert (await bench.manager.remove_session("paper")).state == "deleted"
    assert await bench.manager.find_session("paper") is None
    with pytest.raises(SessionNotFoundError):
        await bench.manager.session("paper")
    bench.stack.restart()
    assert (await bench.manager.thaw("paper")).session == "paper"


async def test_listings(bench: Bench) -> None:
    for name in ("one", "two", "three"):
        await bench.talk(name)
        await bench.manager.freeze(name, name, tags=["all", name])
    page = await bench.manager.sessions(limit=2, offset=1)
    assert ([s.name for s in page.items], page.total) == (["two", "three"], 3)
    assert [w.name for w in (await bench.manager.windows()).items] == ["three", "two", "one"]
    assert [w.name for w in (await bench.manager.windows(tags=["all", "two"])).items] == ["two"]
    assert (await bench.manager.sessions(state="active")).items == []


async def test_a_window_of_the_longest_name_is_thawed_twice(bench: Bench) -> None:
    name = "x" * MAX_NAME_LENGTH
    await bench.frozen(name)
    bench.stack.restart()
    assert (await bench.manager.thaw(name)).session == "x" * (MAX_NAME_LENGTH - 2) + "-2"


async def test_status_of_a_session(bench: Bench) -> None:
    session = await bench.talk("talk")
    transcript = bench.transcript(session)
    status = await bench.manager.status(session="talk")
    assert status.chunks == status.chunks_present
    assert status.stored_bytes
    assert status == SessionStatus(
        session=session,
        turns=transcript.turns,
        messages=transcript.messages,
        chunks=len(transcript.token_ids[:-1]) // bench.stack.chunk_tokens,
        chunks_present=status.chunks,
        stored_bytes=status.stored_bytes,
    )


async def test_status_of_a_session_without_a_stack(bench: Bench) -> None:
    await bench.talk("talk")
    await bench.manager.freeze("paper", "talk")

    async def down() -> ConnectedStack:
        raise StackDownError("No stack is running.")

    parts = dataclasses.replace(bench.manager.parts, connect=down)
    status = await Status(parts).session("talk")
    assert (status.chunks, status.chunks_present, status.stored_bytes) == (None, None, None)
    assert status.windows == status.lineage == ["paper"]


async def test_status_of_a_window(bench: Bench) -> None:
    window = await bench.frozen("paper")
    await bench.talk("paper", "And then?")
    await bench.manager.freeze("longer", "paper")
    status = await bench.manager.status(window="paper")
    assert isinstance(status, WindowStatus)
    assert (status.window, status.chunks_present) == (window, window.chunks)
    assert (status.parent, status.children) == (None, ["longer"])
    assert window.tokens - status.probe.position_tokens == (window.tokens % 16 == 0)
    assert status.fingerprint.layout["dtype"] == "bfloat16"
    bench.stack.files()[0].unlink()
    longer = await bench.manager.status(window="longer")
    assert isinstance(longer, WindowStatus)
    assert longer.parent == "paper"
    assert longer.chunks_present == longer.window.chunks - 1
    assert longer.lineage == ["paper", "longer"]


async def test_what_a_window_shares_and_has_of_its_own(bench: Bench) -> None:
    window = await bench.frozen("paper")
    alone = await bench.manager.status(window="paper")
    assert isinstance(alone, WindowStatus)
    assert alone.own_bytes == alone.held_bytes
    assert alone.own_bytes
    await bench.talk("paper", "And then?")
    await bench.manager.freeze("longer", "paper")
    paper = await bench.manager.status(window="paper")
    longer = await bench.manager.status(window="longer")
    assert isinstance(paper, WindowStatus)
    assert isinstance(longer, WindowStatus)
    assert (paper.held_bytes, paper.own_bytes) == (alone.held_bytes, 0)
    assert longer.held_bytes == alone.held_bytes + (longer.own_bytes or 0)
    assert paper.chunks_recomputed == 0
    assert window.last_thaws == []


async def test_a_window_remembers_its_last_thaws(bench: Bench) -> None:
    await bench.frozen("paper")
    reports = [await bench.manager.thaw("paper", as_session=f"s{i}") for i in range(6)]
    notes = bench.window("paper").last_thaws
    assert [note.session for note in notes] == ["s5", "s4", "s3", "s2", "s1"]
    assert notes[0].restore_s == reports[-1].restore_s
    assert notes[0].complete


async def test_status_without_sight_of_the_files_is_unavailable(bench: Bench) -> None:
    bench.readable = False
    await bench.frozen("paper")
    status = await bench.manager.status(window="paper")
    assert isinstance(status, WindowStatus)
    assert status.chunks_present is None


async def test_status_of_a_window_whose_secret_is_lost(bench: Bench) -> None:
    """Its text is there to be read; how many chunks it has on disk nobody can tell."""
    window = await bench.frozen("paper")
    (bench.home / "keys" / f"{window.lineage_id}.secret").unlink()
    status = await bench.manager.status(window="paper")
    assert isinstance(status, WindowStatus)
    assert status.chunks_present is None
    assert len(status.messages) == 2


@pytest.mark.parametrize(
    ("options", "says"), [({}, "none"), ({"window": "a", "session": "b"}, "both")]
)
async def test_status_is_of_one_thing(bench: Bench, options: dict[str, str], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        await bench.manager.status(**options)


async def test_a_removed_window_can_be_restored(bench: Bench) -> None:
    window = await bench.frozen("paper")
    assert (await bench.manager.remove_window("paper")).state == "deleted"
    with pytest.raises(WindowNotFoundError):
        await bench.manager.thaw("paper")
    assert await bench.manager.restore_window("PAPER") == window
    bench.stack.restart()
    assert (await bench.manager.thaw("paper")).complete


async def test_a_window_whose_name_was_taken_is_not_restored_over_it(bench: Bench) -> None:
    await bench.frozen("paper")
    await bench.manager.remove_window("paper")
    second = (await bench.manager.freeze("paper", "paper")).window
    with pytest.raises(WindowExistsError):
        await bench.manager.restore_window("paper")
    assert bench.window("paper") == second
    with pytest.raises(WindowNotFoundError):
        await bench.manager.restore_window("other")


async def test_what_is_kept_is_there_for_another_process(bench: Bench) -> None:
    """Everything is on disk: another manager of the same home goes on."""
    window = await bench.frozen("paper")
    again = Bench(bench.home.parent)
    report = await again.manager.thaw("paper")
    await again.reconnect()
    assert (report.complete, report.tokens) == (True, window.tokens)


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
async def test_everything_in_the_home_is_the_owner_s_alone(bench: Bench) -> None:
    await bench.frozen("paper")
    for path in [bench.home, *bench.home.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path

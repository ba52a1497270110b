"""Auto-freeze: at the threshold, after the turn, and never in the way of one."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from bench import QUESTION, Bench

from cwm_jupyter.core.models import FreezePolicy, Reply
from cwm_jupyter.errors import KVStoreError, SessionNotFoundError, ValidationError


async def ready(bench: Bench, **fields: Any) -> Reply:
    """Say something in a session that is to be frozen by itself from the first turn on."""
    await bench.manager.create_session("chat")
    fields = {"at_tokens": 16, "cooldown_tokens": 200, **fields}
    await bench.manager.autofreeze.set_policy("chat", FreezePolicy(**fields))
    return await bench.manager.say("chat", QUESTION)


def windows(bench: Bench) -> list[str]:
    return sorted(w.name for w in bench.library.index.windows().items)


async def test_a_policy_is_set_shown_and_taken_away(bench: Bench) -> None:
    await bench.talk("chat")
    autofreeze = bench.manager.autofreeze
    assert (await autofreeze.policy("chat")).policy is None
    policy = FreezePolicy(at_share=0.5, tags=["auto"])
    report = await autofreeze.set_policy("chat", policy)
    assert (report.policy, report.threshold_tokens) == (policy, 2048)
    assert report == await autofreeze.policy("chat")
    with pytest.raises(ValidationError, match="at_tokens can never be reached"):
        await autofreeze.set_policy("chat", FreezePolicy(at_tokens=5000))
    assert (await bench.manager.session("chat")).policy == policy
    assert (await autofreeze.set_policy("chat", None)).policy is None
    with pytest.raises(SessionNotFoundError):
        await autofreeze.set_policy("chta", policy)


async def test_it_is_due_at_the_threshold_and_not_in_the_cooldown(bench: Bench) -> None:
    reply = await ready(bench, at_tokens=300, tags=["auto"])
    turns = [reply]
    while len(turns) < 12:
        session = await bench.manager.session("chat")
        assert turns[-1].freeze_due == (session.tokens >= 300 and session.window_id is None) or (
            session.tokens >= bench.window(windows(bench)[-1]).tokens + 200
        )
        report = await bench.manager.autofreeze.run("chat")
        assert (report is not None) == turns[-1].freeze_due
        if report is not None:
            window = report.freeze.window
            assert (window.tokens, window.tags) == (session.tokens, ["auto"])
            assert (report.threshold_tokens, report.fresh_session) == (300, None)
        turns.append(await bench.manager.say("chat", "And then?"))
    assert windows(bench) == ["chat-1", "chat-2"]
    assert sum(turn.freeze_due for turn in turns[:-1]) == 2


async def test_a_freeze_by_hand_counts_too(bench: Bench) -> None:
    assert (await ready(bench)).freeze_due
    await bench.manager.freeze("mine", "chat")
    assert await bench.manager.autofreeze.run("chat") is None
    assert not (await bench.manager.say("chat", "And then?")).freeze_due
    assert windows(bench) == ["mine"]


async def test_without_a_policy_nothing_is_looked_at(bench: Bench) -> None:
    reply = await bench.manager.say((await bench.manager.create_session("chat")).name, QUESTION)
    assert not reply.freeze_due
    assert await bench.manager.autofreeze.run("chat") is None


async def test_names_that_are_taken_are_passed_over(bench: Bench) -> None:
    await bench.frozen("other")
    await bench.manager.keeping.edit_window("other", name="Chat-1")
    await ready(bench)
    report = await bench.manager.autofreeze.run("chat")
    assert report is not None
    assert report.freeze.window.name == "chat-2"
    log = bench.manager.audit.read(action="freeze")
    assert log.records[-1].line.names == {"window": "chat-2", "session": "chat"}


async def test_then_a_fresh_session_goes_on_under_the_same_rules(bench: Bench) -> None:
    await ready(bench, then="fresh", summary="We spoke of Paris.")
    await bench.manager.keeping.edit_session("chat", add_tags=["trip"], ttl="7d")
    report = await bench.manager.autofreeze.run("chat")
    assert report is not None
    assert report.fresh_session == "chat-2"
    old, fresh = [await bench.manager.session(name) for name in ("chat", "chat-2")]
    assert (old.state, fresh.state, fresh.turns) == ("frozen", "active", 0)
    assert (fresh.policy, fresh.tags, fresh.ttl_s) == (old.policy, ["trip"], 7 * 86400.0)
    assert fresh.lineage_id != old.lineage_id
    reply = await bench.manager.say("chat-2", "And now?")
    [first, *_] = bench.transcript(await bench.manager.session("chat-2")).messages
    assert (first.role, first.content) == ("system", "We spoke of Paris.")
    assert reply.freeze_due


async def test_a_turn_waits_for_the_freeze_that_goes_on(bench: Bench) -> None:
    await ready(bench)
    order: list[str] = []

    async def freeze() -> None:
        report = await bench.manager.autofreeze.run("chat")
        assert report is not None
        order.append("frozen")

    async def turn() -> None:
        await bench.manager.say("chat", "And then?")
        order.append("said")

    async def by_hand() -> None:
        await bench.manager.freeze("mine", "chat")
        order.append("by hand")

    async with anyio.create_task_group() as group:
        group.start_soon(freeze)
        group.start_soon(turn)
        await anyio.lowlevel.checkpoint()
        assert bench.manager.autofreeze._running
        await bench.manager.autofreeze.finished()
        assert not bench.manager.autofreeze._running
    assert order == ["frozen", "said"]
    session = await bench.manager.session("chat")
    assert (session.turns, session.state) == (2, "active")
    bench.library.index.update_session(session.id, lambda s: s.replace(window_id=None))
    order.clear()
    async with anyio.create_task_group() as group:
        group.start_soon(freeze)
        group.start_soon(by_hand)
    assert order == ["frozen", "by hand"]


async def test_a_turn_that_has_begun_goes_first(bench: Bench) -> None:
    await ready(bench)
    session = await bench.manager.session("chat")
    with bench.library.using(session):
        assert await bench.manager.autofreeze.run("chat") is None
    assert windows(bench) == []
    assert await bench.manager.autofreeze.run("chat") is not None


async def test_a_freeze_that_fails_leaves_the_turn_and_is_tried_again(
    bench: Bench, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    await ready(bench)
    bench.stack.store_failure = "the disk is full"
    await bench.manager.say("chat", "And then?")  # more chunks, of which some are lost
    bench.stack.store = lambda key: False
    await bench.manager.say("chat", QUESTION)
    session = await bench.manager.session("chat")
    with caplog.at_level(logging.WARNING, "cwm_jupyter"), pytest.raises(KVStoreError):
        await bench.manager.autofreeze.run_unattended("chat")
    assert "was not frozen by itself" in caplog.text
    assert (await bench.manager.session("chat"), windows(bench)) == (session, [])
    bench.stack.store = lambda key: True
    assert (await bench.manager.say("chat", "Still there?")).freeze_due
    caplog.clear()
    with caplog.at_level(logging.INFO, "cwm_jupyter"):
        assert await bench.manager.autofreeze.run_unattended("chat") is not None
    assert "Froze the session chat by itself as chat-1" in caplog.text
    assert await bench.manager.autofreeze.run_unattended("chat") is None


async def test_one_session_is_frozen_once_however_it_is_called(bench: Bench) -> None:
    await ready(bench)
    session = await bench.manager.session("chat")
    reports: list[object] = []

    async def freeze(name: str) -> None:
        reports.append(await bench.manager.autofreeze.run(name))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for name in (session.id, "chat", "CHAT"):
                group.start_soon(freeze, name)
    assert sum(report is not None for report in reports) == 1
    assert windows(bench) == ["chat-1"]
    assert not bench.manager.autofreeze._running

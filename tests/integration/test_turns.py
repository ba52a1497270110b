"""Going back to the end of a turn, and asking many, on the real stack."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from stack_driver import Driver

pytestmark = pytest.mark.stack

OTHER = "Which names are imported there? Say it in one sentence."
QUESTIONS = [
    "What does this file do?",
    "Name one class that is defined in it.",
    "In which language is it written?",
]
#: how far two tokens may be apart that rounding turned about (nats)
NEAR = 0.5


async def test_going_back_in_a_window_continues_to_the_bit(driver, name) -> None:
    manager = driver.manager
    await driver.talk(name, driver.text(3000), max_tokens=40)
    live = await driver.ask(name, OTHER)
    await driver.talk(name, "Say more.", "And what is missing?", max_tokens=80)
    frozen = await manager.freeze(name, name)
    held = await driver.held(name)
    end = held.transcript.turns[0].end
    chunks = (end - 1) // 128
    assert frozen.window.chunks > chunks > 3
    assert await (await driver.workspace.connect()).forget(held.keys)

    report = await manager.thaw(f"{name}@1")
    assert (report.turn, report.tokens, report.complete) == (1, end, True)
    assert (report.chunks_expected, report.chunks_read) == (chunks, chunks)
    assert report.cached_tokens == report.expected_cached_tokens == chunks * 128
    assert report.size_bytes == chunks * await driver.chunk_bytes()
    assert report.probe is None
    again = await driver.ask(report.session, OTHER)
    assert again.cached_tokens == live.cached_tokens == chunks * 128
    assert again.token_ids == live.token_ids
    assert again.logprobs == live.logprobs  # equal to the bit

    # What is said there is a branch; the window is as it was.
    await manager.say(report.session, OTHER, max_tokens=8)
    branch = await manager.freeze(f"{name}-branch", report.session)
    assert branch.window.parent_window_id is None
    assert branch.window.lineage_id == frozen.window.lineage_id
    assert branch.already_stored_bytes >= chunks * await driver.chunk_bytes()
    whole = await manager.thaw(name)
    assert (whole.complete, whole.probe.max_abs_logprob_diff) == (True, 0)


async def test_rewinding_a_live_session_continues_to_the_bit(driver, name) -> None:
    manager = driver.manager
    await driver.talk(name, driver.text(3000), "Say more.", max_tokens=40)
    live = await driver.ask(name, OTHER)
    old = await driver.talk(name, "And what is missing?", max_tokens=80)
    said = (await driver.held(name)).transcript

    branch = (await manager.turns.rewind(name, 2)).session
    again = await driver.ask(branch.name, OTHER)
    assert again.cached_tokens == live.cached_tokens == (branch.tokens - 1) // 128 * 128
    assert again.token_ids == live.token_ids
    assert again.logprobs == live.logprobs  # equal to the bit
    assert await manager.session(name) == old
    assert (await driver.held(name)).transcript == said


@pytest.mark.covers("E2E-003")
async def test_questions_asked_together_are_answered_as_alone(driver, name) -> None:
    manager = driver.manager
    await driver.talk(name, driver.text(3000), max_tokens=40)
    window = (await manager.freeze(name, name)).window
    report = await manager.questions.ask(name, QUESTIONS, max_tokens=32, keep=f"{name}-b")
    assert report.restored.complete
    assert report.restored.cached_tokens == window.chunks * 128
    assert report.restored.probe.max_abs_logprob_diff == 0
    for number, answer in enumerate(report.answers, 1):
        assert answer.reply.cached_tokens == window.chunks * 128
        held = await driver.held(f"{name}-b-{number}")
        turn = held.transcript.turns[-1]
        prompt = held.transcript.token_ids[: turn.prompt_end]
        together = held.transcript.token_ids[turn.prompt_end :]
        alone = (await driver.ask(name, answer.question, len(together))).token_ids
        await expect_same(driver, prompt, held.salt, together, alone)


async def expect_same(
    driver: Driver, prompt: Sequence[int], salt: str, together: Sequence[int], alone: Sequence[int]
) -> None:
    """Two greedy answers are the same, or part where two tokens are nearly as likely."""
    pairs = enumerate(zip(together, alone, strict=True))
    parted = next((i for i, (a, b) in pairs if a != b), None)
    if parted is None:
        return
    stack = await driver.workspace.connect()
    context = [*prompt, *together[:parted]]
    found = await stack.engine.complete(context, cache_salt=salt, max_tokens=1, top_logprobs=5)
    top = found.top[0]
    assert abs(top[together[parted]] - top[alone[parted]]) <= NEAR

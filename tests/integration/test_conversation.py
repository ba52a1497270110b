"""A conversation on the real engine: exact tokens, prefix hits, salts, interruption."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from cwm_jupyter.core.chunks import usable_chunks
from cwm_jupyter.core.models import Message
from cwm_jupyter.errors import ContextFullError, SessionBusyError, VLLMRequestError

pytestmark = pytest.mark.stack


@pytest.mark.covers("IV-001")
async def test_connects_to_a_live_server(workspace) -> None:
    stack = await workspace.connect()
    assert await stack.engine.health()
    assert await stack.engine.serves(stack.model)
    assert await stack.engine.version()


@pytest.mark.covers("IV-002", "IV-004")
async def test_a_repeated_prompt_shows_cached_tokens(driver) -> None:
    stack = await driver.workspace.connect()
    prompt = await stack.engine.tokenize_text(driver.text(2000))
    first = await stack.engine.complete(prompt, cache_salt="repeat", max_tokens=4)
    second = await stack.engine.complete(prompt, cache_salt="repeat", max_tokens=4)
    assert len(first.token_ids) == 4
    assert second.cached_tokens == usable_chunks(len(prompt), stack.chunk_tokens) * 128 > 0
    assert second.token_ids == first.token_ids


@pytest.mark.covers("IV-003")
async def test_another_salt_gets_no_hit(driver) -> None:
    stack = await driver.workspace.connect()
    prompt = await stack.engine.tokenize_text(driver.text(1000))
    await stack.engine.complete(prompt, cache_salt="mine", max_tokens=1)
    other = await stack.engine.complete(prompt, cache_salt="other", max_tokens=1)
    assert other.cached_tokens == 0


@pytest.mark.covers("IV-005", "SR-017", "SR-001")
async def test_each_turn_reuses_all_earlier_full_blocks(driver, name) -> None:
    stack = await driver.workspace.connect()
    await driver.manager.create_session(name)
    before = 0
    for question in (driver.text(1500), "Say it in other words.", "And once more, please."):
        reply = await driver.manager.say(name, question, max_tokens=70)
        assert reply.cached_tokens == usable_chunks(before, stack.chunk_tokens) * 128
        held = await driver.held(name)
        assert reply.prompt_tokens + reply.generated_tokens == len(held.transcript.token_ids)
        before = len(held.transcript.token_ids)
    assert held.session.tokens == before
    assert held.session.turns == 3


async def test_the_token_ids_are_those_of_the_template(driver, name) -> None:
    """Appending what is new gives what the template makes of the whole conversation."""
    stack = await driver.workspace.connect()
    await driver.manager.create_session(name, system="You answer in one word.")
    for question in ("Say yes.", "Say no."):
        reply = await driver.manager.say(name, question, max_tokens=60)
        assert reply.finish_reason == "stop"
    transcript = (await driver.held(name)).transcript
    whole = await stack.engine.tokenize(transcript.messages, add_generation_prompt=False)
    # The template ends an answer with a line break that no model generates.
    assert transcript.token_ids == whole[: len(transcript.token_ids)]
    assert len(whole) - len(transcript.token_ids) == 1


async def test_a_session_begins_with_given_messages(driver, name) -> None:
    messages = [
        Message(role="user", content="My name is Ada."),
        Message(role="assistant", content="Hello Ada!"),
    ]
    await driver.manager.create_session(name, messages=messages)
    await driver.manager.say(name, "What is my name?", max_tokens=24)
    transcript = (await driver.held(name)).transcript
    stack = await driver.workspace.connect()
    assert "Hello Ada!" in await stack.engine.detokenize(transcript.token_ids)
    assert len(transcript.messages) == 4


async def test_a_file_goes_into_the_context(driver, name, tmp_path: Path) -> None:
    file = tmp_path / "facts.txt"
    file.write_text("The secret word is marmalade.", encoding="utf-8")
    await driver.manager.create_session(name)
    await driver.manager.say(name, "What is the secret word?", files=[file], max_tokens=24)
    stack = await driver.workspace.connect()
    ids = (await driver.held(name)).transcript.token_ids
    assert "marmalade" in await stack.engine.detokenize(ids)


async def test_an_interrupted_answer_is_kept_as_far_as_it_came(driver, name) -> None:
    await driver.manager.create_session(name)
    pieces: list[str] = []
    with anyio.CancelScope() as scope:

        def stop_soon(text: str) -> None:
            pieces.append(text)
            if len(pieces) == 5:
                scope.cancel()

        await driver.manager.say(
            name, "Count from one to one hundred.", max_tokens=400, on_text=stop_soon
        )
    assert scope.cancelled_caught
    transcript = (await driver.held(name)).transcript
    assert transcript.turns[-1].finish_reason == "interrupted"
    assert transcript.messages[-1].content == "".join(pieces)
    kept = list(transcript.token_ids)
    await driver.manager.say(name, "Go on.", max_tokens=8)
    transcript = (await driver.held(name)).transcript
    assert transcript.token_ids[: len(kept)] == kept
    assert len(transcript.turns) == 2


async def test_a_context_longer_than_the_models_is_refused(driver, name) -> None:
    await driver.manager.create_session(name)
    with pytest.raises(ContextFullError, match="8,192"):
        await driver.manager.say(name, driver.text(60_000))
    session = await driver.manager.session(name)
    assert (session.turns, session.state) == (0, "active")


async def test_a_session_serves_one_at_a_time(driver, name) -> None:
    await driver.manager.create_session(name)
    async with anyio.create_task_group() as group:
        started = anyio.Event()
        group.start_soon(
            lambda: driver.manager.say(
                name, "Count to fifty.", max_tokens=100, on_text=lambda _: started.set()
            )
        )
        await started.wait()
        with pytest.raises(SessionBusyError):
            await driver.manager.say(name, "Hello?")
    assert (await driver.manager.session(name)).turns == 1


async def test_the_engines_own_refusal_is_shown(driver) -> None:
    stack = await driver.workspace.connect()
    with pytest.raises(VLLMRequestError):
        await stack.engine.complete([10**9], cache_salt="x", max_tokens=1)

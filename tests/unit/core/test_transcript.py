"""The exact-token conversation: what was seen is never rendered or tokenised again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from fake_stack import ASSISTANT, END, decode, encode, render
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.core.models import Message
from cwm_jupyter.core.transcript import Transcript, common_suffix, render_turn
from cwm_jupyter.errors import VLLMResponseError

TEXT = st.text(st.sampled_from("theins42? .é語"), max_size=12)
FINISH = st.sampled_from(["stop", "length", "interrupted"])
#: ids as a model may produce them: not those that the tokeniser would make of their text
GENERATED = st.lists(st.integers(10, 60), max_size=8)
TURNS = st.lists(st.tuples(TEXT, GENERATED, FINISH), min_size=1, max_size=5)
SYSTEM = st.none() | TEXT


class Renderer:
    """A template and a tokeniser, that note what they were asked to render."""

    def __init__(self, template: Callable[[Sequence[Message]], list[int]] = render) -> None:
        self.template = template
        self.rendered: list[list[Message]] = []

    async def tokenize(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True
    ) -> list[int]:
        assert add_generation_prompt
        self.rendered.append(list(messages))
        return self.template(messages)


def message(role: str, content: str) -> Message:
    return Message(role=role, content=content)


def say(
    transcript: Transcript, question: str, generated: list[int], finish: str, renderer: Renderer
) -> Transcript:
    prompt = asyncio.run(render_turn(renderer, transcript, question))
    return transcript.extended(
        question=question,
        prompt=prompt,
        answer=decode(generated),
        generated=generated,
        cached_tokens=None,
        ttft_s=None,
        total_s=0.0,
        finish_reason=finish,
    )


def begin(system: str | None) -> Transcript:
    return Transcript(messages=[] if system is None else [message("system", system)])


def finished(generated: list[int], finish: str) -> list[int]:
    return [*generated, END] if finish == "stop" else generated


@given(SYSTEM, TURNS)
def test_every_turn_begins_with_the_turn_before(
    system: str | None, turns: list[tuple[str, list[int], str]]
) -> None:
    renderer, transcript = Renderer(), begin(system)
    for number, (question, generated, finish) in enumerate(turns, 1):
        before = transcript
        transcript = say(transcript, question, finished(generated, finish), finish, renderer)
        assert transcript.token_ids[: len(before.token_ids)] == before.token_ids
        turn = transcript.turns[-1]
        assert (turn.number, turn.start) == (number, len(before.token_ids))
        assert turn.end == len(transcript.token_ids)
        assert transcript.token_ids[turn.prompt_end : turn.end] == finished(generated, finish)


@given(SYSTEM, st.lists(st.tuples(TEXT, TEXT, FINISH), min_size=1, max_size=5), TEXT)
def test_the_prompt_is_the_template_s_own_rendering(
    system: str | None, turns: list[tuple[str, str, str]], last: str
) -> None:
    """Where the model tokenises as the tokeniser does; an answer that was cut is ended."""
    renderer, transcript = Renderer(), begin(system)
    for question, answer, finish in turns:
        transcript = say(transcript, question, finished(encode(answer), finish), finish, renderer)
    prompt = asyncio.run(render_turn(renderer, transcript, last))
    whole = render([*transcript.messages, message("user", last)])
    assert [*transcript.token_ids, *prompt] == whole


@given(TURNS)
def test_history_is_never_rendered_again(turns: list[tuple[str, list[int], str]]) -> None:
    renderer, transcript = Renderer(), begin(None)
    for question, generated, finish in turns:
        transcript = say(transcript, question, finished(generated, finish), finish, renderer)
    answers = {m.content for m in transcript.messages if m.role == "assistant"} - {"yes", "42"}
    rendered = {m.content for ms in renderer.rendered for m in ms if m.role == "assistant"}
    assert not answers & rendered
    assert all(len(messages) <= 3 for messages in renderer.rendered)


async def test_a_conversation_given_at_the_start_is_rendered_whole() -> None:
    given_messages = [message("user", "hi"), message("assistant", "hello")]
    renderer = Renderer()
    prompt = await render_turn(renderer, Transcript(messages=given_messages), "the end?")
    assert prompt == render([*given_messages, message("user", "the end?")])


async def test_the_model_s_own_end_of_turn_is_not_doubled() -> None:
    transcript = say_in_thread("one", [*encode("two"), END], "stop")
    prompt = await render_turn(Renderer(), transcript, "three")
    assert prompt == render([message("user", "three")])


@pytest.mark.parametrize("finish", ["length", "interrupted"])
async def test_a_cut_answer_gets_its_end_of_turn(finish: str) -> None:
    transcript = say_in_thread("one", encode("tw"), finish)
    prompt = await render_turn(Renderer(), transcript, "three")
    assert prompt == [END, *render([message("user", "three")])]


def say_in_thread(question: str, generated: list[int], finish: str) -> Transcript:
    return Transcript().extended(
        question=question,
        prompt=render([message("user", question)]),
        answer=decode(generated),
        generated=generated,
        cached_tokens=3,
        ttft_s=0.1,
        total_s=0.2,
        finish_reason=finish,
    )


async def test_a_template_that_repeats_the_system_message_gets_it() -> None:
    def repeating(messages: Sequence[Message]) -> list[int]:
        system = encode(messages[0].content) if messages[0].role == "system" else []
        turns = [m for m in messages if m.role != "system"]
        return [*render(turns[:-1], add_generation_prompt=False), *system, *render(turns[-1:])]

    renderer = Renderer(repeating)
    first = Transcript(messages=[message("system", "be short")])
    prompt = await render_turn(renderer, first, "one")
    transcript = first.extended(
        question="one",
        prompt=prompt,
        answer="two",
        generated=[*encode("two"), END],
        cached_tokens=None,
        ttft_s=None,
        total_s=0.0,
        finish_reason="stop",
    )
    added = await render_turn(renderer, transcript, "three")
    assert added == [*encode("be short"), *render([message("user", "three")])]


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(lambda messages: [], id="nothing"),
        pytest.param(lambda messages: [9, 9, ASSISTANT], id="answers left out"),
        pytest.param(lambda messages: encode(messages[-2].content), id="no end"),
    ],
)
async def test_a_template_that_shows_no_end_is_refused(
    template: Callable[[Sequence[Message]], list[int]],
) -> None:
    transcript = say_in_thread("one", [*encode("two"), END], "stop")
    with pytest.raises(VLLMResponseError, match="where an answer ends") as caught:
        await render_turn(Renderer(template), transcript, "three")
    assert "--chat-template" in str(caught.value)


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_common_suffix(a: list[int], b: list[int]) -> None:
    suffix = common_suffix(a, b)
    size = len(suffix)
    assert a[len(a) - size :] == suffix == b[len(b) - size :]
    longer = size + 1
    assert longer > min(len(a), len(b)) or a[len(a) - longer :] != b[len(b) - longer :]


def test_a_transcript_outlives_its_document() -> None:
    transcript = say_in_thread("one", [*encode("two"), END], "stop")
    assert Transcript.from_dict(transcript.to_dict()) == transcript

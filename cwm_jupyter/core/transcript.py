"""The exact-token conversation.

The token ids are the truth: what the engine saw and produced, never a text tokenised again, since
that can split differently and lose the prefix from there on. A turn therefore renders only what is
new and appends it.

What is new, for any chat template: the engine renders a short stand-in conversation that ends with
the new message, twice, with two different stand-ins for the last answer. The longest common suffix
of the two is what follows an answer: the end of the turn, the new message, the generation prompt.
It is the engine's own tokenisation in its own template, and it costs no more than the new message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from cwm_jupyter.core.models import Message, Turn, Value, now
from cwm_jupyter.errors import VLLMResponseError

__all__ = ["Renderer", "Transcript", "common_suffix", "render_turn"]

# Two answers that no template and no tokeniser confuses, alike in nothing at their ends.
_STAND_INS = ("yes", "42")


class Renderer(Protocol):
    """Whoever renders messages to token ids with the engine's own template."""

    async def tokenize(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True
    ) -> list[int]:
        """Return the token ids of the rendered messages."""
        ...


class Transcript(Value, frozen=True, kw_only=True):
    """Messages, the exact token ids, and where each turn ends.

    `messages` may begin with some that were given at the start and never sent; they are part of
    the first turn's prompt.
    """

    messages: list[Message] = msgspec.field(default_factory=list)
    token_ids: list[int] = msgspec.field(default_factory=list)
    turns: list[Turn] = msgspec.field(default_factory=list)

    @property
    def prefill_s(self) -> float | None:
        """How long all turns took to their first tokens (s), None where one was not measured."""
        times = [turn.ttft_s for turn in self.turns]
        return None if None in times else sum(time for time in times if time is not None)

    def extended(
        self,
        *,
        question: str,
        prompt: Sequence[int],
        answer: str,
        generated: Sequence[int],
        cached_tokens: int | None,
        ttft_s: float | None,
        total_s: float,
        finish_reason: str,
    ) -> Transcript:
        """Return the transcript with one more turn.

        Parameters
        ----------
        question, answer
            The texts, for people.
        prompt
            The token ids that were appended before the generation.
        generated
            The token ids that the engine produced, an end-of-turn token included.
        cached_tokens, ttft_s, total_s, finish_reason
            What the engine reported and we measured, see `Turn`.
        """
        start = len(self.token_ids)
        turn = Turn.from_dict(
            {
                "number": len(self.turns) + 1,
                "start": start,
                "prompt_end": start + len(prompt),
                "end": start + len(prompt) + len(generated),
                "cached_tokens": cached_tokens,
                "ttft_s": ttft_s,
                "total_s": total_s,
                "finish_reason": finish_reason,
                "created_at": now(),
            }
        )
        return Transcript(
            messages=[
                *self.messages,
                Message(role="user", content=question),
                Message(role="assistant", content=answer),
            ],
            token_ids=[*self.token_ids, *prompt, *generated],
            turns=[*self.turns, turn],
        )


def common_suffix(a: Sequence[int], b: Sequence[int]) -> list[int]:
    """Return the longest common suffix of two sequences."""
    length = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x != y:
            break
        length += 1
    return list(a[len(a) - length :])


async def render_turn(renderer: Renderer, transcript: Transcript, question: str) -> list[int]:
    """Return the token ids to append to `transcript` so that the model answers `question`.

    Raises
    ------
    VLLMResponseError
        The template does not show where an answer ends.
    """
    new = Message(role="user", content=question)
    if not transcript.turns:
        return await renderer.tokenize([*transcript.messages, new])
    # A system message goes along: some templates repeat it beside the newest message.
    system = [m for m in transcript.messages[:1] if m.role == "system"]
    opening = [*system, Message(role="user", content="?")]
    with_yes, with_42 = [
        await renderer.tokenize([*opening, Message(role="assistant", content=answer), new])
        for answer in _STAND_INS
    ]
    suffix = common_suffix(with_yes, with_42)
    if not suffix or len(suffix) in (len(with_yes), len(with_42)):
        raise VLLMResponseError(
            "The model's chat template does not show where an answer ends.",
            hint="Serve the model with a chat template for conversations (--chat-template).",
        )
    # A finished answer ends with the end-of-turn token, which the suffix begins with too.
    finished = transcript.turns[-1].finish_reason == "stop"
    if finished and transcript.token_ids[-1] == suffix[0]:
        return suffix[1:]
    return suffix

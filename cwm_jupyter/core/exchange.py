"""Exchange: one question and its answer, rendered and generated; whoever asked keeps it or not."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from cwm_jupyter.clients.vllm import Delta
from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.models import Reply
from cwm_jupyter.core.names import check_unicode
from cwm_jupyter.core.transcript import Transcript, render_turn
from cwm_jupyter.errors import ContextFullError, ValidationError

__all__ = ["Exchange", "check_sampling", "reply"]


class Exchange:
    """One exchange while it happens; made by `prepare`.

    Parameters
    ----------
    transcript
        What was said before.
    question
        The user's message.
    prompt
        The token ids that it adds to the transcript.
    max_tokens
        The longest answer; there is room for it.
    """

    def __init__(
        self, transcript: Transcript, question: str, prompt: Sequence[int], max_tokens: int
    ) -> None:
        self._transcript = transcript
        self._question = question
        self._prompt = prompt
        self._max_tokens = max_tokens
        self._started = time.perf_counter()
        self._token_ids: list[int] = []
        self._pieces: list[str] = []
        self._cached_tokens: int | None = None
        self._ttft_s: float | None = None
        self._finish_reason = "interrupted"

    @classmethod
    async def prepare(
        cls,
        stack: ConnectedStack,
        transcript: Transcript,
        question: str,
        *,
        max_tokens: int,
        max_context_tokens: int | None,
    ) -> Exchange:
        """Render a question; `max_tokens` is cut to what the context has room for.

        Raises
        ------
        ContextFullError
            The question does not fit into the model's context.
        ValidationError
            It is no valid text.
        """
        check_unicode(question, "question")
        prompt = await render_turn(stack.engine, transcript, question)
        tokens = len(transcript.token_ids) + len(prompt)
        return cls(transcript, question, prompt, _room(tokens, max_tokens, max_context_tokens))

    async def generate(
        self,
        stack: ConnectedStack,
        salt: str,
        *,
        temperature: float = 0.0,
        seed: int | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        """Have the engine answer; cancelling it makes the engine stop generating.

        Parameters
        ----------
        stack, salt
            The running stack, and the salt of the lineage there.
        temperature, seed
            Sampling; 0 is greedy.
        on_text
            Called with each piece of text as it arrives.
        """
        self._started = time.perf_counter()
        deltas = stack.engine.stream(
            [*self._transcript.token_ids, *self._prompt],
            cache_salt=salt,
            max_tokens=self._max_tokens,
            temperature=temperature,
            seed=seed,
        )
        await self._follow(deltas, on_text)

    async def _follow(
        self, deltas: AsyncGenerator[Delta], on_text: Callable[[str], None] | None
    ) -> None:
        async with aclosing(deltas):
            async for delta in deltas:
                if delta.token_ids and self._ttft_s is None:
                    self._ttft_s = time.perf_counter() - self._started
                self._token_ids += delta.token_ids
                self._pieces.append(delta.text)
                # Whatever else ends an answer (the engine's own abort, say) cuts it short.
                if delta.finish_reason in ("stop", "length"):
                    self._finish_reason = delta.finish_reason
                if delta.cached_tokens is not None:
                    self._cached_tokens = delta.cached_tokens
                if delta.text and on_text is not None:
                    on_text(delta.text)

    @property
    def begun(self) -> bool:
        """Whether something of the answer has come."""
        return bool(self._token_ids)

    def extended(self) -> Transcript:
        """Return the transcript with this exchange as its last turn, as far as it came."""
        return self._transcript.extended(
            question=self._question,
            prompt=self._prompt,
            answer="".join(self._pieces),
            generated=self._token_ids,
            cached_tokens=self._cached_tokens,
            ttft_s=self._ttft_s,
            total_s=time.perf_counter() - self._started,
            finish_reason=self._finish_reason,
        )


def reply(transcript: Transcript, session: str | None) -> Reply:
    """Return what the last turn of a transcript gave; `session` is where it was kept."""
    turn = transcript.turns[-1]
    return Reply(
        session=session,
        text=transcript.messages[-1].content,
        turn=turn,
        prompt_tokens=turn.prompt_end,
        cached_tokens=turn.cached_tokens,
        generated_tokens=turn.end - turn.prompt_end,
        ttft_s=turn.ttft_s,
        total_s=turn.total_s,
        finish_reason=turn.finish_reason,
    )


def check_sampling(max_tokens: int | None, temperature: float) -> None:
    """Refuse what no engine can sample with.

    Raises
    ------
    ValidationError
        `max_tokens` is below 1, or `temperature` not from 0 to 2.
    """
    if max_tokens is not None and max_tokens < 1:
        raise ValidationError(f"max_tokens must be at least 1, not {max_tokens}.")
    if not 0 <= temperature <= 2:
        raise ValidationError(f"temperature must be from 0 to 2, not {temperature:g}.")


def _room(prompt_tokens: int, max_tokens: int, max_context_tokens: int | None) -> int:
    """Return how long the answer may be, at least one token.

    One token stays free, or the session could not be probed and so not frozen.
    """
    if max_context_tokens is None:
        return max_tokens
    room = max_context_tokens - prompt_tokens - 1
    if room < 1:
        raise ContextFullError(
            f"The conversation would have {prompt_tokens:,} tokens and leave no room for an "
            f"answer: the model's context holds {max_context_tokens:,}.",
            tokens=prompt_tokens,
            max_context_tokens=max_context_tokens,
        )
    return min(max_tokens, room)

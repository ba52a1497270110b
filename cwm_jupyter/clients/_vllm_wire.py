"""What vLLM 0.32 sends and what we make of it: the values of the client, and the wire's forms.

A field without a default must be there: decoding an answer without it names the field.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from cwm_jupyter.core.models import Value

__all__ = [
    "ChatAnswer",
    "Completion",
    "CompletionAnswer",
    "Delta",
    "Models",
    "Prompt",
    "ServedModel",
    "StreamEvent",
    "Tokens",
    "Version",
]


class ServedModel(Value, frozen=True, kw_only=True):
    """A model that the engine serves: its name, where its weights lie, its longest context."""

    id: str
    root: str | None = None
    max_model_len: int | None = None


class Completion(Value, frozen=True, kw_only=True):
    """What the engine generated.

    `token_ids` are the truth, with a generated end-of-turn token; `text` is without special tokens.
    `cached_tokens` of the prompt came from the engine's or LMCache's cache; None: not told.
    `logprobs` (nats) are those of the chosen tokens; `top` has those of the likeliest and of the
    chosen one, by token id, per position. Both are empty for a chat.
    """

    token_ids: list[int]
    text: str
    prompt_tokens: int
    cached_tokens: int | None
    finish_reason: str
    logprobs: list[float] = msgspec.field(default_factory=list)
    top: list[dict[int, float]] = msgspec.field(default_factory=list)


class Delta(Value, frozen=True, kw_only=True):
    """A piece of a streamed completion.

    Only the last has `finish_reason` and, where the engine tells them, the counts of the prompt.
    """

    token_ids: list[int]
    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    logprobs: list[float] = msgspec.field(default_factory=list)
    top: list[dict[int, float]] = msgspec.field(default_factory=list)


# --- what comes over the wire ---------------------------------------------------------------------

T = TypeVar("T")
_Some = Annotated[list[T], Meta(min_length=1)]
_TokenName = Annotated[str, Meta(pattern=r"^token_id:\d+$")]


class Details(msgspec.Struct):
    """Where the prompt's tokens came from."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Counts of a request."""

    prompt_tokens: int
    prompt_tokens_details: Details | None = None

    @property
    def cached_tokens(self) -> int | None:
        """Tokens of the prompt that came from a cache; None: not told."""
        return self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None


class Logprobs(msgspec.Struct):
    """Log-probabilities (nats), position by position."""

    token_logprobs: list[float]
    top_logprobs: list[dict[_TokenName, float]]

    def top(self) -> list[dict[int, float]]:
        """The likeliest tokens of each position, by id."""
        return [
            {int(name.removeprefix("token_id:")): value for name, value in position.items()}
            for position in self.top_logprobs
        ]


class Choice(msgspec.Struct):
    """One completion; we ask for one only."""

    text: str
    token_ids: list[int]
    finish_reason: str
    logprobs: Logprobs


class CompletionAnswer(msgspec.Struct):
    """``POST /v1/completions``."""

    choices: _Some[Choice]
    usage: Usage


class ChatMessage(msgspec.Struct):
    """What the model said."""

    content: str | None


class ChatChoice(msgspec.Struct):
    """One answer of a chat."""

    message: ChatMessage
    token_ids: list[int]
    finish_reason: str


class ChatAnswer(msgspec.Struct):
    """``POST /v1/chat/completions``."""

    choices: _Some[ChatChoice]
    usage: Usage


class StreamChoice(msgspec.Struct):
    """A piece of a completion."""

    text: str
    token_ids: list[int]
    logprobs: Logprobs | None
    finish_reason: str | None = None

    def delta(self) -> Delta:
        """The piece as the client yields it."""
        return Delta(
            token_ids=self.token_ids,
            text=self.text,
            finish_reason=self.finish_reason,
            logprobs=self.logprobs.token_logprobs if self.logprobs else [],
            top=self.logprobs.top() if self.logprobs else [],
        )


class StreamError(msgspec.Struct):
    """Trouble after the answer had begun."""

    message: str
    code: int = 500


class StreamEvent(msgspec.Struct):
    """An event of a streamed ``POST /v1/completions``."""

    choices: list[StreamChoice] = msgspec.field(default_factory=list)
    usage: Usage | None = None
    error: StreamError | None = None


class Models(msgspec.Struct):
    """``GET /v1/models``."""

    data: list[ServedModel]


class Version(msgspec.Struct):
    """``GET /version``."""

    version: str


class Tokens(msgspec.Struct):
    """``POST /tokenize``."""

    tokens: list[int]


class Prompt(msgspec.Struct):
    """``POST /detokenize``."""

    prompt: str

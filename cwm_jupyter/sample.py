"""Real text of a wanted length, and timed requests: what the demo and the bench measure with."""

from __future__ import annotations

import sysconfig
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.models import Value

__all__ = ["Continuation", "continuation", "real_text"]

#: of Python's own library, which every machine has; some 45,000 tokens of SmolLM2
_FILES = ("argparse.py", "ast.py")


class Continuation(Value, frozen=True, kw_only=True):
    """What a request gave, and when: seconds to its first token."""

    token_ids: list[int]
    logprobs: list[float]
    ttft_s: float
    cached_tokens: int | None


async def real_text(stack: ConnectedStack, tokens: int, *, start: int = 0) -> str:
    """Return source text of Python's library with about `tokens` tokens, and no more.

    Parameters
    ----------
    stack
        Its engine counts the tokens.
    tokens
        How many; at most some 40,000.
    start
        Characters of the source to leave out before it.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    source = "".join((folder / name).read_text(encoding="utf-8") for name in _FILES)[start:]
    fits, too_long = 0, len(source) + 1
    characters = 4 * tokens
    for _ in range(6):  # how many characters a token has varies with the text
        characters = min(max(characters, fits + 1), too_long - 1)
        count = len(await stack.engine.tokenize_text(source[:characters]))
        if count <= tokens:
            fits = characters
        else:
            too_long = characters
        characters = characters * tokens // count
    return source[:fits]


async def continuation(
    stack: ConnectedStack, prompt: Sequence[int], salt: str, max_tokens: int
) -> Continuation:
    """Have the engine go on greedily after a prompt, which no session records."""
    token_ids: list[int] = []
    logprobs: list[float] = []
    ttft_s: float | None = None
    cached: int | None = None
    started = time.perf_counter()
    stream = stack.engine.stream(
        prompt, cache_salt=salt, max_tokens=max_tokens, top_logprobs=1, ignore_eos=True
    )
    async with aclosing(stream) as deltas:
        async for delta in deltas:
            if ttft_s is None and delta.token_ids:
                ttft_s = time.perf_counter() - started
            token_ids += delta.token_ids
            logprobs += delta.logprobs
            cached = delta.cached_tokens if delta.cached_tokens is not None else cached
    return Continuation(
        token_ids=token_ids, logprobs=logprobs, ttft_s=ttft_s or 0.0, cached_tokens=cached
    )

"""One turn of a conversation: render what is new, generate, append what the engine produced."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import anyio
from anyio import to_thread

from cwm_jupyter.clients.vllm import Delta
from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.library import Library
from cwm_jupyter.core.models import Reply, Session, now
from cwm_jupyter.core.transcript import Transcript, render_turn
from cwm_jupyter.errors import ContextFullError, ValidationError

__all__ = ["compose", "say"]


def compose(text: str, files: Sequence[Path], *, max_bytes: int) -> str:
    """Return the message that puts files into the context before a question.

    Parameters
    ----------
    text
        The question.
    files
        UTF-8 text files.
    max_bytes
        The largest file allowed.

    Raises
    ------
    ValidationError
        A file is missing, too large or not text; or there is nothing to say.
    """
    parts = [f"File {path.name}:\n\n{_read_text(path, max_bytes)}" for path in files]
    if text.strip():
        parts.append(text)
    if not parts:
        raise ValidationError("There is nothing to say.", hint="Write a question.")
    return "\n\n".join(parts)


def _read_text(path: Path, max_bytes: int) -> str:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise ValidationError(
                f"{path} has {size:,} bytes; at most {max_bytes:,} go into a context."
            )
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValidationError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    except OSError as error:
        raise ValidationError(f"{path} cannot be read: {error.strerror}.") from error


async def say(
    stack: ConnectedStack,
    library: Library,
    session: Session,
    text: str,
    *,
    max_tokens: int,
    temperature: float = 0.0,
    seed: int | None = None,
    on_text: Callable[[str], None] | None = None,
) -> Reply:
    """Say something in a session and return the answer; the caller holds the session.

    A turn that is cancelled while it streams is kept as far as it came, as ``interrupted``; one
    that fails leaves the session as it was.

    Parameters
    ----------
    stack
        The running stack.
    library
        Where the transcript is kept.
    session
        Its entry in the index.
    text
        The user's message.
    max_tokens
        The longest answer, cut to what the context has room for.
    temperature, seed
        Sampling; 0 is greedy.
    on_text
        Called with each piece of text as it arrives.

    Raises
    ------
    ContextFullError
        The message does not fit into the model's context.
    StateTransitionError
        The session has expired.
    """
    if session.state != "active":
        session.to("active")  # refuses before anything is generated
    transcript = await to_thread.run_sync(library.transcript, session)
    facts = await stack.facts()
    prompt = await render_turn(stack.engine, transcript, text)
    token_ids = [*transcript.token_ids, *prompt]
    max_tokens = _room(len(token_ids), max_tokens, facts.max_context_tokens)
    salt = library.lineages.salt(session.lineage_id, facts.fingerprint)
    answer = _Answer(on_text)

    def record() -> Transcript:
        extended = transcript.extended(
            question=text,
            prompt=prompt,
            answer="".join(answer.pieces),
            generated=answer.token_ids,
            cached_tokens=answer.cached_tokens,
            ttft_s=answer.ttft_s,
            total_s=time.perf_counter() - answer.started,
            finish_reason=answer.finish_reason,
        )
        _record(library, session.id, extended, facts.max_context_tokens)
        return extended

    try:
        await answer.follow(
            stack.engine.stream(
                token_ids,
                cache_salt=salt,
                max_tokens=max_tokens,
                temperature=temperature,
                seed=seed,
            )
        )
    except anyio.get_cancelled_exc_class():
        if answer.token_ids:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(record)
        raise
    turn = (await to_thread.run_sync(record)).turns[-1]
    return Reply(
        session=session.name,
        text="".join(answer.pieces),
        turn=turn,
        prompt_tokens=len(token_ids),
        cached_tokens=turn.cached_tokens,
        generated_tokens=len(answer.token_ids),
        ttft_s=turn.ttft_s,
        total_s=turn.total_s,
        finish_reason=turn.finish_reason,
    )


class _Answer:
    """An answer as it arrives."""

    def __init__(self, on_text: Callable[[str], None] | None) -> None:
        self._on_text = on_text
        self.started = time.perf_counter()
        self.token_ids: list[int] = []
        self.pieces: list[str] = []
        self.cached_tokens: int | None = None
        self.ttft_s: float | None = None
        self.finish_reason = "interrupted"

    async def follow(self, deltas: AsyncGenerator[Delta]) -> None:
        """Take in a stream to its end; leaving early makes the engine stop generating."""
        async with aclosing(deltas):
            async for delta in deltas:
                if delta.token_ids and self.ttft_s is None:
                    self.ttft_s = time.perf_counter() - self.started
                self.token_ids += delta.token_ids
                self.pieces.append(delta.text)
                # Whatever else ends an answer (the engine's own abort, say) cuts it short.
                if delta.finish_reason in ("stop", "length"):
                    self.finish_reason = delta.finish_reason
                if delta.cached_tokens is not None:
                    self.cached_tokens = delta.cached_tokens
                if delta.text and self._on_text is not None:
                    self._on_text(delta.text)


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


def _record(
    library: Library, session_id: str, transcript: Transcript, max_context_tokens: int | None
) -> None:
    """Keep the transcript, then the index entry: a crash between leaves a count that is behind."""
    library.write_transcript(session_id, transcript)

    def change(session: Session) -> Session:
        if session.state != "active":
            session = session.to("active")
        return session.replace(
            tokens=len(transcript.token_ids),
            turns=len(transcript.turns),
            max_context_tokens=max_context_tokens,
            updated_at=now(),
        )

    library.index.update_session(session_id, change)

"""One turn of a conversation: say something, and keep what the engine produced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
from anyio import to_thread

from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.exchange import Exchange, reply
from cwm_jupyter.core.library import Library
from cwm_jupyter.core.lifetime import refuse_expired, renewed
from cwm_jupyter.core.models import Reply, Session, now
from cwm_jupyter.core.policy import is_due
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.errors import EngineMismatchError, ValidationError

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
    EngineMismatchError
        The engine serves another model than the session was begun with.
    """
    refuse_expired(session)
    if session.tokens and session.model != stack.model:
        raise EngineMismatchError(
            f"The session {session.name!r} is of the model {session.model}, and the engine serves "
            f"{stack.model}: it would take the session's tokens for other words.",
            hint="Start a stack with that model, or begin another session with -s NAME.",
            session=session.name,
        )
    transcript = await to_thread.run_sync(library.transcript, session)
    facts = await stack.facts()
    exchange = await Exchange.prepare(
        stack,
        transcript,
        text,
        max_tokens=max_tokens,
        max_context_tokens=facts.max_context_tokens,
    )
    salt = library.lineages.salt(session.lineage_id, facts.fingerprint)

    def record() -> Reply:
        extended = exchange.extended()
        entry = _record(library, session.id, extended, stack.model, facts.max_context_tokens)
        return reply(extended, session.name).replace(
            freeze_due=is_due(entry, library.index.get_window)
        )

    try:
        await exchange.generate(stack, salt, temperature=temperature, seed=seed, on_text=on_text)
    except anyio.get_cancelled_exc_class():
        if exchange.begun:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(record)
        raise
    return await to_thread.run_sync(record)


def _record(
    library: Library,
    session_id: str,
    transcript: Transcript,
    model: str,
    max_context_tokens: int | None,
) -> Session:
    """Keep the transcript, then the index entry: a crash between leaves a count that is behind."""
    library.write_transcript(session_id, transcript)

    def change(session: Session) -> Session:
        if session.state != "active":
            session = session.to("active")
        return renewed(
            session.replace(
                model=model,
                tokens=len(transcript.token_ids),
                turns=len(transcript.turns),
                max_context_tokens=max_context_tokens,
                updated_at=now(),
            )
        )

    return library.index.update_session(session_id, change)

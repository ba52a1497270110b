"""Recomputing: windows of an archive are built from their tokens alone, on the running engine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from anyio import to_thread

from cwm_jupyter.config import Settings
from cwm_jupyter.core import probe
from cwm_jupyter.core.archive.arrivals import Arrival
from cwm_jupyter.core.archive.format import Details
from cwm_jupyter.core.archive.reader import Reader
from cwm_jupyter.core.chunks import ChunkStore
from cwm_jupyter.core.connection import ConnectedStack, EngineFacts
from cwm_jupyter.core.fingerprint import SAME_WORDS, surely_differ
from cwm_jupyter.core.freeze import settle
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.lineage import Lineages
from cwm_jupyter.core.models import Fingerprint
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.core.turns import until
from cwm_jupyter.errors import ContextFullError, CWMError, EngineMismatchError, KVStoreError

__all__ = ["Recompute"]

#: where these differ, it is another model
_SAME_MODEL = ("weights_digest", "model_config_digest")

#: longest end of a turn, in characters
_MAX_END = 32


@dataclass
class Recompute:
    """One archive's windows on their way through the engine.

    Parameters
    ----------
    reader
        The archive, of which only the tokens are used.
    stack, facts
        The running stack, and what it says of itself.
    lineages
        The secrets of this home.
    settings
        Limits and timeouts.
    job
        Told of the tokens.
    asked
        The user asked for it: so another model will do, if only it has the same tokens.
    trusted
        The user trusts the signer: so messages that cannot be rendered are no attempt to deceive.
    """

    reader: Reader
    stack: ConnectedStack
    facts: EngineFacts
    lineages: Lineages
    settings: Settings
    job: Job
    asked: bool
    trusted: bool

    @property
    def store(self) -> ChunkStore:
        """The store that the stack fills.

        Raises
        ------
        KVStoreError
            Its files cannot be read from here.
        """
        self.stack.keeper()
        if self.stack.store is None:
            raise KVStoreError(
                "The running stack keeps its chunks where they cannot be read from here.",
                hint="Import with the local stack: cwm up.",
            )
        return self.stack.store

    @property
    def model(self) -> str:
        """The model that the windows are of."""
        return self.stack.model

    @property
    def max_context_tokens(self) -> int | None:
        """How long a context of it may be."""
        return self.facts.max_context_tokens

    async def check(self, found: Sequence[Arrival]) -> None:
        """Refuse windows of which nothing like them can come on this engine.

        Raises
        ------
        EngineMismatchError
            The engine has another tokenizer, or another model.
        """
        for arrival in found:
            _check_engine(
                arrival.entry.name,
                arrival.fingerprint,
                self.facts.fingerprint,
                (*SAME_WORDS, *(() if self.asked else _SAME_MODEL)),
            )

    def address(self, arrival: Arrival) -> None:
        """Give a window the running engine's fingerprint, and so its keys."""
        arrival.fingerprint = self.facts.fingerprint
        arrival.chunk_tokens = self.stack.chunk_tokens
        token_ids = self.reader.details(arrival.position).transcript.token_ids
        arrival.keys = self.stack.keys(token_ids, self._salt(arrival))

    async def fill(self, found: Sequence[Arrival]) -> None:
        """Compute all windows, have their chunks stored, read them back, and note new probes.

        Raises
        ------
        KVStoreError
            They did not become durable.
        """
        for arrival in found:
            details = await to_thread.run_sync(self.reader.details, arrival.position)
            await self._compute(arrival, details)

    async def _compute(self, arrival: Arrival, details: Details) -> None:
        stack, keys, salt = self.stack, arrival.keys, self._salt(arrival)
        token_ids, limits = details.transcript.token_ids, self.settings.limits
        self.job.stage(f"compute {arrival.name}", total=len(token_ids), unit="tokens")
        await stack.engine.complete(token_ids, cache_salt=salt, max_tokens=1)
        self.job.stage("store", total=len(keys), unit="chunks")
        await settle(
            stack,
            self.store,
            keys,
            token_ids,
            salt,
            job=self.job,
            timeout_s=self.settings.storage.durable_timeout_s,
        )
        refs = [ref for ref in await self.store.seal(keys) if ref is not None]
        if len(refs) != len(keys):
            raise KVStoreError(
                f"{len(keys) - len(refs)} of {len(keys)} chunks were not read back as computed.",
                hint="The disk may be failing: see cwm doctor and cwm logs lmcache.",
            )
        noted, _ = await probe.ask(stack, token_ids, salt, top=limits.probe_top)
        arrival.refs, arrival.probe = refs, noted
        arrival.as_shown = await self._as_shown(details.transcript)
        arrival.compared = probe.compare(details.probe, noted, tolerance=limits.probe_tolerance)

    async def _as_shown(self, transcript: Transcript) -> bool | None:
        """Return whether the tokens, for the model, say what the messages show to people.

        So it must be at the end of each turn, as one can go back there. None: the engine does not
        tell.
        """
        turns = transcript.turns
        self.job.stage("compare", total=len(turns), unit="turns")
        for turn in turns:
            same = await self._same_words(until(transcript, turn.number, "window"))
            if not same:
                return same
            self.job.advance(turn.number)
        return True

    async def _same_words(self, transcript: Transcript) -> bool | None:
        engine = self.stack.engine
        try:
            rendered = await engine.tokenize(transcript.messages, add_generation_prompt=False)
        except CWMError as error:
            # The messages are of the signer's choice, and could be such that nobody can compare.
            return False if _refused(error) and not self.trusted else None
        with suppress(CWMError):
            # White space does not count: templates strip it.
            shown = "".join((await engine.detokenize(rendered)).split())
            seen = "".join((await engine.detokenize(transcript.token_ids)).split())
            # The end of the last turn is not among the tokens before the next one begins.
            return shown.startswith(seen) and len(shown) - len(seen) <= _MAX_END
        return None

    def _salt(self, arrival: Arrival) -> str:
        return self.lineages.salt(arrival.lineage_id, self.facts.fingerprint)

    async def drop(self, found: Sequence[Arrival]) -> bool:
        """Delete what was stored, and return whether that is all that can ever be there."""
        keys = [key for arrival in found for key in arrival.keys]
        with suppress(CWMError):  # a stack that died took its memory along
            await self.stack.keeper().drop(keys)
        await self.store.delete(keys)
        return False  # some may still be on their way to the disk


def _refused(error: CWMError) -> bool:
    """Return whether the engine found fault with what it was sent."""
    return isinstance(error, ContextFullError) or 400 <= error.context.get("status", 0) < 500


def _check_engine(
    name: str, archived: Fingerprint, engine: Fingerprint, fields: Sequence[str]
) -> None:
    differ = surely_differ(archived, engine, fields)
    if not differ:
        return
    if differ[0] in SAME_WORDS:
        what, hint = "tokenizer", "Start a stack with its model, then import again."
    else:
        what = "model"
        hint = "Start a stack with its model, or have this one compute it: --recompute."
    raise EngineMismatchError(
        f"The window {name!r} cannot be computed here: it is of another {what} than the running "
        "engine's.",
        hint=hint,
        differences=differ,
    )

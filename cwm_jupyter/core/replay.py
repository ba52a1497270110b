"""Replay: compute chunks of a window again, in the shapes in which they were computed first.

The last digits of KV depend on how many tokens are computed at once. So turns are replayed as they
were: each prompt on the whole chunks of the turns before it, then the answer token by token. Where
a greedy engine gives another answer (the turn had been sampled) the next prompt covers it, in
another shape.

It happens in a lineage of its own, with a salt that nothing else has: no stale and no damaged KV
can get into it, and nobody can see it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field

import anyio
from anyio import to_thread

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.freeze import settle
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.kept import KeptStore
from cwm_jupyter.core.library import Library, Manifest
from cwm_jupyter.core.models import ChunkRef, Fingerprint, Turn
from cwm_jupyter.errors import CWMError, KVStoreError

__all__ = ["Plan", "Replay"]

#: LMCache stores asynchronously: what it still stores at the end is swept up within this time
_SWEEP_S, _SWEEP_POLL_S = 2.0, 0.1


@dataclass(frozen=True)
class Plan:
    """Which turns to replay; chunks before `first_chunk` are taken as they are.

    The last token of an answer is computed with the turn after it, as it was.
    """

    turns: Sequence[Turn]
    first_chunk: int
    end_tokens: int
    computed_tokens: int

    @classmethod
    def of(cls, turns: Sequence[Turn], chunks: Sequence[int], chunk_tokens: int) -> Plan:
        """Plan for these chunks, in ascending order.

        From the last turn that found all whole chunks before it without them, to the first that
        completed the last of them.
        """
        found = [max(turn.start - 1, 0) // chunk_tokens for turn in turns]
        completed = [(turn.end - 1) // chunk_tokens for turn in turns]
        first = max(i for i, number in enumerate(found) if number <= chunks[0])
        last = next(i for i, number in enumerate(completed) if number > chunks[-1])
        end = turns[last].end
        return cls(turns[first : last + 1], found[first], end, end - found[first] * chunk_tokens)


@dataclass
class Replay:
    """One replay.

    Parameters
    ----------
    stack, store, library
        The running stack, its store, and where secrets are kept.
    manifest, fingerprint
        The window's, and the engine's present one.
    plan
        What to replay.
    job
        Told of the tokens computed.
    durable_timeout_s
        How long storing may take.
    """

    stack: ConnectedStack
    store: KeptStore
    library: Library
    manifest: Manifest
    fingerprint: Fingerprint
    plan: Plan
    job: Job
    durable_timeout_s: float
    #: turns whose answers came out otherwise
    differed: int = 0
    _sent: list[list[int]] = field(default_factory=list)

    @asynccontextmanager
    async def chunks(self, wanted: Sequence[int]) -> AsyncIterator[list[ChunkRef]]:
        """Compute, and give the contents of these positions; held while the block runs.

        Raises
        ------
        KVStoreError
            What was computed did not become durable.
        """
        lineage_id = await to_thread.run_sync(self.library.lineages.create)
        salt = self.library.lineages.salt(lineage_id, self.fingerprint)
        try:
            token_ids = self.manifest.transcript.token_ids[: self.plan.end_tokens]
            keys = self.stack.keys(token_ids, salt)
            await self.store.hold(lineage_id, keys)
            for i in range(self.plan.first_chunk * self.stack.world_size):
                await self.store.point(keys[i], self.manifest.refs[i])
            await self._replay(token_ids, salt)
            yield await self._stored([keys[i] for i in wanted], token_ids, salt)
        finally:
            with anyio.CancelScope(shield=True):
                await self._clear(lineage_id, salt)

    async def _replay(self, token_ids: list[int], salt: str) -> None:
        self.job.stage("compute", total=self.plan.computed_tokens, unit="tokens")
        agreed = True
        for turn in self.plan.turns:
            agreed = await self._turn(token_ids, turn, salt)
            self.differed += not agreed
        if not agreed:  # then no later prompt covers what the last answer should have been
            self._sent.append(token_ids)
            await self.stack.engine.complete(token_ids, cache_salt=salt, max_tokens=1)

    async def _turn(self, token_ids: list[int], turn: Turn, salt: str) -> bool:
        """Ask for a turn's answer again and return whether it is the same one."""
        prompt, answer = token_ids[: turn.prompt_end], token_ids[turn.prompt_end : turn.end]
        before = self.plan.computed_tokens - self.plan.end_tokens + turn.prompt_end
        stream = self.stack.engine.stream(
            prompt, cache_salt=salt, max_tokens=len(answer), ignore_eos=True
        )
        given: list[int] = []
        try:
            async with aclosing(stream) as deltas:
                async for delta in deltas:
                    given += delta.token_ids
                    self.job.advance(before + len(given))
                    if given != answer[: len(given)]:
                        return False  # leaving makes the engine stop
        finally:
            self._sent.append([*prompt, *given])
        return given == answer

    async def _stored(
        self, keys: list[ChunkKey], token_ids: list[int], salt: str
    ) -> list[ChunkRef]:
        self.job.stage("store", total=len(keys), unit="chunks")
        await settle(
            self.stack,
            self.store,
            keys,
            token_ids,
            salt,
            job=self.job,
            timeout_s=self.durable_timeout_s,
        )
        refs = [ref for ref in await self.store.seal(keys) if ref is not None]
        if len(refs) != len(keys):
            raise KVStoreError(
                f"{len(keys) - len(refs)} of {len(keys)} chunks were not read back as computed.",
                hint="The disk may be failing: see cwm doctor and cwm logs lmcache.",
            )
        return refs

    async def _clear(self, lineage_id: str, salt: str) -> None:
        """Leave nothing of the replay, neither in LMCache nor in the store, and forget its salt."""
        sent = [key for token_ids in self._sent for key in self.stack.keys(token_ids, salt)]
        with suppress(CWMError):  # a stack that died took its memory along
            await self.stack.keeper().drop(list(dict.fromkeys(sent)))
        await self.store.purge([lineage_id], salts=[salt])
        deadline = time.monotonic() + _SWEEP_S
        quiet = 0
        while quiet < 2 and time.monotonic() < deadline:
            await anyio.sleep(_SWEEP_POLL_S)
            quiet = 0 if await self.store.clear(salt=salt) else quiet + 1
        await to_thread.run_sync(self.library.lineages.remove, lineage_id)

"""What tests on the real stack do again and again."""

from __future__ import annotations

import argparse
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx2

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.models import Session
from cwm_jupyter.core.transcript import Transcript, render_turn
from cwm_jupyter.stack.state import current
from cwm_jupyter.workspace import Workspace

#: real text, about 3.7 characters a token
SOURCE = Path(argparse.__file__).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Held:
    """A session as the engine and the store see it."""

    session: Session
    transcript: Transcript
    salt: str
    keys: list[ChunkKey]


@dataclass(frozen=True)
class Continuation:
    """Greedy tokens after a prompt, each with its log-probability."""

    token_ids: list[int]
    logprobs: list[float]
    cached_tokens: int | None


class Driver:
    """A workspace, and shortcuts."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.manager = workspace.manager

    def text(self, characters: int = 2500, start: int = 0) -> str:
        """Real text."""
        return SOURCE[start : start + characters]

    async def talk(self, name: str, *questions: str, max_tokens: int = 24) -> Session:
        """A session in which these questions were asked."""
        if await self.manager.find_session(name) is None:
            await self.manager.create_session(name)
        for question in questions:
            await self.manager.say(name, question, max_tokens=max_tokens)
        return await self.manager.session(name)

    async def held(self, name: str) -> Held:
        """Look at a session's tokens, salt and chunk keys."""
        stack = await self.workspace.connect()
        session = await self.manager.session(name)
        transcript = self.workspace.library.transcript(session)
        fingerprint = (await stack.facts()).fingerprint
        salt = self.workspace.library.lineages.salt(session.lineage_id, fingerprint)
        return Held(session, transcript, salt, stack.keys(transcript.token_ids, salt))

    async def go_on(self, name: str, tokens: int = 48) -> Continuation:
        """Generate greedily from where a session stands, without recording it."""
        held = await self.held(name)
        return await self.generate(held.transcript.token_ids, held.salt, tokens)

    async def ask(self, name: str, question: str, tokens: int = 48) -> Continuation:
        """Answer a question greedily from where a session stands, and leave nothing of it.

        What is left in the caches would be found by the next one that asks the same, who would
        compute less at once and so round otherwise.
        """
        stack, held = await self.workspace.connect(), await self.held(name)
        asked = await render_turn(stack.engine, held.transcript, question)
        prompt = [*held.transcript.token_ids, *asked]
        answer = await self.generate(prompt, held.salt, tokens)
        keys = stack.keys([*prompt, *answer.token_ids, 0], held.salt)
        while True:
            if not await stack.keeper().unstored():
                break
            await anyio.sleep(0.02)
        assert await stack.keeper().drop(keys[len(held.keys) :], tier="all")
        assert await stack.forget(keys)
        return answer

    async def generate(self, prompt: list[int], salt: str, tokens: int) -> Continuation:
        """Generate greedily."""
        stack = await self.workspace.connect()
        token_ids: list[int] = []
        logprobs: list[float] = []
        cached = None
        stream = stack.engine.stream(
            prompt, cache_salt=salt, max_tokens=tokens, top_logprobs=1, ignore_eos=True
        )
        async with aclosing(stream) as deltas:
            async for delta in deltas:
                token_ids += delta.token_ids
                logprobs += delta.logprobs
                cached = delta.cached_tokens if delta.cached_tokens is not None else cached
        return Continuation(token_ids, logprobs, cached)

    async def forget_in_engine(self) -> None:
        """Empty the engine's own prefix cache, so that hits come from LMCache."""
        state = current(self.workspace.settings.home)
        assert state is not None
        headers = {"Authorization": f"Bearer {state.api_key}"}
        async with httpx2.AsyncClient(trust_env=False, headers=headers) as client:
            response = await client.post(f"{state.engine_url}/reset_prefix_cache")
        assert response.status_code == 200

    async def chunk_bytes(self) -> int:
        """Ask the engine how many bytes a chunk's KV has: the data type is the machine's choice."""
        stack = await self.workspace.connect()
        per_token = (await stack.facts()).kv_bytes_per_token
        assert per_token is not None
        return per_token * stack.chunk_tokens

    async def stored(self, keys: list[ChunkKey]) -> dict[ChunkKey, bytes]:
        """Read chunks from the store."""
        stack = await self.workspace.connect()
        assert stack.store is not None
        return {key: await stack.store.read(key) for key in keys}

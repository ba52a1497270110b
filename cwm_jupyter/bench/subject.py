"""A subject of the bench: a running stack with one store and codec, and what is done to it."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import httpx2

from cwm_jupyter.bench.coding import Coding
from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.library import Manifest
from cwm_jupyter.core.models import FreezeReport, ThawReport
from cwm_jupyter.core.transcript import render_turn
from cwm_jupyter.errors import StackError
from cwm_jupyter.sample import continuation, real_text
from cwm_jupyter.stack.state import current
from cwm_jupyter.workspace import Workspace

__all__ = ["ROOM_TOKENS", "Context", "Sample", "Subject"]

#: what a context has beside its text: question, answer, and room for the next turn
ROOM_TOKENS = 160
_QUESTION = "Which module is this? Answer in one sentence."
_NEXT_QUESTION = "Name one function that is defined in it."
_ANSWER_TOKENS = 16
_POLL_S = 0.005
_PATIENCE_S = 20.0


@dataclass(frozen=True)
class Context:
    """A frozen context. `nominal` is the length that was asked for, in tokens."""

    nominal: int
    session: str
    window: str
    salt: str
    keys: list[ChunkKey]
    manifest: Manifest
    cold_s: float
    first_freeze: FreezeReport

    @property
    def token_ids(self) -> list[int]:
        """All tokens of the context."""
        return self.manifest.transcript.token_ids

    @property
    def size_bytes(self) -> int | None:
        """Bytes of its KV."""
        return self.first_freeze.window.size_bytes


@dataclass(frozen=True)
class Sample:
    """What one repetition measured; seconds to the first token but for the freeze."""

    thaw: ThawReport
    next_s: float
    live_s: float
    freeze: FreezeReport


@dataclass
class Subject:
    """A stack, the store that it has its chunks in, and how they are coded there.

    Methods block; they run in the workspace's own loop.

    Parameters
    ----------
    workspace
        On a running stack.
    store, codec
        As in the rows.
    coding
        Exchanges the files of a context, where there are several codecs in one vault.
    """

    workspace: Workspace
    store: str
    codec: str
    coding: Coding | None = None

    def make(self, nominal: int, *, start: int = 0, name: str = "bench") -> Context:
        """Read a text of about so many tokens, cold, and freeze what that gave."""
        return self.workspace.run(partial(self._make, nominal, start, name))

    async def _make(self, nominal: int, start: int, name: str) -> Context:
        manager, stack = self.workspace.manager, await self.workspace.connect()
        name = f"{name}-{nominal}-{uuid.uuid4().hex[:6]}"
        text = await real_text(stack, nominal, start=start)
        await manager.create_session(name)
        reply = await manager.say(name, f"{text}\n\n{_QUESTION}", max_tokens=_ANSWER_TOKENS)
        report = await manager.freeze(name, name, note="Made by cwm bench.")
        return await self._context(nominal, name, reply.ttft_s or reply.total_s, report)

    async def _context(
        self, nominal: int, name: str, cold_s: float, report: FreezeReport
    ) -> Context:
        stack, library = await self.workspace.connect(), self.workspace.library
        manifest = library.manifest(report.window)
        salt = library.lineages.salt(report.window.lineage_id, (await stack.facts()).fingerprint)
        return Context(
            nominal=nominal,
            session=name,
            window=name,
            salt=salt,
            keys=stack.keys(manifest.transcript.token_ids, salt),
            manifest=manifest,
            cold_s=cold_s,
            first_freeze=report,
        )

    def measure(self, context: Context) -> Sample:
        """Thaw from the store, ask on, hit the live engine, and freeze again."""
        self._recode()
        return self.workspace.run(self._measure, context)

    async def _measure(self, context: Context) -> Sample:
        manager, stack = self.workspace.manager, await self.workspace.connect()
        follow_up = await render_turn(stack.engine, context.manifest.transcript, _NEXT_QUESTION)
        prompt = [*context.token_ids, *follow_up]
        beyond = stack.keys(prompt, context.salt)[len(context.keys) :]
        if beyond:  # or the question would find in the store what it left the time before
            await stack.keeper().drop(beyond, tier="all")
        await self._forget(context)
        thawed = await manager.thaw(context.window)
        asked = await continuation(stack, prompt, context.salt, 1)
        live = await continuation(stack, context.token_ids, context.salt, 1)
        again = f"{context.window}-again"
        frozen = await manager.freeze(again, context.session)
        await manager.remove_window(again)
        await manager.remove_session(thawed.session)
        return Sample(thaw=thawed, next_s=asked.ttft_s, live_s=live.ttft_s, freeze=frozen)

    def prefetch(self, context: Context) -> float:
        """Have LMCache load the context's chunks, which it does not have, and return how long.

        Raises
        ------
        StackError
            It did not find them all.
        """
        self._recode()
        return self.workspace.run(self._prefetch, context)

    async def _prefetch(self, context: Context) -> float:
        """Ask often and evenly: the client's growing waits would be most of what is measured."""
        stack, state = await self.workspace.connect(), current(self.workspace.settings.home)
        await stack.keeper().drop(context.keys)
        body = {
            "model_name": stack.kv_model_name,
            "world_size": stack.world_size,
            "token_ids": context.token_ids,
            "cache_salt": context.salt,
        }
        key = state.api_key if state is not None else None
        async with httpx2.AsyncClient(
            base_url=stack.keeper().url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            trust_env=False,
        ) as client:
            await client.get("/healthcheck")  # connected before the clock starts
            started = time.perf_counter()
            answer = await client.post("/cache/prefetches", json=body)
            path = f"/cache/prefetches/{answer.json()['request_id']}"
            progress: dict[str, Any] = {}
            while progress.get("status") != "completed":
                if progress:
                    await anyio.sleep(_POLL_S)
                progress = (await client.get(path)).raise_for_status().json()
                took_s = time.perf_counter() - started
                if took_s > _PATIENCE_S:
                    break
        if progress.get("found_keys") != len(context.keys):
            raise StackError(
                f"LMCache loaded {progress.get('found_keys')} of {len(context.keys)} chunks.",
                hint="See cwm logs lmcache.",
            )
        return took_s

    async def _forget(self, context: Context) -> None:
        """Have both servers drop the context; a request that has just ended may still be in use."""
        stack = await self.workspace.connect()
        deadline = time.monotonic() + _PATIENCE_S
        while not await stack.forget(context.keys):
            if time.monotonic() > deadline:
                raise StackError(
                    "The engine does not drop its prefix cache.",
                    hint="Other requests may be using it: run the bench on a stack of its own.",
                )
            await anyio.sleep(0.05)

    def _recode(self) -> None:
        if self.coding is not None:
            self.coding.use("planes" if self.codec == "planes" else "raw")

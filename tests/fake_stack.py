"""A stack without a model: vLLM and LMCache at the HTTP boundary, for tests of the core.

What matters of the real ones is here. The engine has a prefix cache and takes longer prefixes from
LMCache; LMCache has a memory (L1) and the vault (L2), which is the real one; it stores
asynchronously, never retries, and does not store again what it finds in its memory. The
log-probabilities depend on the prompt and on the very bytes of the chunks that were used, so that
wrong bytes give wrong answers; a chunk that is computed from another position than at first has
other last bytes, which shift the log-probabilities by a little.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import blake3
import httpx2

from cwm_jupyter.clients.lmcache import LMCacheClient
from cwm_jupyter.clients.vllm import VLLMClient
from cwm_jupyter.core.chunks import ChunkKey, chunk_hashes, chunk_keys
from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.models import Message
from cwm_jupyter.vault.files import Item, Vault
from cwm_jupyter.vault.store import VaultStore

END, SYSTEM, USER, ASSISTANT = 1, 2, 3, 4
_ROLES = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
_FIRST_CHARACTER = 16
#: pairs that the tokeniser joins, as a real one does: a text can be split in several ways
_PAIRS = {"th": 10, "he": 11, "in": 12, "es": 13, "42": 14}
_WORDS = "abcdefghijklmnopqrstuvwxyz "

#: of one rank's chunk
BYTES_PER_TOKEN = 8


def encode(text: str) -> list[int]:
    """Tokenise greedily from the left."""
    ids, at = [], 0
    while at < len(text):
        pair = _PAIRS.get(text[at : at + 2])
        ids.append(_FIRST_CHARACTER + ord(text[at]) if pair is None else pair)
        at += 1 if pair is None else 2
    return ids


def decode(ids: Sequence[int]) -> str:
    """Return the text of ids, special tokens left out."""
    pairs = {token: pair for pair, token in _PAIRS.items()}
    return "".join(
        pairs.get(token) or (chr(token - _FIRST_CHARACTER) if token >= _FIRST_CHARACTER else "")
        for token in ids
    )


def render(messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
    """The chat template: a role's token, the content, the end-of-turn token."""
    ids: list[int] = []
    for message in messages:
        ids += [_ROLES[message.role], *encode(message.content), END]
    return [*ids, ASSISTANT] if add_generation_prompt else ids


class FakeStack:
    """The two servers.

    Attributes
    ----------
    engine_cache, memory
        What the engine and LMCache's L1 hold.
    told
        What the engine tells of itself; None: it has no such route.
    calls
        Every request so far, as in ``"POST /v1/completions"``.
    prompts
        The token ids of every completion request.
    before
        Called with each request's name before it is handled; may raise, or return a response.
    store
        Called for each chunk on its way to the vault: True writes it, False loses it.
    store_failure
        What LMCache's status says of stores that failed.
    answer_tokens
        Length of an answer, its end-of-turn token not counted.
    break_after
        A stream breaks off after so many tokens.
    block_tokens
        The engine's own cache goes by blocks of so many tokens.
    tells_cached
        Whether the engine tells how many tokens it took from cache.
    stall_after, stalled
        A stream sets `stalled` after so many tokens and then says nothing more.
    """

    def __init__(
        self, folder: Path, *, chunk_tokens: int = 16, world_size: int = 1, max_context: int = 4096
    ) -> None:
        self.vault = Vault(folder)
        self.chunk_tokens = chunk_tokens
        self.block_tokens = chunk_tokens
        self.world_size = world_size
        self.max_context = max_context
        self.model = "toy"
        self.engine_cache: dict[ChunkKey, bytes] = {}
        self.memory: dict[ChunkKey, bytes] = {}
        self.told: dict[str, Any] | None = {
            "exact": True,
            "why_inexact": None,
            "max_context_tokens": max_context,
            "kv_bytes_per_token": BYTES_PER_TOKEN * world_size,
            "weights_digest": "w1",
            "model_config_digest": "c1",
            "dtype": "bfloat16",
            "kv_cache_dtype": "auto",
            "block_tokens": chunk_tokens,
            "kv_layout": "NHD",
            "attention_backend": "CPU_ATTN",
            "cpu_isa": "vec",
            "tensor_parallel": world_size,
            "pipeline_parallel": 1,
            "lora": "none",
            "rope": "none",
            "quantization": "none",
            "vllm_version": "0.32.0",
            "torch_version": "2.13.0",
            "lmcache_version": "0.5.6",
            "threads": 2,
            "tokenizer_digest": "t1",
            "chat_template_digest": "ct1",
        }
        self.calls: list[str] = []
        self.prompts: list[list[int]] = []
        self.before: Callable[[str], httpx2.Response | None] = lambda call: None
        self.store: Callable[[ChunkKey], bool] = lambda key: True
        self.store_failure: str | None = None
        self.answer_tokens = 40
        self.break_after: int | None = None
        self.stall_after: int | None = None
        self.stalled = asyncio.Event()
        self.running_requests = 0
        self.tells_cached = True
        self._engine_blocks: set[tuple[str, bytes]] = set()
        self._prefetches: dict[str, dict[str, Any]] = {}

    async def connect(self, *, readable: bool = True, cache: bool = True) -> ConnectedStack:
        """Connect to it; `readable` is whether the vault can be seen."""
        transport = httpx2.MockTransport(self._handle)
        return await ConnectedStack.open(
            VLLMClient("http://127.0.0.1:1", retries=0, transport=transport),
            LMCacheClient("http://127.0.0.1:2", transport=transport) if cache else None,
            store=VaultStore(self.vault) if readable else None,
            kv_model_name=None,
            world_size=None,
            chunk_tokens=None,
        )

    def restart(self) -> None:
        """End both servers and start them again: only the vault remains."""
        self.engine_cache.clear()
        self._engine_blocks.clear()
        self.memory.clear()

    def write(self, key: ChunkKey) -> None:
        """Write a chunk into the vault."""
        self.vault.store([Item(key=key, raw=memoryview(self.engine_cache[key]))])

    def files(self) -> list[Path]:
        """The vault's contents, oldest prefix first as far as writing times tell."""
        contents = self.vault.folder.contents.glob("*.kv")
        return sorted(contents, key=lambda path: path.stat().st_mtime_ns)

    # The wire

    async def _handle(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.rstrip("/")
        name = "/cache/prefetches/ID" if path.startswith("/cache/prefetches/") else path
        call = f"{request.method} {name}"
        self.calls.append(call)
        early = self.before(call)
        if early is not None:
            return early
        body = json.loads(await request.aread() or b"{}")
        routes: dict[str, Callable[[dict[str, Any]], Any]] = {
            "GET /v1/models": self._models,
            "GET /cwm/facts": lambda _: self.told,
            "POST /tokenize": self._tokenize,
            "POST /detokenize": lambda body: {"prompt": decode(body["tokens"])},
            "GET /status": self._status,
            "POST /cache/prefetches": self._prefetch,
            "GET /cache/prefetches/ID": lambda _: self._prefetches.pop(path.rpartition("/")[2]),
            "DELETE /cache/objects": self._delete,
            "POST /cwm/forget": self._forget,
        }
        if call == "POST /v1/completions":
            return self._complete(body)
        if call == "GET /metrics":
            return httpx2.Response(
                200, text=f'vllm:num_requests_running{{engine="0"}} {self.running_requests}\n'
            )
        answer = routes[call](body) if call in routes else None
        return httpx2.Response(404 if answer is None else 200, json=answer)

    def _models(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"data": [{"id": self.model, "max_model_len": self.max_context}]}

    def _tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        messages = [Message.from_dict(message) for message in body["messages"]]
        ids = render(messages, add_generation_prompt=body["add_generation_prompt"])
        return {"tokens": ids, "count": len(ids)}

    def _status(self, body: dict[str, Any]) -> dict[str, Any]:
        engine = {"model_name": self.model, "world_size": self.world_size}
        return {
            "chunk_size": self.chunk_tokens,
            "hash_algorithm": "blake3",
            "cache_context_meta": {},
            "non_cuda_context_meta": {"1": engine},
            "storage_manager": {
                "l2_adapters": [
                    # each look finds that more of them failed
                    {"last_failure": self.store_failure, "counters": {"failed": len(self.calls)}}
                ]
            },
        }

    def _forget(self, body: dict[str, Any]) -> dict[str, Any] | None:
        if self.told is None:
            return None
        self.engine_cache.clear()
        self._engine_blocks.clear()
        return {}

    def _prefetch(self, body: dict[str, Any]) -> dict[str, Any]:
        groups = self._groups(body["token_ids"], body["cache_salt"])
        there = [all(self._in_memory(key) for key in group) for group in groups]
        found = self.world_size * [*there, False].index(False)  # the prefix; all are loaded
        request = f"r{len(self.calls)}"
        total = len(groups) * self.world_size
        self._prefetches[request] = {
            "status": "completed",
            "found_keys": found,
            "total_keys": total,
        }
        return {"request_id": request if groups else None}

    def _delete(self, body: dict[str, Any]) -> dict[str, Any]:
        deleted = 0
        for wire in body["keys"]:
            key = ChunkKey(
                chunk_hash=bytes.fromhex(wire["chunk_hash_hex"]),
                model_name=wire["model_name"],
                kv_rank=wire["kv_rank"],
                cache_salt=wire["cache_salt"],
            )
            if body["tier"] in ("l1", "all"):
                deleted += self.memory.pop(key, None) is not None
            if body["tier"] in ("l2", "all"):
                self.vault.delete([key])
                deleted += 1  # of the disk, an absent one counts too
        return {"deleted": deleted, "skipped": 0, "ok": True}

    # Completions

    def _complete(self, body: dict[str, Any]) -> httpx2.Response:
        prompt, salt = body["prompt"], body["cache_salt"]
        self.prompts.append(prompt)
        room = self.max_context - len(prompt)
        if room < 1:
            said = f"This model's maximum context length is {self.max_context} tokens."
            return httpx2.Response(400, json={"error": {"message": said}})
        used = self._take(prompt, salt)
        ids, finish_reason, tops = self._generate(prompt, used, min(body["max_tokens"], room))
        usage: dict[str, Any] = {"prompt_tokens": len(prompt)}
        if self.tells_cached:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        if body.get("stream"):
            stream = self._stream(prompt, salt, ids, finish_reason, usage)
            return httpx2.Response(
                200, headers={"content-type": "text/event-stream"}, content=stream
            )
        self._keep([*prompt, *ids[:-1]], salt)
        shown = [{f"token_id:{t}": p for t, p in top[: body["logprobs"]]} for top in tops]
        choice = {
            "text": decode(ids),
            "token_ids": ids,
            "finish_reason": finish_reason,
            "logprobs": {"token_logprobs": [top[0][1] for top in tops], "top_logprobs": shown},
        }
        return httpx2.Response(200, json={"choices": [choice], "usage": usage})

    async def _stream(
        self,
        prompt: list[int],
        salt: str,
        ids: list[int],
        finish_reason: str,
        usage: dict[str, Any],
    ) -> AsyncIterator[bytes]:
        for count, token in enumerate(ids, 1):
            choice = {
                "text": decode([token]),
                "token_ids": [token],
                "logprobs": None,
                "finish_reason": finish_reason if count == len(ids) else None,
            }
            yield _event({"choices": [choice]})
            if count == self.break_after:
                raise httpx2.ReadError("broken")
            if count == self.stall_after:
                self._keep([*prompt, *ids[:count]], salt)
                self.stalled.set()
                await asyncio.Event().wait()
        self._keep([*prompt, *ids[:-1]], salt)
        yield _event({"choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    def _generate(
        self, prompt: list[int], used: list[bytes], max_tokens: int
    ) -> tuple[list[int], str, list[list[tuple[int, float]]]]:
        """Greedy: the next tokens are a hash of the context and of what is wrong with its KV."""
        wrong, shift = self._judge(prompt, used)
        ids: list[int] = []
        tops = []
        while len(ids) < max_tokens:
            context = [*prompt, *ids]
            top = _likeliest(repr(context).encode() + wrong, shift)
            answer = _open_answer(context)
            if answer is not None and len(answer) >= self.answer_tokens:
                top = [(END, -0.001), *top]
            tops.append(top)
            ids.append(top[0][0])
            if ids[-1] == END:
                return ids, "stop", tops
        return ids, "length", tops

    def _judge(self, prompt: list[int], used: list[bytes]) -> tuple[bytes, float]:
        """What is wrong with the chunks used, and how far their last digits shift the logits."""
        wrong, shift = b"", 0.0001 * self.cached_tokens
        hashes = chunk_hashes(prompt, self.chunk_tokens)
        for index, data in enumerate(used):
            body, digits = data[:-1], data[-1]
            if body != self._kv(hashes[index // self.world_size], index % self.world_size):
                wrong += data
            shift += 0.0001 * digits
        return wrong, shift

    def _take(self, prompt: list[int], salt: str) -> list[bytes]:
        """Take what the caches have, compute the rest, and return the bytes of all usable chunks.

        `cached_tokens` is what came from the caches.
        """
        groups = self._groups(prompt[: len(prompt) - 1], salt)
        cached = 0
        for group in groups:
            if not all(key in self.engine_cache or self._in_memory(key) for key in group):
                break
            for key in group:
                self.engine_cache.setdefault(key, self.memory.get(key, b""))
            cached += 1
        self.cached_tokens = cached * self.chunk_tokens
        for count, block in enumerate(chunk_hashes(prompt[:-1], self.block_tokens), 1):
            if (salt, block) not in self._engine_blocks:
                break
            self.cached_tokens = max(self.cached_tokens, count * self.block_tokens)
        self._compute(groups[cached:], cached)
        return [self.engine_cache[key] for group in groups for key in group]

    def _keep(self, token_ids: list[int], salt: str) -> None:
        """Put all full chunks into the engine's cache, and store those that are not in L1."""
        groups = self._groups(token_ids, salt)
        self._engine_blocks |= {(salt, h) for h in chunk_hashes(token_ids, self.block_tokens)}
        self._compute(groups, self.cached_tokens // self.chunk_tokens)
        for group in groups:
            for key in group:
                if key not in self.memory:
                    self.memory[key] = self.engine_cache[key]
                    if self.store(key):
                        self.write(key)

    def _compute(self, groups: list[list[ChunkKey]], start: int) -> None:
        for group in groups:
            for rank, key in enumerate(group):
                if key not in self.engine_cache:
                    self.engine_cache[key] = self._kv(key.chunk_hash, rank) + bytes([start % 256])

    def _kv(self, chunk_hash: bytes, rank: int) -> bytes:
        size = BYTES_PER_TOKEN * self.chunk_tokens - 1
        return blake3.blake3(chunk_hash + bytes([rank])).digest(length=size)

    def _in_memory(self, key: ChunkKey) -> bool:
        """Whether L1 has a chunk, loaded from the vault if need be."""
        if key in self.memory:
            return True
        data = bytearray(BYTES_PER_TOKEN * self.chunk_tokens)
        if self.vault.load(key, memoryview(data)).state != "intact":
            return False
        self.memory[key] = bytes(data)
        return True

    def _groups(self, token_ids: list[int], salt: str) -> list[list[ChunkKey]]:
        keys = chunk_keys(
            chunk_hashes(token_ids, self.chunk_tokens),
            model_name=self.model,
            world_size=self.world_size,
            cache_salt=salt,
        )
        return [keys[at : at + self.world_size] for at in range(0, len(keys), self.world_size)]


def _open_answer(context: list[int]) -> list[int] | None:
    """Return what the assistant has said since its turn began, None where it is not its turn."""
    if ASSISTANT not in context:
        return None
    opened = len(context) - context[::-1].index(ASSISTANT)
    return None if END in context[opened:] else context[opened:]


def _likeliest(context: bytes, shift: float) -> list[tuple[int, float]]:
    """Twenty next tokens and their log-probabilities, likeliest first."""
    noise = blake3.blake3(context).digest(length=len(_WORDS))
    order = sorted(range(len(_WORDS)), key=lambda index: (noise[index], index))[:20]
    return [
        (_FIRST_CHARACTER + ord(_WORDS[index]), -0.5 - 0.25 * rank - noise[index] / 512 - shift)
        for rank, index in enumerate(order)
    ]


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"

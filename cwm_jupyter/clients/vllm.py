"""The engine's HTTP API, as vLLM 0.32 speaks it: token ids in, token ids out."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import httpx2

from cwm_jupyter.clients._http import Client, Http, Service
from cwm_jupyter.clients._vllm_wire import (
    ChatAnswer,
    Completion,
    CompletionAnswer,
    Delta,
    Models,
    Prompt,
    ServedModel,
    StreamEvent,
    Tokens,
    Version,
)
from cwm_jupyter.clients.metrics import EngineFigures, engine_figures
from cwm_jupyter.core.models import Message
from cwm_jupyter.errors import (
    ContextFullError,
    CWMError,
    VLLMConnectionError,
    VLLMError,
    VLLMRequestError,
    VLLMResponseError,
    VLLMTimeoutError,
)

__all__ = ["Completion", "Delta", "ServedModel", "VLLMClient"]

# --- errors ---------------------------------------------------------------------------------------

_NO_ROOM = re.compile(r"maximum context length|max_tokens must be at least 1, got 0")


def _refusal(status: int, said: str, url: str, body: Mapping[str, Any]) -> CWMError:
    # A prompt that fills the context to the last token is refused by way of max_tokens.
    if status == 400 and body.get("max_tokens") != 0 and _NO_ROOM.search(said):
        return ContextFullError(f"The model's context is full: {said}", url=url)
    if status == 503:
        return VLLMConnectionError(f"vLLM at {url} is not available: {said}", url=url)
    hint = "Check vllm.api_key." if status in (401, 403) else None
    return VLLMRequestError(
        f"vLLM at {url} refused ({status}): {said}", hint=hint, url=url, status=status
    )


_VLLM = Service(
    name="vLLM",
    setting="vllm.url",
    hint="Start it with %cwm up, or check vllm.url.",
    connection=VLLMConnectionError,
    timeout=VLLMTimeoutError,
    response=VLLMResponseError,
    refusal=_refusal,
)


class VLLMClient(Client):
    """One engine, over HTTP; an async context manager, or close it with `aclose`.

    Parameters
    ----------
    url
        Where the server listens, as in ``http://127.0.0.1:8000``.
    api_key
        The server's key, where it has one.
    model
        The name to ask for; None: the first that the server serves.
    connect_timeout_s
        Limit for a connection.
    request_timeout_s
        Limit for a whole request with its retries; of a stream, for the silence between two pieces.
    retries
        Further attempts after a broken connection or a 503, with growing waits.
    max_connections
        Connections that are open at once.
    transport
        Replaces the network, for tests.

    Raises
    ------
    ConfigError
        The URL is malformed.

    Notes
    -----
    Every method that asks the server may raise `VLLMConnectionError` (not reached; the message
    names the URL), `VLLMTimeoutError`, `VLLMRequestError` (the server's own message) and
    `VLLMResponseError` (the message names the missing field).
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        connect_timeout_s: float = 5.0,
        request_timeout_s: float = 600.0,
        retries: int = 3,
        max_connections: int = 16,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = Http(
            _VLLM,
            url,
            api_key=api_key,
            connect_timeout_s=connect_timeout_s,
            request_timeout_s=request_timeout_s,
            retries=retries,
            max_connections=max_connections,
            transport=transport,
        )
        self._model = model

    # --- the server -------------------------------------------------------------------------------

    async def health(self) -> bool:
        """Say whether the engine answers and is alive; raises nothing."""
        return await self._http.answers("/health")

    async def version(self) -> str:
        """Return the version of vLLM."""
        return (await self._http.call("GET", "/version", Version)).version

    async def models(self) -> list[ServedModel]:
        """Return the served models."""
        return (await self._http.call("GET", "/v1/models", Models)).data

    async def serves(self, model: str) -> bool:
        """Say whether a model of this name is served."""
        return any(one.id == model for one in await self.models())

    async def facts(self) -> dict[str, Any] | None:
        """Return what an engine of ours tells about itself; None: it is not one of ours."""
        try:
            return await self._http.call("GET", "/cwm/facts", dict[str, Any])
        except VLLMRequestError as error:
            if error.context["status"] == 404:
                return None
            raise

    async def forget(self) -> bool:
        """Empty the engine's own prefix cache; False where the engine cannot or is in use."""
        try:
            await self._http.call("POST", "/cwm/forget", dict[str, Any])
        except VLLMRequestError:
            return False
        return True

    async def metrics(self) -> EngineFigures:
        """Return the engine's figures; without a server all are None (unavailable)."""
        try:
            return engine_figures(await self._http.text("/metrics"))
        except VLLMError:
            return EngineFigures()

    async def model(self) -> str:
        """Return the name of the model that requests ask for.

        Raises
        ------
        VLLMResponseError
            None was given, and the server serves none.
        """
        if self._model is None:
            served = await self.models()
            if not served:
                raise VLLMResponseError(f"vLLM at {self.url} serves no model.", url=self.url)
            self._model = served[0].id
        return self._model

    # --- tokens -----------------------------------------------------------------------------------

    async def tokenize(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True
    ) -> list[int]:
        """Render messages with the engine's own chat template and return the token ids."""
        body = {
            "model": await self.model(),
            "messages": [message.to_dict() for message in messages],
            "add_generation_prompt": add_generation_prompt,
        }
        return (await self._http.call("POST", "/tokenize", Tokens, body=body)).tokens

    async def tokenize_text(self, text: str) -> list[int]:
        """Return the token ids of a text, without special tokens around it."""
        body = {"model": await self.model(), "prompt": text, "add_special_tokens": False}
        return (await self._http.call("POST", "/tokenize", Tokens, body=body)).tokens

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens included."""
        body = {"model": await self.model(), "tokens": list(token_ids)}
        return (await self._http.call("POST", "/detokenize", Prompt, body=body)).prompt

    # --- generation -------------------------------------------------------------------------------

    async def complete(
        self,
        token_ids: Sequence[int],
        *,
        cache_salt: str,
        max_tokens: int,
        temperature: float = 0.0,
        top_logprobs: int = 0,
        seed: int | None = None,
        ignore_eos: bool = False,
    ) -> Completion:
        """Continue a prompt of token ids.

        Parameters
        ----------
        token_ids
            The whole context.
        cache_salt
            The lineage's salt: only requests with the same one share cached KV.
        max_tokens
            Longest answer (tokens).
        temperature
            0 is greedy.
        top_logprobs
            How many of the likeliest tokens to report per position.
        seed
            Of the sampling, where `temperature` is not 0.
        ignore_eos
            Generate on after the end-of-turn token.

        Raises
        ------
        ContextFullError
            The prompt leaves no room for a token.
        """
        body = await self._generation(
            token_ids, cache_salt, max_tokens, temperature, top_logprobs, seed, ignore_eos
        )
        answer = await self._http.call("POST", "/v1/completions", CompletionAnswer, body=body)
        choice = answer.choices[0]
        return Completion(
            token_ids=choice.token_ids,
            text=choice.text,
            prompt_tokens=answer.usage.prompt_tokens,
            cached_tokens=answer.usage.cached_tokens,
            finish_reason=choice.finish_reason,
            logprobs=choice.logprobs.token_logprobs,
            top=choice.logprobs.top(),
        )

    async def stream(
        self,
        token_ids: Sequence[int],
        *,
        cache_salt: str,
        max_tokens: int,
        temperature: float = 0.0,
        top_logprobs: int = 0,
        seed: int | None = None,
        ignore_eos: bool = False,
    ) -> AsyncGenerator[Delta]:
        """Continue a prompt and yield the pieces as they come; parameters as of `complete`.

        Closing the generator early (``contextlib.aclosing``), or cancelling, aborts the request at
        the server. Nothing is sent before the first piece is asked for.

        Raises
        ------
        ContextFullError
            The prompt leaves no room for a token.
        VLLMConnectionError
            Also where the stream broke off before the answer's end.
        """
        body = await self._generation(
            token_ids, cache_salt, max_tokens, temperature, top_logprobs, seed, ignore_eos
        )
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        last: Delta | None = None
        async with aclosing(self._http.events("/v1/completions", body)) as events:
            async for data in events:
                if data == "[DONE]":
                    continue  # and not break: a stream read to its end gives its connection back
                event = self._http.parse(data, StreamEvent, "POST /v1/completions")
                if event.error:
                    raise self._http.refusal(event.error.code, event.error.message, body)
                for choice in event.choices:
                    delta = choice.delta()
                    if delta.finish_reason is None:
                        yield delta
                    else:
                        last = delta  # kept back for the usage, which comes in an event of its own
                if event.usage and last:
                    last = last.replace(
                        prompt_tokens=event.usage.prompt_tokens,
                        cached_tokens=event.usage.cached_tokens,
                    )
        if last is None:
            raise VLLMConnectionError(f"The answer of vLLM at {self.url} broke off.", url=self.url)
        yield last

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        cache_salt: str,
        max_tokens: int,
        temperature: float = 0.0,
    ) -> Completion:
        """Answer messages, rendered by the server's own template.

        Raises
        ------
        ContextFullError
            The prompt leaves no room for a token.
        """
        body = {
            "model": await self.model(),
            "messages": [message.to_dict() for message in messages],
            "cache_salt": cache_salt,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "return_token_ids": True,
        }
        answer = await self._http.call("POST", "/v1/chat/completions", ChatAnswer, body=body)
        choice = answer.choices[0]
        return Completion(
            token_ids=choice.token_ids,
            text=choice.message.content or "",
            prompt_tokens=answer.usage.prompt_tokens,
            cached_tokens=answer.usage.cached_tokens,
            finish_reason=choice.finish_reason,
        )

    async def _generation(
        self,
        token_ids: Sequence[int],
        cache_salt: str,
        max_tokens: int,
        temperature: float,
        top_logprobs: int,
        seed: int | None,
        ignore_eos: bool,
    ) -> dict[str, Any]:
        """The body of a completion request."""
        return {
            "model": await self.model(),
            "prompt": list(token_ids),
            "cache_salt": cache_salt,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "logprobs": top_logprobs,
            "seed": seed,
            "ignore_eos": ignore_eos,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }

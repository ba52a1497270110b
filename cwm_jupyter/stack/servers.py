"""The few questions that starting and stopping ask the servers."""

from __future__ import annotations

import contextlib
from typing import Any, Self

import httpx2
import msgspec

from cwm_jupyter.errors import StackStartError
from cwm_jupyter.stack.state import StackState

__all__ = ["Servers"]

_QUICK_S = 5.0


class Servers:
    """Both servers of a stack, as far as the launcher needs them. A context manager.

    Parameters
    ----------
    stack
        Their URLs and the key.
    """

    def __init__(self, stack: StackState) -> None:
        headers = {"Authorization": f"Bearer {stack.api_key}"} if stack.api_key else {}
        # A proxy from the environment has no business between us and the loopback interface.
        direct = stack.kind == "local"
        self._http = httpx2.Client(headers=headers, timeout=_QUICK_S, trust_env=not direct)
        self._stack = stack

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def engine_answers(self) -> bool | None:
        """Return whether vLLM says that it is well; None: it is too busy to say."""
        return self._answers(f"{self._stack.engine_url}/health")

    def cache_answers(self) -> bool | None:
        """Return whether LMCache answers; None: it is too busy to, or has no URL."""
        url = self._stack.lmcache_url
        return None if url is None else self._answers(f"{url}/healthcheck")

    def served_model(self) -> str:
        """Return the name of the model that vLLM serves, the first of several.

        Raises
        ------
        StackStartError
            It does not answer, or refuses the key.
        """
        url = f"{self._stack.engine_url}/v1/models"
        try:
            answer = self._http.get(url)
            answer.raise_for_status()
            return str(answer.json()["data"][0]["id"])
        except (httpx2.HTTPError, ValueError, LookupError, TypeError) as error:
            raise StackStartError(
                f"No vLLM answers at {self._stack.engine_url}: {error or type(error).__name__}.",
                hint="Check the URL and the key.",
                url=self._stack.engine_url,
            ) from error

    def cache_facts(self) -> dict[str, Any]:
        """Return the fields of `StackState` that LMCache knows; None for what it does not tell."""
        status = self.cache_status() or {}
        engines: dict[str, Any] = {}
        for group in ("cache_context_meta", "non_cuda_context_meta"):
            engines |= status.get(group) or {}
        engine: dict[str, Any] = next((one for one in engines.values() if "model_name" in one), {})
        return {
            "chunk_tokens": status.get("chunk_size"),
            "kv_model_name": engine.get("model_name"),
            "world_size": engine.get("world_size"),
        }

    def cache_status(self) -> dict[str, Any] | None:
        """Return LMCache's status, None where it cannot be had."""
        url = self._stack.lmcache_url
        return None if url is None else self._document(f"{url}/status")

    def engine_facts(self) -> dict[str, Any] | None:
        """Return what the engine tells of itself, None where it does not; can take a minute."""
        return self._document(f"{self._stack.engine_url}/cwm/facts", timeout_s=60.0)

    def unstored(self) -> int | None:
        """Return how many chunks LMCache has yet to write to the vault, None if unknown."""
        status = self.cache_status() or {}
        store = status.get("storage_manager", {}).get("store_controller", {})
        figures = store.get("pending_keys_count"), store.get("in_flight_task_count")
        return None if None in figures else sum(figures)

    def work_done(self) -> float | None:
        """Return vLLM's count of tokens read and written so far, None where it does not tell.

        A request that runs counts as work too: the number grows with each token.
        """
        try:
            text = self._http.get(f"{self._stack.engine_url}/metrics").text
        except httpx2.HTTPError:
            return None
        counters = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
        lines = [line for line in text.splitlines() if line.startswith(counters)]
        return sum(float(line.rpartition(" ")[2]) for line in lines) if lines else None

    def complete(self, tokens: int, timeout_s: float) -> None:
        """Send a request of this length that no cache keeps anything of.

        Raises
        ------
        StackStartError
            The engine does not answer it.
        """
        body = {
            "model": self._stack.served_model,
            "prompt": list(range(5, 5 + tokens)),
            "max_tokens": 4,
            "temperature": 0,
            "logprobs": 1,
            "ignore_eos": True,
            "cache_salt": "warm-up",
        }
        try:
            answer = self._http.post(
                f"{self._stack.engine_url}/v1/completions", json=body, timeout=timeout_s
            )
            answer.raise_for_status()
        except httpx2.HTTPError as error:
            raise StackStartError(
                f"The engine did not answer its first request: {error or type(error).__name__}."
            ) from error

    def touch_engine(self, size_bytes: int) -> None:
        """Have the engine's memory given its first pages; an engine that cannot is let be."""
        with contextlib.suppress(httpx2.HTTPError):
            self._http.post(f"{self._stack.engine_url}/cwm/touch/{size_bytes}", timeout=60.0)

    def _document(self, url: str, timeout_s: float = _QUICK_S) -> dict[str, Any] | None:
        try:
            answer = self._http.get(url, timeout=timeout_s)
            answer.raise_for_status()
            return msgspec.json.decode(answer.content, type=dict[str, Any])
        except (httpx2.HTTPError, msgspec.MsgspecError):
            return None

    def _answers(self, url: str) -> bool | None:
        try:
            return self._http.get(url).is_success
        except httpx2.TimeoutException:
            return None
        except httpx2.HTTPError:
            return False

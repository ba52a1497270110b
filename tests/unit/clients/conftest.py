"""Fakes at the HTTP boundary: a scripted transport, and a loopback server where sockets matter."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import stamina

DATA = Path(__file__).parent / "data"
SALT = "a-salt-that-nobody-may-see"


class Wire:
    """A scripted server for `httpx2.MockTransport`: answers in order, the last one for ever."""

    def __init__(self) -> None:
        self.requests: list[httpx2.Request] = []
        self._script: dict[tuple[str, str], list[Any]] = {}

    def on(self, method: str, path: str, *answers: Any) -> Wire:
        """Script a route; an answer is JSON, a Response, or an exception to raise."""
        self._script[method, path] = list(answers)
        return self

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answers = self._script.get((request.method, request.url.path))
        if not answers:
            return httpx2.Response(404, json={"detail": "Not Found"})
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx2.Response) else httpx2.Response(200, json=answer)

    @property
    def transport(self) -> httpx2.MockTransport:
        return httpx2.MockTransport(self)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The JSON bodies of all requests that had one."""
        return [json.loads(r.content) for r in self.requests if r.content]


Reply = Callable[["Loopback", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Loopback:
    """A real HTTP/1.1 server on 127.0.0.1 that counts its connections."""

    def __init__(self) -> None:
        self.reply: Reply = Loopback.answer({})
        self.accepted = 0
        self.requests = 0
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def all_closed(self) -> None:
        """Wait until the clients have closed every connection."""
        async with asyncio.timeout(5):
            while self._tasks:
                await asyncio.gather(*self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self.accepted += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                _, _, rest = head.partition(b"content-length:")
                await reader.readexactly(int(rest.split(b"\r\n")[0] or 0))
                self.requests += 1
                await self.reply(self, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is gone, or the reply closed the connection
        finally:
            self._tasks.discard(task)
            writer.close()

    @staticmethod
    def answer(document: Any, status: str = "200 OK") -> Reply:
        async def reply(
            _: Loopback, __: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            body = json.dumps(document).encode()
            head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()

        return reply

    @staticmethod
    def hang(sent: bytes = b"") -> Reply:
        """Send something, then nothing until the client goes away."""

        async def reply(
            _: Loopback, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(sent)
            await reader.read()

        return reply

    @staticmethod
    def drip() -> Reply:
        """Send a byte of the body now and then, for ever."""

        async def reply(
            _: Loopback, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
            while not reader.at_eof():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)

        return reply

    @staticmethod
    def cut(sent: bytes = b"") -> Reply:
        """Send something and close the connection in the middle of the answer."""

        async def reply(
            _: Loopback, __: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(sent)
            await writer.drain()
            raise ConnectionError("closed on purpose")

        return reply


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture(scope="session")
def new_wire() -> type[Wire]:
    """Makes wires within one test, for hypothesis."""
    return Wire


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    server = Loopback()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def nowhere() -> str:
    """The URL of a port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def no_waits() -> Iterator[None]:
    """Retries as configured, without the waits between them."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def salt() -> str:
    return SALT


@pytest.fixture
def vllm_metrics() -> str:
    return (DATA / "vllm-0.32.0-metrics.txt").read_text()


@pytest.fixture
def lmcache_metrics() -> str:
    return (DATA / "lmcache-0.5.6-metrics.txt").read_text()


@pytest.fixture
def lmcache_status() -> dict[str, Any]:
    return json.loads((DATA / "lmcache-0.5.6-status.json").read_text())


@pytest.fixture
def completion() -> dict[str, Any]:
    """An answer of vLLM 0.32 to ``POST /v1/completions`` with two log-probabilities."""
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "model": "smollm2",
        "choices": [
            {
                "index": 0,
                "text": " are an",
                "logprobs": {
                    "text_offset": [0, 12],
                    "token_logprobs": [-0.71, -0.55],
                    "tokens": ["token_id:359", "token_id:354"],
                    "top_logprobs": [
                        {"token_id:359": -0.71, "token_id:2316": -0.96},
                        {"token_id:354": -0.55, "token_id:253": -1.55},
                    ],
                },
                "finish_reason": "length",
                "stop_reason": None,
                "token_ids": [359, 354],
                "prompt_token_ids": [1, 9690, 198, 2683],
            }
        ],
        "usage": {
            "prompt_tokens": 4,
            "total_tokens": 6,
            "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 3, "multimodal_tokens": None},
        },
    }


@pytest.fixture
def chat_answer() -> dict[str, Any]:
    """An answer of vLLM 0.32 to ``POST /v1/chat/completions``."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello! How"},
                "logprobs": None,
                "finish_reason": "length",
                "token_ids": [19556, 17, 1073],
            }
        ],
        "usage": {
            "prompt_tokens": 31,
            "total_tokens": 34,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


def _piece(text: str, token: int, finish: str | None = None) -> dict[str, Any]:
    logprobs = {
        "token_logprobs": [-0.5],
        "tokens": [f"token_id:{token}"],
        "top_logprobs": [{f"token_id:{token}": -0.5}],
    }
    choice = {"index": 0, "text": text, "token_ids": [token], "logprobs": logprobs}
    return {"choices": [choice | {"finish_reason": finish}]}


@pytest.fixture
def pieces() -> list[dict[str, Any]]:
    """The events of a streamed completion, as vLLM 0.32 sends them; the usage comes last."""
    usage = {"prompt_tokens": 4, "prompt_tokens_details": {"cached_tokens": 0}}
    return [
        _piece(" caf\u00e9", 359),
        _piece("", 354),
        _piece("", 2, "stop"),
        {"choices": [], "usage": usage},
    ]


@pytest.fixture
def sse() -> Callable[..., bytes]:
    """Encodes documents as server-sent events."""

    def encode(*documents: Any, done: bool = True) -> bytes:
        lines = [json.dumps(d, ensure_ascii=False) for d in documents] + ["[DONE]"] * done
        return "".join(f"data: {line}\n\n" for line in lines).encode()

    return encode


@pytest.fixture
def drain() -> Callable[..., Awaitable[list[Any]]]:
    """Reads a stream to its end and closes it; `into` keeps what came before an error."""

    async def read(stream: AsyncGenerator[Any], into: list[Any] | None = None) -> list[Any]:
        got = [] if into is None else into
        async with contextlib.aclosing(stream):
            async for piece in stream:
                got.append(piece)
        return got

    return read

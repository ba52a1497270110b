"""The HTTP that both clients share: one pool, deadlines, retries, and errors of our own tree."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import httpx2
import msgspec
import stamina

from cwm_jupyter.config import SecuritySettings, Settings, check_url
from cwm_jupyter.errors import CWMError

__all__ = ["QUICK_S", "Client", "Http", "Service"]

T = TypeVar("T")

#: A look at health or figures ends after this many seconds at most: a display must not hang.
QUICK_S = 5.0

# uvicorn, under both servers, closes an idle connection after 5 s; ours must be gone before, or a
# request can meet the closing socket.
_KEEPALIVE_S = 4.0

_TRANSIENT_STATUS = 503
_MAX_SAID = 500

# Proxies of the environment are for the network, not for this machine.
_NO_PROXY = dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]"))

# stamina logs each retry; where nobody configured logging (a notebook), Python would print it.
logging.getLogger("stamina").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Service:
    """Whose API it is, and what its failures are called here.

    `refusal` makes an error of a status, of what the server said, of its URL and of the request.
    """

    name: str
    setting: str
    hint: str
    connection: type[CWMError]
    timeout: type[CWMError]
    response: type[CWMError]
    refusal: Callable[[int, str, str, Mapping[str, Any]], CWMError]


class _UnavailableError(Exception):
    """The server said 503: perhaps it is ready at the next attempt."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__(f"status {response.status_code}")
        self.response = response


class Http:
    """JSON over HTTP to one server.

    Parameters
    ----------
    service
        Names and errors of the server.
    url
        ``http`` or ``https``, host, perhaps port and path; no credentials, no query.
    api_key
        Sent as a bearer token.
    connect_timeout_s, request_timeout_s
        Limits for a connection, and for a whole request with all its retries.
    retries
        Further attempts after a broken or refused connection or a 503.
    max_connections
        Size of the pool.
    transport
        Replaces the network, for tests.

    Raises
    ------
    ConfigError
        The URL is malformed.
    """

    def __init__(
        self,
        service: Service,
        url: str,
        *,
        api_key: str | None = None,
        connect_timeout_s: float = QUICK_S,
        request_timeout_s: float,
        retries: int = 0,
        max_connections: int = 16,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        # Whether plain http may leave this machine is decided where settings are read.
        anywhere = Settings(security=SecuritySettings(allow_remote_plain_http=True))
        self.url = check_url(url, anywhere, what=service.setting)
        self._service = service
        self._api_key = api_key
        self._connect_timeout_s = connect_timeout_s
        self._request_timeout_s = request_timeout_s
        self._retries = retries
        self._client = httpx2.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
            timeout=httpx2.Timeout(request_timeout_s, connect=connect_timeout_s),
            limits=httpx2.Limits(
                max_connections=max_connections,
                max_keepalive_connections=max_connections,
                keepalive_expiry=_KEEPALIVE_S,
            ),
            transport=transport,
            mounts=_NO_PROXY,
        )

    async def aclose(self) -> None:
        """Close the pool and all its sockets."""
        await self._client.aclose()

    async def call(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> T:
        """Send a request and return the JSON answer as `answer`.

        Raises
        ------
        CWMError
            One of the service's errors: not reached, not in time, refused, or an answer that
            lacks something; the message names what.
        """
        request = self._client.build_request(method, path, json=body, params=params)
        response = await self._exchange(request, body or {}, self._request_timeout_s, self._retries)
        return self.parse(response.content, answer, f"{method} {path}")

    async def text(self, path: str) -> str:
        """Return a text that is there to be looked at: one attempt, `QUICK_S` at most."""
        request = self._client.build_request("GET", path)
        deadline_s = min(QUICK_S, self._request_timeout_s)
        return (await self._exchange(request, {}, deadline_s, retries=0)).text

    async def answers(self, path: str) -> bool:
        """Say whether a GET of `path` succeeds; raises nothing."""
        try:
            await self.text(path)
        except CWMError:
            return False
        return True

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[str]:
        """Post a request and yield the data of each server-sent event.

        Closing the generator closes the response, by which the server learns that nobody listens.
        The limit here is the silence between two events: an answer may be long.
        """
        request = self._client.build_request("POST", path, json=body)
        response = await self._exchange(
            request, body, self._request_timeout_s, self._retries, stream=True
        )
        try:
            with self._translated(self._request_timeout_s):
                # No limit on the size: the first event repeats the prompt's token ids.
                async for event in httpx2.EventSource(response, max_event_size=None):
                    yield event.data
        finally:
            await response.aclose()

    def parse(self, content: bytes | str, answer: type[T], what: str) -> T:
        """Decode JSON, or raise the service's response error naming the field that is wrong."""
        try:
            return msgspec.json.decode(content, type=answer)
        except msgspec.DecodeError as error:
            raise self._service.response(
                f"{self._service.name}'s answer to {what} is not what we know: {error}.",
                hint=f"Is {self.url} really {self._service.name}, of a supported version?",
                url=self.url,
            ) from error

    def scrub(self, said: str, body: Mapping[str, Any]) -> str:
        """Return what the server said, shortened, without the secrets of the request."""
        secrets = {*_salts(body), *([self._api_key] if self._api_key else [])}
        for secret in sorted(secrets, key=len, reverse=True):
            said = said.replace(secret, "[redacted]")
        return said[:_MAX_SAID]

    def refusal(self, status: int, said: str, body: Mapping[str, Any]) -> CWMError:
        """Return the service's error for a refused request."""
        return self._service.refusal(status, self.scrub(said, body), self.url, body)

    async def _exchange(
        self,
        request: httpx2.Request,
        body: Mapping[str, Any],
        deadline_s: float,
        retries: int,
        *,
        stream: bool = False,
    ) -> httpx2.Response:
        """Send with retries under one deadline; return a success or raise."""
        with self._translated(deadline_s):
            try:
                # httpx's timeouts are for single reads: a server that drips would never end.
                with anyio.fail_after(deadline_s):
                    response = await self._send(request, retries, stream=stream)
                    if response.is_success:
                        return response
                    await response.aread()
            except _UnavailableError as error:
                response = error.response
        raise self.refusal(response.status_code, _said(response), body)

    async def _send(
        self, request: httpx2.Request, retries: int, *, stream: bool
    ) -> httpx2.Response:
        async for attempt in stamina.retry_context(
            on=(httpx2.NetworkError, httpx2.RemoteProtocolError, _UnavailableError),
            attempts=retries + 1,
            timeout=None,
            wait_initial=0.1,
            wait_jitter=0.1,
        ):
            with attempt:
                response = await self._client.send(request, stream=stream)
                if response.status_code == _TRANSIENT_STATUS:
                    await response.aread()
                    raise _UnavailableError(response)
                return response
        raise AssertionError("stamina ends by returning or raising")

    @contextmanager
    def _translated(self, limit_s: float) -> Iterator[None]:
        """Turn what httpx and the deadline raise into the service's errors."""
        service = self._service
        try:
            yield
        except (TimeoutError, httpx2.TimeoutException) as error:
            if isinstance(error, httpx2.ConnectTimeout):
                limit_s = min(limit_s, self._connect_timeout_s)
            raise service.timeout(
                f"{service.name} at {self.url} did not answer within {limit_s:g} s.",
                hint="It may be busy with another request, or hang: look at its log.",
                url=self.url,
            ) from error
        except httpx2.ConnectError as error:
            raise service.connection(
                f"{service.name} cannot be reached at {self.url}.", hint=service.hint, url=self.url
            ) from error
        except httpx2.SSEError as error:
            raise service.response(
                f"{service.name} at {self.url} did not answer with a stream.", url=self.url
            ) from error
        except httpx2.RequestError as error:
            raise service.connection(
                f"{service.name} at {self.url} broke the connection.",
                hint="It may have been stopped, or died: look at its log.",
                url=self.url,
            ) from error


def _said(response: httpx2.Response) -> str:
    """What the server gives as the reason, of the shapes that vLLM and FastAPI have."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        return response.text.strip() or f"status {response.status_code}"
    said = document.get("error") or document.get("detail") or document.get("message")
    if isinstance(said, dict):
        said = said.get("message")
    if isinstance(said, list):  # pydantic's; its `input` repeats the request, salt included
        said = "; ".join(
            f"{'.'.join(map(str, item.get('loc', ())))}: {item.get('msg')}"
            for item in said
            if isinstance(item, dict)
        )
    return str(said or f"status {response.status_code}")


def _salts(value: Any) -> Iterator[str]:
    """Every cache salt in a request's body."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if name == "cache_salt" and isinstance(item, str) and item:
                yield item
            else:
                yield from _salts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _salts(item)


class Client:
    """What both clients are: a server's address, and connections to be closed at the end."""

    _http: Http

    @property
    def url(self) -> str:
        """Where the server listens."""
        return self._http.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

"""Handlers: a class for each path, made from its operations. All that HTTP needs is done here.

The methods are decorated one by one: `authorized` keeps the first resource that it meets, so one
decorated method must not serve two of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado.iostream import StreamClosedError
from tornado.web import authenticated, stream_request_body

from cwm_jupyter.errors import CWMError
from cwm_jupyter.server import failures
from cwm_jupyter.server.failures import RefusedError
from cwm_jupyter.server.jobs import JobView
from cwm_jupyter.server.operation import Asked, Operation, Stream, Text
from cwm_jupyter.server.parsing import parse_body, parse_query
from cwm_jupyter.server.service import Service

__all__ = ["MAX_BODY_BYTES", "ROOT", "handlers"]

#: where the API is, below the server's base URL
ROOT = "/cwm/api/v1/"
#: the longest body that is read: all of them are small
MAX_BODY_BYTES = 256 * 1024


@stream_request_body
class RouteHandler(APIHandler):
    """What the handlers of all paths share."""

    def initialize(self, service: Service) -> None:
        """Take over what the requests are answered with."""
        self.service = service
        self._received = bytearray()
        self._open: Stream | None = None
        # Looking is no activity: a panel that is open would keep an idle server from being culled.
        self._track_activity = self.request.method != "GET"

    async def prepare(self) -> None:  # type: ignore[override]  # as the base class does
        """Authenticate, then refuse a body that says that it is too long."""
        await super().prepare()
        length = self.request.headers.get("Content-Length", "0")
        if length.isdecimal() and int(length) > MAX_BODY_BYTES:
            raise _too_long()

    def data_received(self, chunk: bytes) -> None:
        """Keep a part of the body, up to the limit; `answer` refuses what was longer."""
        room = MAX_BODY_BYTES + 1 - len(self._received)
        self._received += chunk[: max(room, 0)]

    async def answer(self, operation: Operation, path: dict[str, str]) -> None:
        """Do what is asked, and write the answer or the error."""
        if len(self._received) > MAX_BODY_BYTES:
            raise _too_long()
        query = parse_query(self.request.query_arguments, operation.query)
        body = None
        if operation.body is not None:
            kind = self.request.headers.get("Content-Type", "")
            body = parse_body(bytes(self._received), kind, operation.body)
        if operation.conditional and getattr(query, "timeless", True):
            # Taken before the index is read: at worst the client asks once too often.
            self.set_header("ETag", f'"{await self.service.generation()}"')
            if self.check_etag_header():
                self.set_status(304)
                await self.finish()
                return
        given = await operation.call(Asked(self.service, path, query, body))
        await self._send(operation, given)

    async def _send(self, operation: Operation, given: Any) -> None:
        self.set_status(operation.status)
        self.set_header("Cache-Control", "no-cache")
        if isinstance(given, Stream):
            await self._stream(given)
        elif isinstance(given, Text):
            await self.finish(given.content, set_content_type=given.content_type)
        else:
            if operation.status == 202 and isinstance(given, JobView):
                self.set_header("Location", f"{self.base_url.rstrip('/')}{ROOT}jobs/{given.id}")
            document = given.to_dict() if hasattr(given, "to_dict") else given
            await self.finish(msgspec.json.encode(document))

    async def _stream(self, stream: Stream) -> None:
        self._open = stream
        self.set_header("Content-Type", stream.content_type)
        self.set_header("X-Accel-Buffering", "no")  # a proxy would hold it back
        try:
            async for chunk in stream.chunks:
                self.write(chunk)
                await self.flush()
            await self.finish(set_content_type=stream.content_type)
        except StreamClosedError:
            pass  # the client is gone
        finally:
            stream.close()

    def on_connection_close(self) -> None:
        """End a stream whose client is gone."""
        if self._open is not None:
            self._open.close()

    def compute_etag(self) -> str | None:
        """Return none: only what depends on the index alone has one."""
        return None

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write an error as all errors here are written."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, CWMError):
            status_code = failures.status_of(error)
            self.set_status(status_code)
        self.finish(msgspec.json.encode(failures.document(status_code, error)))

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Log what nobody expected; what the client is told is no news for the server."""
        if isinstance(value, CWMError):
            self.log.info("%s %s: %s", self.request.method, self.request.path, value.code)
            return
        super().log_exception(typ, value, tb)


def _too_long() -> RefusedError:
    return RefusedError(413, f"The body is longer than {MAX_BODY_BYTES} bytes.", field="body")


def _method(operation: Operation) -> Callable[..., Awaitable[None] | None]:
    async def method(self: RouteHandler, **path: str) -> None:
        await self.answer(operation, path)

    method.__doc__ = operation.call.__doc__
    action = "read" if operation.method == "GET" else "write"
    allowed: Any = authorized(action, resource=operation.resource)
    return authenticated(allowed(method))


def handlers(
    table: Iterable[Operation], service: Service
) -> list[tuple[str, type[RouteHandler], dict[str, Any]]]:
    """Return what tornado routes by: pattern, class and arguments for each path of the table."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in table:
        paths.setdefault(operation.pattern, {})[operation.method.lower()] = _method(operation)
    return [
        (ROOT + pattern, type("CWMHandler", (RouteHandler,), methods), {"service": service})
        for pattern, methods in paths.items()
    ]

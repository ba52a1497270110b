"""Operation: one method of one route, with all that the handler and OpenAPI need of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

if TYPE_CHECKING:
    from cwm_jupyter.core.job import Job
    from cwm_jupyter.core.models import Value
    from cwm_jupyter.server.jobs import JobView
    from cwm_jupyter.server.service import Service
    from cwm_jupyter.workspace import Workspace

__all__ = ["Asked", "Nothing", "Operation", "Stream", "Text"]

_T = TypeVar("_T")
_PARAMETER = re.compile(r"\{(\w+)\}")

Method = Literal["GET", "POST", "PATCH", "DELETE"]


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


@dataclass(frozen=True)
class Text:
    """An answer that is not made from a value."""

    content: str | bytes
    content_type: str


@dataclass(frozen=True)
class Stream:
    """An answer that goes on until one side has enough.

    Parameters
    ----------
    chunks
        What to send.
    close
        Ends `chunks`, called when the client is gone.
    content_type
        Of all of it.
    """

    chunks: AsyncIterator[str]
    close: Callable[[], None]
    content_type: str


@dataclass(frozen=True)
class Asked:
    """A request, checked, and what is there to answer it.

    `path` has the parameters in the path, `query` and `body` are of the operation's types.
    """

    service: Service
    path: dict[str, str]
    query: Any
    body: Any

    async def run(self, work: Callable[[Workspace], Awaitable[_T]]) -> _T:
        """Await work of the manager, off the server's event loop."""
        return await self.service.run(work)

    def start(self, what: str, work: Callable[[Workspace, Job], Awaitable[Value]]) -> JobView:
        """Begin long work, which the answer does not wait for."""
        return self.service.jobs.start(what, work)


@dataclass(frozen=True)
class Operation:
    """One row of the table of routes.

    Parameters
    ----------
    method, path
        As in ``GET windows/{name}``; the path is below the API's root.
    resource
        What a user must be authorised for: to read it with GET, to write it with all others.
    call
        Answers; the first line of its docstring is the summary.
    answer
        The type of what it returns, None where that is no JSON document.
    query, body
        Types of the parameters and of the body, which is required where there is one.
    status
        Of success.
    conditional
        The answer depends on the index alone: it has an ETag, and is not made where the client
        has it already.
    content_type
        Of the answer.
    """

    method: Method
    path: str
    resource: str
    call: Callable[[Asked], Awaitable[Any]]
    answer: Any
    query: type[msgspec.Struct] = Nothing
    body: type[msgspec.Struct] | None = None
    status: int = 200
    conditional: bool = False
    content_type: str = "application/json"

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return (self.call.__doc__ or "").strip().partition("\n")[0].removesuffix(".")

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters in the path."""
        return _PARAMETER.findall(self.path)

    @property
    def pattern(self) -> str:
        """The path as a regular expression."""
        return _PARAMETER.sub(r"(?P<\1>[^/]+)", self.path.replace(".", r"\."))

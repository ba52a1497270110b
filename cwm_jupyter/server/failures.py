"""Failures: errors as HTTP answers. Their body is always `CWMError.to_dict`'s shape."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from tornado.web import HTTPError

from cwm_jupyter.errors import CWMError, ValidationError

__all__ = ["RefusedError", "about", "document", "ending", "status_of"]

#: by code, else by category; all others are 500
_STATUSES = {
    "archive": 400,
    "config": 400,
    "input": 400,
    "security": 403,
    "session.not_found": 404,
    "window.not_found": 404,
    "session": 409,
    "window": 409,
    "job": 409,
    "index.busy": 423,
    "session.busy": 423,
    "stack.down": 503,
    "store.connection": 503,
    "vllm.connection": 503,
    "store.timeout": 504,
    "vllm.timeout": 504,
    "resource": 507,
}


class RefusedError(HTTPError):
    """A request that is refused before it reaches the manager.

    Parameters
    ----------
    status
        Of HTTP, 4xx or 5xx.
    message
        What is wrong.
    **context
        Facts for programs, JSON-ready.
    """

    def __init__(self, status: int, message: str, **context: Any) -> None:
        # As an argument of "%s": tornado formats what it logs.
        super().__init__(status, "%s", message)
        self.message = message
        self.context = context


def ending() -> RefusedError:
    """Return the refusal of what comes when the server is about to end."""
    return RefusedError(503, "The server is ending; nothing is begun any more.")


@contextmanager
def about(field: str) -> Iterator[None]:
    """Name the field of the request in a `ValidationError` that leaves the block."""
    try:
        yield
    except ValidationError as error:
        error.context.setdefault("field", field)
        raise


def status_of(error: CWMError) -> int:
    """Return the HTTP status that says what kind of error it is."""
    return _STATUSES.get(error.code, _STATUSES.get(error.category, 500))


def document(status: int, error: BaseException | None) -> dict[str, Any]:
    """Return the body for an error; of one that nobody expected nothing is told but that it was."""
    if isinstance(error, CWMError):
        return error.to_dict()
    phrase = HTTPStatus(status).phrase
    message = f"{phrase}."
    context: dict[str, Any] = {}
    if isinstance(error, RefusedError):
        message, context = error.message, error.context
    elif not isinstance(error, HTTPError):
        message = "The server failed here; its log says why."
    elif status == HTTPStatus.FORBIDDEN:
        message = "You may not do this: not logged in, not authorised, or without the XSRF token."
    return {
        "code": f"http.{phrase.lower().replace(' ', '_').replace('-', '_')}",
        "category": "http",
        "message": message,
        "hint": None,
        "context": context,
    }

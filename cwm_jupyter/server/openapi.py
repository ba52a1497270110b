"""The API's description, OpenAPI 3.1, made from the table of routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from cwm_jupyter._version import __version__
from cwm_jupyter.core.models import Value
from cwm_jupyter.server.operation import Operation
from cwm_jupyter.server.routes.windows import REPORTS

__all__ = ["describe"]

_REFERENCE = "#/components/schemas/{name}"


class Error(Value, frozen=True, kw_only=True):
    """An error: its stable code, what is wrong, what to do, and facts for programs."""

    code: str
    category: str
    message: str
    hint: str | None
    context: dict[str, Any]


def describe(table: Sequence[Operation]) -> dict[str, Any]:
    """Return the description of these operations."""
    types: list[Any] = [Error, *REPORTS]
    for row in table:
        types += [kind for kind in (row.answer, row.body) if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    schema_of = dict(zip(map(_key, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for row in table:
        paths.setdefault(f"/{row.path}", {})[row.method.lower()] = _operation(row, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cwm-jupyter",
            "version": __version__,
            "description": "Context windows: sessions and windows, the caches and the stack.",
        },
        "servers": [{"url": "{base}cwm/api/v1", "variables": {"base": {"default": "/"}}}],
        "security": [{"token": []}, {"cookie": [], "xsrf": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "Authorization"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "username"},
                "xsrf": {"type": "apiKey", "in": "header", "name": "X-XSRFToken"},
            },
        },
    }


def _key(kind: Any) -> str:
    return str(kind)


def _operation(row: Operation, schema_of: dict[str, Any]) -> dict[str, Any]:
    """Describe one method of one path."""
    failure = {"application/json": {"schema": schema_of[_key(Error)]}}
    answer = {} if row.answer is None else {"schema": schema_of[_key(row.answer)]}
    responses: dict[str, Any] = {
        str(row.status): {
            "description": "Accepted: follow the job." if row.status == 202 else "Success.",
            "content": {row.content_type: answer},
        },
        "4XX": {"description": "The request is refused.", "content": failure},
        "5XX": {"description": "It could not be done.", "content": failure},
    }
    if row.conditional:
        responses["304"] = {"description": "The index has not changed."}
    described: dict[str, Any] = {
        "operationId": f"{row.call.__module__.rpartition('.')[2]}_{row.call.__name__}",
        "summary": row.summary,
        "tags": [row.resource],
        "parameters": [*_in_path(row), *_in_query(row)],
        "responses": responses,
    }
    if row.body is not None:
        content = {"application/json": {"schema": schema_of[_key(row.body)]}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _in_path(row: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in row.parameters
    ]


def _in_query(row: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": field.encode_name,
            "in": "query",
            "required": field.required,
            "schema": msgspec.json.schema(field.type),
        }
        for field in msgspec.structs.fields(row.query)
    ]

"""Parsing: requests into strict structs, or a refusal that names the field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from cwm_jupyter.errors import ValidationError
from cwm_jupyter.server.failures import RefusedError

__all__ = ["parse_body", "parse_query"]

_Parsed = TypeVar("_Parsed", bound=msgspec.Struct)
_WHERE = re.compile(r" - at `\$\.?([^`]*)`$")
#: what Jupyter's servers read themselves; JupyterLab adds the time as well, against caches
_SERVERS = frozenset({"token", "_xsrf", "no_track_activity"})
_FIELD = re.compile(r"field `([^`]*)`")


def parse_body(content: bytes, content_type: str, kind: type[_Parsed]) -> _Parsed:
    """Return a body as a struct.

    Raises
    ------
    ValidationError
        It is no such document; the field is in the message and in the context.
    RefusedError
        It does not say that it is JSON. Forms of other sites cannot say so.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(415, "The body has to be application/json.", field="body")
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(error, "body") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValidationError(f"The body is not JSON: {error}.", field="body") from error


def parse_query(arguments: Mapping[str, Sequence[bytes]], kind: type[_Parsed]) -> _Parsed:
    """Return query parameters as a struct; one may be repeated where the field is a list.

    Raises
    ------
    ValidationError
        One is unknown, repeated or not what it has to be; it is named.
    """
    many = {field.name for field in msgspec.structs.fields(kind) if _is_list(field.type)}
    given: dict[str, Any] = {}
    for name, raw in arguments.items():
        if name in _SERVERS or (name.isdecimal() and raw == [b""]):
            continue
        try:
            values = [value.decode() for value in raw]
        except UnicodeDecodeError as error:
            raise ValidationError(f"{name} is not UTF-8.", field=name) from error
        if name not in many and len(values) > 1:
            raise ValidationError(f"{name} is given {len(values)} times.", field=name)
        given[name] = values if name in many else values[0]
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid(error, "query") from error


def _is_list(kind: Any) -> bool:
    return getattr(kind, "__origin__", None) is tuple


def _invalid(error: msgspec.ValidationError, what: str) -> ValidationError:
    """Return the error with the field that it is about."""
    text = str(error)
    where = _WHERE.search(text)
    inner = _FIELD.search(text)
    path = [part for part in (where and where[1], inner and inner[1]) if part]
    field = ".".join(path) or what
    return ValidationError(f"{field}: {_WHERE.sub('', text)}.", field=field)

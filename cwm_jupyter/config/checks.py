"""Checks of one value: its type and bounds, paths, and the URLs of servers."""

from __future__ import annotations

import ipaddress
import os
import shlex
import string
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import msgspec.inspect as mi

from cwm_jupyter.config.schema import PREFIX, Settings, fields
from cwm_jupyter.errors import ConfigError, SecurityError, redact

__all__ = ["Given", "check_url", "checked"]

_URL_HINT = "Give it as in http://127.0.0.1:8000 or https://host.example/path."


class Given(NamedTuple):
    """A value as it was given, and by what: for messages."""

    value: Any
    source: str
    from_text: bool


def checked(name: str, given: Given, environ: Mapping[str, str]) -> Any:
    """Return a field's value converted to its type, or raise `ConfigError` that says all."""
    kind = fields()[name]
    try:
        value = _prepared(name, given)
        return msgspec.convert(
            value,
            kind,
            strict=not given.from_text,
            dec_hook=lambda _type, raw: _expanded(raw, environ),
        )
    except ValueError as error:  # msgspec's errors are among them
        shown = redact({name.rpartition(".")[2]: given.value}).popitem()[1]
        own = error.__cause__ or error  # msgspec wraps what `_expanded` raises
        reason = "" if isinstance(own, msgspec.ValidationError) else f": {own}"
        raise ConfigError(
            f"{name} cannot be {shown!r} ({_spoken(given.source)}){reason}.",
            hint=f"It must be {_allowed(kind)}.",
            field=name,
            source=given.source,
        ) from None


def _spoken(source: str) -> str:
    return f"from {source}" if source.startswith(PREFIX) else f"given as {source}"


def _prepared(name: str, given: Given) -> Any:
    """Bring a value into the shape that msgspec converts."""
    value = given.value
    if isinstance(value, PurePath):
        return os.fspath(value)
    if name == "log_level" and isinstance(value, str):
        return value.lower()
    if name == "stack.engine_args" and isinstance(value, str):
        return shlex.split(value)
    return value


def _expanded(raw: Any, environ: Mapping[str, str]) -> Path:
    """Return an absolute path with ``~``, ``$NAME`` and ``${NAME}`` replaced."""
    if not isinstance(raw, str) or not raw.strip() or "\0" in raw:
        raise ValueError("not a path")
    try:
        text = string.Template(raw).substitute(environ)
    except KeyError as error:
        raise ValueError(f"the environment variable {error.args[0]} is not set") from None
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # ~somebody who does not exist
        raise ValueError(str(error)) from None


def _allowed(kind: Any) -> str:
    """Say in words what a type and its bounds allow."""
    info = mi.type_info(kind)
    options = info.types if isinstance(info, mi.UnionType) else (info,)
    return " or ".join(_allowed_one(option) for option in options)


def _allowed_one(info: Any) -> str:
    match info:
        case mi.NoneType():
            return "nothing"
        case mi.BoolType():
            return "true or false"
        case mi.LiteralType():
            return "one of " + ", ".join(map(str, info.values))
        case mi.CustomType():
            return "a path"
        case mi.VarTupleType():
            return "a list of strings"
        case mi.IntType():
            return "a whole number" + _bounds(info)
        case mi.FloatType():
            return "a number" + _bounds(info)
        case _:
            return "a string"


def _bounds(info: Any) -> str:
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    limits = [f"{words[b]} {getattr(info, b)}" for b in words if getattr(info, b, None) is not None]
    return ", " + " and ".join(limits) if limits else ""


def check_url(url: str, settings: Settings, *, what: str = "URL") -> str:
    """Return a server's URL without a trailing slash, if it may be used.

    Parameters
    ----------
    url
        ``http`` or ``https``, a host, and perhaps a port and a path.
    settings
        ``security.allow_remote_plain_http`` decides about ``http`` to another machine.
    what
        What the URL is of, for the message.

    Raises
    ------
    ConfigError
        It is not the URL of a server, or holds a user name, password, query or fragment.
    SecurityError
        It is plain ``http`` to a host that is not this machine.
    """
    if "@" in url:  # not echoed, and looked for first: it may hold a password
        raise ConfigError(f"{what} holds a user name or password.", hint=_URL_HINT, field=what)
    try:
        parts = urlsplit(url)
        scheme, host, _port = parts.scheme, parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError(f"{what} is not a URL: {error}.", hint=_URL_HINT, field=what) from None
    malformed = scheme not in ("http", "https") or not host or any(c.isspace() for c in url)
    if malformed or parts.query or parts.fragment:
        raise ConfigError(f"{what} is not a server's URL: {url!r}.", hint=_URL_HINT, field=what)
    allowed = settings.security.allow_remote_plain_http
    if scheme == "http" and not allowed and not _is_loopback(host):
        raise SecurityError(
            f"{what} is plain http to another machine, {host}: conversations would be readable "
            "on the way.",
            hint="Use https or a tunnel, or set security.allow_remote_plain_http on a network "
            "that you trust.",
            field=what,
        )
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

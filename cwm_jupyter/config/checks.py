"""Checks of one field: its name, its type and bounds, paths, and the URLs of servers."""

from __future__ import annotations

import difflib
import ipaddress
import os
import shlex
import string
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import msgspec.inspect as mi

from cwm_jupyter.config.schema import Settings, fields, sections
from cwm_jupyter.core.lifetime import ttl_s
from cwm_jupyter.errors import ConfigError, SecurityError, ValidationError, redact

__all__ = [
    "ARGUMENT",
    "Given",
    "allowed",
    "check_url",
    "checked",
    "flattened",
    "shown",
    "spoken",
    "unknown",
]

#: the source of what a program gave
ARGUMENT = "argument"
_URL_HINT = "Give it as in http://127.0.0.1:8000 or https://host.example/path."


class Given(NamedTuple):
    """A value as it was given.

    `source` says by what, for messages. Text is read more freely than values: ``"64"`` is a number.
    `folder` is where a relative path begins; None: the working directory.
    """

    value: Any
    source: str
    from_text: bool = False
    folder: Path | None = None


def flattened(values: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Yield names and values of what may be nested by sections; the names are not checked."""
    for key, value in values.items():
        if key in sections() and isinstance(value, Mapping):
            yield from ((f"{key}.{leaf}", one) for leaf, one in value.items())
        else:
            yield str(key), value


def unknown(subject: str, name: str, known: Mapping[str, Any], **context: str) -> ConfigError:
    """Return the error of a name that is none of those `known`."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(known)}."
    return ConfigError(f"{subject} is not known.", hint=hint, field=name, **context)


def checked(name: str, given: Given, environ: Mapping[str, str]) -> Any:
    """Return a field's value converted to its type, or raise `ConfigError` that says all."""
    kind = fields()[name].kind
    try:
        value = _prepared(name, given)
        return msgspec.convert(
            value,
            kind,
            strict=not given.from_text,
            dec_hook=lambda _type, raw: _expanded(raw, environ, given.folder),
        )
    except ValueError as error:  # msgspec's errors are among them
        own = error.__cause__ or error  # msgspec wraps what `_expanded` raises
        reason = "" if isinstance(own, msgspec.ValidationError) else f": {own}"
        raise ConfigError(
            f"{name} cannot be {shown(name, given.value)!r} ({spoken(given.source)}){reason}.",
            hint=f"It must be {allowed(name)}.",
            field=name,
            source=given.source,
        ) from None


def shown(name: str, value: Any) -> Any:
    """Return a field's value as it may be shown: a secret is redacted, if there is one."""
    return value if value is None else redact({name.rpartition(".")[2]: value}).popitem()[1]


def spoken(source: str) -> str:
    """Return a source as it stands in a sentence."""
    return "given as argument" if source == ARGUMENT else f"from {source}"


def _prepared(name: str, given: Given) -> Any:
    """Bring a value into the shape that msgspec converts."""
    value = given.value
    if isinstance(value, PurePath):
        return os.fspath(value)
    if name == "log_level" and isinstance(value, str):
        return value.lower()
    if name == "stack.engine_args" and isinstance(value, str):
        return shlex.split(value)
    if name in ("limits.session_ttl", "limits.window_ttl") and isinstance(value, str):
        try:
            ttl_s(value)
        except ValidationError as error:
            raise ValueError(f"{error.message} {error.hint or ''}".strip(" .")) from None
    return value


def _expanded(raw: Any, environ: Mapping[str, str], folder: Path | None) -> Path:
    """Return an absolute path with ``~``, ``$NAME`` and ``${NAME}`` replaced."""
    if not isinstance(raw, str) or not raw.strip() or "\0" in raw:
        raise ValueError("not a path")
    try:
        text = string.Template(raw).substitute(environ)
    except KeyError as error:
        raise ValueError(f"the environment variable {error.args[0]} is not set") from None
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:  # ~somebody who does not exist
        raise ValueError(str(error)) from None
    return (path if folder is None else folder / path).absolute()


def allowed(name: str) -> str:
    """Say in words what the type and the bounds of a field allow."""
    info = mi.type_info(fields()[name].kind)
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

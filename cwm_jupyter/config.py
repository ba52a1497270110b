"""Settings: what a user may choose, with defaults that are safe and work.

Later layers win: defaults, then environment variables, then explicit arguments. The variable of a
field is ``CWM_`` and its dotted name in capitals, as in ``CWM_STACK_CHUNK_TOKENS`` for
``stack.chunk_tokens``; an empty variable counts as unset.

`load` makes checked settings. A process shares one object: `get_settings`, `set_settings` and
`reset_settings`. Nothing here configures logging beyond the level of the package's own logger.
"""

from __future__ import annotations

import difflib
import functools
import ipaddress
import logging
import os
import shlex
import string
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints
from urllib.parse import urlsplit

import msgspec
import msgspec.inspect as mi
from msgspec import Meta

from cwm_jupyter.core.cipher import KEY_VARIABLE
from cwm_jupyter.errors import ConfigError, SecurityError, redact

__all__ = [
    "LMCacheSettings",
    "LimitSettings",
    "SecuritySettings",
    "Settings",
    "StackSettings",
    "StorageSettings",
    "VLLMSettings",
    "check_url",
    "get_settings",
    "load",
    "reset_settings",
    "set_settings",
]

_PREFIX = "CWM_"
_URL_HINT = "Give it as in http://127.0.0.1:8000 or https://host.example/path."

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
GiB = Annotated[float, Meta(gt=0, le=65_536)]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]


def _default_home() -> Path:
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "cwm"


def _default_cache_dir() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("cwm-jupyter"))


class StackSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The local stack: an engine and its LMCache server, started by us."""

    #: path of the model; None is the embedded one, SmolLM2-135M-Instruct
    model: str | None = None
    #: interpreter of an engine environment that exists already; None: we build one
    python: Path | None = None
    #: tokens a chunk, and a block of the engine: they must be equal for exact continuation
    chunk_tokens: Annotated[int, Meta(ge=16, le=4096)] = 128
    #: the engine's own KV cache (GiB)
    kv_cache_gib: GiB = 2.0
    #: LMCache's memory, in /dev/shm (GiB)
    memory_gib: GiB = 2.0
    #: longest context (tokens); None: the model's own
    max_model_len: Annotated[int, Meta(ge=32)] | None = None
    #: more arguments for vLLM; one string is split as a shell does
    engine_args: tuple[str, ...] = ()
    #: stop the stack after so long without a request (s); None: never
    idle_stop_s: Seconds | None = None
    #: give up on a start after so long (s)
    start_timeout_s: Seconds = 600.0


class VLLMSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach vLLM's HTTP API."""

    #: a server that runs already; None: the local stack's
    url: str | None = None
    #: secret; shown nowhere
    api_key: str | None = None
    connect_timeout_s: Seconds = 5.0
    #: for a whole request, its generation included (s)
    request_timeout_s: Seconds = 600.0
    #: how often a request that did not reach the engine is tried again
    retries: Annotated[int, Meta(ge=0, le=10)] = 3
    max_connections: Annotated[int, Meta(ge=1, le=1024)] = 16

    def __repr__(self) -> str:
        hidden = redact({"api_key": self.api_key})["api_key"] if self.api_key else None
        shown = {**msgspec.structs.asdict(self), "api_key": hidden}
        return f"VLLMSettings({', '.join(f'{k}={v!r}' for k, v in shown.items())})"


class LMCacheSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach LMCache's HTTP API."""

    #: a server that runs already; None: the local stack's
    url: str | None = None
    request_timeout_s: Seconds = 30.0
    #: for bringing a window's chunks into memory (s)
    prefetch_timeout_s: Seconds = 60.0


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where chunks are kept, and how long a freeze waits for them."""

    #: the durable chunk store; None: ``vault`` under `Settings.home`
    vault_dir: Path | None = None
    #: how the vault codes new chunks: as they are, or losslessly packed, smaller and slower to read
    codec: Literal["raw", "planes"] = "raw"
    #: what the vault may take on disk (GiB), see docs/vault.md; None: what there is
    quota_gib: GiB | None = None
    #: ``fs`` is LMCache's own disk tier, which checks nothing: for comparisons alone
    store: Literal["vault", "fs"] = "vault"
    #: a freeze whose chunks are not durable by then fails (s)
    durable_timeout_s: Seconds = 60.0

    @property
    def quota_bytes(self) -> int | None:
        """The quota in bytes."""
        return None if self.quota_gib is None else int(self.quota_gib * 2**30)


class SecuritySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is refused unless the user allows it, and what is hidden on the disk."""

    #: talk unencrypted to a server on another machine; see `check_url`
    allow_remote_plain_http: bool = False
    #: encrypt what is written from now on: chunks, transcripts, manifests; see docs/security.md
    encrypt: bool = False


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of what one command does."""

    #: longest answer where the user asks for no other length (tokens)
    max_tokens: Annotated[int, Meta(ge=1)] = 512
    #: how many next tokens a probe notes; a stock engine gives at most 20
    probe_top: Annotated[int, Meta(ge=1, le=20)] = 20
    #: allowed log-probability difference where exact equality is not due (nats)
    probe_tolerance: Annotated[float, Meta(ge=0, le=10)] = 0.5
    #: largest file that a command reads at the user's request (bytes)
    max_file_bytes: Annotated[int, Meta(ge=1)] = 64 * 1024**2


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings. Construct them with `load`, which checks what it is given."""

    #: everything durable: index, transcripts, keys, run state and, by default, the vault
    home: Path = msgspec.field(default_factory=_default_home)
    #: what can be made again: engine environments, converted models
    cache_dir: Path = msgspec.field(default_factory=_default_cache_dir)
    log_level: LogLevel = "warning"
    stack: StackSettings = msgspec.field(default_factory=StackSettings)
    vllm: VLLMSettings = msgspec.field(default_factory=VLLMSettings)
    lmcache: LMCacheSettings = msgspec.field(default_factory=LMCacheSettings)
    storage: StorageSettings = msgspec.field(default_factory=StorageSettings)
    security: SecuritySettings = msgspec.field(default_factory=SecuritySettings)
    limits: LimitSettings = msgspec.field(default_factory=LimitSettings)

    @property
    def sessions_dir(self) -> Path:
        """Transcripts of sessions."""
        return self.home / "sessions"

    @property
    def windows_dir(self) -> Path:
        """Manifests of windows."""
        return self.home / "windows"

    @property
    def keys_dir(self) -> Path:
        """Secrets of lineages."""
        return self.home / "keys"

    @property
    def run_dir(self) -> Path:
        """State of the running stack."""
        return self.home / "run"

    @property
    def vault_dir(self) -> Path:
        """The durable chunk store."""
        return self.storage.vault_dir or self.home / "vault"

    def to_dict(self) -> dict[str, Any]:
        """Return the settings JSON-ready: paths as strings, the API key redacted."""
        document: dict[str, Any] = msgspec.to_builtins(self, enc_hook=os.fspath)
        if self.vllm.api_key is not None:
            document["vllm"] = {**document["vllm"], **redact({"api_key": self.vllm.api_key})}
        return document


class _Given(NamedTuple):
    """A value as it was given, and by what: for messages."""

    value: Any
    source: str
    from_text: bool


def load(
    environ: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Return settings from all layers, checked.

    Parameters
    ----------
    environ
        Environment variables; the process's own by default.
    overrides
        Explicit values, which win: nested (``{"stack": {"chunk_tokens": 64}}``), dotted
        (``{"stack.chunk_tokens": 64}``) or both.

    Raises
    ------
    ConfigError
        A field is unknown, of the wrong type or out of range, or a URL is malformed. The message
        names the field, where its value came from, and what is allowed.
    SecurityError
        A URL would send conversations unencrypted to another machine.
    """
    environ = os.environ if environ is None else environ
    given = {**_from_environment(environ), **_from_mapping(overrides or {})}
    document: dict[str, Any] = {}
    for name, one in given.items():
        section, _, leaf = name.rpartition(".")
        target = document.setdefault(section, {}) if section else document
        target[leaf] = _checked(name, one, environ)
    settings = msgspec.convert(document, Settings)
    for name, url in (("vllm.url", settings.vllm.url), ("lmcache.url", settings.lmcache.url)):
        if url is not None:
            check_url(url, settings, what=name)
    return settings


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


# --- layers ---------------------------------------------------------------------------------------


@functools.cache
def _fields() -> dict[str, Any]:
    """The type of every field, by dotted name."""
    types: dict[str, Any] = {}
    for name, kind in get_type_hints(Settings, include_extras=True).items():
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            leaves = get_type_hints(kind, include_extras=True)
            types.update({f"{name}.{leaf}": leaf_kind for leaf, leaf_kind in leaves.items()})
        else:
            types[name] = kind
    return types


def _variable(name: str) -> str:
    return _PREFIX + name.upper().replace(".", "_")


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    names = {_variable(name): name for name in _fields()}
    given = {}
    for variable in sorted(v for v in environ if v.startswith(_PREFIX)):
        if variable == KEY_VARIABLE:  # for the keyring alone: settings are shown and saved
            continue
        if variable not in names:
            raise _unknown(f"The environment variable {variable}", variable, names)
        if environ[variable]:
            given[names[variable]] = _Given(environ[variable], variable, from_text=True)
    return given


def _from_mapping(values: Mapping[str, Any]) -> dict[str, _Given]:
    given = {}
    for name, value in _flatten(values):
        if name not in _fields():
            raise _unknown(f"The setting {name!r}", name, _fields())
        given[name] = _Given(value, "argument", from_text=False)
    return given


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _unknown(subject: str, name: str, known: Mapping[str, Any]) -> ConfigError:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(known)}."
    return ConfigError(f"{subject} is not known.", hint=hint, field=name)


# --- one value ------------------------------------------------------------------------------------


def _checked(name: str, given: _Given, environ: Mapping[str, str]) -> Any:
    """Return a field's value converted to its type, or raise `ConfigError` that says all."""
    kind = _fields()[name]
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
    return f"from {source}" if source.startswith(_PREFIX) else f"given as {source}"


def _prepared(name: str, given: _Given) -> Any:
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


# --- the shared object ----------------------------------------------------------------------------

_lock = threading.Lock()
_shared: Settings | None = None


def get_settings() -> Settings:
    """Return the settings that all of the process shares, loaded at the first call."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = _adopted(load())
        return _shared


def set_settings(settings: Settings) -> None:
    """Make `settings` those that the process shares."""
    global _shared
    with _lock:
        _shared = _adopted(settings)


def reset_settings() -> None:
    """Forget the shared settings: the next `get_settings` loads them anew."""
    global _shared
    with _lock:
        _shared = None


def _adopted(settings: Settings) -> Settings:
    logging.getLogger("cwm_jupyter").setLevel(settings.log_level.upper())
    return settings

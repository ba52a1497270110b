"""The settings themselves: every field with its type, its bounds, its default and its rule.

A field's dotted name (``stack.chunk_tokens``) is what users write, in files, magics and arguments.
Its `Rule` says when it may change and who may set it; without one, that of its section holds. The
comment above a field is its help, see `cwm_jupyter.config.reference`.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta

from cwm_jupyter.errors import redact

__all__ = [
    "PREFIX",
    "Field",
    "LMCacheSettings",
    "LimitSettings",
    "Rule",
    "SecuritySettings",
    "Settings",
    "StackSettings",
    "StorageSettings",
    "VLLMSettings",
    "fields",
    "sections",
    "value_of",
    "variable",
]

#: what environment variables of ours begin with
PREFIX = "CWM_"

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
GiB = Annotated[float, Meta(gt=0, le=65_536)]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]


class Rule(NamedTuple):
    """When a field may change, and whether the file of a project may set it.

    ``now``: at any time, and it takes effect at once. ``down``: while no stack runs. ``start``:
    before the process uses it. Somebody else may have written a project's file, so it sets only
    what can neither run code, nor send or delete anything, nor weaken a check.
    """

    changes: Literal["now", "down", "start"] = "start"
    project: bool = False


_NOW = Rule("now")
_DOWN = Rule("down")
_ANYWHERE = Rule("now", project=True)


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

    #: a server that runs already, connected to where no stack is up; None: the local stack's
    url: str | None = None
    #: what `vllm.url` asks for; secret, and shown nowhere
    api_key: str | None = None
    #: for a connection (s)
    connect_timeout_s: Annotated[Seconds, _ANYWHERE] = 5.0
    #: for a whole request, its generation included (s)
    request_timeout_s: Annotated[Seconds, _ANYWHERE] = 600.0
    #: how often a request that did not reach the engine is tried again
    retries: Annotated[int, Meta(ge=0, le=10), _ANYWHERE] = 3
    #: how many connections to the engine may be open at once
    max_connections: Annotated[int, Meta(ge=1, le=1024), _ANYWHERE] = 16

    def __repr__(self) -> str:
        hidden = redact({"api_key": self.api_key})["api_key"] if self.api_key else None
        shown = {**msgspec.structs.asdict(self), "api_key": hidden}
        return f"VLLMSettings({', '.join(f'{k}={v!r}' for k, v in shown.items())})"


class LMCacheSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach LMCache's HTTP API."""

    #: the LMCache of `vllm.url`, which must be given too; None: the local stack's
    url: str | None = None
    #: for a whole request (s)
    request_timeout_s: Annotated[Seconds, _ANYWHERE] = 30.0
    #: for bringing a window's chunks into memory (s)
    prefetch_timeout_s: Annotated[Seconds, _ANYWHERE] = 60.0


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where chunks are kept, and how long a freeze waits for them."""

    #: the durable chunk store; None: ``vault`` in `home`
    vault_dir: Path | None = None
    #: how the vault codes new chunks: as they are, or losslessly packed, smaller and slower to read
    codec: Literal["raw", "planes"] = "raw"
    #: what the vault may take on disk (GiB), see docs/vault.md; None: what there is
    quota_gib: GiB | None = None
    #: ``fs`` is LMCache's own disk tier, which checks nothing: for comparisons alone
    store: Literal["vault", "fs"] = "vault"
    #: a freeze whose chunks are not durable by then fails (s)
    durable_timeout_s: Annotated[Seconds, _ANYWHERE] = 60.0

    @property
    def quota_bytes(self) -> int | None:
        """The quota in bytes."""
        return None if self.quota_gib is None else int(self.quota_gib * 2**30)


class SecuritySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is refused unless the user allows it, and what is hidden on the disk."""

    #: talk unencrypted, by plain http, to a server on another machine
    allow_remote_plain_http: Annotated[bool, _NOW] = False
    #: encrypt what is written from now on: chunks, transcripts, manifests; see docs/security.md
    encrypt: bool = False


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of what one command does."""

    #: longest answer where the user asks for no other length (tokens)
    max_tokens: Annotated[int, Meta(ge=1), _ANYWHERE] = 512
    #: how many next tokens a probe notes; a stock engine gives at most 20
    probe_top: Annotated[int, Meta(ge=1, le=20)] = 20
    #: allowed log-probability difference where exact equality is not due (nats)
    probe_tolerance: Annotated[float, Meta(ge=0, le=10)] = 0.5
    #: largest file that a command reads at the user's request (bytes)
    max_file_bytes: Annotated[int, Meta(ge=1), _ANYWHERE] = 64 * 1024**2
    #: how long a new session stays after its last use, as in 30d; None or never: until removed
    session_ttl: str | None = None
    #: the same for a new window, whose use is to be thawed
    window_ttl: str | None = None
    #: how many versions of a window ``freeze --update`` leaves, the newest among them; None: all
    keep_versions: Annotated[int, Meta(ge=1)] | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings. Construct them with `load`, which checks what it is given."""

    #: everything durable: index, transcripts, keys, run state and, by default, the vault
    home: Path = msgspec.field(default_factory=_default_home)
    #: what can be made again: engine environments, converted models
    cache_dir: Path = msgspec.field(default_factory=_default_cache_dir)
    #: of the package's own logger
    log_level: Annotated[LogLevel, _ANYWHERE] = "warning"
    stack: Annotated[StackSettings, _DOWN] = msgspec.field(default_factory=StackSettings)
    vllm: Annotated[VLLMSettings, _DOWN] = msgspec.field(default_factory=VLLMSettings)
    lmcache: Annotated[LMCacheSettings, _DOWN] = msgspec.field(default_factory=LMCacheSettings)
    storage: StorageSettings = msgspec.field(default_factory=StorageSettings)
    security: SecuritySettings = msgspec.field(default_factory=SecuritySettings)
    limits: Annotated[LimitSettings, _NOW] = msgspec.field(default_factory=LimitSettings)

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


class Field(NamedTuple):
    """What is known of a field; `default` is `msgspec.NODEFAULT` where the machine decides it."""

    kind: Any
    default: Any
    rule: Rule


@functools.cache
def fields() -> dict[str, Field]:
    """Return every field by its dotted name."""
    found: dict[str, Field] = {}
    for name, field in _own_fields(Settings, Rule()).items():
        section = getattr(field.kind, "__origin__", field.kind)
        if isinstance(section, type) and issubclass(section, msgspec.Struct):
            leaves = _own_fields(section, field.rule)
            found.update({f"{name}.{leaf}": one for leaf, one in leaves.items()})
        else:
            found[name] = field
    return found


def _own_fields(kind: type[msgspec.Struct], rule: Rule) -> dict[str, Field]:
    """Return a struct's own fields; `rule` is for those that have none."""
    types = get_type_hints(kind, include_extras=True)
    defaults = {one.name: one.default for one in msgspec.structs.fields(kind)}
    return {
        name: Field(
            annotation,
            defaults[name],
            next((m for m in getattr(annotation, "__metadata__", ()) if isinstance(m, Rule)), rule),
        )
        for name, annotation in types.items()
    }


def sections() -> frozenset[str]:
    """Return the names that stand before a dot."""
    return frozenset(name.partition(".")[0] for name in fields() if "." in name)


def value_of(settings: Settings, name: str) -> Any:
    """Return a field's value, by its dotted name."""
    return functools.reduce(getattr, name.split("."), settings)


def variable(name: str) -> str:
    """Return the environment variable of a field, by its dotted name."""
    return PREFIX + name.upper().replace(".", "_")

"""Every error that the package raises, in one tree.

Each class has a stable ``code``, ``category.what``; the category is the part of the product that
speaks, and it never changes once released. ``str(error)`` is two lines at most: what is wrong,
then what to do about it.

::

    CWMError                          cwm.error
    ├── ValidationError               input.invalid
    │   └── UsageError                input.usage
    ├── ConfigError                   config.invalid
    ├── SecurityError                 security.refused
    │   └── DecryptError              security.decrypt
    ├── ResourceExhaustedError        resource.exhausted
    │   └── ContextFullError          resource.context_full
    ├── SessionError                  session.error
    │   ├── SessionNotFoundError      session.not_found
    │   ├── SessionExistsError        session.exists
    │   ├── SessionEmptyError         session.empty
    │   ├── SessionBusyError          session.busy
    │   └── StateTransitionError      session.state
    ├── WindowError                   window.error
    │   ├── WindowNotFoundError       window.not_found
    │   ├── WindowExistsError         window.exists
    │   ├── EngineMismatchError       window.engine_mismatch
    │   └── ProbeError                window.probe_failed
    ├── IndexCorruptError             index.corrupt
    ├── IndexBusyError                index.busy
    ├── SchemaError                   index.schema
    ├── ArchiveError                  archive.invalid
    ├── KVStoreError                  store.error
    │   ├── KVStoreConnectionError    store.connection
    │   ├── KVStoreTimeoutError       store.timeout
    │   └── ChunkCorruptError         store.corrupt
    ├── VLLMError                     vllm.error
    │   ├── VLLMConnectionError       vllm.connection
    │   ├── VLLMTimeoutError          vllm.timeout
    │   ├── VLLMRequestError          vllm.request
    │   └── VLLMResponseError         vllm.response
    ├── StackError                    stack.error
    │   ├── StackDownError            stack.down
    │   ├── StackStartError           stack.start
    │   ├── EnvironmentBuildError     stack.environment
    │   └── ModelError                stack.model
    └── CancelledJobError             job.cancelled
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, ClassVar

__all__ = [
    "ArchiveError",
    "CWMError",
    "CancelledJobError",
    "ChunkCorruptError",
    "ConfigError",
    "ContextFullError",
    "DecryptError",
    "EngineMismatchError",
    "EnvironmentBuildError",
    "IndexBusyError",
    "IndexCorruptError",
    "KVStoreConnectionError",
    "KVStoreError",
    "KVStoreTimeoutError",
    "ModelError",
    "ProbeError",
    "ResourceExhaustedError",
    "SchemaError",
    "SecurityError",
    "SessionBusyError",
    "SessionEmptyError",
    "SessionError",
    "SessionExistsError",
    "SessionNotFoundError",
    "StackDownError",
    "StackError",
    "StackStartError",
    "StateTransitionError",
    "UsageError",
    "VLLMConnectionError",
    "VLLMError",
    "VLLMRequestError",
    "VLLMResponseError",
    "VLLMTimeoutError",
    "ValidationError",
    "WindowError",
    "WindowExistsError",
    "WindowNotFoundError",
    "redact",
]

_SECRET_FIELD = re.compile(r"salt|secret|key|token$|authorization|password", re.IGNORECASE)
# Fields that the pattern above would hide and that hold nothing secret.
_PUBLIC_FIELDS = frozenset({"keys", "total_keys", "found_keys", "key_count"})
_HIDDEN = "[redacted]"


def redact(value: Any) -> Any:
    """Return `value` with everything that is named like a secret replaced.

    Parameters
    ----------
    value
        Any JSON-like value; dicts and lists are walked.

    Returns
    -------
    Any
        A copy in which the value of each field whose name speaks of salts, keys, secrets or
        passwords is ``"[redacted]"``.
    """
    if isinstance(value, dict):
        return {
            k: _HIDDEN
            if isinstance(k, str) and k not in _PUBLIC_FIELDS and _SECRET_FIELD.search(k)
            else redact(v)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(v) for v in value]
    return value


class CWMError(Exception):
    """Base of all errors here.

    Parameters
    ----------
    message
        What is wrong and where, one line.
    hint
        What to do about it, one line; a class may have one of its own.
    **context
        Facts for programs, JSON-ready: names, URLs, figures.
    """

    code: ClassVar[str] = "cwm.error"
    default_hint: ClassVar[str | None] = None

    def __init__(self, message: str, *, hint: str | None = None, **context: Any) -> None:
        self.message = message
        self.hint = hint if hint is not None else self.default_hint
        self.context: dict[str, Any] = context
        super().__init__(message)

    @property
    def category(self) -> str:
        """The part of the product that speaks: the code up to its dot."""
        return self.code.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.context)

    def to_dict(self) -> dict[str, Any]:
        """Return the error as the APIs show it: code, category, message, hint and context."""
        return {
            "code": self.code,
            "category": self.category,
            "message": self.message,
            "hint": self.hint,
            "context": redact(self.context),
        }

    def to_log_dict(self) -> dict[str, Any]:
        """Return the error for a log: flat, with its type and cause, and no secret."""
        cause = self.__cause__
        return {
            "error": type(self).__name__,
            "code": self.code,
            "message": self.message,
            **({"cause": f"{type(cause).__name__}: {cause}"} if cause else {}),
            **{f"context.{k}": v for k, v in redact(self.context).items()},
        }

    def _render_traceback_(self) -> list[str]:
        """IPython's hook: in a notebook the two lines and the code are the whole traceback."""
        return [f"{self.message}  [{self.code}]", *([self.hint] if self.hint else [])]


def _rebuild(
    cls: type[CWMError], message: str, hint: str | None, context: dict[str, Any]
) -> CWMError:
    error = cls.__new__(cls)
    CWMError.__init__(error, message, hint=hint, **context)
    return error


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """One line that names what the user may have meant, or None."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {', '.join(close)}?"
    if names:
        shown = ", ".join(sorted(names)[:5])
        return f"There are: {shown}{', …' if len(names) > 5 else ''}."
    return None


class ValidationError(CWMError):
    """Input that cannot be right: a name, a number, a combination of options."""

    code = "input.invalid"


class UsageError(ValidationError):
    """A command line that cannot be understood."""

    code = "input.usage"


class ConfigError(CWMError):
    """A setting that is missing, of the wrong type, out of range or unknown."""

    code = "config.invalid"


class SecurityError(CWMError):
    """Something refused because it would be unsafe."""

    code = "security.refused"


class DecryptError(SecurityError):
    """Something encrypted cannot be opened: its key is missing, or its bytes were changed."""

    code = "security.decrypt"
    default_hint = "The key belongs into keys/encryption.json in the home, or CWM_ENCRYPTION_KEY."


class ResourceExhaustedError(CWMError):
    """No room: on disk, in memory, in /dev/shm, under a quota."""

    code = "resource.exhausted"


class ContextFullError(ResourceExhaustedError):
    """The conversation would be longer than the model's context."""

    code = "resource.context_full"
    default_hint = "Start a new session, or go on from an earlier window."


class SessionError(CWMError):
    """Base of what concerns a session."""

    code = "session.error"


class SessionNotFoundError(SessionError):
    """No session has this name or id.

    Parameters
    ----------
    name
        What was asked for.
    known
        The names that exist, for a suggestion.
    """

    code = "session.not_found"
    default_hint = "%cwm ls --sessions lists them; saying something begins one."

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        super().__init__(f"There is no session {name!r}.", hint=_nearest(name, known), session=name)


class SessionExistsError(SessionError):
    """A session of this name or id exists already."""

    code = "session.exists"


class SessionEmptyError(SessionError):
    """The session has said nothing yet, so there is nothing to freeze."""

    code = "session.empty"
    default_hint = "Say something first: put a question under %%cwm, or use session.say()."


class SessionBusyError(SessionError):
    """Another process or cell is using the session right now."""

    code = "session.busy"
    default_hint = "Wait until it has finished, or work in another session with -s NAME."


class StateTransitionError(SessionError):
    """The session or window cannot go from its state to the wanted one."""

    code = "session.state"


class WindowError(CWMError):
    """Base of what concerns a window."""

    code = "window.error"


class WindowNotFoundError(WindowError):
    """No window has this name or id.

    Parameters
    ----------
    name
        What was asked for.
    known
        The names that exist, for a suggestion.
    """

    code = "window.not_found"
    default_hint = "%cwm ls lists them; %freeze NAME makes one."

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        super().__init__(f"There is no window {name!r}.", hint=_nearest(name, known), window=name)


class WindowExistsError(WindowError):
    """A window of this name exists already; it was left as it is."""

    code = "window.exists"
    default_hint = "Choose another name, or remove the old one with %cwm rm NAME."


class EngineMismatchError(WindowError):
    """The running engine is not the one that the window was frozen on."""

    code = "window.engine_mismatch"


class ProbeError(WindowError):
    """The restored state does not reproduce what was noted at freeze."""

    code = "window.probe_failed"
    default_hint = "The window was kept. Build it anew from its tokens with %thaw NAME --recompute."


class IndexCorruptError(CWMError):
    """The index, a transcript or a manifest cannot be read."""

    code = "index.corrupt"


class IndexBusyError(CWMError):
    """Another process or thread holds the index's lock for too long."""

    code = "index.busy"
    default_hint = "Try again; if it stays so, see which other notebooks use this home."


class SchemaError(CWMError):
    """A stored document is of a version that this release does not know."""

    code = "index.schema"
    default_hint = "It was written by a newer cwm-jupyter: upgrade this one."


class ArchiveError(CWMError):
    """An exported file is damaged, was changed, or says what cannot be."""

    code = "archive.invalid"


class KVStoreError(CWMError):
    """Base of what concerns the stored chunks."""

    code = "store.error"


class KVStoreConnectionError(KVStoreError):
    """LMCache cannot be reached."""

    code = "store.connection"


class KVStoreTimeoutError(KVStoreError):
    """Chunks did not become durable, or LMCache did not answer, in time."""

    code = "store.timeout"


class ChunkCorruptError(KVStoreError):
    """The bytes of a chunk are not those that were frozen."""

    code = "store.corrupt"


class VLLMError(CWMError):
    """Base of what concerns the engine's HTTP API."""

    code = "vllm.error"


class VLLMConnectionError(VLLMError):
    """The engine cannot be reached, or broke the connection."""

    code = "vllm.connection"


class VLLMTimeoutError(VLLMError):
    """The engine did not answer in time."""

    code = "vllm.timeout"


class VLLMRequestError(VLLMError):
    """The engine refused the request; its own message is in ours."""

    code = "vllm.request"


class VLLMResponseError(VLLMError):
    """The engine's answer lacks something that we need."""

    code = "vllm.response"


class StackError(CWMError):
    """Base of what concerns the local servers."""

    code = "stack.error"


class StackDownError(StackError):
    """No stack is running."""

    code = "stack.down"
    default_hint = "Start it with %cwm up, or cwm up in a terminal."


class StackStartError(StackError):
    """A server did not start, or died."""

    code = "stack.start"
    default_hint = "See cwm logs, and cwm doctor for what may be missing."


class EnvironmentBuildError(StackError):
    """The engine environment could not be built."""

    code = "stack.environment"


class ModelError(StackError):
    """The model cannot be fetched, converted or served exactly."""

    code = "stack.model"


class CancelledJobError(CWMError):
    """A job was cancelled by the user; everything is as it was before."""

    code = "job.cancelled"

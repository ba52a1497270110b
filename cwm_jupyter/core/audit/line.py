"""One line of the audit log: what it says, and the keyed hash that vouches for it.

A line is a JSON object whose last field is its MAC: blake3 under the log's key, 16 bytes in hex, of
all bytes before it. The MAC of the line before is one of its fields, so each line can be checked
by itself, and its place in the chain too.
"""

from __future__ import annotations

import getpass
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import blake3
import msgspec

from cwm_jupyter.core.models import Value
from cwm_jupyter.errors import redact

__all__ = ["BEGINNING", "KEY_BYTES", "OPEN", "Line", "key_id", "named", "read", "sealed", "where"]

KEY_BYTES = 32
#: What the first line of all follows.
BEGINNING = "0" * 32
#: The action of a file's first line, which is no change.
OPEN = "open-log"

_MAC_BYTES = 16
_ENDING = re.compile(rb',"mac":"([0-9a-f]{32})"\}')
_ENDING_BYTES = len(',"mac":""}') + 2 * _MAC_BYTES
_KERNEL = re.compile(r"kernel-([0-9A-Za-z-]{8,64})\.json$")
_MAX_NAME = 256
_MAX_NAMES = 100


class Line(Value, frozen=True, kw_only=True):
    """A change, who made it, and what came of it.

    `seq` counts from 1, `after` is the MAC of the line before. `result` is ``done``, the code of an
    error, ``interrupted``, or ``begun``: a change that cannot be undone has a line when it begins,
    and the one at its end names that in `begun`. `kernel` is the notebook kernel's id, null
    elsewhere.
    """

    seq: int
    time: str
    action: str
    result: str
    names: dict[str, str | list[str]]
    user: str
    host: str
    pid: int
    program: str
    kernel: str | None = None
    size_bytes: int | None = None
    seconds: float | None = None
    begun: int | None = None
    #: of the first line of a file: the id of the key
    key_id: str | None = None
    #: of the first line of a file: the id of the key of the line before it
    previous_key_id: str | None = None
    #: how many changes before this one could not be written down
    unwritten: int | None = None
    #: keyed hash of an unfinished line that was found before this one
    torn: str | None = None
    #: there was no head to tell where the log ended
    headless: bool | None = None
    after: str


def sealed(line: Line, key: bytes) -> tuple[bytes, str]:
    """Return a line's bytes, the newline included, and its MAC."""
    known = {field: value for field, value in line.to_dict().items() if value is not None}
    body = msgspec.json.encode(known)[:-1]
    mac = keyed(body, key)
    return body + f',"mac":"{mac}"}}\n'.encode(), mac


def read(raw: bytes, key: bytes | None) -> tuple[Line, str, bool | None] | None:
    """Return what the bytes of a line say, the MAC that is in them, and whether it is theirs.

    Parameters
    ----------
    raw
        The line without its newline.
    key
        None: nobody can tell, and the third is None.

    Returns
    -------
    tuple or None
        None: these bytes are no line of the log.
    """
    body, ending = raw[:-_ENDING_BYTES], _ENDING.fullmatch(raw[-_ENDING_BYTES:])
    if ending is None:
        return None
    try:
        line = msgspec.json.decode(body + b"}", type=Line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    mac = ending[1].decode()
    return line, mac, None if key is None else keyed(body, key) == mac


def keyed(data: bytes, key: bytes) -> str:
    """Return the keyed hash of some bytes, in hex."""
    return blake3.blake3(data, key=key).hexdigest(length=_MAC_BYTES)


def key_id(key: bytes) -> str:
    """Return what a key is known by: a hash of it, which is public."""
    return blake3.blake3(b"cwm audit key id", key=key).hexdigest(length=8)


def named(names: Mapping[str, str | Sequence[str]]) -> dict[str, str | list[str]]:
    """Return names as they are logged: cut to a length, and none that is called like a secret."""
    shown = {
        what: _short(name) if isinstance(name, str) else [_short(one) for one in name[:_MAX_NAMES]]
        for what, name in names.items()
    }
    hidden: dict[str, str | list[str]] = redact(shown)
    return hidden


def _short(name: str) -> str:
    # What cannot be encoded was refused as a name, and is logged all the same.
    name = name.encode("utf-8", "replace").decode()
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…"


def where() -> dict[str, Any]:
    """Return the fields that tell who writes, and from where."""
    return {**_surroundings(), "pid": os.getpid()}


@cache
def _surroundings() -> dict[str, Any]:
    kernels = (_KERNEL.search(argument) for argument in sys.argv[1:])
    return {
        "user": _user(),
        "host": platform.node(),
        "program": Path(sys.argv[0]).stem if sys.argv and sys.argv[0] else "python",
        "kernel": next((found[1] for found in kernels if found), None),
    }


def _user() -> str:
    """Return the name of the user who runs this, whatever the environment says."""
    try:
        import pwd
    except ImportError:  # Windows
        return getpass.getuser()
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())

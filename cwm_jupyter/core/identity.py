"""What a home is told apart by, where several share a vault.

Its path will not do: on two machines it may be the same. The id is made once and moves with the
home.
"""

from __future__ import annotations

import re
import uuid
from contextlib import suppress
from pathlib import Path

import filelock

from cwm_jupyter.core.files import make_private_dir, write_atomic
from cwm_jupyter.core.portable import read_bytes

__all__ = ["home_id"]

_ID = re.compile(rb"[0-9a-f]{32}")
_LOCK_S = 10.0


def home_id(home: Path) -> str:
    """Return a home's id, 32 random hex digits, made when it is first asked for.

    One that is damaged is made anew: what was marked with the old one is then nobody's.
    """
    path = make_private_dir(home / "keys") / "home.id"
    found = _read(path)
    if found is None:
        with filelock.FileLock(path.with_suffix(".lock"), timeout=_LOCK_S, mode=0o600):
            found = _read(path)  # another process may just have made it
            if found is None:
                found = uuid.uuid4().hex
                write_atomic(path, found.encode())
    return found


def _read(path: Path) -> str | None:
    with suppress(FileNotFoundError):
        data = read_bytes(path)
        if _ID.fullmatch(data):
            return data.decode()
    return None

"""The keys of a home: its first one, and the change to another.

A rotation makes a new key, encrypts everything under it, and only then drops the old ones. The
keyring has both meanwhile, so whatever stops it leaves everything readable; it is then run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cwm_jupyter.core.cipher import KEY_VARIABLE, Keyring
from cwm_jupyter.core.files import key_of, make_private_dir
from cwm_jupyter.core.library import Library
from cwm_jupyter.core.models import Value
from cwm_jupyter.errors import (
    DecryptError,
    IndexCorruptError,
    SecurityError,
    SessionBusyError,
    ValidationError,
)

__all__ = ["RotationReport", "open_keyring", "rotate_key"]

_RETRY_S = 0.2


class RotationReport(Value, frozen=True, kw_only=True):
    """What a rotation did.

    `new_key` is false where the key comes from the environment, which only the user can change:
    then everything is encrypted under it, and its older keys may be taken out of the variable.
    `unreadable` are files that could not be opened. Where there are any, the old keys are kept:
    a backup of those files may need them.
    """

    current: str
    new_key: bool
    documents: int
    contents: int
    dropped: int
    unreadable: list[str]


def open_keyring(home: Path, *, encrypts: bool) -> Keyring | None:
    """Return the keyring of a home, or None where there is no key and none is needed.

    Parameters
    ----------
    home
        Its first key is made, durably, where it has none and is to encrypt.
    encrypts
        The setting ``security.encrypt``.

    Raises
    ------
    ConfigError
        The environment variable holds no keys.
    SecurityError
        The keys cannot be read, or are lost: something is encrypted, and there is no key.
    """
    keyring = Keyring.load(home, encrypts=encrypts)
    if keyring is not None or not encrypts:
        return keyring
    lost = next(_encrypted(home), None)
    if lost is not None:  # a new key would hide that the old one is missing, until it is too late
        raise SecurityError(
            f"{lost.name} is encrypted, and there is no key.",
            hint=f"Restore keys/encryption.json in {home}, or set {KEY_VARIABLE}. If the key is "
            "lost, move sessions and windows away.",
        )
    make_private_dir(home)
    return Keyring.load_or_create(home)


def rotate_key(
    library: Library, contents: Callable[[Keyring], int] | None, *, patience_s: float = 60.0
) -> RotationReport:
    """Change the key, encrypt all documents and chunks under the new one, drop the old ones.

    What was plain is encrypted too. Sessions may go on meanwhile; one that is in the middle of a
    turn is waited for.

    Parameters
    ----------
    library
        The home.
    contents
        Encrypts what is in the vault under the keyring's current key, durably, and returns how
        many files that were; what it raises leaves the old keys where they are. None: there is no
        vault.
    patience_s
        How long to wait for sessions that are busy.

    Raises
    ------
    ValidationError
        Encryption is off.
    SessionBusyError
        A session was busy for too long. Nothing is lost; run it again.
    SecurityError
        Another process is at it, or the keys cannot be read.
    """
    keyring = library.keyring
    if keyring is None or not keyring.encrypts:
        raise ValidationError(
            "Encryption is off, so there is no key to change.",
            hint="Set security.encrypt first: CWM_SECURITY_ENCRYPT=true.",
        )
    with keyring.rotating():
        new_key = keyring.renew()
        documents, _ = _reseal(library, keyring, patience_s)
        stored = contents(keyring) if contents is not None else 0
        # Once more: others may have written with the old key until they saw the new one.
        late, unreadable = _reseal(library, keyring, patience_s)
        dropped = 0 if unreadable else keyring.forget_older()
    return RotationReport(
        current=keyring.current_id.hex(),
        new_key=new_key,
        documents=documents + late,
        contents=stored,
        dropped=dropped,
        unreadable=unreadable,
    )


def _reseal(library: Library, keyring: Keyring, patience_s: float) -> tuple[int, list[str]]:
    """Encrypt all documents anew; return how many, and the names of those that do not open."""
    deadline = time.monotonic() + patience_s
    done, unreadable, left = 0, [], library.documents()
    while left:
        busy: dict[Path, SessionBusyError] = {}
        for path in left:
            try:
                done += library.reseal(path, keyring)
            except SessionBusyError as error:
                busy[path] = error
            except (IndexCorruptError, DecryptError):
                unreadable.append(path.name)
        left = list(busy)
        if left:
            if time.monotonic() >= deadline:
                raise busy[left[0]]
            time.sleep(_RETRY_S)
    return done, unreadable


def _encrypted(home: Path) -> Iterator[Path]:
    for folder in ("windows", "sessions"):
        for path in (home / folder).glob("*.json"):
            if key_of(path.read_bytes()) is not None:
                yield path

"""The vault's folder: what lies where, who it belongs to, and one writer at a time.

::

    vault.json        what made it, and the version of all this
    secret            32 random bytes: keys the names of contents and records
    contents/ID.kv    contents (`cwm_jupyter.vault.content`), named by a keyed digest of their bytes
    records/NAME.json what a key means (`cwm_jupyter.vault.records`)
    holds/OWNER.json  what a window keeps
    quarantine/       what was found damaged: moved here, never used
    lock              held by who changes names; readers need none

Nothing but plain files: it can be copied, backed up and looked into, also while it is in use, and
lies on any file system that can rename. Whoever changes what names there are holds the lock, so a
hold that was written keeps its contents from every eviction that comes after it.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from cwm_jupyter.core.files import (
    make_private_dir,
    read_checked,
    write_atomic,
    write_checked,
)
from cwm_jupyter.core.models import now
from cwm_jupyter.errors import KVStoreError, KVStoreTimeoutError

if TYPE_CHECKING:
    from cwm_jupyter.core.cipher import Keyring

__all__ = ["Folder"]

_SCHEMA = 1
_SECRET_BYTES = 32
_LOCK_S = 60.0
_LOCK_POLL_S = 0.002


class Folder:
    """The folder of a vault, made if there is none.

    Parameters
    ----------
    path
        Where it lies; for its owner alone.
    keyring
        Encrypts records and holds, and opens those that are encrypted.

    Raises
    ------
    KVStoreError
        The folder has contents but its secret is gone.
    SchemaError
        A newer release made it.
    SecurityError
        It belongs to another user.
    """

    def __init__(self, path: Path, keyring: Keyring | None = None) -> None:
        self.path, self.keyring = path, keyring
        make_private_dir(path)
        self.contents, self.records, self.holds, self.quarantine = (
            make_private_dir(path / name) for name in ("contents", "records", "holds", "quarantine")
        )
        self._mutex = threading.RLock()
        self._lock = filelock.FileLock(path / "lock", mode=0o600, thread_local=False)
        with self.locked():
            self.secret = self._secret()
            self._check_version()

    def content(self, content: str) -> Path:
        """Return the path of a content, by its id in hex."""
        return self.contents / f"{content}.kv"

    def record(self, name: str) -> Path:
        """Return the path of a record, by its name."""
        return self.records / f"{name}.json"

    def hold(self, owner: str) -> Path:
        """Return the path of a hold."""
        return self.holds / f"{owner}.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the vault's lock, against threads and processes.

        Raises
        ------
        KVStoreTimeoutError
            Another process holds it for a minute.
        """
        with self._mutex:
            try:
                self._lock.acquire(timeout=_LOCK_S, poll_interval=_LOCK_POLL_S)
            except filelock.Timeout:
                raise KVStoreTimeoutError(
                    f"Another process has held the lock of the vault for {_LOCK_S:g} s.",
                    hint=f"Look for what hangs and uses {self.path}.",
                ) from None
            try:
                yield
            finally:
                self._lock.release()

    def _secret(self) -> bytes:
        path = self.path / "secret"
        try:
            secret = path.read_bytes()
        except FileNotFoundError:
            if any(self.contents.iterdir()):
                raise KVStoreError(
                    f"The secret of the vault in {self.path} is gone.",
                    hint="Restore the file 'secret' from a backup: no chunk is found without it.",
                ) from None
            secret = secrets.token_bytes(_SECRET_BYTES)
            write_atomic(path, secret)
        if len(secret) != _SECRET_BYTES:
            raise KVStoreError(
                f"The secret of the vault in {self.path} is damaged.",
                hint="Restore the file 'secret' from a backup: no chunk is found without it.",
            )
        return secret

    def _check_version(self) -> None:
        path = self.path / "vault.json"
        if path.exists():
            read_checked(path, "vault", _SCHEMA)
            return
        body: dict[str, Any] = {"made_at": now()}
        write_checked(path, "vault", _SCHEMA, body)

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

import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blake3
import filelock

from cwm_jupyter.core.files import (
    make_private_dir,
    read_checked,
    write_atomic,
    write_checked,
)
from cwm_jupyter.core.models import now
from cwm_jupyter.core.names import check_id
from cwm_jupyter.core.portable import read_bytes
from cwm_jupyter.errors import (
    IndexCorruptError,
    KVStoreError,
    KVStoreTimeoutError,
)
from cwm_jupyter.vault import disk
from cwm_jupyter.vault.records import is_content

if TYPE_CHECKING:
    from cwm_jupyter.core.cipher import Keyring

__all__ = ["Folder"]

_log = logging.getLogger(__name__)
_SCHEMA = 1
_SECRET_BYTES = 32
_LOCK_S = 60.0
_LOCK_POLL_S = 0.002
_RESTORE = "Restore the file 'secret' from a backup: no chunk is found without it."
_PURPOSE = "cwm-jupyter vault secret id v1"


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
        The folder has contents, but its secret is gone, or is not the one it was made with.
    SchemaError
        A newer release made it.
    SecurityError
        It belongs to another user.
    """

    def __init__(self, path: Path, keyring: Keyring | None = None) -> None:
        self.path, self.keyring = make_private_dir(path), keyring
        self.contents, self.records, self.holds, self.quarantine = (
            make_private_dir(self.path / name)
            for name in ("contents", "records", "holds", "quarantine")
        )
        self._mutex = threading.RLock()
        self._lock = filelock.FileLock(self.path / "lock", mode=0o600, thread_local=False)
        with self.locked():
            self.secret = self._secret()
            self._check_version()

    def content(self, content: str) -> Path:
        """Return the path of a content, by its id in hex."""
        return self.contents / f"{content}.kv"

    def all_contents(self) -> Iterator[tuple[str, os.stat_result]]:
        """Go through the ids of all contents; files of other names are none of ours."""
        for path, status in disk.files(self.contents, ".kv"):
            if is_content(path.stem):
                yield path.stem, status

    def record(self, name: str) -> Path:
        """Return the path of a record, by its name."""
        return self.records / f"{name}.json"

    def hold(self, owner: str) -> Path:
        """Return the path of a hold.

        Raises
        ------
        ValidationError
            The owner's name is none that every file system takes.
        """
        return self.holds / f"{check_id(owner, 'holder')}.json"

    @contextmanager
    def locked(self, timeout_s: float = _LOCK_S) -> Iterator[None]:
        """Hold the vault's lock, against threads and processes; again in one thread is fine.

        Raises
        ------
        KVStoreTimeoutError
            Somebody else holds it for so long.
        """
        late = KVStoreTimeoutError(
            f"Somebody else has held the lock of the vault for {timeout_s:g} s.",
            hint=f"Look for what hangs and uses {self.path}.",
        )
        if not self._mutex.acquire(timeout=timeout_s):
            raise late
        try:
            try:
                self._lock.acquire(timeout=timeout_s, poll_interval=_LOCK_POLL_S)
            except filelock.Timeout:
                raise late from None
            try:
                yield
            finally:
                self._lock.release()
        finally:
            self._mutex.release()

    def _secret(self) -> bytes:
        path = self.path / "secret"
        try:
            secret = read_bytes(path)
        except FileNotFoundError:
            if any(self.contents.iterdir()) or any(self.records.iterdir()):
                raise KVStoreError(
                    f"The secret of the vault in {self.path} is gone.",
                    hint=_RESTORE,
                ) from None
            secret = secrets.token_bytes(_SECRET_BYTES)
            write_atomic(path, secret)
        if len(secret) != _SECRET_BYTES:
            raise KVStoreError(
                f"The secret of the vault in {self.path} is damaged.",
                hint=_RESTORE,
            )
        return secret

    def _check_version(self) -> None:
        """Refuse what a newer release made, or what another secret's names are in."""
        path = self.path / "vault.json"
        mine = blake3.blake3(self.secret, derive_key_context=_PURPOSE).hexdigest()
        if path.exists():
            try:
                body: dict[str, Any] = read_checked(path, "vault", _SCHEMA)
            except IndexCorruptError as error:  # nothing hangs on it that is not said elsewhere
                _log.warning("%s in %s: made anew", error.message, self.path)
            else:
                said = body.get("secret_id")
                if said == mine:
                    return
                if said is not None:
                    raise KVStoreError(
                        f"The secret of the vault in {self.path} is not the one it was made with.",
                        hint=_RESTORE,
                    )
        write_checked(path, "vault", _SCHEMA, {"made_at": now(), "secret_id": mine})

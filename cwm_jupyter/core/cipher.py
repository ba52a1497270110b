"""Encryption at rest: AES-256-GCM under one current key; older keys still open what they sealed.

Sealed bytes are ``key id (8) | nonce (12, random) | ciphertext | tag (16)``. A key's id is derived
from it by a one-way function, so it is public, and a key that moves from the file to the
environment or to another machine still opens what it sealed. A random nonce is good for some 2^32
messages a key; rotate long before.

The module is also imported inside LMCache's server, so it needs little: `cryptography` and the
lock are imported when they are used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self

import msgspec

from cwm_jupyter.core import files
from cwm_jupyter.core.portable import long_path, remove
from cwm_jupyter.errors import ConfigError, CWMError, DecryptError, SecurityError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["ID_BYTES", "KEY_VARIABLE", "OVERHEAD", "Keyring"]

#: environment variable: a key as 64 hex digits; older keys may follow it, after commas
KEY_VARIABLE = "CWM_ENCRYPTION_KEY"
ID_BYTES, _NONCE_BYTES, _TAG_BYTES, _KEY_BYTES = 8, 12, 16, 32
#: by how many bytes what is sealed is longer than what it holds
OVERHEAD = ID_BYTES + _NONCE_BYTES + _TAG_BYTES
_HEAD_BYTES = ID_BYTES + _NONCE_BYTES

_KIND, _SCHEMA = "keyring", 1
_HEX_KEYS = re.compile(r"[0-9a-fA-F]{64}(\s*,\s*[0-9a-fA-F]{64})*")
_BACKUP = "Restore it from a backup: nothing that was encrypted can be read without it."


class _Key:
    """A key. It has no fields that a repr would show."""

    __slots__ = ("_cipher", "id", "secret")

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.id = hashlib.blake2b(key=secret, person=b"cwm key id", digest_size=ID_BYTES).digest()
        self._cipher: AESGCM | None = None

    @property
    def cipher(self) -> AESGCM:
        """The cipher under this key; it may be used by many threads at once."""
        if self._cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._cipher = AESGCM(self.secret)
        return self._cipher


class Keyring:
    """Keys from the environment, and those of a home in its ``keys/encryption.json``.

    The first key of the environment is the current one, or else the first of the file; the others
    only open. Another process may rotate the key at any time, so the file is looked at again
    before anything is sealed, and where a key is not known. Safe between threads. Made by `load`,
    `load_or_create`, `watch` and `from_environment`.

    Parameters
    ----------
    path
        The file; None: there are no keys but those given.
    given
        Keys of the environment.
    encrypts
        Whether those who write are to encrypt; a keyring that does not still opens.
    """

    def __init__(
        self, path: Path | None, given: Sequence[_Key] = (), *, encrypts: bool = True
    ) -> None:
        self.path = path
        self.encrypts = encrypts
        self._given = tuple(given)
        self._stored: tuple[_Key, ...] = ()
        self._raw: bytes | None = None
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls, home: Path, environ: Mapping[str, str] | None = None, *, encrypts: bool = True
    ) -> Self | None:
        """Return the keyring of a home, or None where there is no key.

        Raises
        ------
        ConfigError
            The environment variable holds no keys.
        SecurityError
            The file is damaged, or others can read it.
        """
        ring = cls.watch(home, environ, encrypts=encrypts)
        return ring if ring._keys else None

    @classmethod
    def watch(
        cls, home: Path, environ: Mapping[str, str] | None = None, *, encrypts: bool = True
    ) -> Self:
        """Return the keyring of a home, also where there is no key yet: it finds one that comes.

        For a server that outlives the switching on of encryption. Raises as `load` does.
        """
        ring = cls(_place(home), _given(environ), encrypts=encrypts)
        ring._look()
        return ring

    @classmethod
    def load_or_create(
        cls, home: Path, environ: Mapping[str, str] | None = None, *, encrypts: bool = True
    ) -> Self:
        """Return the keyring of a home; where there is no key, make one, durably.

        Raises as `load` does.
        """
        ring = cls.load(home, environ, encrypts=encrypts)
        if ring is None:
            ring = cls(_place(home), encrypts=encrypts)
            with ring.rotating():
                ring._look()  # another process may have been first
                if not ring._keys:
                    ring._store([_Key(secrets.token_bytes(_KEY_BYTES))])
        return ring

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] | None = None, *, encrypts: bool = True
    ) -> Self | None:
        """Return a keyring of the environment's keys alone, or None where there are none.

        Raises
        ------
        ConfigError
            The variable holds no keys.
        """
        given = _given(environ)
        return cls(None, given, encrypts=encrypts) if given else None

    def __repr__(self) -> str:
        ids = [key.id.hex() for key in self._keys]
        return f"<Keyring current={ids[0] if ids else None} older={ids[1:]}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a keyring is not pickled: it would take its keys along")

    # --- sealing and opening ----------------------------------------------------------------------

    @property
    def current_id(self) -> bytes:
        """Id of the key that seals, as far as is known; `refresh` looks."""
        return self._keys[0].id

    @staticmethod
    def key_id_of(sealed: bytes | memoryview) -> bytes:
        """Return the id of the key that sealed this."""
        return bytes(sealed[:ID_BYTES])

    def knows(self, sealed: bytes | memoryview) -> bool:
        """Return whether the key that sealed this is here.

        What does not open although it is has wrong bytes, or is in a wrong place.
        """
        return self._find(self.key_id_of(sealed)) is not None

    def is_current(self, sealed: bytes | memoryview) -> bool:
        """Return whether the current key sealed this, after a look at the file.

        Who wrote something asks this when it is in its place, and writes it again if it is not:
        a rotation that looked there too early would drop the key.
        """
        return self.key_id_of(sealed) == self.refresh()

    def refresh(self) -> bytes:
        """Look at the file again, which another process may have changed; return the current id.

        Raises
        ------
        SecurityError
            The file is gone or damaged, or others can read it.
        """
        return self._current().id

    def seal(self, plain: bytes | memoryview, context: bytes) -> bytes:
        """Encrypt under the current key.

        Parameters
        ----------
        plain
            What to encrypt.
        context
            What it is, and where it belongs: it is not in the result, and opens nothing else.

        Raises
        ------
        SecurityError
            The key file is gone or damaged: what is sealed now could never be opened.
        """
        sealed = bytearray(len(plain) + OVERHEAD)
        self.seal_into(plain, context, sealed)
        return bytes(sealed)

    def seal_into(
        self, plain: bytes | memoryview, context: bytes, buffer: bytearray | memoryview
    ) -> None:
        """Encrypt, as `seal` does, into a writable buffer that is `OVERHEAD` bytes longer.

        For a chunk that is several times faster: fresh memory costs more than the cipher.

        Raises
        ------
        SecurityError
            As `seal` does.
        ValueError
            The buffer is of another size.
        """
        if len(buffer) != len(plain) + OVERHEAD:
            raise ValueError(f"{len(plain) + OVERHEAD} bytes do not fit into {len(buffer)}")
        key, nonce, view = self._current(), secrets.token_bytes(_NONCE_BYTES), memoryview(buffer)
        view[:ID_BYTES], view[ID_BYTES:_HEAD_BYTES] = key.id, nonce
        if hasattr(key.cipher, "encrypt_into"):
            key.cipher.encrypt_into(nonce, plain, context, view[_HEAD_BYTES:])
        else:
            view[_HEAD_BYTES:] = key.cipher.encrypt(nonce, plain, context)

    def open(self, sealed: bytes | memoryview, context: bytes) -> bytes:
        """Decrypt what `seal` gave.

        Raises
        ------
        DecryptError
            The key is not here, or the bytes or the context are not those of the sealing.
        """
        from cryptography.exceptions import InvalidTag

        key, nonce, rest = self._parts(sealed)
        try:
            return key.cipher.decrypt(nonce, rest, context)
        except InvalidTag:
            raise _wrong() from None

    def open_into(
        self, sealed: bytes | memoryview, context: bytes, buffer: bytearray | memoryview
    ) -> None:
        """Decrypt into a writable buffer of exactly the size; no copy where the library can.

        Raises
        ------
        DecryptError
            As `open` does; the buffer is then all zeros.
        ValueError
            The buffer is of another size.
        """
        from cryptography.exceptions import InvalidTag

        key, nonce, rest = self._parts(sealed)
        if len(buffer) != len(sealed) - OVERHEAD:
            raise ValueError(f"{len(sealed) - OVERHEAD} bytes do not fit into {len(buffer)}")
        try:
            if hasattr(key.cipher, "decrypt_into"):
                key.cipher.decrypt_into(nonce, rest, context, buffer)
            else:
                buffer[:] = key.cipher.decrypt(nonce, rest, context)
        except InvalidTag:
            buffer[:] = bytes(len(buffer))  # it holds what nobody vouches for
            raise _wrong() from None

    def _parts(self, sealed: bytes | memoryview) -> tuple[_Key, memoryview, memoryview]:
        if len(sealed) < OVERHEAD:
            raise DecryptError("It is cut off: too short for anything encrypted.")
        key = self._find(self.key_id_of(sealed))
        if key is None:
            wanted, here = self.key_id_of(sealed).hex(), [key.id.hex() for key in self._keys]
            raise DecryptError(
                f"It is encrypted with the key {wanted}, which is not here; here is "
                f"{', '.join(here)}.",
                hint=f"Put that key into {self.path}, or after a comma into {KEY_VARIABLE}."
                if self.path
                else f"Put that key into {KEY_VARIABLE}, after a comma.",
            )
        view = memoryview(sealed)
        return key, view[ID_BYTES:_HEAD_BYTES], view[_HEAD_BYTES:]

    # --- the keys ---------------------------------------------------------------------------------

    @property
    def _keys(self) -> tuple[_Key, ...]:
        return self._given + self._stored

    def _find(self, key_id: bytes) -> _Key | None:
        found = next((key for key in self._keys if key.id == key_id), None)
        if found is None:
            self._look()
            found = next((key for key in self._keys if key.id == key_id), None)
        return found

    def _current(self) -> _Key:
        self._look()
        if not self._keys:
            raise SecurityError("There is no encryption key.", hint=_BACKUP)
        return self._keys[0]

    def _look(self) -> None:
        """Read the file if it is not as it was.

        It is small, and the times of a file are too coarse to tell.
        """
        if self.path is None:
            return
        with self._lock:
            raw = _read(self.path)
            if raw is None and self._stored and not self._given:
                raise SecurityError(f"{self.path}, the encryption key, is gone.", hint=_BACKUP)
            if raw is not None and raw != self._raw:
                self._stored, self._raw = _parse(raw, self.path), raw

    def _store(self, keys: Sequence[_Key]) -> None:
        """Make these the keys of the file, or remove it; to be called within `rotating`."""
        assert self.path is not None  # noqa: S101
        if keys:
            body = {"keys": [key.secret.hex() for key in keys]}
            raw = files.seal_document(_KIND, _SCHEMA, body)
            files.write_atomic(self.path, raw)
            self._stored, self._raw = tuple(keys), raw
        else:
            remove(self.path)
            files.fsync_dir(self.path.parent)
            self._stored, self._raw = (), None

    # --- rotation ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def rotating(self) -> Iterator[None]:
        """Be the one, of all processes, that changes the file.

        Raises
        ------
        SecurityError
            Another process is changing it.
        """
        import filelock

        if self.path is None:
            yield
            return
        files.make_private_dir(self.path.parent)
        try:
            with filelock.FileLock(self.path.with_suffix(".lock"), timeout=10, mode=0o600):
                yield
        except filelock.Timeout:
            raise SecurityError(
                "Another process is changing the encryption key.", hint="Wait until it is done."
            ) from None

    def renew(self) -> bool:
        """Make a new current key, durably, if it is ours to make; within `rotating`.

        Returns
        -------
        bool
            False: the current key comes from the environment, and stays.
        """
        if self._given:
            return False
        self._look()
        self._store([_Key(secrets.token_bytes(_KEY_BYTES)), *self._stored])
        return True

    def forget_older(self) -> int:
        """Take the older keys out of the file for good, and return how many; within `rotating`.

        What they sealed can then never be opened again.
        """
        if self.path is None:
            return 0
        self._look()
        kept = () if self._given else self._stored[:1]
        dropped = len(self._stored) - len(kept)
        if dropped:
            self._store(kept)
        return dropped


def _place(home: Path) -> Path:
    return long_path(home) / "keys" / "encryption.json"


def _given(environ: Mapping[str, str] | None) -> list[_Key]:
    text = (os.environ if environ is None else environ).get(KEY_VARIABLE, "").strip()
    if not text:  # as for every other variable, empty is unset
        return []
    if not _HEX_KEYS.fullmatch(text):
        raise ConfigError(
            f"{KEY_VARIABLE} does not hold a key.",
            hint="It must be 64 hexadecimal digits, as `openssl rand -hex 32` prints; older keys "
            "may follow, after commas.",
            field=KEY_VARIABLE,
        )
    return [_Key(bytes.fromhex(one)) for one in text.split(",")]


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SecurityError(
            f"{path}, the encryption key, cannot be read: {error.strerror}.", hint=_BACKUP
        ) from error
    if os.name != "nt" and mode & 0o077:
        raise SecurityError(
            f"{path}, the encryption key, is open to other users.",
            hint=f"Close it (chmod 600 {path}), then change the key with cwm admin rotate-key.",
        )
    return raw


def _parse(raw: bytes, path: Path) -> tuple[_Key, ...]:
    try:
        document = files.open_document(raw, _KIND, _SCHEMA, path.name)
        body = msgspec.json.decode(document.body, type=dict[str, list[str]])
        keys = tuple(_Key(bytes.fromhex(one)) for one in body["keys"])
        if keys and all(len(key.secret) == _KEY_BYTES for key in keys):
            return keys
    except CWMError as error:
        raise SecurityError(
            f"The encryption key cannot be read: {error.message}", hint=_BACKUP
        ) from error
    except (ValueError, LookupError):  # whose messages may quote the key
        pass
    raise SecurityError(f"{path} holds no encryption keys.", hint=_BACKUP)


def _wrong() -> DecryptError:
    return DecryptError("It cannot be decrypted: it is damaged, or belongs elsewhere.")

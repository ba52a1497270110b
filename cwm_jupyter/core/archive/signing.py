"""Signatures: the key that signs what is exported here, and whose signatures are trusted.

The key is Ed25519, made on first use, in ``keys/signing.key`` (PEM, owner-only). It says that two
archives are from the same home, not who that is: whose key it is one learns from people, by its
fingerprint. Those that are trusted are in ``trusted_signers.json``; the own key always is.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from cwm_jupyter.core.archive.format import DAMAGED
from cwm_jupyter.core.archive.reports import Signer
from cwm_jupyter.core.files import (
    fsync_dir,
    make_private_dir,
    read_checked,
    write_atomic,
    write_checked,
)
from cwm_jupyter.core.models import Value, now
from cwm_jupyter.errors import ArchiveError, SecurityError, ValidationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["Signers", "check_signature", "fingerprint"]

_KIND, _SCHEMA = "trusted-signers", 1
_KEY = re.compile(r"[0-9a-f]{64}")
_MAX_NAME_LENGTH = 200
_LOCK_S = 10.0


class _Trusted(Value, frozen=True, kw_only=True):
    """One line of the list: a public key in hex, and what the user calls whose it is."""

    public: str
    name: str
    added_at: str


class Signers:
    """The signing key and the trusted signers of a home.

    Parameters
    ----------
    home
        The home folder.
    """

    def __init__(self, home: Path) -> None:
        self._keys = home / "keys"
        self._key_path = self._keys / "signing.key"
        self._list_path = home / "trusted_signers.json"

    def sign(self, message: bytes) -> tuple[bytes, bytes]:
        """Return the public key and the signature of a message, both raw; makes the key if need be.

        Raises
        ------
        SecurityError
            The key file cannot be read, or others can read it.
        """
        private = self._load() or self._create()
        return _public(private), private.sign(message)

    def own(self) -> Signer | None:
        """Return the own key, None where nothing was exported yet."""
        private = self._load()
        if private is None:
            return None
        return _signer(_public(private).hex(), name="this home", added_at=None, trusted=True)

    def describe(self, public: bytes) -> Signer:
        """Return what is known of a public key (raw)."""
        known = {one.public: one for one in self.all()}
        unknown = _signer(public.hex(), name="", added_at=None, trusted=False)
        return known.get(public.hex(), unknown)

    def all(self) -> list[Signer]:
        """Return whom this home trusts: itself, then the others as they were added.

        Raises
        ------
        IndexCorruptError
            The list is damaged.
        """
        own = self.own()
        trusted = [
            _signer(one.public, name=one.name, added_at=one.added_at, trusted=True)
            for one in self._read()
            if own is None or one.public != own.public
        ]
        return [*([own] if own else []), *trusted]

    def add(self, public: str, name: str = "") -> Signer:
        """Trust a public key (64 hex digits) from now on.

        Raises
        ------
        ValidationError
            It is no key, or the name cannot be shown.
        """
        public = public.lower()
        if not _KEY.fullmatch(public):
            raise ValidationError(
                "A signer's key is 64 hexadecimal digits.",
                hint="Its owner sees it with: cwm admin trust list",
            )
        if len(name) > _MAX_NAME_LENGTH or not name.isprintable():
            raise ValidationError(
                f"A signer's name has up to {_MAX_NAME_LENGTH} printable characters."
            )
        with self._locked():
            others = [one for one in self._read() if one.public != public]
            new = _Trusted(public=public, name=name, added_at=now())
            write_checked(self._list_path, _KIND, _SCHEMA, [*others, new])
        return self.describe(bytes.fromhex(public))

    def remove(self, which: str) -> Signer:
        """Trust a signer no longer.

        Parameters
        ----------
        which
            Its fingerprint, key, or name.

        Raises
        ------
        ValidationError
            No other signer, or more than one, is called so.
        """
        with self._locked():
            trusted = self._read()
            found = [o for o in trusted if which in (o.public, fingerprint(o.public), o.name)]
            if len(found) != 1:
                many = "more than one" if found else "no"
                raise ValidationError(
                    f"There is {many} trusted signer {which!r}.",
                    hint="See cwm admin trust list; this home's own key is always trusted.",
                )
            kept = [one for one in trusted if one != found[0]]
            write_checked(self._list_path, _KIND, _SCHEMA, kept)
        gone = found[0]
        return _signer(gone.public, name=gone.name, added_at=gone.added_at, trusted=False)

    def _read(self) -> list[_Trusted]:
        if not self._list_path.exists():
            return []
        document = read_checked(self._list_path, _KIND, _SCHEMA)
        return [_Trusted.from_dict(one) for one in document]

    def _locked(self) -> filelock.BaseFileLock:
        make_private_dir(self._keys)
        return filelock.FileLock(self._keys / "signing.lock", timeout=_LOCK_S, mode=0o600)

    def _load(self) -> Ed25519PrivateKey | None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            mode, pem = self._key_path.stat().st_mode, self._key_path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SecurityError(
                f"{self._key_path}, the signing key, cannot be read: {error.strerror}."
            ) from error
        if os.name != "nt" and mode & 0o077:
            raise SecurityError(
                f"{self._key_path}, the signing key, is open to other users.",
                hint=f"Delete it if they may have read it, or close it: chmod 600 {self._key_path}",
            )
        try:
            private = load_pem_private_key(pem, password=None)
        except ValueError:  # whose message may quote the key
            private = None
        if not isinstance(private, Ed25519PrivateKey):
            raise SecurityError(
                f"{self._key_path} holds no signing key.",
                hint="Restore it from a backup, or delete it: the next export makes another.",
            )
        return private

    def _create(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        with self._locked():
            private = self._load()  # another process may have been first
            if private is None:
                private = Ed25519PrivateKey.generate()
                pem = private.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
                write_atomic(self._key_path, pem)
                fsync_dir(self._keys)
        return private


def check_signature(public: bytes, signature: bytes, message: bytes) -> None:
    """Check an Ed25519 signature; all are raw bytes.

    Raises
    ------
    ArchiveError
        It is not this key's signature of this message.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise ArchiveError(
            "The archive's signature is wrong: it was changed after it was signed.", hint=DAMAGED
        ) from None


def fingerprint(public: str) -> str:
    """Return the short form of a public key (hex), for people: SHA-256 of its bytes, base64."""
    shown = base64.b64encode(hashlib.sha256(bytes.fromhex(public)).digest()).decode()
    return f"SHA256:{shown.rstrip('=')}"


def _signer(public: str, *, name: str, added_at: str | None, trusted: bool) -> Signer:
    return Signer(
        fingerprint=fingerprint(public),
        public=public,
        name=name,
        added_at=added_at,
        trusted=trusted,
    )


def _public(private: Ed25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()

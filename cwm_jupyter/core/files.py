"""Files that survive a crash: written whole or not at all, and checked when they are read.

`write_atomic` is the ground: a reader sees the old bytes or the new ones, and what it returned
from outlives a power cut. On it lie the checked documents, the envelope of the index, of
transcripts and of manifests: ``{"schema": 1, "kind": "index", "checksum": hex, "body": …}`` with
the blake3 checksum of the body's bytes as they lie in the file. An encrypted one has, in the place
of the body, ``"key": hex, "sealed": base64``: the id of the key, and the body under it, bound to
the kind, the schema and the file's name. Damage can so be told without the key.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blake3
import msgspec

from cwm_jupyter.core import portable
from cwm_jupyter.core.portable import fsync_dir, long_path, read_bytes, replace, sync_file
from cwm_jupyter.errors import (
    DecryptError,
    IndexCorruptError,
    ResourceExhaustedError,
    SchemaError,
    SecurityError,
)

if TYPE_CHECKING:
    from cwm_jupyter.core.cipher import Keyring

__all__ = [
    "Document",
    "fsync_dir",
    "keep_copy",
    "key_of",
    "make_private_dir",
    "migrate",
    "open_document",
    "read_checked",
    "remove_leftovers",
    "reseal",
    "seal_document",
    "write_atomic",
    "write_checked",
]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A checked document: its schema version, and its body as JSON bytes."""

    schema: int
    body: msgspec.Raw


class _Envelope(msgspec.Struct, kw_only=True):
    """A document as it is read: with a body, or encrypted with a key."""

    schema: int
    kind: str
    checksum: str
    body: msgspec.Raw = msgspec.Raw()  # empty, which no JSON value is
    key: str | None = None
    sealed: str | None = None


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace the file at `path` by `data`: durably, and as a whole or not at all.

    Parameters
    ----------
    path
        The file; its folder must exist. A symbolic link is replaced, not followed.
    data
        The whole content.
    mode
        Permission bits of the new file; without effect on Windows.

    Raises
    ------
    ResourceExhaustedError
        The disk or a quota is full; the old file is as it was.
    OSError
        The folder is missing or cannot be written to.
    """
    handle, name = tempfile.mkstemp(prefix=_temporary_prefix(path), suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            sync_file(file.fileno())
        if not portable.WINDOWS and mode != 0o600:  # what mkstemp gives
            temporary.chmod(mode)
        replace(temporary, path)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise ResourceExhaustedError(
                f"No room to write {path.name}: {error.strerror}.",
                hint=f"Free {len(data) / 1e6:.1f} MB or more on the disk of {path.parent}.",
                needed_bytes=len(data),
            ) from error
        raise
    finally:
        with contextlib.suppress(OSError):  # gone by now, or left for `remove_leftovers`
            temporary.unlink()
    fsync_dir(path.parent)


def keep_copy(path: Path, copy: Path) -> None:
    """Make `copy` hold what `path` holds now, atomically, by a hard link where the disk has them.

    Only for files that are replaced and never written in place.
    """
    link = copy.with_name(f"{_temporary_prefix(copy)}{secrets.token_hex(8)}.tmp")
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        write_atomic(copy, read_bytes(path))
        return
    try:
        replace(link, copy)
    finally:
        link.unlink(missing_ok=True)  # replacing one link by another to the same file keeps both


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of `path` that a crash left; only while nobody else writes it."""
    for leftover in path.parent.glob(f"{_temporary_prefix(path)}*.tmp"):
        leftover.unlink(missing_ok=True)


def make_private_dir(folder: Path) -> Path:
    """Create `folder` with its parents, readable by its owner alone, and return it as `long_path`.

    An existing folder is made private too. On Windows it inherits who may see it, so within the
    user's profile that is the user alone.

    Raises
    ------
    SecurityError
        The folder belongs to another user.
    """
    folder = long_path(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if portable.WINDOWS:
        return folder
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise SecurityError(
            f"{folder} belongs to another user.",
            hint="Choose a folder of your own with CWM_HOME.",
        )
    if status.st_mode & 0o777 != 0o700:
        folder.chmod(0o700)
    return folder


def seal_document(
    kind: str, schema: int, body: Any, name: str = "", keyring: Keyring | None = None
) -> bytes:
    """Return the bytes of a checked document.

    Parameters
    ----------
    kind
        What it is, as in ``"manifest"``: a document of another kind is refused when reading.
    schema
        Version of the body's shape.
    body
        Anything msgspec writes as JSON.
    name
        The file's name, to which an encrypted document is bound; of no account to a plain one.
    keyring
        Encrypts the body, if it is there and is to encrypt.
    """
    raw = msgspec.json.encode(body)
    # The order of the fields is that of the bytes: who reads the beginning alone has the checksum.
    document = {"schema": schema, "kind": kind}
    if keyring is None or not keyring.encrypts:
        return msgspec.json.encode(
            {**document, "checksum": _checksum(raw), "body": msgspec.Raw(raw)}
        )
    sealed = keyring.seal(raw, _context(kind, schema, name))
    text = base64.b64encode(sealed).decode()
    key = keyring.key_id_of(sealed).hex()
    return msgspec.json.encode(
        {**document, "checksum": _checksum(text.encode()), "key": key, "sealed": text}
    )


def open_document(
    data: bytes, kind: str, schema: int, name: str, keyring: Keyring | None = None
) -> Document:
    """Check the bytes of a document and return its schema version and body.

    Parameters
    ----------
    data
        What `seal_document` gave.
    kind
        The kind that is expected.
    schema
        The newest version that the caller knows.
    name
        The file's name.
    keyring
        Opens the body if it is encrypted.

    Raises
    ------
    IndexCorruptError
        It is no such document, or its bytes are not those that were written.
    SchemaError
        It is of a newer version.
    DecryptError
        It is encrypted, and the key is not here or does not open it.
    """
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise IndexCorruptError(f"{name} is damaged: {error}.", file=name) from error
    if envelope.kind != kind:
        raise IndexCorruptError(f"{name} holds no {kind} but: {envelope.kind!r}.", file=name)
    if envelope.schema > schema:  # first: a newer release may compute its checksum in another way
        raise SchemaError(
            f"{name} has schema version {envelope.schema}; this release knows {schema}.",
            file=name,
            found=envelope.schema,
            known=schema,
        )
    body, sealed = envelope.body, envelope.sealed
    if (sealed is None) != (envelope.key is None) or (sealed is None) == (bytes(body) == b""):
        raise IndexCorruptError(f"{name} is damaged: it has no body, or two.", file=name)
    if _checksum(body if sealed is None else sealed.encode()) != envelope.checksum:
        raise IndexCorruptError(f"{name} is damaged: its checksum does not match.", file=name)
    if sealed is not None:
        body = _opened(envelope, name, keyring)
    return Document(schema=envelope.schema, body=body)


def _opened(envelope: _Envelope, name: str, keyring: Keyring | None) -> msgspec.Raw:
    if keyring is None:
        raise DecryptError(
            f"{name} is encrypted with the key {envelope.key}, and no key is here.", file=name
        )
    try:
        sealed = base64.b64decode(envelope.sealed or "", validate=True)
    except ValueError as error:
        raise IndexCorruptError(f"{name} is damaged: {error}.", file=name) from error
    if keyring.key_id_of(sealed).hex() != envelope.key:
        raise IndexCorruptError(f"{name} is damaged: it names another key.", file=name)
    try:
        context = _context(envelope.kind, envelope.schema, name)
        return msgspec.Raw(keyring.open(sealed, context))
    except DecryptError as error:
        raise DecryptError(f"{name}: {error.message}", hint=error.hint, file=name) from None


def key_of(data: bytes) -> str | None:
    """Return the id of the key of a document, as hex digits; None: it is plain, or damaged."""
    try:
        return msgspec.json.decode(data, type=_Envelope).key
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _checksum(data: bytes | msgspec.Raw) -> str:
    return blake3.blake3(data).hexdigest()


def _context(kind: str, schema: int, name: str) -> bytes:
    return f"cwm document\0{kind}\0{schema}\0{name}".encode()


def write_checked(
    path: Path, kind: str, schema: int, body: Any, keyring: Keyring | None = None
) -> None:
    """Write a checked document with `write_atomic`, readable by its owner alone.

    With a keyring that is to encrypt, it is encrypted.
    """
    while True:
        data = seal_document(kind, schema, body, path.name, keyring)
        write_atomic(path, data)
        if keyring is None or not keyring.encrypts:
            return
        # A rotation may have looked at this file just before it was replaced, and will drop the
        # key; then the new one is in the keyring by now.
        if key_of(data) == keyring.refresh().hex():
            return


def reseal(path: Path, kind: str, schema: int, keyring: Keyring) -> bool:
    """Encrypt a document under the current key, and return whether that was still to be done.

    For one writer at a time; raises as `open_document` does.
    """
    try:
        data = read_bytes(path)
    except FileNotFoundError:  # deleted since it was listed
        return False
    if key_of(data) == keyring.refresh().hex():
        return False
    document = open_document(data, kind, schema, path.name, keyring)
    write_checked(path, kind, document.schema, document.body, keyring)
    return True


def read_checked(
    path: Path,
    kind: str,
    schema: int,
    migrations: Mapping[int, Callable[[Any], Any]] | None = None,
    keyring: Keyring | None = None,
) -> Any:
    """Read the body of a checked document, as JSON values.

    Parameters
    ----------
    path
        The file.
    kind
        The kind that is expected.
    schema
        The newest version that the caller knows.
    migrations
        From a version to the function that makes the next version's body of its body.
    keyring
        Opens the body if it is encrypted.

    Raises
    ------
    IndexCorruptError
        The file is missing or damaged, or no migration leads here from its version.
    SchemaError
        It is of a newer version.
    DecryptError
        It is encrypted, and the key is not here or does not open it.
    """
    try:
        data = read_bytes(path)
    except OSError as error:
        raise IndexCorruptError(
            f"{path.name} cannot be read: {error.strerror}.", file=path.name
        ) from error
    document = open_document(data, kind, schema, path.name, keyring)
    return migrate(msgspec.json.decode(document.body), document.schema, schema, migrations or {})


def migrate(
    body: Any, found: int, wanted: int, migrations: Mapping[int, Callable[[Any], Any]]
) -> Any:
    """Return `body`, of version `found`, in the shape of version `wanted`."""
    for version in range(found, wanted):
        if version not in migrations:
            raise IndexCorruptError(f"No way leads from schema version {version} to {wanted}.")
        body = migrations[version](body)
    return body


def _temporary_prefix(path: Path) -> str:
    return f".{path.name}."

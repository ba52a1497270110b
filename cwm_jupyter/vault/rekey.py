"""Changing the key of a vault: every file is encrypted anew, one by one, while it is in use.

A file is replaced as a whole, so each of them opens at any time, with the old key or the new one.
Who stores meanwhile asks for the current key again under the folder's lock before a file gets its
name (`cwm_jupyter.vault.storing`): what is listed here under that lock is all that has an old one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from cwm_jupyter.core.cipher import Keyring
from cwm_jupyter.core.files import reseal as reseal_document
from cwm_jupyter.errors import IndexCorruptError
from cwm_jupyter.vault import disk
from cwm_jupyter.vault.content import ContentError, encode, identify, read_header, read_into
from cwm_jupyter.vault.files import Vault
from cwm_jupyter.vault.records import HOLD, RECORD, SCHEMA

__all__ = ["reseal"]

_log = logging.getLogger(__name__)
#: enough of a sealed payload to tell its key
_HEAD_BYTES = 64


def reseal(vault: Vault, keyring: Keyring, on_files: Callable[[int], None] | None = None) -> int:
    """Encrypt all files of a vault under the keyring's current key; plain ones too.

    Parameters
    ----------
    vault
        The vault; it may be in use.
    keyring
        Opens what there is, and encrypts it.
    on_files
        Told how many files are looked at.

    Returns
    -------
    int
        Files that were encrypted anew. What is damaged is put aside, as by any reader; files in
        the folder that are not the vault's are logged and left alone.

    Raises
    ------
    DecryptError
        A file has a key that is not in the keyring.
    IndexCorruptError
        A hold cannot be read.
    """
    folder = vault.folder
    with folder.locked():
        contents = [folder.content(content) for content, _ in folder.all_contents()]
        foreign = {path for path, _ in disk.files(folder.contents, ".kv")} - set(contents)
        records = [path for path, _ in disk.files(folder.records, ".json")]
        holds = [path for path, _ in disk.files(folder.holds, ".json")]
    for path in foreign:
        _log.warning("%s is no file of the vault's: it stays as it is", path)
    done = 0
    for number, path in enumerate([*contents, *records, *holds], 1):
        if path.parent == folder.contents:
            done += _content(vault, path, keyring)
        elif path.parent == folder.records:
            done += _record(vault, path, keyring)
        else:
            with folder.locked():
                done += reseal_document(path, HOLD, SCHEMA, keyring)
        if on_files is not None:
            on_files(number)
    disk.sync([folder.contents, folder.records, folder.holds])
    return done


def _record(vault: Vault, path: Path, keyring: Keyring) -> bool:
    try:
        with vault.folder.locked():
            return reseal_document(path, RECORD, SCHEMA, keyring)
    except IndexCorruptError:
        vault.record_named(path.stem)
        return False


def _content(vault: Vault, path: Path, keyring: Keyring) -> bool:
    name = bytes.fromhex(path.stem)
    try:
        with disk.opened(path) as file:
            status = os.fstat(file.fileno())
            header = read_header(file, name)
            if header.encrypted and keyring.is_current(file.read(_HEAD_BYTES) or b""):
                return False
            file.seek(0)
            raw = memoryview(bytearray(header.raw_bytes))
            read_into(file, name, raw, secret=vault.folder.secret, keyring=keyring)
    except FileNotFoundError:  # evicted since it was listed
        return False
    except ContentError:
        vault.examine(path.stem)
        return False
    parts = encode(
        raw,
        name,
        identify(vault.folder.secret, raw)[1],
        codec_name=header.codec,
        element_bytes=header.element_bytes,
        keyring=keyring,
    )
    temporary = disk.write_temporary(vault.folder.contents, parts)
    os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))  # this is no use of it
    with vault.folder.locked():
        if not disk.exists(path):
            disk.remove(temporary)
            return False
        disk.replace(temporary, path)
    return True

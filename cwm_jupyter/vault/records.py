"""Records and holds: which content a key means, and what a window keeps from eviction.

A record is a small checked document, one file a key, named by a keyed hash of the key: so the name
tells no salt, and a record that lies under another's name is found out. A hold is one a window: the
names of its records, and the contents that they meant.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import blake3
import msgspec

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.files import key_of, open_document
from cwm_jupyter.core.models import Value
from cwm_jupyter.core.portable import read_bytes
from cwm_jupyter.errors import DecryptError, IndexCorruptError

if TYPE_CHECKING:
    from cwm_jupyter.core.cipher import Keyring

__all__ = [
    "HOLD",
    "RECORD",
    "SCHEMA",
    "Hold",
    "Record",
    "is_content",
    "name_key",
    "open_checked",
    "record_name",
]

#: kinds of documents, see `cwm_jupyter.core.files.seal_document`
RECORD, HOLD = "chunk", "hold"
SCHEMA = 1
_PURPOSE = "cwm-jupyter vault record names v1"

# Names become paths, so whatever a file says, nothing else is taken for one.
_NAME = r"^[0-9a-f]{64}\Z"
_Name = Annotated[str, msgspec.Meta(pattern=_NAME)]
_Hash = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{2})*\Z")]


class Record(Value, frozen=True, kw_only=True):
    """What a key means: a content's id in hex, and its raw size. The salt in here is secret."""

    chunk_hash: _Hash
    model_name: str
    kv_rank: int
    object_group_id: int
    cache_salt: str
    content: _Name
    size_bytes: Annotated[int, msgspec.Meta(ge=0)]
    stored_at: str

    @classmethod
    def of(cls, key: ChunkKey, content: str, size_bytes: int, stored_at: str) -> Record:
        """Return the record of a key."""
        return cls(
            chunk_hash=key.chunk_hash.hex(),
            model_name=key.model_name,
            kv_rank=key.kv_rank,
            object_group_id=key.object_group_id,
            cache_salt=key.cache_salt,
            content=content,
            size_bytes=size_bytes,
            stored_at=stored_at,
        )

    @property
    def key(self) -> ChunkKey:
        """The key that it is the record of."""
        return ChunkKey(
            chunk_hash=bytes.fromhex(self.chunk_hash),
            model_name=self.model_name,
            kv_rank=self.kv_rank,
            object_group_id=self.object_group_id,
            cache_salt=self.cache_salt,
        )

    def __repr__(self) -> str:
        return f"Record({self.key!r} → {self.content[:12]}…)"


class Hold(Value, frozen=True, kw_only=True):
    """What an owner keeps: names of records, and ids of contents, both in hex."""

    owner: str
    records: list[_Name]
    contents: list[_Name]
    held_at: str
    #: id of the home in whose index the owner is: several may share a vault
    home: str = ""


def is_content(name: str) -> bool:
    """Return whether this is a content's id, in hex."""
    return re.match(_NAME, name) is not None


def name_key(secret: bytes) -> bytes:
    """Return what record names are keyed with, derived from the vault's secret."""
    return blake3.blake3(secret, derive_key_context=_PURPOSE).digest()


def record_name(naming: bytes, key: ChunkKey) -> str:
    """Return the name of a key's record, 64 hex digits; `naming` is from `name_key`."""
    fields: list[Any] = [
        key.chunk_hash.hex(),
        key.model_name,
        key.kv_rank,
        key.object_group_id,
        key.cache_salt,
    ]
    return blake3.blake3(msgspec.json.encode(fields), key=naming).hexdigest()


def open_checked(path: Path, kind: str, keyring: Keyring | None) -> msgspec.Raw:
    """Return the body of a record or hold, checked.

    Raises
    ------
    IndexCorruptError
        It is damaged, or was encrypted as another file.
    DecryptError
        Its key is not here.
    """
    data = read_bytes(path)
    try:
        return open_document(data, kind, SCHEMA, path.name, keyring).body
    except DecryptError as error:
        if keyring is not None and keyring.knows(bytes.fromhex(key_of(data) or "")):
            raise IndexCorruptError(error.message, file=path.name) from error
        raise

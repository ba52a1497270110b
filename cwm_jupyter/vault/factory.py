"""Chunk stores by the names that settings give them."""

from __future__ import annotations

from pathlib import Path

from cwm_jupyter.core.chunks import ChunkStore
from cwm_jupyter.errors import ConfigError
from cwm_jupyter.vault.files import Vault
from cwm_jupyter.vault.fs import FsStore
from cwm_jupyter.vault.memory import MemoryStore
from cwm_jupyter.vault.store import VaultStore

__all__ = ["make_store"]


def make_store(kind: str, path: Path | None = None) -> ChunkStore:
    """Make a chunk store.

    Parameters
    ----------
    kind
        ``"memory"``, ``"vault"``, or ``"fs"`` for the folder of LMCache's own disk tier.
    path
        The folder of a store on disk.

    Raises
    ------
    ConfigError
        There is no such kind, or a store on disk has no path.
    """
    if kind == "memory":
        return MemoryStore()
    if kind not in ("vault", "fs"):
        raise ConfigError(
            f"There is no chunk store {kind!r}.", hint="Use vault, fs or memory.", field="store"
        )
    if path is None or str(path).strip() in ("", "."):  # an empty one: never the present folder
        raise ConfigError(
            f"A {kind} store lies on disk and has no path.",
            hint="Set storage.vault_dir.",
            field="vault_dir",
        )
    return VaultStore(Vault(path)) if kind == "vault" else FsStore(path)

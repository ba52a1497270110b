"""Looking after a vault: who keeps what, and deleting for good.

Beside `Room.collect`, which removes what nobody can use, this removes what somebody no longer
wants, and counts what everybody takes. All changes are made under the folder's lock.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Sequence

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.kept import Freed, Share, Shares, Traces
from cwm_jupyter.errors import IndexCorruptError
from cwm_jupyter.vault import disk
from cwm_jupyter.vault.files import Vault
from cwm_jupyter.vault.records import Hold, Record

__all__ = ["point", "purge", "renew_hold", "shares", "traces"]


def point(vault: Vault, key: ChunkKey, content: str) -> bool:
    """Make a key mean a content, if that is there and intact, and return whether it is.

    Raises
    ------
    ResourceExhaustedError
        The disk did not take the record.
    """
    with vault.folder.locked():  # so that it is not evicted between the look and the record
        found = vault.examine(content, deep=True)
        if found.state != "intact" or found.raw_bytes is None:
            return False
        vault.point(key, content, found.raw_bytes)
    return True


def renew_hold(
    vault: Vault, owner: str, keys: Sequence[ChunkKey], contents: Collection[str]
) -> bool:
    """Put an owner's hold back where it is lost, damaged or of other chunks; say whether it was.

    Parameters
    ----------
    vault, owner
        Whose hold of what.
    keys
        The chunks that it has to keep.
    contents
        Ids of what the owner means by them, as far as that is there.

    Raises
    ------
    DecryptError
        The hold is there, and its key is not.
    """
    wanted = set(map(vault.name, keys))
    with vault.folder.locked():
        try:
            hold = vault.room.hold_of(owner)
        except IndexCorruptError:  # it is made anew from what the window says
            hold = None
        if hold is not None and wanted == set(hold.records) and set(contents) <= set(hold.contents):
            return False
        vault.hold(owner, keys, contents)
    return True


def shares(vault: Vault) -> Shares:
    """Count what lies in a vault, and who keeps what of it. Reads all records, no content."""
    folder = vault.folder
    sizes = {content: status.st_size for content, status in folder.all_contents()}
    meant = dict(vault.records())
    raw = {record.content: record.size_bytes for record in meant.values()}
    kept = {owner: _contents(hold, meant) & sizes.keys() for owner, hold in vault.holds().items()}
    times = Counter(content for contents in kept.values() for content in contents)
    damaged = [status.st_size for _, status in disk.files(folder.quarantine)]
    return Shares(
        folder=str(folder.path),
        owners={
            owner: Share(
                held_bytes=sum(sizes[one] for one in contents),
                exclusive_bytes=sum(sizes[one] for one in contents if times[one] == 1),
            )
            for owner, contents in kept.items()
        },
        contents=len(sizes),
        stored_bytes=sum(sizes.values()),
        # What no record means has no known raw size; counted as it lies there it distorts least.
        raw_bytes=sum(raw.get(one, size) for one, size in sizes.items()),
        unheld_bytes=sum(size for one, size in sizes.items() if one not in times),
        quarantined=len(damaged),
        quarantined_bytes=sum(damaged),
        quota_bytes=vault.room.quota_bytes,
        free_bytes=shutil.disk_usage(folder.path).free,
    )


def purge(
    vault: Vault,
    owners: Collection[str],
    *,
    keys: Sequence[ChunkKey] = (),
    salts: Collection[str] = (),
    damaged: bool = False,
    dry_run: bool = False,
) -> Freed:
    """Give up holds and delete what they held, `keys`, and all of `salts`; see `KeptStore.purge`.

    The holds go after the records and before the contents: what a crash leaves is a hold of nobody
    and contents that no record means, which `Room.collect` finds.
    """
    folder = vault.folder
    with folder.locked():
        holds = vault.holds()
        mine = [hold for owner, hold in holds.items() if owner in owners]
        others = [hold for owner, hold in holds.items() if owner not in owners]
        meant = dict(vault.records(strict=True))
        wanted = {name for hold in mine for name in hold.records} | set(map(vault.name, keys))
        wanted |= {name for name, record in meant.items() if record.cache_salt in salts}
        records = wanted - {name for hold in others for name in hold.records}
        contents = {content for hold in mine for content in hold.contents}
        contents |= {meant[name].content for name in records & meant.keys()}
        contents -= {record.content for name, record in meant.items() if name not in records}
        contents -= {content for hold in others for content in _contents(hold, meant)}
        gone = [path for path in map(folder.content, contents) if path.exists()]
        gone += [path for path, _ in disk.files(folder.quarantine)] if damaged else []
        freed = sum(path.stat().st_size for path in gone)
        if not dry_run:
            for name in records:
                disk.remove(folder.record(name))
            disk.sync([folder.records])
            for hold in mine:
                disk.remove(folder.hold(hold.owner))
            disk.sync([folder.holds])
            for path in gone:
                disk.remove(path)
            disk.sync([folder.contents, folder.quarantine])
    gone_records = sorted(records & meant.keys())
    return Freed(chunks=len(gone_records), freed_bytes=freed, labels=gone_records)


def traces(vault: Vault, owners: Collection[str], labels: Collection[str]) -> Traces:
    """Look for holds and records by their names, and count the contents that nobody means."""
    folder = vault.folder
    with folder.locked():  # no store is then between its contents and its records
        holds = vault.holds()
        meant = dict(vault.records(strict=True))
        known = {record.content for record in meant.values()}
        known |= {content for hold in holds.values() for content in hold.contents}
        return Traces(
            owners=sorted(set(owners) & holds.keys()),
            stored_at={name: meant[name].stored_at for name in sorted(meant.keys() & labels)},
            unmeant=sum(path.stem not in known for path, _ in disk.files(folder.contents, ".kv")),
        )


def _contents(hold: Hold, meant: dict[str, Record]) -> set[str]:
    """Return what a hold keeps: what its records meant then, and what they mean now."""
    now = {meant[name].content for name in hold.records if name in meant}
    return {*hold.contents, *now}

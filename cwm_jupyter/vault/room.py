"""Room in a vault: what takes it, who holds it, and what may go.

Unheld contents go by the age of their last use when a quota is reached. What a window holds, or a
freeze in progress, never goes: neither by quota, nor by deletion, nor as garbage. Where a hold
cannot be read nothing goes at all.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cwm_jupyter.core.models import Value
from cwm_jupyter.errors import IndexCorruptError, ResourceExhaustedError
from cwm_jupyter.vault import disk
from cwm_jupyter.vault.parsed import Parsed
from cwm_jupyter.vault.records import HOLD, Hold, Record, open_checked
from cwm_jupyter.vault.storing import said

if TYPE_CHECKING:
    from cwm_jupyter.core.cipher import Keyring
    from cwm_jupyter.vault.files import Vault

__all__ = ["Garbage", "Room", "Usage"]

_log = logging.getLogger(__name__)
#: a writer that is still alive has renamed its file long before
_ABANDONED_S = 3600.0
#: a freeze holds before its window is in the index
_FREEZING_S = 24 * 3600.0
#: evict a little more than is needed, so as not to do it for each store
_TARGET = 0.95
#: newest damaged files that are kept to be looked at
_QUARANTINED = 32


class Usage(Value, frozen=True, kw_only=True):
    """What a vault holds now, counted on the disk.

    `raw_bytes` is what the chunks of all records are together, were each stored by itself.
    `held_bytes` are of contents that a window or a freeze in progress keeps.
    """

    contents: int
    records: int
    holds: int
    stored_bytes: int
    raw_bytes: int
    held_bytes: int
    quarantined: int
    quarantined_bytes: int
    quota_bytes: int | None


class Garbage(Value, frozen=True, kw_only=True):
    """What nothing can use any more: how much was found, and removed unless it was only looked."""

    contents: int
    records: int
    holds: int
    temporary_files: int
    quarantined: int
    freed_bytes: int
    removed: bool


class Room:
    """The part of a vault that makes room; all changes are made under its folder's lock.

    Parameters
    ----------
    vault
        Whose room it is.
    quota_bytes
        Bytes that contents may take; None: what the disk has.
    """

    def __init__(self, vault: Vault, quota_bytes: int | None) -> None:
        self._vault, self._folder = vault, vault.folder
        self.quota_bytes = quota_bytes
        self._pins: Counter[str] = Counter()
        self._pinning = threading.Lock()
        self._holds = Parsed(vault.folder.holds, self._parse_hold)
        self._raw_sizes = Parsed(vault.folder.records, self._parse_raw_size)

    # Who holds what

    def holds(self) -> dict[str, Hold]:
        """Return all holds by owner.

        Raises
        ------
        IndexCorruptError
            One of them cannot be read.
        """
        return self._holds.read()

    def hold_of(self, owner: str) -> Hold | None:
        """Return what one owner holds, read anew; None: nothing. Raises as `holds` does."""
        try:
            return self._parse_hold(self._folder.hold(owner))
        except FileNotFoundError:
            return None

    def _parse_hold(self, path: Path) -> Hold:
        return _parse_hold(path, self._folder.keyring)

    def held_records(self) -> set[str]:
        """Return the names of all records that somebody holds."""
        return {name for hold in self.holds().values() for name in hold.records}

    def held_contents(self, meant: Mapping[str, Record]) -> set[str]:
        """Return the ids of all contents that somebody holds, those of held records included.

        Parameters
        ----------
        meant
            All records, by their names.
        """
        held = set()
        for hold in self.holds().values():
            held.update(hold.contents)
            held.update(meant[name].content for name in hold.records if name in meant)
        return held

    def pin(self, contents: Iterable[str]) -> None:
        """Keep contents from eviction in this process until `unpin`, as often as it was called."""
        with self._pinning:
            self._pins.update(contents)

    def unpin(self, contents: Iterable[str]) -> None:
        """Undo one `pin` of each."""
        with self._pinning:
            self._pins.subtract(contents)
            self._pins += Counter()  # drops what is not positive

    # Making room

    def make(self, needed_bytes: int, keep: Collection[str]) -> None:
        """Make room for what is about to be stored; the caller holds the lock.

        Parameters
        ----------
        needed_bytes
            How much is about to come.
        keep
            Contents that must stay all the same.

        Raises
        ------
        ResourceExhaustedError
            The quota does not allow it: what is held, and in use, takes too much.
        """
        if self.quota_bytes is None or not needed_bytes:
            return
        there = self._contents()
        excess = sum(size for size, _ in there.values()) + needed_bytes - self.quota_bytes
        if excess <= 0:
            return
        meant = dict(self._vault.records(strict=True))
        held = self.held_contents(meant)
        with self._pinning:
            spared = {*keep, *self._pins, *held}
        wanted = excess + int((1 - _TARGET) * self.quota_bytes)
        chosen: list[str] = []
        freed = 0
        for content in sorted(there.keys() - spared, key=lambda one: there[one][1]):
            if freed >= wanted:
                break
            chosen.append(content)
            freed += there[content][0]
        if freed < excess:
            raise ResourceExhaustedError(
                f"The vault's quota of {self.quota_bytes:,} bytes is used up by frozen windows.",
                hint="Delete windows and purge them (cwm admin purge), or raise storage.quota_gib.",
                needed_bytes=needed_bytes,
                quota_bytes=self.quota_bytes,
            )
        self._evict(set(chosen), meant)

    def _evict(self, contents: set[str], meant: Mapping[str, Record]) -> None:
        for name, record in meant.items():
            if record.content in contents:
                disk.remove(self._folder.record(name))
        for content in contents:
            disk.remove(self._folder.content(content))
        self._vault.count(evicted=len(contents))
        _log.info("%d chunks were evicted to make room", len(contents))

    def drop_unmeant(self, contents: Collection[str]) -> int:
        """Delete those of `contents` that no record means and nobody holds; return the bytes."""
        if not contents:
            return 0
        meant = dict(self._vault.records(strict=True))
        wanted = {record.content for record in meant.values()} | self.held_contents(meant)
        freed = 0
        for content in set(contents) - wanted:
            path = self._folder.content(content)
            with contextlib.suppress(FileNotFoundError):
                freed += path.stat().st_size
            disk.remove(path)
        disk.sync([self._folder.contents])
        return freed

    def quarantine(self, path: Path) -> None:
        """Move a damaged file out of the way; of those that lie there the newest are kept."""
        disk.replace(path, self._folder.quarantine / f"{time.time_ns()}-{path.name}")
        kept = sorted(path for path, _ in disk.files(self._folder.quarantine))
        for old in kept[:-_QUARANTINED]:
            disk.remove(old)

    # Looking at it all

    def stored_bytes(self) -> int:
        """Return what all contents take on the disk."""
        return sum(size for size, _ in self._contents().values())

    def raw_bytes_by_salt(self) -> dict[str, int]:
        """Return what the chunks of each salt are together, were each stored by itself.

        Reads the records that came since the last call, and lists the others.
        """
        sizes: Counter[str] = Counter()
        for salt, size in self._raw_sizes.read().values():
            sizes[salt] += size
        return dict(sizes)

    def _parse_raw_size(self, path: Path) -> tuple[str, int] | None:
        record = self._vault.record_named(path.stem)
        return None if record is None else (record.cache_salt, record.size_bytes)

    def _contents(self) -> dict[str, tuple[int, float]]:
        """Return size and time of last use of each content."""
        return {
            content: (status.st_size, status.st_mtime)
            for content, status in self._folder.all_contents()
        }

    def usage(self) -> Usage:
        """Count what is there. Reads all records: some 0.1 ms for each."""
        there = self._contents()
        records = dict(self._vault.records())
        held = self.held_contents(records)
        quarantined = self._quarantined()
        return Usage(
            contents=len(there),
            records=len(records),
            holds=len(self.holds()),
            stored_bytes=sum(size for size, _ in there.values()),
            raw_bytes=sum(record.size_bytes for record in records.values()),
            held_bytes=sum(there[one][0] for one in held & there.keys()),
            quarantined=len(quarantined),
            quarantined_bytes=sum(quarantined.values()),
            quota_bytes=self.quota_bytes,
        )

    def collect(self, owners: Collection[str] | None, *, dry_run: bool = False) -> Garbage:
        """Remove what nothing can use any more.

        That is: contents that no record means and nobody holds, records whose content is gone,
        what crashed writers left, what was quarantined, and holds of no owner.

        Parameters
        ----------
        owners
            All that may hold something; a hold of anybody else is garbage once it is a day old,
            since a freeze in progress is not known yet. None: all holds count.
        dry_run
            Only look.
        """
        folder = self._folder
        with folder.locked():
            lost = self._ownerless(owners)
            there = self._contents()
            meant: dict[str, Record] = dict(self._vault.records(strict=True))
            holds = {owner: hold for owner, hold in self.holds().items() if owner not in lost}
            held_records = {name for hold in holds.values() for name in hold.records}
            held = {content for hold in holds.values() for content in hold.contents}
            dangling = [
                name
                for name, record in meant.items()
                if record.content not in there and name not in held_records
            ]
            contents = there.keys() - held - {record.content for record in meant.values()}
            temporary = [
                path
                for where in (folder.contents, folder.records, folder.holds)
                for path in disk.temporary_files(where, _ABANDONED_S)
            ]
            damaged = self._quarantined()
            freed = sum(there[one][0] for one in contents) + sum(damaged.values())
            for path in temporary:
                with contextlib.suppress(FileNotFoundError):
                    freed += path.stat().st_size
            if not dry_run:
                for path in (
                    *map(folder.hold, lost),
                    *map(folder.record, dangling),
                    *map(folder.content, contents),
                    *temporary,
                    *damaged,
                ):
                    disk.remove(path)
                disk.sync([folder.holds, folder.records, folder.contents])
        return Garbage(
            contents=len(contents),
            records=len(dangling),
            holds=len(lost),
            temporary_files=len(temporary),
            quarantined=len(damaged),
            freed_bytes=freed,
            removed=not dry_run,
        )

    def _quarantined(self) -> dict[Path, int]:
        return {path: status.st_size for path, status in disk.files(self._folder.quarantine)}

    def _ownerless(self, owners: Collection[str] | None) -> list[str]:
        if owners is None:
            return []
        horizon = time.time() - _FREEZING_S
        return [
            owner
            for owner, hold in self.holds().items()
            if owner not in owners
            and hold.home == self._vault.home
            and self._folder.hold(owner).stat().st_mtime < horizon
        ]


def _parse_hold(path: Path, keyring: Keyring | None) -> Hold:
    try:
        hold = Hold.from_dict(msgspec.json.decode(open_checked(path, HOLD, keyring)))
        if hold.owner != path.stem:
            raise IndexCorruptError(f"{path.name} is the hold of {hold.owner}.")
    except FileNotFoundError:
        raise
    except (OSError, IndexCorruptError) as error:
        raise IndexCorruptError(
            f"A hold in the vault cannot be read, so nothing is evicted or deleted: {said(error)}",
            hint=f"Restore {path} from a backup. If you remove it, its window may lose chunks.",
            file=path.name,
        ) from error
    return hold

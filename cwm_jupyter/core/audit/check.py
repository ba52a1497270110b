"""The check of the audit log's chain, line by line."""

from __future__ import annotations

from dataclasses import dataclass, field

from cwm_jupyter.core.audit.files import Snapshot
from cwm_jupyter.core.audit.line import BEGINNING, Line, key_id, keyed, read
from cwm_jupyter.core.audit.report import AuditFault, AuditRecord, FaultKind

__all__ = ["Checked", "check"]


@dataclass
class Checked:
    """What a check found; see `cwm_jupyter.core.audit.report.AuditReport`."""

    records: list[AuditRecord] = field(default_factory=list)
    faults: list[AuditFault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: lines whose key is not here
    unchecked: int = 0

    @property
    def intact(self) -> bool | None:
        """False: there are faults; None: there is none, but not all could be checked."""
        if self.faults:
            return False
        return None if self.unchecked else True


@dataclass(frozen=True)
class _Place:
    """A line's place in the files."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"line {self.number} of {self.file}"


@dataclass(frozen=True)
class _Foreign:
    """A file whose first line names a key that is not here."""

    place: _Place
    key_id: str


def check(snapshot: Snapshot) -> Checked:
    """Check all lines of a log, and its end against its head."""
    walk = _Walk(snapshot)
    for name, data in snapshot.files:
        walk.file(name, data)
    walk.end()
    return walk.found


class _Walk:
    """One check, from the first line to the last."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.found = Checked()
        self._snapshot = snapshot
        self._key = snapshot.key
        self._seq = 0
        #: of the last line; None after one that was edited: what its MAC was nobody knows
        self._mac: str | None = BEGINNING
        #: what looks like no line, until the next line says that it was torn in a crash
        self._strange: list[tuple[_Place, bytes, bool]] = []
        self._place: _Place | None = None
        #: the file before, if it names another key, until the next line says what its key was
        self._foreign: _Foreign | None = None

    def file(self, name: str, data: bytes) -> None:
        """Check one file."""
        key = self._key
        claimed = self._other_key(data)
        self._key = key if claimed is None else None
        before = self.found.unchecked
        *whole, unfinished = data.split(b"\n")
        for number, raw in enumerate(whole, 1):
            self._line(_Place(name, number), raw)
        if unfinished:
            self._strange.append((_Place(name, len(whole) + 1), unfinished, True))
        unchecked = self.found.unchecked - before
        if unchecked:
            why = "its key is not here" if key is None else "it was written with another key"
            self.found.notes.append(f"{unchecked} lines of {name} cannot be checked: {why}.")
        self._key = key
        if claimed is not None:
            self._foreign = _Foreign(_Place(name, 1), claimed)

    def end(self) -> None:
        """Hold the end against the head."""
        head = self._snapshot.head
        for place, _, unfinished in self._strange:
            if unfinished:
                self.found.notes.append(f"{_capital(place)} is unfinished, as a crash leaves it.")
            else:
                self._fault("foreign", place, "this is no line of the log")
        if self._snapshot.key_open:
            self.found.notes.append(
                "keys/audit.key is open to other users, so they could have written lines."
            )
        if head is None:
            if self._snapshot.files:
                what = "keys/audit.head is missing: whether lines were cut off cannot be told"
                self._fault("no_head", None, what)
            return
        self._vouch(head.key_id)
        if head.seq > self._seq:
            gone = _entries(self._seq + 1, head.seq)
            self._fault("cut", self._place, f"the end was cut off: {gone} after it")
        elif head.seq == self._seq and self._mac not in (None, head.mac):
            self._fault("cut", self._place, "the last line is not the one that was written last")
        elif head.seq < self._seq:
            self.found.notes.append("A crash came between the last line and its head: it counts.")

    def _vouch(self, known: str | None) -> None:
        """Hold the key that the file before names against what is known of it elsewhere."""
        if self._foreign is not None and known != self._foreign.key_id:
            what = "it names a key that its file was not written with"
            self._fault("edited", self._foreign.place, what)
        self._foreign = None

    def _other_key(self, data: bytes) -> str | None:
        """Return the id of the key that a file was begun with if that is not here.

        What its first line says of that is believed only if no line at all is under our key: else
        changing it would keep the file from being checked.
        """
        whole = data.split(b"\n")[:-1]
        first = read(whole[0], None) if whole else None
        if self._key is None or first is None or first[0].key_id in (None, key_id(self._key)):
            return None
        lines = (read(raw, self._key) for raw in whole)
        right = any(line is not None and line[2] for line in lines)
        return None if right else first[0].key_id

    def _line(self, place: _Place, raw: bytes) -> None:
        parsed = read(raw, self._key)
        if parsed is None:
            self._strange.append((place, raw, False))
            return
        line, mac, right = parsed
        self._settle_strange(line, right)
        if self._foreign is not None and not line.headless:  # else that is its fault already
            self._vouch(line.previous_key_id)
        if right is None:
            self.found.unchecked += 1
        elif not right:
            self._fault("edited", place, f"entry {line.seq} was edited")
        self._chain(place, line, genuine=right is not False)
        self._tell(place, line)
        self.found.records.append(
            AuditRecord(file=place.file, number=place.number, right=right, line=line)
        )
        self._place = place
        if line.seq > self._seq:
            self._seq, self._mac = line.seq, None if right is False else mac

    def _settle_strange(self, line: Line, right: bool | None) -> None:
        """Judge what came before a line and was none."""
        for place, raw, _ in self._strange:
            torn = right and self._key is not None and line.torn == keyed(raw, self._key)
            if torn or (right is None and line.torn is not None):
                self.found.notes.append(f"{_capital(place)} is unfinished, as a crash leaves it.")
            else:
                self._fault("foreign", place, "this is no line of the log")
        self._strange = []

    def _chain(self, place: _Place, line: Line, *, genuine: bool) -> None:
        """Check that a line follows the one before."""
        if line.seq == self._seq + 1 and self._mac in (None, line.after):
            return
        if line.seq > self._seq + 1:
            gone = _entries(self._seq + 1, line.seq - 1)
            self._fault("missing", place, f"entry {line.seq} does not follow: {gone}")
        elif genuine:  # else that is its fault already
            self._fault("misplaced", place, f"entry {line.seq} does not belong here")

    def _tell(self, place: _Place, line: Line) -> None:
        if line.unwritten:
            self.found.notes.append(
                f"Before {place}, {line.unwritten} changes could not be written down."
            )
        if line.headless:
            what = "keys/audit.head was missing then: lines before this one may have been cut off"
            self._fault("no_head", place, what)

    def _fault(self, kind: FaultKind, place: _Place | None, what: str) -> None:
        fault = AuditFault(
            kind=kind,
            file=place.file if place else "audit.jsonl",
            line=place.number if place else None,
            what=what,
        )
        self.found.faults.append(fault)


def _entries(first: int, last: int) -> str:
    """Name entries that are gone."""
    if first == last:
        return f"entry {first} is missing"
    return f"entries {first} to {last} are missing"


def _capital(place: _Place) -> str:
    text = str(place)
    return text[0].upper() + text[1:]

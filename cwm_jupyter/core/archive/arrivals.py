"""Arrivals: the windows of an archive on their way in, and that they fit each other."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from cwm_jupyter.core.archive.format import DAMAGED, Catalogue, Details, Entry
from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.index import Index
from cwm_jupyter.core.models import ChunkRef, Fingerprint, Probe, ProbeResult
from cwm_jupyter.core.names import check_name
from cwm_jupyter.errors import ArchiveError, WindowExistsError

__all__ = ["Arrival", "arrivals", "check_together"]

_MAX_LAYOUTS = 100


@dataclass
class Arrival:
    """One window of an archive, with the ids that it gets here.

    What has a default is filled in on the way. `hashes` and `contents` are the archive's;
    `fingerprint`, `refs` and `probe` are what the manifest here will have. Where the window was
    computed anew, `compared` is the probe held against the archive's, and `as_shown` is whether the
    tokens say what the messages do, at the end of each turn.
    """

    position: int
    entry: Entry
    name: str
    window_id: str
    session_id: str
    lineage_id: str = ""
    hashes: list[bytes] = field(default_factory=list)
    #: positions in the catalogue's list
    contents: list[int] = field(default_factory=list)
    fingerprint: Fingerprint = field(default_factory=lambda: Fingerprint(layout={}, numeric={}))
    chunk_tokens: int = 0
    keys: list[ChunkKey] = field(default_factory=list)
    refs: list[ChunkRef] = field(default_factory=list)
    probe: Probe | None = None
    compared: ProbeResult | None = None
    as_shown: bool | None = None
    manifest_digest: str = ""

    def take(self, details: Details) -> None:
        """Note what of the details is needed for the chunks."""
        self.hashes = [bytes.fromhex(one) for one in details.chunk_hashes]
        self.contents = details.contents
        self.fingerprint, self.chunk_tokens = details.fingerprint, self.entry.chunk_tokens


def arrivals(catalogue: Catalogue, index: Index, wanted: str | None) -> list[Arrival]:
    """Return the windows of an archive, with the names that they get here.

    Parameters
    ----------
    catalogue
        The archive's.
    index
        Of this home: no name of it is taken.
    wanted
        Of a single window, its name; of several, what goes before their names, and a dash.

    Raises
    ------
    WindowExistsError
        A name is taken.
    ValidationError
        What is wanted makes no names.
    """
    entries = catalogue.windows
    sessions = {entry.session: uuid.uuid4().hex for entry in entries}
    found = []
    for position, entry in enumerate(entries):
        name = entry.name
        if wanted is not None:
            name = wanted if len(entries) == 1 else f"{wanted}-{name}"
        name = check_name(name, "window")
        if index.find_window(name) is not None:
            raise WindowExistsError(
                f"There is a window {name!r} already.",
                hint="Import under another name: --as NAME"
                + (" (goes before the names of all windows)." if len(entries) > 1 else "."),
                window=name,
            )
        found.append(Arrival(position, entry, name, uuid.uuid4().hex, sessions[entry.session]))
    return found


def check_together(found: Sequence[Arrival], contents: int) -> None:
    """Check that windows agree about their chunks, and that every content is one of them.

    Raises
    ------
    ArchiveError
        Windows of one lineage and engine say different things of one chunk, a content belongs to
        no window, or there are more layouts than anybody has: each is noted for good.
    """
    layouts: set[bytes] = set()
    meant: dict[tuple[int, bytes, bytes, int], int] = {}
    for arrival in found:
        layout = msgspec.json.encode(arrival.fingerprint.layout, order="sorted")
        layouts.add(layout)
        ranks = arrival.entry.ranks
        for i, content in enumerate(arrival.contents):
            part = arrival.entry.lineage, layout, arrival.hashes[i // ranks], i % ranks
            if meant.setdefault(part, content) != content:
                raise ArchiveError(
                    f"The archive's window {arrival.entry.name!r} has another content for a chunk "
                    "than a window of the same lineage.",
                    hint=DAMAGED,
                )
    if len(layouts) > _MAX_LAYOUTS:
        raise ArchiveError(f"The archive is of {len(layouts)} kinds of engines.", hint=DAMAGED)
    unused = contents - len({content for one in found for content in one.contents})
    if unused:
        raise ArchiveError(f"{unused} of the archive's contents belong to no window.", hint=DAMAGED)

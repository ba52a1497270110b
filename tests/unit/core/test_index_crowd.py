"""The index under a crowd: many processes, many operations, held against what each one did."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from entries import make_session
from index_crowd import COMMON, work

from cwm_jupyter.core.index import Index
from cwm_jupyter.core.names import name_key

PROCESSES = 8
OPERATIONS = 10_000
_MEMORY = Path("/dev/shm")


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory, where there is such a folder: who may write when is tried here, not the disk."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        yield Path(folder) / "home"


def replayed(folder: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Return what the logs say that there is, by table and id, and how many windows were added."""
    expected: dict[str, dict[str, Any]] = {"windows": {}, "sessions": {}}
    seen: set[str] = set()
    for log in folder.glob("crowd-*.log"):
        for line in log.read_text().splitlines():
            table, id_, entry = json.loads(line)
            if table == "windows":
                seen.add(id_)
            if entry is None:
                del expected[table][id_]
            else:
                expected[table][id_] = entry
    return expected, len(seen)


@pytest.mark.covers("SR-016")
def test_a_crowd_of_processes_loses_and_duplicates_nothing(folder: Path, index: Index) -> None:
    index.add_session(make_session(COMMON))
    context = multiprocessing.get_context("spawn")  # as it is on Windows and macOS
    crowd = [
        context.Process(target=work, args=(str(folder), number, OPERATIONS // PROCESSES))
        for number in range(PROCESSES)
    ]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join()
    assert [process.exitcode for process in crowd] == [0] * PROCESSES

    expected, added = replayed(folder)
    for reader in (index, Index(folder)):  # the one that saw the beginning alone, and a fresh one
        sessions = {s.id: s.to_dict() for s in reader.all_sessions()}
        assert sessions.pop(COMMON)["tokens"] == added
        assert sessions == expected["sessions"]
        assert {w.id: w.to_dict() for w in reader.all_windows()} == expected["windows"]
        for page in (reader.windows(), reader.sessions()):
            assert max(Counter(name_key(entry.name) for entry in page.items).values()) == 1
    assert index.warning is None

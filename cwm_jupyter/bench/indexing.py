"""Operations of the index with many windows in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from cwm_jupyter.bench.limits import Limit
from cwm_jupyter.bench.rows import Row, Yardsticks
from cwm_jupyter.core.files import write_atomic
from cwm_jupyter.core.index import Index
from cwm_jupyter.core.indexfile import IndexFile
from cwm_jupyter.core.models import Proof, Session, Window, now
from cwm_jupyter.units import seconds as spoken

__all__ = ["index_rows"]

_REPETITIONS = 7
#: what a person takes for at once; on a slow machine, as long as decoding and writing all takes
_AT_ONCE_S = 0.1
_WRITES = 3.0


def index_rows(folder: Path, windows: int) -> list[Row]:
    """Fill an index in an empty folder and measure what is done with it.

    An addition writes the index anew, as every change does; the yardstick is decoding, encoding and
    writing a file of its size, synced.
    """
    _fill(folder, windows)
    size = (folder / "index.json").stat().st_size
    yardstick_s = min(_times(lambda n: _rewrite(folder)))
    limit_s = max(_AT_ONCE_S, _WRITES * yardstick_s)
    words = f"at most 100 ms or {_WRITES:g} times rewriting the file ({spoken(yardstick_s)}), "
    limit = Limit(limit_s, words + "the longer")
    index = Index(folder)
    index.windows(limit=1)  # reads the file; `open` measures that

    def add(number: int) -> object:
        return index.add_window(_window(windows + number))

    work: dict[str, tuple[str, Callable[[int], object]]] = {
        "open": ("first look, the file unread", lambda n: Index(folder).find_window("w-0")),
        "find": ("find by name", lambda n: index.find_window(f"w-{windows - 1 - n}")),
        "list": ("list the latest 50", lambda n: index.windows(limit=50)),
        "tag": ("list those of a tag", lambda n: index.windows(tags=["tag-3"], limit=50)),
        "add": ("add one, durably", add),
    }
    return [
        Row.timed(
            f"index-{name}",
            f"index of {windows:,} windows: {what}",
            _times(action),
            against=Yardsticks(bound_s=yardstick_s),
            limit=limit,
            bytes=size,
        )
        for name, (what, action) in work.items()
    ]


def _times(action: Callable[[int], object]) -> list[float]:
    times = []
    for number in range(_REPETITIONS):
        started = time.perf_counter()
        action(number)
        times.append(time.perf_counter() - started)
    return times


def _rewrite(folder: Path) -> None:
    document = msgspec.json.decode((folder / "index.json").read_bytes())
    write_atomic(folder / "yardstick.json", msgspec.json.encode(document))


def _fill(folder: Path, windows: int) -> None:
    """Write all at once: adding one by one would take as many writes of the whole."""
    Index(folder)
    moment = now()
    session = Session(
        id="s", name="s", state="frozen", model="m", lineage_id="l",
        created_at=moment, updated_at=moment,
    )  # fmt: skip
    with IndexFile(folder, 10.0).transaction() as tables:
        tables["sessions"] = {"s": session.to_dict()}
        tables["windows"] = {f"id{n}": _window(n).to_dict() for n in range(windows)}


def _window(number: int) -> Window:
    moment = now()
    return Window(
        id=f"id{number}",
        name=f"w-{number}",
        state="intact",
        session_id="s",
        lineage_id="l",
        model="m",
        created_at=moment,
        used_at=None,
        tokens=8_000,
        turns=3,
        chunks=62,
        chunk_tokens=128,
        size_bytes=182_845_440,
        proof=Proof(level="verified", chunks=62, size_bytes=182_845_440, checked_at=moment),
        manifest_digest="0" * 64,
        tags=[f"tag-{number % 100}"],
        note="a window of the bench",
    )

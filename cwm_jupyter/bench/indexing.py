"""Operations of the index with many windows in it."""

from __future__ import annotations

import shutil
import tempfile
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
#: where a sync costs nothing, so that what is left of an addition is our own part
_MEMORY = Path("/dev/shm")  # noqa: S108
#: targets in seconds; on a slow machine, so many times what rewriting the whole file takes
_AT_ONCE = (0.1, 3.0)
_PAGE = (0.05, 1.0)
_COMMIT = (0.03, 1.0)


def index_rows(folder: Path, windows: int) -> list[Row]:
    """Fill an index in an empty folder and measure what is done with it.

    An addition writes the index anew, as every change does; the yardstick is decoding, encoding and
    writing a file of its size, synced.
    """
    _fill(folder, windows)
    size = (folder / "index.json").stat().st_size
    yardstick_s = min(_times(lambda n: _rewrite(folder)))
    index, other = Index(folder), Index(folder)
    for each in (index, other):
        each.windows(limit=1)  # reads the file; `open` measures that

    def add(number: int) -> object:
        return index.add_window(_window(windows + number))

    def see(number: int) -> float:
        add(number)
        return _times(lambda n: other.require_window(f"w-{windows + number}"), 1)[0]

    work: list[tuple[str, str, tuple[float, float], Callable[[int], object]]] = [
        (
            "open",
            "first look, the file unread",
            _AT_ONCE,
            lambda n: Index(folder).get_window("id0"),
        ),
        ("find", "find by name", _PAGE, lambda n: index.find_window(f"w-{windows - 1 - n}")),
        ("list", "list the latest 50", _PAGE, lambda n: index.windows(limit=50)),
        ("tag", "list those of a tag", _PAGE, lambda n: index.windows(tags=["tag-3"], limit=50)),
        (
            "page",
            "search, sort, list 50",
            _PAGE,
            lambda n: index.windows(text="bench w-9", sort="-name", offset=50, limit=50),
        ),
        ("add", "add one, durably", _AT_ONCE, add),
    ]
    rows = [
        _row(name, windows, what, _times(action), yardstick_s, target, size)
        for name, what, target, action in work
    ]
    seen = [see(number) for number in range(_REPETITIONS, 2 * _REPETITIONS)]
    rows.append(
        _row("see", windows, "see what another process added", seen, yardstick_s, _AT_ONCE, size)
    )
    if _MEMORY.is_dir():
        times = _commits(folder, windows)
        rows.append(_row("commit", windows, "add one, unsynced", times, yardstick_s, _COMMIT, size))
    return rows


def _row(
    name: str,
    windows: int,
    what: str,
    times: list[float],
    yardstick_s: float,
    target: tuple[float, float],
    size: int,
) -> Row:
    target_s, share = target
    return Row.timed(
        f"index-{name}",
        f"index of {windows:,} windows: {what}",
        times,
        against=Yardsticks(bound_s=yardstick_s),
        limit=Limit(
            max(target_s, share * yardstick_s),
            f"at most {spoken(target_s)} or {share:g} times rewriting the file "
            f"({spoken(yardstick_s)}), the longer",
        ),
        bytes=size,
    )


def _commits(folder: Path, windows: int) -> list[float]:
    """Measure additions to a copy of the index that lies in memory."""
    with tempfile.TemporaryDirectory(dir=_MEMORY) as memory:
        shutil.copy(folder / "index.json", memory)
        index = Index(Path(memory))
        index.windows(limit=1)
        return _times(lambda n: index.add_window(_window(windows + 2 * _REPETITIONS + n)))


def _times(action: Callable[[int], object], repetitions: int = _REPETITIONS) -> list[float]:
    times = []
    for number in range(repetitions):
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

"""The index: that neither crash nor damage nor crowd can hurt it."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import filelock
import msgspec
import pytest
from entries import make_session, make_window

from cwm_jupyter.core import files
from cwm_jupyter.core.index import Index
from cwm_jupyter.core.indexfile import SCHEMA
from cwm_jupyter.core.models import Session
from cwm_jupyter.errors import (
    IndexBusyError,
    IndexCorruptError,
    ResourceExhaustedError,
    SchemaError,
    WindowExistsError,
)

posix_only = pytest.mark.skipif(os.name == "nt", reason="POSIX alone has it")


def names(page: Any) -> list[str]:
    return [item.name for item in page.items]


# Crashes


WRITER = """
    import sys
    from pathlib import Path
    from cwm_jupyter.core.index import Index
    from entries import make_window

    index, first = Index(Path(sys.argv[1])), int(sys.argv[2])
    for number in range(first, first + 100_000):
        with index.transaction() as transaction:
            transaction.update_session("s1", lambda s: s.replace(tokens=s.tokens + 1))
            transaction.add_window(make_window(f"w{number}", note="x" * 3000))
        print(number, flush=True)
"""


@pytest.fixture
def run() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python on a script, with the tests' helpers; kills what still runs at the end."""
    with ExitStack() as stack:

        def start(script: str, *arguments: str) -> subprocess.Popen[str]:
            helpers = Path(sys.modules["entries"].__file__ or "").parent
            process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(script), *arguments],
                env={**os.environ, "PYTHONPATH": str(helpers)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


@pytest.mark.covers("SR-015")
def test_kill_9_of_a_writer_loses_no_commit_and_tears_none(
    index: Index, folder: Path, chat: Session, run: Callable[..., subprocess.Popen[str]]
) -> None:
    committed = -1
    for commits in (1, 5, 9, 14, 20):
        writer = run(WRITER, str(folder), str(committed + 1))
        assert writer.stdout is not None
        lines = itertools.islice(writer.stdout, commits)
        acknowledged = [int(line) for line in lines][-1]  # and it goes on writing
        writer.kill()
        writer.communicate()

        survivor = Index(folder)
        numbers = sorted(int(w.id[1:]) for w in survivor.windows().items)
        committed = numbers[-1]
        assert numbers == list(range(committed + 1))
        assert committed >= acknowledged
        assert survivor.require_session("chat").tokens == committed + 1
        assert survivor.warning is None
    survivor.update_session("s1", lambda s: s.replace(tokens=0))
    assert {p.name for p in folder.iterdir()} <= {"index.json", "index.prev.json", "index.lock"}


@pytest.mark.covers("SR-015")
@pytest.mark.parametrize("call", ["tempfile.mkstemp", "os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_write_that_fails_at_any_step_leaves_the_old_or_the_new(
    folder: Path, chat: Session, index: Index, monkeypatch: pytest.MonkeyPatch, call: str, nth: int
) -> None:
    module, _, name = call.rpartition(".")
    owner = Path if name == "replace" else sys.modules[module]
    real, calls = getattr(owner, name), itertools.count(1)

    def fail_at_nth(*arguments: Any, **options: Any) -> Any:
        if next(calls) == nth:
            raise OSError(errno.EIO, "broken")
        return real(*arguments, **options)

    index.update_session("s1", lambda s: s.replace(tokens=1))
    with monkeypatch.context() as patch:
        patch.setattr(call, fail_at_nth)
        try:
            index.update_session("s1", lambda s: s.replace(tokens=2))
        except OSError:
            allowed = {1, 2}
        else:
            allowed = {2}
    found = index.require_session("chat").tokens
    assert found in allowed
    assert Index(folder).require_session("chat").tokens == found
    index.update_session("s1", lambda s: s.replace(tokens=3))
    assert Index(folder).require_session("chat").tokens == 3


def test_a_full_disk_leaves_the_index_as_it_was(
    index: Index, chat: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(ResourceExhaustedError, match=r"No room to write index\.json"):
            index.remove_session("s1")
    assert index.sessions().items == [chat]


@posix_only
def test_the_index_is_private(index: Index, folder: Path, chat: Session) -> None:
    index.update_session("s1", lambda s: s.replace(tokens=1))
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in [folder, *folder.iterdir()]}
    assert modes.pop("home") == 0o700
    assert set(modes) >= {"index.json", "index.prev.json"}
    assert set(modes.values()) == {0o600}


# Damage


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"chat")] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "flipped": flip,
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "not ours": lambda path: path.write_bytes(b'{"_default": {}}'),
    "of another shape": lambda path: files.write_checked(path, "index", SCHEMA, [1]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_index_is_set_aside_and_the_last_good_one_used(
    index: Index,
    folder: Path,
    chat: Session,
    damage: Callable[[Path], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    index.add_session(make_session("s2", "chat 2"))
    index.add_session(make_session("s3", "last"))
    damage(index.path)
    damaged = index.path.read_bytes()
    for reader in (index, Index(folder)):  # the one that has it in memory looks again
        assert names(reader.sessions()) == ["chat", "chat 2"]
    (quarantine,) = folder.glob("index.corrupt-*.json")
    assert quarantine.read_bytes() == damaged
    assert index.warning is not None
    assert quarantine.name in index.warning
    assert index.warning in caplog.text
    index.add_session(make_session("s3", "last"))
    assert names(Index(folder).sessions()) == ["chat", "chat 2", "last"]
    assert Index(folder).warning is None


def test_a_writer_recovers_too(index: Index, folder: Path, chat: Session) -> None:
    index.add_session(make_session("s2"))
    DAMAGES["emptied"](index.path)
    index.update_session("s1", lambda s: s.replace(tokens=1))
    assert [s.tokens for s in Index(folder).sessions().items] == [1]


def test_an_index_that_was_removed_comes_back_from_the_one_before(
    index: Index, folder: Path, chat: Session
) -> None:
    index.add_session(make_session("s2"))
    index.path.unlink()
    assert Index(folder).sessions().items == [chat]
    assert index.path.exists()
    assert index.sessions().items == [chat]


def test_damage_to_both_generations_is_an_error_and_overwrites_nothing(
    index: Index, folder: Path, chat: Session
) -> None:
    index.add_session(make_session("s2"))
    for path in (index.path, folder / "index.prev.json"):
        flip(path)
    before = {p.name: p.read_bytes() for p in folder.glob("*.json")}
    for use in (index.sessions, lambda: index.add_session(make_session("s3"))):
        with pytest.raises(IndexCorruptError, match=r"index\.json is damaged.*checksum"):
            use()
    assert {p.name: p.read_bytes() for p in folder.glob("*.json")} == before


def test_damage_to_the_only_generation_is_an_error(index: Index, chat: Session) -> None:
    flip(index.path)
    with pytest.raises(IndexCorruptError, match="move both away to begin anew"):
        index.sessions()


# Versions


def test_a_newer_index_is_refused_and_left_alone(index: Index, chat: Session) -> None:
    index.add_session(make_session("s2"))
    files.write_checked(index.path, "index", SCHEMA + 1, {"sessions": {}})
    before = index.path.read_bytes()
    for use in (index.sessions, lambda: index.add_session(make_session("s3"))):
        with pytest.raises(SchemaError, match=f"schema version {SCHEMA + 1}.*knows {SCHEMA}"):
            use()
    assert index.path.read_bytes() == before


#: what each schema did not have yet, in sessions and in windows
MISSING: dict[int, dict[str, tuple[str, ...]]] = {
    0: {"sessions": ("tags", "metadata"), "windows": ("tags", "note")},
    1: {
        "sessions": ("pinned", "expires_at", "policy"),
        "windows": ("pinned", "expires_at", "version", "superseded"),
    },
}


def write_old(path: Path, schema: int) -> bytes:
    """Write the index that a release of this schema would have, and return its bytes."""
    tables = {
        "sessions": {"s1": make_session("s1", "chat").to_dict()},
        "windows": {id_: make_window(id_, f"paper {id_}").to_dict() for id_ in ("w1", "w2")},
    }
    for older, missing in MISSING.items():
        for table, documents in tables.items():
            for document in documents.values() if older >= schema else ():
                for field in missing[table]:
                    del document[field]
    files.write_checked(path, "index", schema, tables)
    return path.read_bytes()


@pytest.mark.covers("SR-028", "SR-030")
@pytest.mark.parametrize("schema", range(SCHEMA))
def test_an_older_index_is_migrated_and_kept_as_it_was(
    index: Index, folder: Path, schema: int
) -> None:
    old = write_old(index.path, schema)
    backup = folder / f"index.schema-{schema}.json"

    assert index.require_session("chat") == make_session("s1", "chat")
    assert index.windows(tags=["x"]).items == []
    assert index.path.read_bytes() == old  # looking changes nothing
    index.update_window("w1", lambda w: w.replace(tags=["x"]))
    assert backup.read_bytes() == old
    for tokens in range(3):  # generations that push the old one out of index.prev.json
        index.update_session("s1", lambda s, tokens=tokens: s.replace(tokens=tokens + 1))
    assert backup.read_bytes() == old
    again = Index(folder)
    assert again.windows(tags=["x"]).items == [make_window("w1", "paper w1", tags=["x"])]
    assert again.require_window("paper w2") == make_window("w2", "paper w2")
    assert again.require_session("chat").tokens == 3
    assert f'{{"schema":{SCHEMA},'.encode() in index.path.read_bytes()


def test_a_crash_before_the_migration_is_written_leaves_the_old_index(
    index: Index, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write_old(index.path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomic", broken)
        with pytest.raises(OSError, match="broken"):
            index.update_session("s1", lambda s: s.replace(tokens=1))
    assert index.path.read_bytes() == old
    Index(folder).update_session("s1", lambda s: s.replace(tokens=1))
    assert (folder / "index.schema-1.json").read_bytes() == old


def broken(*_: Any, **__: Any) -> None:
    raise OSError(errno.EIO, "broken")


def test_an_older_generation_that_helps_is_migrated_too(index: Index, folder: Path) -> None:
    write_old(index.path, 1)
    index.update_session("s1", lambda s: s.replace(tokens=1))
    flip(index.path)
    recovered = Index(folder)
    assert recovered.require_session("chat").tokens == 0
    recovered.update_session("s1", lambda s: s.replace(tokens=2))
    assert Index(folder).require_session("chat").tokens == 2


def test_nothing_of_what_was_removed_for_good_is_left_in_any_file(
    index: Index, folder: Path
) -> None:
    write_old(index.path, 1)
    index.remove_window("w1")
    assert b"paper w1" in (folder / "index.schema-1.json").read_bytes()
    index.forget_previous()
    for path in folder.glob("*.json"):
        data = path.read_bytes()
        assert b"paper w1" not in data, path
        assert b"paper w2" in data, path
    shutil.copy(folder / "index.schema-1.json", index.path)  # the rest of it is still an index
    assert Index(folder).windows().items == [make_window("w2", "paper w2")]


def test_a_backup_that_cannot_be_read_is_not_left_to_hold_what_was_removed(
    index: Index, folder: Path
) -> None:
    write_old(index.path, 1)
    index.remove_window("w1")
    os.truncate(folder / "index.schema-1.json", 900)
    index.forget_previous()
    assert not (folder / "index.schema-1.json").exists()


# What is kept in memory


def test_a_commit_encodes_what_has_changed_and_a_reader_decodes_that(
    index: Index, folder: Path, chat: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        index.add_window(make_window(f"w{number}"))
    reader = Index(folder)
    before = {w.id: w for w in reader.all_windows()}
    encoded: list[Any] = []
    encode = msgspec.json.encode

    def noting(value: Any, **options: Any) -> bytes:
        encoded.append(value)
        return encode(value, **options)

    monkeypatch.setattr("cwm_jupyter.core.indexfile.msgspec.json.encode", noting)
    changed = index.update_window("w3", lambda w: w.replace(note="new"))
    assert [each["id"] for each in encoded if isinstance(each, dict) and "id" in each] == ["w3"]

    decoded: list[bytes] = []

    class Noting:
        def decode(self, raw: msgspec.Raw) -> Any:
            decoded.append(bytes(raw))
            return msgspec.json.decode(raw)

    monkeypatch.setattr("cwm_jupyter.core.indexfile._ENTRY", Noting())
    assert {w.id: w for w in reader.all_windows()} == {**before, "w3": changed}
    assert decoded == [encode(changed.to_dict())]


# Crowds


@pytest.mark.covers("SR-016")
def test_threads_lose_and_duplicate_nothing(folder: Path, index: Index, chat: Session) -> None:
    shared = [index, Index(folder)]  # two objects of one process must not mix either
    start, won = threading.Barrier(8), []

    def work(number: int) -> None:
        mine = shared[number % 2]
        start.wait()
        for i in range(8):
            mine.add_window(make_window(f"t{number}-{i}"))
            mine.update_session("s1", lambda s: s.replace(tokens=s.tokens + 1))
        with suppress(WindowExistsError):
            won.append(mine.add_window(make_window(f"only-{number}", "the only one")))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {f"t{n}-{i}" for n in range(8) for i in range(8)} | {w.id for w in won}
    assert len(won) == 1
    assert {w.id for w in Index(folder).windows().items} == expected
    assert all(each.require_session("chat").tokens == 64 for each in [*shared, Index(folder)])


CROWD = """
    import sys
    from pathlib import Path
    from cwm_jupyter.core.index import Index
    from cwm_jupyter.errors import WindowExistsError
    from entries import make_window

    index, me = Index(Path(sys.argv[1]), lock_timeout_s=60), sys.argv[2]
    print("ready", flush=True)
    sys.stdin.readline()
    won = 0
    for i in range(25):
        index.add_window(make_window(f"{me}-{i}"))
        index.update_session("s1", lambda s: s.replace(tokens=s.tokens + 1))
        try:
            index.add_window(make_window(f"{me}-only-{i}", f"the only {i}"))
            won += 1
        except WindowExistsError:
            pass
    print(won, flush=True)
"""


@pytest.mark.covers("SR-016")
def test_processes_lose_and_duplicate_nothing(
    folder: Path, index: Index, chat: Session, run: Callable[..., subprocess.Popen[str]]
) -> None:
    crowd = [run(CROWD, str(folder), f"p{i}") for i in range(3)]
    for process in crowd:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outputs = []
    for process in crowd:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in crowd:
        outputs.append(process.communicate(timeout=120)[0])
        assert process.returncode == 0
    assert sum(map(int, outputs)) == 25
    ids = [w.id for w in index.windows().items]
    assert len(ids) == len(set(ids)) == 100
    assert {f"p{n}-{i}" for n in range(3) for i in range(25)} <= set(ids)
    assert index.require_session("chat").tokens == 75


def test_a_reader_beside_a_writer_sees_whole_generations_only(
    folder: Path, index: Index, chat: Session
) -> None:
    done = threading.Event()

    def write() -> None:
        for i in range(40):
            with index.transaction() as transaction:
                transaction.update_session("s1", lambda s: s.replace(tokens=s.tokens + 1))
                transaction.add_window(make_window(f"w{i}"))
        done.set()

    writer, reader, seen = threading.Thread(target=write), Index(folder), [0]
    writer.start()
    while not done.is_set():
        tokens, windows = reader.require_session("chat").tokens, reader.windows().total
        assert seen[-1] <= tokens <= windows
        seen.append(windows)
    writer.join()
    assert reader.windows().total == 40


def test_a_lock_that_is_held_for_too_long_is_an_error_and_reading_needs_none(
    folder: Path, index: Index, chat: Session
) -> None:
    hasty = Index(folder, lock_timeout_s=0.02)
    with index.transaction():
        with pytest.raises(IndexBusyError, match=r"held the index for 0\.02 s") as caught:
            hasty.remove_session("s1")
        assert isinstance(caught.value.__cause__, filelock.Timeout)
        assert hasty.sessions().items == [chat]
    hasty.remove_session("s1")


def test_a_thread_that_waits_too_long_gets_the_same_error(folder: Path, chat: Session) -> None:
    shared, errors = Index(folder, lock_timeout_s=0.02), []

    def wait() -> None:
        try:
            shared.remove_session("s1")
        except IndexBusyError as error:
            errors.append(error)

    with shared.transaction():
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
    assert len(errors) == 1
    assert shared.sessions().items == [chat]


def test_a_commit_of_another_process_is_seen_even_in_the_same_instant_and_size(
    folder: Path, index: Index, chat: Session
) -> None:
    """The clock of a file system is coarse and inodes are used again: the head tells apart."""
    other = Index(folder)
    assert other.require_session("chat").tokens == 0
    times = index.path.stat()
    for tokens in range(1, 6):
        index.update_session("s1", lambda s, tokens=tokens: s.replace(tokens=tokens))
        os.utime(index.path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert other.require_session("chat").tokens == tokens

"""Files that somebody reads: Windows neither replaces nor removes them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from bench import Bench
from entries import make_session, make_window
from vaults import content_path, get, keys, names, noise, put, record_path
from windows_disk import WindowsDisk

from cwm_jupyter.core import files, portable
from cwm_jupyter.core.index import Index
from cwm_jupyter.errors import IndexBusyError
from cwm_jupyter.vault.files import Vault


def close_soon(file: object) -> threading.Thread:
    """Close a file from another thread, as a reader does that is nearly done."""

    def close() -> None:
        time.sleep(0.1)
        file.close()  # type: ignore[attr-defined]

    thread = threading.Thread(target=close)
    thread.start()
    return thread


@pytest.mark.covers("PW-002")
def test_the_emulated_folder_refuses_what_windows_does(
    windows: WindowsDisk, tmp_path: Path
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    with one.open("rb"):
        for refused in (one.unlink, lambda: one.replace(other), lambda: other.replace(one)):
            with pytest.raises(PermissionError):
                refused()
    other.replace(one)
    assert one.read_bytes() == b"2"
    with pytest.raises(PermissionError):
        os.open(tmp_path, os.O_RDONLY)
    assert windows.refusals == 3


@pytest.mark.covers("PW-002")
def test_a_file_is_replaced_and_removed_once_its_reader_is_done(
    windows: WindowsDisk, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    files.write_atomic(path, b"old")
    reader = close_soon(path.open("rb"))
    files.write_atomic(path, b"new")
    reader.join()
    assert path.read_bytes() == b"new"
    reader = close_soon(path.open("rb"))
    assert portable.remove(path)
    reader.join()
    assert windows.refusals >= 2
    assert not portable.remove(path)
    assert not names(tmp_path)


@pytest.mark.covers("PW-002")
def test_an_index_is_committed_while_others_read_it(windows: WindowsDisk, tmp_path: Path) -> None:
    """Also the generation before, which is a link to what a slow reader has open."""
    index = Index(tmp_path / "home")
    index.add_session(make_session("s1", "one"))
    for number in range(3):
        reader = close_soon((tmp_path / "home" / "index.json").open("rb"))
        index.add_window(make_window(f"w{number}", f"window {number}"))
        reader.join()
    assert windows.refusals >= 3
    assert Index(tmp_path / "home").windows().total == 3
    assert names(tmp_path / "home") >= {"index.json", "index.prev.json"}
    assert not list((tmp_path / "home").glob("*.tmp"))


@pytest.mark.covers("PW-002")
def test_an_index_that_is_open_for_good_is_an_error_that_says_so(
    windows: WindowsDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable, "_BUSY_DELAYS_S", (0.001,))
    index = Index(tmp_path / "home")
    index.add_session(make_session("s1", "one"))
    with (
        (tmp_path / "home" / "index.json").open("rb"),
        pytest.raises(IndexBusyError, match=r"has .* open") as caught,
    ):
        index.add_session(make_session("s2", "two"))
    assert caught.value.hint
    assert [s.name for s in Index(tmp_path / "home").sessions().items] == ["one"]
    index.add_session(make_session("s3", "three"))
    assert index.sessions().total == 2


@pytest.mark.covers("PW-002")
def test_a_chunk_that_stays_open_is_a_failed_store_and_no_loss(
    windows: WindowsDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable, "_BUSY_DELAYS_S", (0.001,))
    vault = Vault(tmp_path / "vault")
    first, second = keys(2)
    put(vault, {first: noise(1), second: noise(2)})
    path = content_path(vault, first)
    path.write_bytes(b"damaged")
    with path.open("rb"):
        assert get(vault, first) is None
        assert put(vault, {first: noise(1)}) == ["failed"]
        assert get(vault, second) == noise(2)
    with record_path(vault, first).open("rb"), pytest.raises(PermissionError):
        vault.delete([first])
    assert put(vault, {first: noise(1)}) == ["stored"]
    assert get(vault, first) == noise(1)
    assert not list(vault.folder.contents.glob("*.tmp"))
    vault.close()


@pytest.mark.covers("PW-002")
def test_what_is_being_read_is_healed_evicted_and_collected(
    windows: WindowsDisk, tmp_path: Path
) -> None:
    vault = Vault(tmp_path / "vault")
    first, second, third = keys(3)
    put(vault, {first: noise(1), second: noise(2)})
    path = content_path(vault, first)
    path.write_bytes(b"damaged")
    reader = close_soon(path.open("rb"))
    assert put(vault, {first: noise(1)}) == ["stored"]
    reader.join()
    assert get(vault, first) == noise(1)
    vault.hold("window", [second])
    vault.room.quota_bytes = 2 * content_path(vault, second).stat().st_size
    reader = close_soon(content_path(vault, first).open("rb"))
    assert put(vault, {third: noise(3)}) == ["stored"]
    reader.join()
    assert get(vault, first) is None
    assert [get(vault, key) for key in (second, third)] == [noise(2), noise(3)]
    assert windows.refusals >= 2
    vault.close()


@pytest.mark.covers("PW-002")
@pytest.mark.parametrize("hard_links", [True, False])
async def test_a_window_s_life_with_readers_in_between(tmp_path: Path, hard_links: bool) -> None:
    """On NTFS, and on file systems without hard links, as FAT."""
    with WindowsDisk(tmp_path, hard_links=hard_links) as disk:
        bench = Bench(tmp_path)
        stop = threading.Event()

        def read() -> None:
            """Open everything for a moment, as a virus scanner does."""
            while not stop.is_set():
                for path in tmp_path.rglob("*.[jk]*"):
                    try:
                        with path.open("rb") as file:
                            file.read()
                            time.sleep(0.002)
                    except (FileNotFoundError, PermissionError):
                        continue

        scanner = threading.Thread(target=read)
        scanner.start()
        try:
            await bench.frozen("paper")
            bench.stack.restart()
            thawed = await bench.manager.thaw("paper")
            assert thawed.complete
            await bench.manager.say(thawed.session, "And then?")
            assert (await bench.manager.verify()).intact
            await bench.manager.remove_window("paper")
            assert (await bench.manager.purge()).windows == ["paper"]
        finally:
            stop.set()
            scanner.join()
        assert disk.refusals
        await bench.reconnect()


def add_sessions(root: Path, worker: int, count: int) -> None:
    """Add sessions to an index, each in a transaction of its own, and read in between."""
    with WindowsDisk(root):
        index = Index(root / "home", lock_timeout_s=60)
        for number in range(count):
            index.add_session(make_session(f"s{worker}-{number}", f"{worker} {number}"))
            assert index.find_session(f"{worker} {number}") is not None


@pytest.mark.covers("PW-002", "PW-004")
def test_processes_that_were_spawned_share_an_index(windows: WindowsDisk, tmp_path: Path) -> None:
    """No fork: each imports everything anew, and refuses nothing that another reads for good."""
    Index(tmp_path / "home")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=add_sessions, args=(tmp_path, n, 12)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert Index(tmp_path / "home").sessions().total == 36


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX kills")
def test_what_a_killed_process_had_open_is_free_again(windows: WindowsDisk, tmp_path: Path) -> None:
    """The lock goes with its holder, and so does what refuses a replace."""
    index = Index(tmp_path / "home", lock_timeout_s=20)
    index.add_session(make_session("s1", "one"))
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=hold_for_good, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(IndexBusyError):
        Index(tmp_path / "home", lock_timeout_s=0.1).add_session(make_session("s2", "two"))
    holder.kill()
    holder.join(30)
    index.add_session(make_session("s2", "two"))
    assert index.sessions().total == 2


def hold_for_good(root: Path, ready: object) -> None:
    """Hold the index's lock and read its file, for ever."""
    with WindowsDisk(root):
        index = Index(root / "home")
        with index.transaction(), (root / "home" / "index.json").open("rb"):
            ready.set()  # type: ignore[attr-defined]
            time.sleep(600)

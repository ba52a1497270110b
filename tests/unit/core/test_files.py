"""Crash-safe files and checked documents."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.core import files
from cwm_jupyter.errors import (
    IndexCorruptError,
    ResourceExhaustedError,
    SchemaError,
    SecurityError,
)

posix_only = pytest.mark.skipif(os.name == "nt", reason="permission bits are POSIX")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def fail_with(number: int) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_write_replaces_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_atomic(path, b"a longer first content")
    files.write_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@posix_only
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_file_has_the_mode_that_was_asked_for(tmp_path: Path, mode: int) -> None:
    files.write_atomic(tmp_path / "a", b"x", mode)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


@posix_only
def test_a_symbolic_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    files.write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"mine"
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_a_failed_write_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a"
    files.write_atomic(path, b"old")
    monkeypatch.setattr(call, fail_with(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_is_said_with_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", fail_with(errno.ENOSPC))
    with pytest.raises(ResourceExhaustedError, match=r"No room to write a") as caught:
        files.write_atomic(tmp_path / "a", bytes(3_000_000))
    assert "3.0 MB" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_file_and_its_folder_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    sync = os.fsync

    def note(handle: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(handle).st_mode))
        sync(handle)

    monkeypatch.setattr("os.fsync", note)
    files.write_atomic(tmp_path / "a", b"x")
    assert synced == [False, True] if os.name != "nt" else [False]


def test_concurrent_writers_and_readers_see_whole_files_only(tmp_path: Path) -> None:
    path = tmp_path / "a"
    contents = [bytes([i]) * 100_000 for i in range(4)]
    files.write_atomic(path, contents[0])
    seen: set[bytes] = set()

    def write(content: bytes) -> None:
        for _ in range(10):
            files.write_atomic(path, content)
            seen.add(path.read_bytes())

    threads = [threading.Thread(target=write, args=(c,)) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen <= set(contents)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_kept_copy_stays_when_the_file_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool
) -> None:
    if not hard_links:
        monkeypatch.setattr("os.link", fail_with(errno.EPERM))
    path, copy = tmp_path / "a", tmp_path / "b"
    for content in (b"1", b"2", b"2"):  # also onto itself
        files.write_atomic(path, content)
        files.keep_copy(path, copy)
        files.keep_copy(path, copy)
    files.write_atomic(path, b"3")
    assert (path.read_bytes(), copy.read_bytes()) == (b"3", b"2")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_leftovers_of_this_file_alone_are_removed(tmp_path: Path) -> None:
    for name in (".a.x1.tmp", ".a.b.x1.tmp", "a.tmp", ".b.x1.tmp"):
        (tmp_path / name).touch()
    files.remove_leftovers(tmp_path / "a")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".b.x1.tmp", "a.tmp"]


@posix_only
def test_a_folder_is_made_private_even_if_it_was_there(tmp_path: Path) -> None:
    fresh = files.make_private_dir(tmp_path / "x" / "y")
    (tmp_path / "old").mkdir(mode=0o755)
    old = files.make_private_dir(tmp_path / "old")
    assert [stat.S_IMODE(p.stat().st_mode) for p in (fresh, old)] == [0o700, 0o700]


@posix_only
def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(SecurityError, match="belongs to another user"):
        files.make_private_dir(tmp_path / "home")


@given(JSON)
def test_a_document_comes_back_as_it_was(body: Any) -> None:
    data = files.seal_document("thing", 3, body)
    document = files.open_document(data, "thing", 3, "a.json")
    assert files.migrate(msgspec.json.decode(document.body), 3, 3, {}) == body


@given(data=st.data())
def test_any_changed_byte_is_found_or_without_meaning(data: st.DataObject) -> None:
    sealed = files.seal_document("thing", 1, {"tokens": [1, 2, 3], "name": "x"})
    position = data.draw(st.integers(0, len(sealed) - 1))
    changed = bytearray(sealed)
    changed[position] ^= data.draw(st.integers(1, 255))
    try:
        document = files.open_document(bytes(changed), "thing", 1, "a.json")
    except (IndexCorruptError, SchemaError):
        return
    assert bytes(document.body) in sealed  # at most the version went down


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"null", b'{"schema":1}', b"\xff\xfe", files.seal_document("t", 1, [1])[:-1]],
)
def test_what_is_no_document_is_refused_with_the_files_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "paper.json"
    path.write_bytes(data)
    with pytest.raises(IndexCorruptError, match=r"^paper\.json is damaged"):
        files.read_checked(path, "t", 1)


def test_a_document_of_another_kind_is_refused(tmp_path: Path) -> None:
    files.write_checked(tmp_path / "a.json", "manifest", 1, {})
    with pytest.raises(IndexCorruptError, match=r"a\.json holds no transcript"):
        files.read_checked(tmp_path / "a.json", "transcript", 1)


def test_a_missing_document_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(IndexCorruptError, match=r"a\.json cannot be read: No such file"):
        files.read_checked(tmp_path / "a.json", "t", 1)


def test_a_newer_schema_is_refused_and_an_older_one_migrated(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_checked(path, "t", 2, {"n": 2})
    with pytest.raises(SchemaError, match="schema version 2; this release knows 1"):
        files.read_checked(path, "t", 1)
    migrations = {2: lambda b: {**b, "m": 3}, 3: lambda b: {**b, "n": b["n"] * 2}}
    assert files.read_checked(path, "t", 4, migrations) == {"n": 4, "m": 3}
    with pytest.raises(IndexCorruptError, match="No way leads from schema version 4"):
        files.read_checked(path, "t", 5, migrations)

"""Whatever happens to its files, the disk or the process, a vault gives right bytes or a miss."""

from __future__ import annotations

import errno
import io
import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import vault_crash
from vaults import (
    ACTIONS,
    CHUNKS,
    HELD,
    PROMISED,
    STEPS,
    content_path,
    copy_of,
    examine,
    fail_at,
    fail_from,
    get,
    in_order,
    keys,
    kv,
    noise,
    number_of_steps,
    perform,
    prepare,
    put,
    record_path,
    steps,
)

from cwm_jupyter.core.cipher import Keyring
from cwm_jupyter.errors import CWMError, IndexCorruptError
from cwm_jupyter.vault.content import HEADER_BYTES, CodecName
from cwm_jupyter.vault.files import Vault


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a line that a run shows."""

    def show(line: str) -> None:
        with capsys.disabled():
            print(f"\n  {line}", end="", flush=True)

    return show


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about power cuts, and the tests sync some ten thousand times."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(logging.getLogger("cwm_jupyter.vault"), "disabled", True)
    for name in ("files", "storing", "room"):
        monkeypatch.setattr(logging.getLogger(f"cwm_jupyter.vault.{name}"), "disabled", True)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "vault"
    prepare(folder)
    return folder


# Damaged files

KINDS: list[tuple[str, CodecName, bool]] = [
    ("raw", "raw", False),
    ("planes", "planes", False),
    ("encrypted", "planes", True),
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind[0])
def one(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Vault]:
    """A vault with a chunk and another, in each form a content can have."""
    _, codec, encrypted = request.param
    keyring = Keyring.load_or_create(tmp_path / "home", {}) if encrypted else None
    vault = Vault(tmp_path / "vault", codec=codec, keyring=keyring)
    put(vault, {key: kv(i) for i, key in enumerate(keys(2))})
    yield vault
    vault.close()


def damages(data: bytes, other: bytes) -> Iterator[tuple[str, bytes]]:
    """Go through what may become of a file."""
    offsets = {*range(min(len(data), HEADER_BYTES + 40)), *range(0, len(data), 61), len(data) - 1}
    for at in sorted(offsets):
        yield "flipped", data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
    for size in sorted({*range(HEADER_BYTES + 2), *range(0, len(data), 997), len(data) - 1}):
        yield "truncated", data[:size]
    for more in (b"\0", b"x" * 4096, data):
        yield "extended", data + more
    yield "zeros", bytes(len(data))
    yield "zeros behind the header", data[:HEADER_BYTES] + bytes(len(data) - HEADER_BYTES)
    yield "swapped", other
    yield "another's header", other[:HEADER_BYTES] + data[HEADER_BYTES:]
    yield "another's payload", data[:HEADER_BYTES] + other[HEADER_BYTES:]


def test_a_damaged_content_is_a_miss_and_is_healed(one: Vault, say: Callable[[str], None]) -> None:
    key, other = keys(2)
    path = content_path(one, key)
    good = path.read_bytes()
    counts: Counter[str] = Counter()
    for what, data in damages(good, content_path(one, other).read_bytes()):
        path.write_bytes(data)
        read = get(one, key)
        assert read is None, what
        if path.exists():  # a change that says "sealed with another key", which may yet be found
            assert one.keyring is not None
            assert one.counters.unreadable
        counts[what] += 1
        if counts[what] <= 2:
            assert put(one, {key: kv(0)}) == ["stored"]
            assert get(one, key) == kv(0)
        path.write_bytes(good)
    assert get(one, key) == kv(0)
    assert get(one, other) == kv(1)
    assert one.counters.corrupt + one.counters.unreadable >= counts.total()
    say(f"contents damaged: {dict(counts)}: {counts.total()} misses, 0 wrong bytes")


def test_a_damaged_record_is_a_miss_and_is_healed(one: Vault, say: Callable[[str], None]) -> None:
    if one.codec == "planes" and one.keyring is None:
        return  # records are as those of the raw one
    key, other = keys(2)
    path = record_path(one, key)
    good = path.read_bytes()
    counts: Counter[str] = Counter()
    changes = itertools.chain(
        (("flipped", good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :]) for i in range(len(good))),
        (("truncated", good[:i]) for i in range(0, len(good), 3)),
        [("extended", good + b"x"), ("zeros", bytes(len(good)))],
        [("swapped", record_path(one, other).read_bytes()), ("no text", b"\xff\xfe")],
    )
    for what, data in changes:
        path.write_bytes(data)
        # A flip in the version says "of a newer release": such a record is left where it is.
        read = get(one, key)
        assert read in (None, kv(0)), what
        counts[what if read is None else f"{what}, but read right"] += 1
        path.write_bytes(good)
    path.write_bytes(record_path(one, other).read_bytes())
    assert put(one, {key: kv(0)}) == ["stored"]
    assert get(one, key) == kv(0)
    say(f"records damaged: {dict(counts)}: {counts.total()} misses, 0 wrong bytes")


def test_a_record_that_is_older_gives_what_was_stored_then(tmp_path: Path) -> None:
    """It is a right answer of another time: its content is whole, or it is a miss."""
    vault = Vault(tmp_path / "vault")
    (key,) = keys(1)
    put(vault, {key: noise(1)})
    old = record_path(vault, key).read_bytes()
    content_path(vault, key).unlink()
    put(vault, {key: noise(2)})
    record_path(vault, key).write_bytes(old)
    assert get(vault, key) is None
    found = vault.check(key)
    assert (found.state, found.reason) == ("missing", "its content is gone")
    assert put(vault, {key: noise(2)}) == ["stored"]
    assert get(vault, key) == noise(2)
    vault.close()


@pytest.mark.parametrize("cut", ["content", "record", "hold", "quarantine", "vault.json"])
def test_references_that_are_cut(tmp_path: Path, cut: str) -> None:
    vault = Vault(tmp_path / "vault")
    first, second = keys(2)
    put(vault, {first: noise(1), second: noise(2)})
    vault.hold("window", [first, second])
    match cut:
        case "content":
            content_path(vault, first).unlink()
        case "record":
            record_path(vault, first).unlink()
        case "hold":
            vault.folder.hold("window").unlink()
        case "quarantine":
            shutil.rmtree(vault.folder.quarantine)
        case _:
            (vault.folder.path / cut).write_bytes(b"damaged")
    vault.close()
    vault = Vault(tmp_path / "vault")
    lost = cut in ("content", "record")
    assert get(vault, first) == (None if lost else noise(1))
    assert get(vault, second) == noise(2)
    assert put(vault, {first: noise(1)}) == ["stored" if lost else "skipped"]
    vault.room.collect({"window"})
    assert get(vault, first) == noise(1)
    vault.close()


@pytest.mark.parametrize("where", ["content", "record"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_what_cannot_be_read_is_a_miss_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, number: int
) -> None:
    """Root ignores modes, so the refusal is made; a failing disk looks the same."""
    vault = Vault(tmp_path / "vault")
    first, second = keys(2)
    put(vault, {first: noise(1), second: noise(2)})
    vault.hold("window", [first])
    refused = content_path(vault, first) if where == "content" else record_path(vault, first)
    real_bytes, real_file = Path.read_bytes, io.FileIO

    def read_bytes(path: Path) -> bytes:
        if path == refused:
            raise OSError(number, os.strerror(number))
        return real_bytes(path)

    def opened(path: Path, mode: str) -> io.FileIO:
        if path == refused:
            raise OSError(number, os.strerror(number))
        return real_file(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read_bytes)
        patch.setattr(io, "FileIO", opened)
        assert get(vault, first) is None
        assert vault.counters.unreadable > 0
        if where == "record":  # what it means is not known, so no content is deleted
            with pytest.raises(OSError, match=os.strerror(number)):
                vault.room.collect({"window"})
            with pytest.raises(OSError, match=os.strerror(number)):
                vault.delete([second])
    assert get(vault, first) == noise(1)
    assert not list(vault.folder.quarantine.iterdir())
    vault.close()


def damaged_holds(data: bytes) -> Iterator[bytes]:
    yield from (data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :] for i in range(0, len(data), 7))
    yield from (b"", data[:-1], data.replace(b'"window"', b'"other_"'))


def test_nothing_goes_while_a_hold_is_damaged(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault", quota_bytes=2 * (600 + HEADER_BYTES))
    first, second, third = keys(3)
    put(vault, {first: noise(1), second: noise(2)})
    vault.hold("window", [first])
    path = vault.folder.hold("window")
    good = path.read_bytes()
    for data in damaged_holds(good):
        path.write_bytes(data)
        with pytest.raises(CWMError):
            vault.delete([second])
        with pytest.raises(CWMError):
            vault.room.collect(set())
        assert put(vault, {third: noise(3)}) == ["failed"]
    path.write_bytes(good)
    assert (get(vault, first), get(vault, second)) == (noise(1), noise(2))
    path.write_bytes(good[:-2])
    with pytest.raises(IndexCorruptError, match=r"hold .* nothing is evicted") as caught:
        vault.holds()
    assert "Restore" in (caught.value.hint or "")
    vault.close()


# A disk that fails


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("action", ACTIONS)
def test_each_step_may_fail(
    template: Path, tmp_path: Path, action: str, number: int, say: Callable[[str], None]
) -> None:
    with in_order():
        kinds = number_of_steps(template, tmp_path / "whole", action)
        ends: Counter[str] = Counter()
        for step in range(kinds.total()):
            folder = copy_of(template, tmp_path / str(step))
            with steps(fail_at(step, number)):
                ends[perform(folder, action)] += 1
            examine(folder, action, list(PROMISED))
            shutil.rmtree(folder)
    assert ends["refused"]
    say(f"{action}: {errno.errorcode[number]} at {_listed(kinds)}: {dict(ends)}, nothing lost")


def test_a_disk_that_stays_full(template: Path, tmp_path: Path, say: Callable[[str], None]) -> None:
    runs = 0
    with in_order():
        for action in ACTIONS:
            kinds = number_of_steps(template, tmp_path / action, action)
            for step in range(0, kinds.total(), 2):
                folder = copy_of(template, tmp_path / f"{action}{step}")
                with steps(fail_from(step)):
                    perform(folder, action)
                examine(folder, action, list(PROMISED))
                shutil.rmtree(folder)
                runs += 1
    say(f"full from each of {runs} steps on: nothing lost")


def test_a_write_that_takes_only_a_part_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, bytes(data[:7])))
    vault = Vault(tmp_path / "vault")
    (key,) = keys(1)
    assert put(vault, {key: noise(1)}) == ["stored"]
    assert get(vault, key) == noise(1)
    vault.close()


# A process that dies


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the killed processes are forked")
@pytest.mark.parametrize("action", ACTIONS)
def test_being_killed_at_each_step(
    template: Path, tmp_path: Path, action: str, say: Callable[[str], None]
) -> None:
    with in_order():
        kinds = number_of_steps(template, tmp_path / "whole", action)
    folder = tmp_path / "killed"
    folder.mkdir()
    script = [vault_crash.__file__, "die", template, folder, action, kinds.total()]
    output = subprocess.check_output([sys.executable, *map(str, script)], text=True)
    assert int(output) == kinds.total() + 1
    found: Counter[str] = Counter()
    with in_order():
        for copy in folder.iterdir():
            found += examine(copy, action, [])
    say(f"{action}: killed at {_listed(kinds)}: chunks {dict(found)}, none wrong")


def _listed(kinds: Counter[str]) -> str:
    return f"{kinds.total()} steps ({', '.join(f'{kinds[name]} {name}' for name in STEPS)})"


# Several processes


def test_two_processes_share_a_vault(tmp_path: Path, say: Callable[[str], None]) -> None:
    script = [sys.executable, vault_crash.__file__, "work", str(tmp_path / "vault")]
    workers = [
        subprocess.Popen([*script, str(seed), "2.5"], stdout=subprocess.PIPE, text=True)
        for seed in range(2)
    ]
    totals: Counter[str] = Counter()
    for worker in workers:
        output, _ = worker.communicate(timeout=60)
        assert worker.returncode == 0
        totals.update(json.loads(output))
    assert totals["evicted"]
    for state in ("wrong", "lost", "corrupt", "unreadable", "failed"):
        assert totals[state] == 0, (state, totals)
    assert totals["read"]
    assert totals["missed"]
    with in_order():
        vault = Vault(tmp_path / "vault")
        assert [get(vault, key) for key in list(CHUNKS)[:2]] == [CHUNKS[key] for key in HELD]
        vault.room.collect(None)
        there = {path.stem for path in vault.folder.contents.iterdir()}
        assert there == {record.content for _, record in vault.records()}
        vault.close()
    say(f"two processes on one vault: {dict(totals)}")

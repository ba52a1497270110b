"""The audit log: what it says, and that what was done to it shows."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from bench import Bench
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cwm_jupyter.core.audit import Audit, AuditReport
from cwm_jupyter.core.audit import files as audit_files
from cwm_jupyter.core.files import write_atomic
from cwm_jupyter.core.models import FreezePolicy
from cwm_jupyter.errors import (
    IndexBusyError,
    ResourceExhaustedError,
    SecurityError,
    ValidationError,
    WindowNotFoundError,
)
from cwm_jupyter.present import html, text


def log(home: Path) -> Path:
    return home / "audit" / "audit.jsonl"


def lines(home: Path) -> list[bytes]:
    return log(home).read_bytes().splitlines(keepends=True)


def write(home: Path, count: int, audit: Audit | None = None) -> Audit:
    audit = audit or Audit(home)
    for number in range(count):
        with audit.entry("freeze", window=f"w{number}"):
            pass
    return audit


def kinds(report: AuditReport) -> list[str]:
    return [fault.kind for fault in report.faults]


# --- what it says ---------------------------------------------------------------------------------


@pytest.mark.covers("SC-006")
async def test_every_change_is_there_with_who_what_and_result(tmp_path) -> None:
    bench = Bench(tmp_path)
    manager = bench.manager
    await bench.talk("talk")
    window = (await manager.freeze("paper", "talk")).window
    await manager.thaw("paper", as_session="again")
    with pytest.raises(WindowNotFoundError):
        await manager.thaw("papers")
    with pytest.raises(ValidationError):
        await manager.freeze("pa/per", "talk")
    await manager.remove_window("paper")
    await manager.restore_window("paper")
    await manager.remove_window("paper")
    await manager.remove_session("talk")
    await manager.collect_garbage(dry_run=True)
    await manager.collect_garbage()
    await manager.purge(dry_run=True)
    await manager.purge()
    await manager.verify()
    report = manager.audit.read()
    said = [(r.line.action, r.line.names, r.line.result) for r in report.records]
    assert said == [
        ("create-session", {"session": "talk"}, "done"),
        ("freeze", {"window": "paper", "session": "talk"}, "done"),
        ("thaw", {"window": "paper", "session": "again"}, "done"),
        ("thaw", {"window": "papers"}, "window.not_found"),
        ("freeze", {"window": "pa/per", "session": "talk"}, "input.invalid"),
        ("remove", {"window": "paper"}, "done"),
        ("restore", {"window": "paper"}, "done"),
        ("remove", {"window": "paper"}, "done"),
        ("remove-session", {"session": "talk"}, "done"),
        ("gc", {}, "begun"),
        ("gc", {}, "done"),
        ("purge", {"windows": ["paper"], "sessions": ["talk"]}, "begun"),
        ("purge", {"windows": ["paper"], "sessions": ["talk"]}, "done"),
    ]
    freeze = report.records[1].line
    assert freeze.size_bytes == window.size_bytes
    assert freeze.seconds is not None
    assert freeze.pid == os.getpid()
    assert freeze.user
    assert freeze.host
    assert freeze.program
    assert report.records[-1].line.begun == report.records[-2].line.seq
    assert report.intact
    await bench.reconnect()


@pytest.mark.covers("SC-006")
async def test_no_kind_of_change_is_left_out(tmp_path) -> None:
    bench = Bench(tmp_path)
    manager, file = bench.manager, tmp_path / "paper.cwm"
    await bench.frozen("paper", "What is the capital of France, and why is it that one?")
    await manager.branches.clone("paper", "branch")
    await manager.keeping.edit_window("paper", note="of interest")
    await manager.keeping.edit_session("paper", add_tags=["one"])
    await manager.keeping.expire()
    await manager.turns.rewind("paper", 1)
    await manager.autofreeze.set_policy("paper", FreezePolicy(at_tokens=4000))
    await manager.questions.ask("paper", ["And of Spain?"])
    await manager.archives.export(["paper"], file)
    await manager.archives.export_text("paper", tmp_path / "paper.md")
    await manager.archives.import_file(file, as_name="imported")
    await manager.repair("paper")
    report = manager.audit.read()
    done = [record.line.action for record in report.records if record.line.result == "done"]
    assert done[-11:] == [
        "clone", "edit", "edit-session", "expire", "rewind", "policy", "ask",
        "export", "export-text", "import", "repair",
    ]  # fmt: skip
    names = {record.line.action: record.line.names for record in report.records}
    assert names["clone"] == {"window": "paper", "new": "branch"}
    assert names["import"]["file"] == "paper.cwm"
    whole = log(bench.home).read_bytes()
    for said in (b"France", b"Spain", b"of interest"):
        assert said not in whole
    assert report.intact
    await bench.reconnect()


async def test_no_salt_no_key_and_nothing_that_was_said_is_in_it(tmp_path) -> None:
    bench = Bench(tmp_path)
    await bench.frozen("paper", "the quick brown fox")
    session = await bench.manager.session("paper")
    stack = await bench.connect()
    fingerprint = (await stack.facts()).fingerprint
    salt = bench.library.lineages.salt(session.lineage_id, fingerprint)
    secret = bench.library.lineages.path(session.lineage_id).read_bytes()
    whole = log(bench.home).read_bytes()
    for secrets in (salt.encode(), secret, secret.hex().encode(), b"brown"):
        assert secrets not in whole
    await bench.reconnect()


def test_what_is_named_like_a_secret_is_hidden_and_long_names_are_cut(tmp_path) -> None:
    audit = Audit(tmp_path)
    with audit.entry("policy", api_key="abc", window="x" * 9000, names=["y" * 9000] * 900):
        pass
    (record,) = audit.read().records
    assert record.line.names["api_key"] == "[redacted]"
    assert len(record.line.names["window"]) == 256
    assert len(record.line.names["names"]) == 100


@pytest.mark.parametrize(
    "name", ["\x1b[31m", "a\nb", "\ud800", "</td><script>", '"}\n{"', "\u2028"]
)
def test_no_name_breaks_a_line(tmp_path, name) -> None:
    audit = Audit(tmp_path)
    with pytest.raises(ValidationError), audit.entry("freeze", window=name):
        raise ValidationError("no")
    report = audit.read()
    assert report.intact
    assert len(report.records) == 1
    assert len(lines(tmp_path)) == 2
    assert not {"\x1b", "\r"} & set(text(report))
    assert "<script" not in html(report)


def test_what_ends_a_change_is_its_result(tmp_path) -> None:
    audit = Audit(tmp_path)
    for error in (KeyboardInterrupt(), OSError("disk"), ResourceExhaustedError("full")):
        with pytest.raises(type(error)), audit.entry("freeze"):
            raise error
    results = [record.line.result for record in audit.read().records]
    assert results == ["interrupted", "OSError", "resource.exhausted"]


def test_filters(tmp_path, monkeypatch) -> None:
    times = iter(["2020-01-01T00:00:00.000000Z"])
    monkeypatch.setattr("cwm_jupyter.core.audit.now", lambda: next(times, "2100-01-01T00:00:00Z"))
    audit = write(tmp_path, 3)
    with audit.entry("rename", window="W1", new="other"):
        pass
    with audit.entry("purge", windows=["w1", "w2"]):
        pass

    def seqs(**wanted: object) -> list[int]:
        return [record.line.seq for record in audit.read(**wanted).records]

    assert seqs() == [2, 3, 4, 5, 6, 7]
    assert seqs(last=2) == [6, 7]
    assert seqs(action="freeze") == [2, 3, 4]
    assert seqs(name="w1") == [3, 5, 6, 7]
    assert seqs(name="OTHER") == [5]
    assert seqs(since_s=3600) == [3, 4, 5, 6, 7]
    assert seqs(action="freeze", last=1) == [4]
    assert audit.read(action="freeze", last=1).matching == 3
    assert audit.read(verdict_only=True).records == []


def test_an_empty_log_is_whole(tmp_path) -> None:
    report = Audit(tmp_path).read()
    assert (report.intact, report.lines) == (True, 0)
    assert text(report) == "No change yet."


def test_a_notebook_kernel_is_named(tmp_path, monkeypatch) -> None:
    from cwm_jupyter.core.audit import line

    line._surroundings.cache_clear()
    kernel = "2f6a3c1e-0000-4000-8000-123456789abc"
    monkeypatch.setattr(
        "sys.argv", ["/x/ipykernel_launcher.py", "-f", f"/run/kernel-{kernel}.json"]
    )
    try:
        audit = write(tmp_path, 1)
    finally:
        line._surroundings.cache_clear()
    (record,) = audit.read().records
    assert (record.line.kernel, record.line.program) == (kernel, "ipykernel_launcher")


# --- what was done to it shows --------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, list[bytes]]:
    home = tmp_path_factory.mktemp("audit")
    write(home, 6)
    return home, lines(home)


@st.composite
def tampering(draw: st.DrawFn) -> Callable[[list[bytes]], list[bytes]]:
    """One edit, cut, insertion, copy or swap of lines."""
    at = draw(st.integers(0, 6))
    other = draw(st.integers(0, 6).filter(lambda number: number != at))
    kind = draw(st.sampled_from(["byte", "flip", "delete", "cut", "swap", "copy", "insert"]))
    position = draw(st.integers(0, 10_000))
    byte = draw(st.integers(0, 255))

    def change(whole: list[bytes]) -> list[bytes]:
        whole = list(whole)
        if kind in ("byte", "flip"):
            line = bytearray(whole[at])
            position_in = position % len(line)
            old = line[position_in]
            line[position_in] = byte if kind == "byte" and byte != old else old ^ 1
            whole[at] = bytes(line)
        elif kind == "delete":
            del whole[at]
        elif kind == "cut":
            joined = b"".join(whole)
            whole = [joined[: position % len(joined)]]
        elif kind == "swap":
            whole[at], whole[other] = whole[other], whole[at]
        elif kind == "copy":
            whole.insert(other, whole[at])
        else:
            line = whole[at].replace(b"w", b"v").replace(b'"mac":"', b'"mac":"')
            whole.insert(other, line if line != whole[at] else b"nonsense\n")
        return whole

    return change


@given(change=tampering())
@hypothesis_settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_single_change_is_found(written, change) -> None:
    home, original = written
    changed = b"".join(change(original))
    log(home).write_bytes(changed)
    try:
        report = Audit(home).read()
    finally:
        log(home).write_bytes(b"".join(original))
    assert report.intact is False
    assert report.faults
    assert "NOT INTACT" in text(report)
    assert html(report)


@given(change=tampering())
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_writing_on_hides_nothing(written, change) -> None:
    """What was changed shows after the next line too, and that line counts."""
    home, original = written
    head = Audit(home)._files.head_path
    before = head.read_bytes()
    log(home).write_bytes(b"".join(change(original)))
    try:
        audit = write(home, 2)
        report = audit.read()
    finally:
        log(home).write_bytes(b"".join(original))
        head.write_bytes(before)
    assert report.intact is False
    assert [record.right for record in report.records[-2:]] == [True, True]


@pytest.mark.parametrize(
    ("change", "kind", "what"),
    [
        (lambda w: [w[0], w[1].replace(b"w0", b"w9"), *w[2:]], "edited", "line 2 of audit.jsonl"),
        (lambda w: [w[0], w[1], *w[3:]], "missing", "entry 3 is missing"),
        (lambda w: [w[0], *w[4:]], "missing", "entries 2 to 4 are missing"),
        (lambda w: w[:-2], "cut", "entries 6 to 7 are missing"),
        (lambda w: [*w[:3], w[1], *w[3:]], "misplaced", "entry 2 does not belong here"),
        (lambda w: [*w[:3], b"{}\n", *w[3:]], "foreign", "this is no line of the log"),
        (lambda w: [], "cut", "entries 1 to 7 are missing"),
    ],
)
def test_it_says_which_line_and_how(written, change, kind, what) -> None:
    home, original = written
    log(home).write_bytes(b"".join(change(original)))
    try:
        report = Audit(home).read(verdict_only=True)
    finally:
        log(home).write_bytes(b"".join(original))
    assert kinds(report) == [kind]
    assert what in text(report)


def test_a_log_that_is_gone_shows_while_its_head_is_there(tmp_path) -> None:
    audit = write(tmp_path, 2)
    log(tmp_path).unlink()
    assert kinds(audit.read()) == ["cut"]
    write(tmp_path, 1, audit)
    report = audit.read()
    assert kinds(report) == ["missing"]
    assert report.records[0].right


def test_without_its_head_nobody_can_tell_a_cut(tmp_path) -> None:
    audit = write(tmp_path, 2)
    head = audit._files.head_path
    head.unlink()
    assert kinds(audit.read()) == ["no_head"]
    head.write_bytes(b"{")
    assert kinds(audit.read()) == ["no_head"]
    for _ in range(2):  # it shows for good
        write(tmp_path, 1, audit)
        report = audit.read()
        assert kinds(report) == ["no_head"]
        assert "line 4 of audit.jsonl: keys/audit.head was missing" in text(report)


def test_a_cut_is_not_hidden_by_taking_the_head_away_too(tmp_path) -> None:
    audit = write(tmp_path, 4)
    log(tmp_path).write_bytes(b"".join(lines(tmp_path)[:-2]))
    audit._files.head_path.unlink()
    write(tmp_path, 2, audit)
    assert kinds(audit.read()) == ["no_head"]


def test_a_crash_right_after_the_very_first_line(tmp_path, monkeypatch) -> None:
    def crash(path: Path, data: bytes) -> None:
        if path.name == "audit.head" and log(tmp_path).exists():
            raise OSError("crash")
        write_atomic(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(audit_files, "write_atomic", crash)
        write(tmp_path, 1)
    assert Audit(tmp_path).read().intact
    report = write(tmp_path, 1).read()
    assert report.intact
    assert [record.line.seq for record in report.records] == [2, 3]


def test_without_its_key_it_can_be_read_but_not_checked(tmp_path) -> None:
    audit = write(tmp_path, 2)
    audit._files.key_path.unlink()
    report = audit.read()
    assert report.intact is None
    assert [record.right for record in report.records] == [None, None]
    assert "its key is not here" in text(report)
    assert "unchecked" in text(report)
    write(tmp_path, 1, audit)
    report = audit.read()
    assert report.intact is None
    assert report.files == 2
    assert [record.right for record in report.records] == [None, None, True]
    assert "written with another key" in text(report)


def test_a_claim_of_another_key_does_not_keep_lines_from_being_checked(tmp_path) -> None:
    audit = write(tmp_path, 2)
    first, *rest = lines(tmp_path)
    found = json.loads(first)["key_id"].encode()
    log(tmp_path).write_bytes(b"".join([first.replace(found, b"0" * 16), *rest]))
    assert kinds(audit.read()) == ["edited"]


def rewritten(file: Path) -> None:
    """Edit every line of a file, and claim that it was written with another key."""
    whole = file.read_bytes()
    found = json.loads(whole.splitlines()[0])["key_id"].encode()
    changed = whole.replace(b'"key_id":"' + found, b'"key_id":"' + b"0" * 16, 1)
    file.write_bytes(changed.replace(b'"pid":', b'"pid":1'))


def test_a_log_rewritten_under_a_key_that_never_was(tmp_path) -> None:
    audit = write(tmp_path, 3)
    rewritten(log(tmp_path))
    report = audit.read()
    assert kinds(report) == ["edited"]
    assert "line 1 of audit.jsonl: it names a key" in text(report)


@pytest.mark.parametrize("present", [b"", b"torn"])
def test_nor_does_a_new_file_put_after_it_hide_that(tmp_path, present) -> None:
    audit = write(tmp_path, 3)
    rewritten(log(tmp_path))
    assert audit._files._rotate()
    log(tmp_path).write_bytes(present)
    assert kinds(audit.read()) == ["edited"]
    write(tmp_path, 1, audit)
    assert kinds(audit.read()) == ["edited"]


def test_an_older_file_rewritten_under_a_key_that_never_was(tmp_path) -> None:
    audit = write(tmp_path, 8, Audit(tmp_path, rotate_bytes=1500))
    rewritten(tmp_path / "audit" / "audit-0001.jsonl")
    report = audit.read()
    assert kinds(report) == ["edited"]
    assert report.faults[0].file == "audit-0001.jsonl"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_key_that_others_can_read_is_told(tmp_path) -> None:
    audit = write(tmp_path, 1)
    assert audit._files.key_path.stat().st_mode & 0o777 == 0o600
    assert log(tmp_path).stat().st_mode & 0o777 == 0o600
    assert log(tmp_path).parent.stat().st_mode & 0o777 == 0o700
    audit._files.key_path.chmod(0o644)
    assert "open to other users" in text(audit.read())


# --- crashes and failures -------------------------------------------------------------------------


def test_a_crash_between_a_line_and_its_head(tmp_path) -> None:
    audit = write(tmp_path, 2)
    head = audit._files.head_path
    before = head.read_bytes()
    write(tmp_path, 1, audit)
    head.write_bytes(before)
    report = audit.read()
    assert report.intact
    assert "crash" in text(report)
    write(tmp_path, 1, audit)
    report = audit.read()
    assert report.intact
    assert not report.notes
    assert [record.line.seq for record in report.records] == [2, 3, 4, 5]


@given(kept=st.integers(1, 200))
@hypothesis_settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_crash_in_the_middle_of_a_line(tmp_path_factory, kept) -> None:
    home = tmp_path_factory.mktemp("torn")
    audit = write(home, 2)
    head = audit._files.head_path
    before, whole = head.read_bytes(), lines(home)
    write(home, 1, audit)
    torn = lines(home)[-1][:kept]
    head.write_bytes(before)
    log(home).write_bytes(b"".join([*whole, torn]))
    assert audit.read().intact
    assert "unfinished" in text(audit.read())
    write(home, 2, audit)
    report = audit.read()
    assert report.intact
    assert "line 4 of audit.jsonl is unfinished" in text(report).lower()
    assert [record.line.seq for record in report.records] == [2, 3, 4, 5]
    log(home).write_bytes(
        log(home).read_bytes().replace(b"\n" + torn + b"\n", b"\nx" + torn + b"\n")
    )
    assert kinds(audit.read()) == ["foreign"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SecurityError("no")])
def test_a_log_that_cannot_be_written_keeps_nothing_from_happening(
    tmp_path, monkeypatch, caplog, error
) -> None:
    audit = write(tmp_path, 1)

    def full(path: Path, data: bytes) -> int:
        raise error

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(audit_files, "_append", full)
        write(tmp_path, 3, audit)
    assert len(caplog.records) == 1
    assert audit.warning is not None
    assert "cannot be written" in audit.warning
    write(tmp_path, 1, audit)
    report = audit.read()
    assert report.intact
    assert "3 changes could not be written down" in text(report)


def test_a_writer_that_is_stuck_keeps_nothing_from_happening(tmp_path, caplog) -> None:
    audit = write(tmp_path, 1, Audit(tmp_path, lock_timeout_s=0.02))
    with audit._files._locked():
        write(tmp_path, 1, Audit(tmp_path, lock_timeout_s=0.02))
        with pytest.raises(IndexBusyError):
            audit.read()
    assert len(audit.read().records) == 1
    assert "cannot be written" in caplog.text


def test_a_log_that_cannot_be_read_is_an_error(tmp_path) -> None:
    audit = write(tmp_path, 1)
    log(tmp_path).unlink()
    log(tmp_path).mkdir()
    with pytest.raises(SecurityError, match="cannot be read"):
        audit.read()


# --- rotation, threads, processes -----------------------------------------------------------------


def test_rotation_keeps_the_chain_and_all_files(tmp_path) -> None:
    audit = write(tmp_path, 30, Audit(tmp_path, rotate_bytes=1500))
    names = sorted(path.name for path in (tmp_path / "audit").glob("*.jsonl"))
    assert names[:3] == ["audit-0001.jsonl", "audit-0002.jsonl", "audit-0003.jsonl"]
    assert names[-1] == "audit.jsonl"
    report = audit.read()
    assert report.intact
    assert report.files == len(names)
    assert [r.line.names["window"] for r in report.records] == [f"w{n}" for n in range(30)]
    (tmp_path / "audit" / "audit-0002.jsonl").unlink()
    assert kinds(audit.read()) == ["missing"]
    (tmp_path / "audit" / "audit-0001.jsonl").unlink()
    assert kinds(audit.read()) == ["missing"]


def test_a_crash_in_the_middle_of_a_rotation(tmp_path) -> None:
    audit = write(tmp_path, 3)
    head = audit._files.head_path
    before = head.read_bytes()
    write(tmp_path, 1, audit)
    assert audit._files._rotate()
    assert audit.read().intact
    head.write_bytes(before)  # and the crash before it was between a line and its head
    assert audit.read().intact
    write(tmp_path, 1, audit)
    report = audit.read()
    assert report.intact
    assert report.files == 2
    assert [record.line.seq for record in report.records] == [2, 3, 4, 5, 7]


def test_a_head_that_is_lost_with_the_present_file(tmp_path) -> None:
    audit = write(tmp_path, 3)
    audit._files._rotate()
    audit._files.head_path.unlink()
    write(tmp_path, 1, audit)
    report = audit.read()
    assert kinds(report) == ["no_head"]
    assert [record.line.seq for record in report.records] == [2, 3, 4, 6]


def test_a_file_that_cannot_be_put_away_gets_longer(tmp_path, monkeypatch) -> None:
    audit = Audit(tmp_path, rotate_bytes=100)

    def held(self: Path, target: Path) -> None:
        raise PermissionError("in use")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", held)
        write(tmp_path, 3, audit)
    report = audit.read()
    assert (report.intact, report.files, len(report.records)) == (True, 1, 3)


def _write_many(home: Path, count: int) -> None:
    write(home, count, Audit(home, rotate_bytes=4000, lock_timeout_s=60))


def test_threads_and_processes_share_it(tmp_path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_write_many, args=(tmp_path, 20)) for _ in range(2)]
    threads = [threading.Thread(target=_write_many, args=(tmp_path, 20)) for _ in range(2)]
    for worker in (*processes, *threads):
        worker.start()
    for worker in (*processes, *threads):
        worker.join()
    assert [process.exitcode for process in processes] == [0, 0]
    report = Audit(tmp_path).read()
    assert report.intact
    assert len(report.records) == 80
    assert len({record.line.pid for record in report.records}) == 3

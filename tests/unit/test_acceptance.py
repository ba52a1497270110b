"""The acceptance table's recorder and report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import acceptance
import pytest

CONFTEST = f"""
import sys
sys.path.insert(0, {str(acceptance.HERE)!r})
from pathlib import Path
from acceptance_plugin import Recorder

HERE = Path(__file__).parent

def pytest_configure(config):
    config.addinivalue_line("markers", "covers(*ids): rows")
    config.pluginmanager.register(Recorder(HERE / "table.csv", HERE / "record.json", HERE))
"""
TABLE = "id,area,behaviour\nA-1,a,first\nA-2,a,second\nA-3,b,third\nA-4,b,nobody shows this\n"
TESTS = """
import pytest

@pytest.mark.covers("A-1")
def test_good(): pass

@pytest.mark.covers("A-1", "A-2")
@pytest.mark.parametrize("ok", [True, False])
def test_some(ok): assert ok

@pytest.mark.covers("A-3")
def test_skipped(): pytest.skip("no engine here")

def test_plain(): pass
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs pytest in a small project that records."""
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "conftest.py").write_text(CONFTEST)
    (tests / "table.csv").write_text(TABLE)
    (tests / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = tests\n")
    environ = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args]
        return subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def verdicts(tmp_path: Path) -> Callable[[], dict[str, bool | None]]:
    """What the record says of each row."""

    def verdicts() -> dict[str, bool | None]:
        table = acceptance.read_table(tmp_path / "tests/table.csv")
        record = acceptance.read_record(tmp_path / "tests/record.json")
        return {row["id"]: row["passed"] for row in acceptance.report(table, record)["rows"]}

    return verdicts


def test_a_run_is_recorded(run: Run, verdicts: Any, tmp_path: Path) -> None:
    done = run()
    assert done.returncode == 1, done.stderr
    assert verdicts() == {"A-1": False, "A-2": False, "A-3": None, "A-4": None}
    record = acceptance.read_record(tmp_path / "tests/record.json")
    assert {name.partition("::")[2]: test["outcome"] for name, test in record.items()} == {
        "test_good": "passed",
        "test_some[True]": "passed",
        "test_some[False]": "failed",
        "test_skipped": "skipped",
        "test_plain": "passed",
    }
    assert [path.name for path in (tmp_path / "tests").glob("record.json*")] == ["record.json"]


def test_the_totals_come_before_pytests_closing_line(run: Run) -> None:
    *others, closing = run().stdout.splitlines()
    assert "acceptance: 0 of 4 rows passed, 2 failed, 3 covered by tests" in others
    assert "1 failed, 3 passed, 1 skipped in" in closing


def test_a_partial_run_updates_only_what_it_ran(run: Run, verdicts: Any, tmp_path: Path) -> None:
    run()
    test_file = tmp_path / "tests/test_it.py"
    test_file.write_text(TESTS.replace("assert ok", "pass"))
    run("-k", "test_some")
    assert verdicts() == {"A-1": True, "A-2": True, "A-3": None, "A-4": None}


def test_a_full_run_replaces_the_record(run: Run, verdicts: Any, tmp_path: Path) -> None:
    run()
    (tmp_path / "tests/test_it.py").rename(tmp_path / "tests/test_that.py")
    assert run("tests").returncode == 1
    record = acceptance.read_record(tmp_path / "tests/record.json")
    assert {name.partition("::")[0] for name in record} == {"tests/test_that.py"}


def test_a_partial_run_forgets_tests_that_are_gone(run: Run, verdicts: Any, tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    (tests / "test_old.py").write_text(TESTS)
    (tests / "test_other.py").write_text("def test_kept(): pass")
    run()
    (tests / "test_old.py").unlink()
    (tests / "test_it.py").write_text("def test_new(): pass")
    assert run("tests/test_it.py").returncode == 0
    record = acceptance.read_record(tests / "record.json")
    assert sorted(record) == ["tests/test_it.py::test_new", "tests/test_other.py::test_kept"]
    assert set(verdicts().values()) == {None}


def test_one_test_by_name_leaves_its_file_recorded(run: Run, tmp_path: Path) -> None:
    run()
    run("tests/test_it.py::test_good")
    assert len(acceptance.read_record(tmp_path / "tests/record.json")) == 5


def test_an_interrupted_run_is_not_a_full_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tests/test_z.py").write_text("def test_last(): pass")
    run("tests/test_z.py")
    run("-x")
    record = acceptance.read_record(tmp_path / "tests/record.json")
    assert record["tests/test_z.py::test_last"]["outcome"] == "passed"


@pytest.mark.parametrize("where", ["setup", "teardown"])
def test_a_failing_fixture_fails_the_row(
    run: Run, verdicts: Any, tmp_path: Path, where: str
) -> None:
    before, after = ("assert 0", "") if where == "setup" else ("", "assert 0")
    (tmp_path / "tests/test_it.py").write_text(
        "import pytest\n"
        f"@pytest.fixture\ndef broken():\n    {before}\n    yield\n    {after}\n"
        "@pytest.mark.covers('A-1')\ndef test_it(broken): pass\n"
    )
    run()
    assert verdicts()["A-1"] is False


def test_an_expected_failure_shows_nothing(run: Run, verdicts: Any, tmp_path: Path) -> None:
    (tmp_path / "tests/test_it.py").write_text(
        "import pytest\n@pytest.mark.xfail\n@pytest.mark.covers('A-1')\ndef test_it(): assert 0\n"
    )
    run()
    assert verdicts()["A-1"] is None


def test_an_unknown_row_ends_the_run(run: Run, tmp_path: Path) -> None:
    with (tmp_path / "tests/test_it.py").open("a") as file:
        file.write("\n@pytest.mark.covers('A-9')\ndef test_typo(): pass\n")
    done = run()
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "tests/test_it.py::test_typo covers A-9" in done.stderr
    assert not (tmp_path / "tests/record.json").exists()


def test_collecting_records_nothing(run: Run, tmp_path: Path) -> None:
    assert run("--collect-only").returncode == 0
    assert not (tmp_path / "tests/record.json").exists()


@pytest.mark.parametrize(
    ("outcomes", "passed"),
    [
        ([], None),
        ([None], None),
        (["passed"], True),
        (["passed", "passed"], True),
        (["passed", None], None),
        (["passed", "skipped"], None),
        (["passed", None, "failed"], False),
    ],
)
def test_judge(outcomes: list[Any], passed: bool | None) -> None:
    assert acceptance.judge(outcomes) is passed


def test_the_report_holds_every_row_of_the_real_table() -> None:
    command = [sys.executable, str(acceptance.HERE / "acceptance.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    whole = json.loads(done.stdout)
    assert [row["id"] for row in whole["rows"]] == list(acceptance.read_table())
    assert all(set(row) == {"id", "area", "behaviour", "tests", "passed"} for row in whole["rows"])
    totals = whole["totals"]
    assert totals["rows"] == len(whole["rows"])
    assert totals["passed"] + totals["failed"] + totals["unknown"] == totals["rows"]


def test_the_report_reads_as_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record: dict[str, acceptance.Recorded] = {
        "t.py::a": {"covers": ["CF-001"], "outcome": "passed"},
        "t.py::b": {"covers": ["CF-002"], "outcome": "failed"},
    }
    monkeypatch.setattr(acceptance, "read_record", lambda: record)
    monkeypatch.setattr(sys, "argv", ["acceptance.py"])
    acceptance.main()
    lines = capsys.readouterr().out.splitlines()
    assert "CF-001  passed  configuration: read from environment variables" in lines
    assert "            t.py::a" in lines
    assert "CF-002  FAILED  configuration: read from a YAML file" in lines
    assert any(line.startswith("CF-003  no test") for line in lines)
    assert lines[-1].startswith("acceptance: 1 of 208 rows passed, 1 failed, 2 covered")

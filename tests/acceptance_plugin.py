"""Records which tests carry which rows of the acceptance table, and how they ended.

A run of all tests replaces the record; any other run updates the tests that it saw.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from acceptance import Outcome, Recorded, read_record, read_table, report, totals_line


class Recorder:
    """The pytest plugin.

    Parameters
    ----------
    table
        The acceptance table; an id in a ``covers`` mark that is not in it ends the run.
    record
        The file that is written.
    tests
        The directory whose run is a full one.
    """

    def __init__(self, table: Path, record: Path, tests: Path) -> None:
        self._table, self._record, self._tests = table, record, tests
        self._seen: dict[str, Recorded] = {}
        self._deselected = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note all that was collected, before ``-k`` and the like take some away."""
        known = read_table(self._table)
        covers = {
            item.nodeid: sorted({id_ for mark in item.iter_markers("covers") for id_ in mark.args})
            for item in items
        }
        unknown = [
            f"{name} covers {id_}"
            for name, ids in covers.items()
            for id_ in ids
            if id_ not in known
        ]
        if unknown:
            lines = "\n  ".join(unknown)
            raise pytest.UsageError(f"not in {self._table.name}:\n  {lines}")
        self._seen = {name: {"covers": ids, "outcome": None} for name, ids in covers.items()}

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Note that this run is not a full one."""
        self._deselected |= bool(items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a phase's outcome: a test is as good as its worst phase."""
        if report.nodeid not in self._seen:  # a node that was made while running
            return
        test = self._seen[report.nodeid]
        outcome: Outcome = "skipped" if hasattr(report, "wasxfail") else report.outcome
        if test["outcome"] in (None, "passed") or outcome == "failed":
            test["outcome"] = outcome

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the record."""
        if session.config.option.collectonly or not self._seen:
            return
        before = {} if self._is_full(session, exitstatus) else self._kept(session.config)
        for name, test in self._seen.items():
            if test["outcome"] is None and name in before:
                test["outcome"] = before[name]["outcome"]
        self._write({**before, **self._seen})

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table's totals."""
        if self._seen and not terminalreporter.config.option.collectonly:
            whole = report(read_table(self._table), read_record(self._record))
            terminalreporter.write_line(totals_line(whole["totals"]))

    def _is_full(self, session: pytest.Session, exitstatus: int) -> bool:
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        here = session.config.invocation_params.dir
        all_asked = self._tests in [(here / arg).resolve() for arg in session.config.args]
        return ended and all_asked and not (self._deselected or session.shouldfail)

    def _kept(self, config: pytest.Config) -> dict[str, Recorded]:
        """What an earlier run recorded and this one does not make stale."""
        whole_files = not any("::" in arg for arg in config.args)
        seen_files = {name.partition("::")[0] for name in self._seen} if whole_files else set()
        return {
            name: test
            for name, test in read_record(self._record).items()
            if name in self._seen
            or (
                name.partition("::")[0] not in seen_files
                and (config.rootpath / name.partition("::")[0]).exists()
            )
        }

    def _write(self, tests: dict[str, Recorded]) -> None:
        text = json.dumps({"tests": dict(sorted(tests.items()))}, indent=1)
        temporary = self._record.with_name(f"{self._record.name}.{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self._record)

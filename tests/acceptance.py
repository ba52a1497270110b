"""The acceptance table: which behaviour is shown by which tests, and did they pass.

``python tests/acceptance.py [--json]`` joins ``acceptance.csv`` with the record that the last test
runs left (see ``acceptance_plugin.py``). Needs the standard library only.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any, Literal, TypedDict

HERE = Path(__file__).resolve().parent
TABLE = HERE / "acceptance.csv"
RECORD = HERE / ".last-run.json"

Outcome = Literal["passed", "failed", "skipped"]


class Recorded(TypedDict):
    """One recorded test: the rows that it shows, and how it ended (None: not run)."""

    covers: list[str]
    outcome: Outcome | None


def read_table(path: Path = TABLE) -> dict[str, tuple[str, str]]:
    """Return area and behaviour by row id, in the table's order."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))[1:]
    return {line[0]: (line[1], line[2]) for line in lines}


def read_record(path: Path = RECORD) -> dict[str, Recorded]:
    """Return the recorded tests by node id; none where nothing was recorded yet."""
    try:
        tests: dict[str, Recorded] = json.loads(path.read_text(encoding="utf-8"))["tests"]
    except FileNotFoundError:
        return {}
    return tests


def judge(outcomes: list[Outcome | None]) -> bool | None:
    """Return whether a row passed: True if all its tests did, None if that is not known."""
    if "failed" in outcomes:
        return False
    return True if outcomes and all(o == "passed" for o in outcomes) else None


def report(table: dict[str, tuple[str, str]], record: dict[str, Recorded]) -> dict[str, Any]:
    """Return every row with its tests and its verdict, and the totals."""
    rows = []
    for id_, (area, behaviour) in table.items():
        tests = sorted(name for name, test in record.items() if id_ in test["covers"])
        passed = judge([record[name]["outcome"] for name in tests])
        rows.append(
            {"id": id_, "area": area, "behaviour": behaviour, "tests": tests, "passed": passed}
        )
    totals = {
        "rows": len(rows),
        "covered": sum(bool(row["tests"]) for row in rows),
        "passed": sum(row["passed"] is True for row in rows),
        "failed": sum(row["passed"] is False for row in rows),
        "unknown": sum(row["passed"] is None for row in rows),
    }
    return {"rows": rows, "totals": totals}


def totals_line(totals: dict[str, int]) -> str:
    """Return the totals in one line."""
    return (
        f"acceptance: {totals['passed']} of {totals['rows']} rows passed, {totals['failed']} "
        f"failed, {totals['covered']} covered by tests"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("--totals", action="store_true", help="print the totals alone")
    options = parser.parse_args()
    whole = report(read_table(), read_record())
    if options.json:
        print(json.dumps(whole["totals"] if options.totals else whole))
        return
    verdicts = {True: "passed", False: "FAILED", None: "-"}
    for row in [] if options.totals else whole["rows"]:
        verdict = verdicts[row["passed"]] if row["tests"] else "no test"
        print(f"{row['id']}  {verdict:8}{row['area']}: {row['behaviour']}")
        for test in row["tests"]:
            print(f"            {test}")
    print(totals_line(whole["totals"]))


if __name__ == "__main__":
    main()

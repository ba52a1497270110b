"""``cwm admin audit`` and ``audit_log()``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cwm_jupyter import api, workspace
from cwm_jupyter.cli import main
from cwm_jupyter.core.audit import Audit
from cwm_jupyter.errors import ValidationError


@pytest.fixture
def log(home: Path) -> Path:
    audit = Audit(home)
    for number in range(3):
        with audit.entry("freeze", window=f"paper {number}", session="talk") as entry:
            entry.size_bytes = 136_000_000
    with audit.entry("thaw", window="paper 1"):
        pass
    return home / "audit" / "audit.jsonl"


def test_it_shows_the_changes_and_the_verdict(log, capsys) -> None:
    assert main(["admin", "audit", "--action", "freeze", "--last", "2"]) == 0
    header, first, second, empty, shown, verdict = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["NO", "TIME", "(UTC)"]
    assert "freeze  window paper 1; session talk  done    136 MB" in first
    assert "paper 2" in second
    assert (empty, shown) == ("", "The last 2 of 3.")
    assert verdict == "The audit log is intact: 5 lines in 1 file."


def test_json_has_it_all(log, capsys) -> None:
    assert main(["admin", "audit", "--json", "--window", "PAPER 1", "--since", "1h"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["intact"] is True
    assert [r["line"]["action"] for r in report["records"]] == ["freeze", "thaw"]
    assert report["records"][0]["line"]["size_bytes"] == 136_000_000


def test_a_log_that_was_changed_has_an_exit_status(log, capsys) -> None:
    assert main(["admin", "audit", "--check"]) == 0
    assert capsys.readouterr().out == "The audit log is intact: 5 lines in 1 file.\n"
    log.write_bytes(log.read_bytes().replace(b"paper 1", b"paper 9", 1))
    assert main(["admin", "audit", "--check"]) == 3
    assert capsys.readouterr().out.splitlines() == [
        "The audit log is NOT INTACT: 1 fault in 5 lines in 1 file.",
        "line 3 of audit.jsonl: entry 3 was edited",
    ]
    assert main(["admin", "audit"]) == 3
    assert "done EDITED" in capsys.readouterr().out
    (log.parent.parent / "keys" / "audit.key").unlink()
    assert main(["admin", "audit", "--check"]) == 3
    assert "cannot be checked" in capsys.readouterr().out


def test_nothing_that_matches_is_said(log, capsys) -> None:
    assert main(["admin", "audit", "--window", "nothing"]) == 0
    assert capsys.readouterr().out.startswith("No change is noted that matches.\n")


@pytest.mark.parametrize("bad", [["--last", "0"], ["--since", "yesterday"], ["--last", "x"]])
def test_what_makes_no_sense_is_refused(log, capsys, bad) -> None:
    assert main(["admin", "audit", *bad]) in (1, 2)
    assert capsys.readouterr().err


def test_from_python(log, monkeypatch) -> None:
    monkeypatch.setattr(workspace, "_shared", None)
    monkeypatch.setattr(workspace, "_close_at_end", lambda workspace: None)
    assert [r.line.action for r in api.audit_log(last=2).records] == ["freeze", "thaw"]
    assert api.audit_log(name="paper 0", since="7d", action="freeze").matching == 1
    with pytest.raises(ValidationError):
        api.audit_log(since="soon")

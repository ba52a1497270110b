"""``cwm config``: what it shows, and where it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cwm_jupyter.cli import main
from cwm_jupyter.config import get_settings, reset_settings
from cwm_jupyter.config.report import SettingsReport, matching, report
from cwm_jupyter.config.shared import get_layers
from cwm_jupyter.present import html, text

pytestmark = pytest.mark.usefixtures("user", "project")


@pytest.fixture
def cwm(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command in a process of its own; returns exit status, stdout and stderr."""

    def cwm(*arguments: str) -> tuple[int, str, str]:
        reset_settings()
        status = main(["admin", "config", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return cwm


def test_all_settings_with_their_sources(cwm: Any, user: Path) -> None:
    (user / "cwm.toml").write_text("[limits]\nmax_tokens = 3")
    status, out, err = cwm()
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["SETTING", "VALUE", "FROM", "MAY", "CHANGE"]
    assert ["limits.probe_top", "20", "default", "at", "any", "time"] in lines
    changed = ["limits.max_tokens", "*", "3", f"{user / 'cwm.toml'},", "line", "2"]
    assert [*changed, "at", "any", "time"] in lines
    assert lines[-1] == ["Files:", str(user / "cwm.toml")]


def test_a_section_and_a_field(cwm: Any) -> None:
    _, out, _ = cwm("limits", "--json")
    names = [one["name"] for one in json.loads(out)["settings"]]
    assert names[0] == "limits.max_tokens"
    assert {name.partition(".")[0] for name in names} == {"limits"}
    _, out, _ = cwm("limits.max_tokens")
    assert "a whole number, at least 1" in out
    assert "longest answer" in out


def test_a_terminals_change_goes_to_the_users_file(cwm: Any, user: Path) -> None:
    status, out, _ = cwm("limits.max_tokens", "256")
    assert status == 0
    assert f"Written to {user / 'cwm.toml'}; what runs already keeps what it has." in out
    reset_settings()
    assert get_settings().limits.max_tokens == 256
    cwm("limits.max_tokens", "--unset")
    reset_settings()
    assert get_settings().limits.max_tokens == 512


def test_a_projects_file_wins_over_the_users(cwm: Any, project: Path) -> None:
    cwm("limits.max_tokens", "3", "--project")
    assert (project / "cwm.toml").read_text() == "[limits]\nmax_tokens = 3\n"
    _, out, _ = cwm("limits.max_tokens", "4", "--user")
    assert f"It has no effect here: {project / 'cwm.toml'}, line 2 wins." in out


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["limits.max_tokens", "many"], 1, "limits.max_tokens cannot be 'many'"),
        (["limits.max_token"], 1, "Did you mean limits.max_tokens?"),
        (["limits", "3"], 2, "config: limits is a section."),
        (["--unset"], 2, "--unset takes a setting and no value"),
        (["limits.max_tokens", "3", "--unset"], 2, "--unset takes a setting and no value"),
        (["limits.max_tokens", "3", "--user", "--project"], 2, "--user or --project, not both"),
        (["limits.max_tokens", "--user"], 2, "what is the value?"),
        (["home", "/x", "--project"], 1, "home may not be set by a project"),
    ],
)
def test_what_makes_no_sense(cwm: Any, arguments: list[str], status: int, said: str) -> None:
    seen, out, err = cwm(*arguments)
    assert (seen, out) == (status, "")
    assert said in err


def test_how_values_look() -> None:
    seen = report(get_layers(), matching(None))
    one = seen.settings[0].replace(value=["--a", "<b>"])
    both = SettingsReport(settings=[one, one.replace(value=True)], files=[])
    assert "--a <b>" in text(both)
    assert "true" in text(both)
    assert "Files: none" in text(both)
    assert "--a &lt;b&gt;" in html(both)

"""``%config CWM``, ``c.CWM`` and ``%cwm config`` in a real shell."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

import cwm_jupyter as cwm
from cwm_jupyter.config.report import SettingsReport
from cwm_jupyter.config.schema import fields
from cwm_jupyter.config.shared import get_layers
from cwm_jupyter.errors import ConfigError
from cwm_jupyter.notebook.configurable import CWM
from cwm_jupyter.workspace import get_workspace, opened_workspace

pytestmark = pytest.mark.usefixtures("own_process")


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The shell's configuration, before the extension is loaded; no project is around."""
    monkeypatch.chdir(tmp_path)
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    return config


@pytest.fixture
def shell(configuration: Config) -> Iterator[InteractiveShell]:
    """A shell without the extension."""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=configuration)
    yield shell
    shell.restore_sys_module_state()
    InteractiveShell.clear_instance()


def run(shell: InteractiveShell, cell: str) -> str:
    """Run a cell that works; return what it printed."""
    with capture_output() as seen:
        result = shell.run_cell(cell)
    result.raise_error()
    return seen.stdout


def load(shell: InteractiveShell) -> None:
    run(shell, "%load_ext cwm_jupyter")


def test_it_is_listed_with_help(shell: InteractiveShell) -> None:
    load(shell)
    assert "    CWM\n" in run(shell, "%config")
    seen = run(shell, "%config CWM")
    for name in fields():
        assert f"\nCWM.{name.replace('.', '_')}=<Setting>\n" in seen
    words = " ".join(seen.split())
    assert "(tokens). It must be a whole number, at least 1. Current: 512" in words


@pytest.mark.covers("CF-009")
def test_a_setting_changes_and_takes_effect(shell: InteractiveShell) -> None:
    load(shell)
    workspace = get_workspace()
    run(shell, "length = 7\n%config CWM.limits_max_tokens = length")
    assert workspace.manager.settings.limits.max_tokens == 7
    assert run(shell, "%config CWM.limits_max_tokens").endswith("7\n")
    assert get_layers().given()["limits.max_tokens"].source == "%config"
    cwm.configure({"limits.max_tokens": 8})
    run(shell, "%config CWM.log_level = 'error'")  # IPython merges what was set before
    assert cwm.settings().limits.max_tokens == 8


@pytest.mark.covers("CF-007", "CF-010")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("CWM.limits_max_tokens = 'many'", "limits.max_tokens cannot be 'many' (from %config)"),
        ("CWM.limits_max_tokens = 0", "It must be a whole number, at least 1."),
        ("CWM.home = '/x'", "home is fixed for this process"),
    ],
)
def test_what_cannot_be_is_said_and_changes_nothing(
    shell: InteractiveShell, caplog: pytest.LogCaptureFixture, line: str, said: str
) -> None:
    load(shell)
    before = get_workspace().settings
    with caplog.at_level(logging.ERROR):
        run(shell, f"%config {line}")
    assert said in caplog.text
    assert get_workspace().settings is before


def test_an_unknown_setting_gets_the_nearest(shell: InteractiveShell) -> None:
    load(shell)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(shell, "%config CWM.limits_max_token = 3")
    (warning,) = [one for one in caught if issubclass(one.category, UserWarning)]
    assert "`limits_max_token` not recognized by `CWM`" in str(warning.message)
    assert "limits_max_tokens" in str(warning.message)


@pytest.mark.covers("CF-004")
def test_the_shells_configuration_loses_to_variables_and_magics(
    configuration: Config, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CWM_VLLM_RETRIES", "1")
    (tmp_path / "cwm.toml").write_text("[limits]\nmax_tokens = 1\n[vllm]\nmax_connections = 1")
    shell.config.CWM.limits_max_tokens = 2
    shell.config.CWM.vllm_retries = 2
    shell.config.CWM.stack_chunk_tokens = 64
    load(shell)
    assert opened_workspace() is None
    settings = cwm.settings()
    assert settings.limits.max_tokens == 2
    assert settings.vllm.retries == 1
    assert settings.vllm.max_connections == 1
    assert settings.stack.chunk_tokens == 64
    run(shell, "%cwm admin config limits.max_tokens 3")
    assert cwm.settings().limits.max_tokens == 3
    run(shell, "%cwm admin config limits.max_tokens --unset")
    assert cwm.settings().limits.max_tokens == 2


def test_a_wrong_configuration_is_said_at_loading(shell: InteractiveShell) -> None:
    shell.config.CWM.limits_max_tokens = 0
    with capture_output() as seen:
        result = shell.run_cell("%load_ext cwm_jupyter")
    assert isinstance(result.error_in_exec, ConfigError)
    assert "limits.max_tokens cannot be 0 (from c.CWM)." in seen.stdout
    assert "cwm" not in shell.magics_manager.magics["line"]


def test_a_command_lines_values_are_text(shell: InteractiveShell) -> None:
    from traitlets.config.loader import DeferredConfigString

    shell.config.CWM.limits_max_tokens = DeferredConfigString("9")
    load(shell)
    assert cwm.settings().limits.max_tokens == 9


def test_the_magic_changes_this_process(shell: InteractiveShell) -> None:
    load(shell)
    run(shell, "%cwm admin config limits.max_tokens 7 -o seen")
    seen: Any = shell.user_ns["seen"]
    assert isinstance(seen, SettingsReport)
    assert (seen.settings[0].value, seen.settings[0].source) == (7, "%cwm config")
    assert get_workspace().settings.limits.max_tokens == 7


def test_a_secret_is_redacted(shell: InteractiveShell) -> None:
    load(shell)
    cwm.configure({"vllm.api_key": "s3cret"})
    for cell in ("%config CWM", "%config CWM.vllm_api_key", "%cwm admin config"):
        seen = run(shell, cell)
        assert "s3cret" not in seen
        assert "[redacted]" in seen


def test_unloading_removes_it(shell: InteractiveShell) -> None:
    load(shell)
    run(shell, "%config")
    run(shell, "%unload_ext cwm_jupyter")
    assert not [one for one in shell.configurables if isinstance(one, CWM)]
    load(shell)
    assert len([one for one in shell.configurables if isinstance(one, CWM)]) == 1

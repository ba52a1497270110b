"""Changing settings while a process runs: what may change, what follows, and what is noted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import pytest
from bench import QUESTION
from fake_stack import FakeStack

import cwm_jupyter as cwm
from cwm_jupyter import changes
from cwm_jupyter.config import get_settings, load, set_settings
from cwm_jupyter.config.checks import Given
from cwm_jupyter.config.files import SettingsFile, project_file, read_file, user_file
from cwm_jupyter.config.report import SettingsReport, matching, report
from cwm_jupyter.config.schema import fields, value_of
from cwm_jupyter.config.shared import get_layers
from cwm_jupyter.core.models import now
from cwm_jupyter.errors import ConfigError, SecurityError
from cwm_jupyter.stack.state import StackState, save
from cwm_jupyter.workspace import Workspace, get_workspace, opened_workspace

pytestmark = pytest.mark.usefixtures("own_process")

#: another value for each field that may change at any time
LIVE: dict[str, Any] = {
    "log_level": "error",
    "vllm.connect_timeout_s": 1.5,
    "vllm.request_timeout_s": 1.5,
    "vllm.retries": 1,
    "vllm.max_connections": 2,
    "lmcache.request_timeout_s": 1.5,
    "lmcache.prefetch_timeout_s": 1.5,
    "storage.durable_timeout_s": 1.5,
    "security.allow_remote_plain_http": True,
    "limits.max_tokens": 7,
    "limits.probe_top": 3,
    "limits.probe_tolerance": 0.25,
    "limits.max_file_bytes": 7,
    "limits.session_ttl": "1d",
    "limits.window_ttl": "1d",
    "limits.keep_versions": 2,
}
#: and for others
DOWN: dict[str, Any] = {
    "stack.chunk_tokens": 64,
    "stack.engine_args": "--seed 1",
    "stack.idle_stop_s": 60,
    "vllm.url": "http://127.0.0.1:1",
    "vllm.api_key": "k",
}
START: dict[str, Any] = {
    "home": "/elsewhere",
    "cache_dir": "/elsewhere",
    "storage.vault_dir": "/elsewhere",
    "storage.codec": "planes",
    "storage.quota_gib": 1,
    "storage.store": "fs",
    "security.encrypt": True,
}


@pytest.fixture(autouse=True)
def own_log_level() -> Iterator[None]:
    logger = logging.getLogger("cwm_jupyter")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with no project around it."""
    folder = tmp_path / "nowhere"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def running(home: Path) -> None:
    """What says that a stack runs."""
    save(
        home,
        StackState(
            kind="remote",
            phase="ready",
            engine_url="http://127.0.0.1:1",
            lmcache_url=None,
            started_at=now(),
        ),
    )


def noted(home: Path) -> list[dict[str, Any]]:
    log = get_workspace().manager.audit.read()
    return [dict(r.line.names) for r in log.records if r.line.action == "settings"]


# --- at run time ----------------------------------------------------------------------------------


def test_every_field_of_each_rule_is_tried() -> None:
    by_rule = {rule: set() for rule in ("now", "down", "start")}
    for name, field in fields().items():
        by_rule[field.rule.changes].add(name)
    assert by_rule["now"] == set(LIVE)
    assert by_rule["start"] == set(START)
    assert by_rule["down"] >= set(DOWN)


@pytest.mark.covers("CF-009")
@pytest.mark.parametrize("name", sorted(LIVE))
def test_what_may_change_changes_at_once(running: None, name: str) -> None:
    workspace = get_workspace()
    settings = cwm.configure({name: LIVE[name]})
    assert value_of(settings, name) == LIVE[name]
    assert cwm.settings() is settings
    for reached in (
        workspace.settings,
        workspace.manager.settings,
        workspace.manager.parts.settings,
    ):
        assert reached is settings
    changes.change({}, [name])
    assert value_of(workspace.manager.settings, name) == value_of(load(), name)


@pytest.mark.covers("CF-009")
def test_a_longest_answer_is_that_of_the_next_one(fake_stack: FakeStack) -> None:
    session = cwm.session("main")
    for length in (1, 3):
        cwm.configure({"limits.max_tokens": length})
        assert session.say(QUESTION).generated_tokens == length


@pytest.mark.covers("CF-009")
def test_the_log_level_is_that_of_our_logger() -> None:
    get_settings()
    cwm.configure(log_level="ERROR")
    assert logging.getLogger("cwm_jupyter").level == logging.ERROR


@pytest.mark.covers("CF-010")
@pytest.mark.parametrize("name", sorted(START))
def test_what_is_in_use_is_fixed(user: Path, name: str) -> None:
    before = get_workspace().settings
    with pytest.raises(ConfigError) as caught:
        cwm.configure({name: START[name], "limits.max_tokens": 7})
    assert caught.value.message == f"{name} is fixed for this process, which uses it already."
    variable = f"CWM_{name.upper().replace('.', '_')}"
    assert caught.value.hint == (
        f"Set it before the start: in {user / 'cwm.toml'}, or with {variable}."
    )
    assert get_workspace().settings is cwm.settings() is before
    cwm.configure({name: value_of(before, name)})  # what it is already, it may be


@pytest.mark.covers("CF-010")
@pytest.mark.parametrize("name", sorted(DOWN))
def test_what_the_stack_runs_with_is_fixed_while_it_does(
    running: None, home: Path, name: str
) -> None:
    get_workspace()
    with pytest.raises(ConfigError, match=f"{name} is fixed while the stack runs") as caught:
        cwm.configure({name: DOWN[name]})
    assert caught.value.hint == (
        "Stop the stack with cwm down, set it, and start again with cwm up."
    )
    (home / "run" / "stack.json").unlink()
    cwm.configure({name: DOWN[name]})
    assert value_of(get_workspace().settings, name) != value_of(load(), name)


@pytest.mark.parametrize("name", sorted({**DOWN, **START}))
def test_before_anything_is_used_all_may_change(name: str, tmp_path: Path) -> None:
    value = tmp_path / "other" if START.get(name) == "/elsewhere" else {**DOWN, **START}[name]
    cwm.configure({name: value})
    assert opened_workspace() is None
    changed = value_of(get_settings(), name)
    assert value_of(get_workspace().settings, name) == changed != value_of(load(), name)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"limits.max_tokens": 0}, ConfigError, r"limits\.max_tokens cannot be 0 \(given as arg"),
        ({"limits": {"max_token": 0}}, ConfigError, r"'limits\.max_token' is not known"),
        ({"vllm.url": "http://192.0.2.1"}, SecurityError, "plain http to another machine"),
        ({"lmcache.url": "http://127.0.0.1"}, ConfigError, r"vllm\.url is missing"),
    ],
)
def test_a_wrong_change_changes_nothing(
    given: dict[str, Any], error: type[Exception], said: str
) -> None:
    before = get_workspace().settings
    with pytest.raises(error, match=said):
        cwm.configure(**{"log_level": "error", **given})
    assert get_workspace().settings is get_settings() is before


def test_a_change_does_not_move_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CWM_HOME", "here")
    home = get_workspace().settings.home
    monkeypatch.chdir(tmp_path)
    cwm.configure({"limits.max_tokens": 7})
    assert cwm.settings().home == home
    assert home.is_absolute()


def test_settings_of_a_program_can_be_changed_too(home: Path) -> None:
    set_settings(load(overrides={"limits.max_tokens": 3, "home": home}))
    cwm.configure({"limits.probe_top": 5})
    limits = cwm.settings().limits
    assert (limits.max_tokens, limits.probe_top, cwm.settings().home) == (3, 5, home)


# --- what is noted and shown ----------------------------------------------------------------------


def test_each_change_is_in_the_audit_log_and_no_secret(home: Path) -> None:
    get_workspace()
    cwm.configure({"limits.max_tokens": 7, "vllm.api_key": "s3cret"})
    changes.change({"stack.engine_args": Given("--seed 1", "%config", from_text=True)})
    with pytest.raises(ConfigError):
        cwm.configure({"limits.max_tokens": 0})
    assert noted(home) == [
        {"field": "vllm.api_key", "source": "argument", "value": "[redacted]"},
        {"field": "limits.max_tokens", "source": "argument", "value": "7"},
        {"field": "stack.engine_args", "source": "%config", "value": "--seed 1"},
    ]
    assert not [f for f in home.rglob("*") if f.is_file() and b"s3cret" in f.read_bytes()]


def test_the_report_says_where_everything_came_from(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = user / "cwm.toml"
    path.write_text("[limits]\nmax_tokens = 3\n[vllm]\napi_key = 's3cret'")
    path.chmod(0o600)
    monkeypatch.setenv("CWM_LOG_LEVEL", "error")
    cwm.configure({"vllm.retries": 1})
    seen = report(get_layers(), matching(None))
    assert seen.files == [str(path)]
    by_name = {one.name: one for one in seen.settings}
    assert list(by_name) == list(fields())
    sources = {name: one.source for name, one in by_name.items() if one.source != "default"}
    assert sources == {
        "home": "CWM_HOME",
        "cache_dir": "CWM_CACHE_DIR",
        "log_level": "CWM_LOG_LEVEL",
        "limits.max_tokens": f"{path}, line 2",
        "vllm.api_key": f"{path}, line 4",
        "vllm.retries": "argument",
    }
    assert by_name["vllm.api_key"].value == "[redacted]"
    assert "s3cret" not in f"{seen} {seen.to_dict()}"
    assert SettingsReport.from_dict(seen.to_dict()) == seen


# --- files ----------------------------------------------------------------------------------------


def test_writing_makes_the_users_file(user: Path) -> None:
    user.rmdir()
    before = get_settings()
    done = changes.write(user_file(), "limits.max_tokens", "256")
    path = user / "cwm.toml"
    assert path.read_text() == "[limits]\nmax_tokens = 256\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (done.written, done.overridden_by) == (str(path), None)
    assert [(one.value, one.source) for one in done.settings] == [(256, f"{path}, line 2")]
    assert get_settings() is before
    assert noted(before.home) == [
        {"field": "limits.max_tokens", "source": str(path), "value": "256"}
    ]
    changes.write(user_file(), "limits.max_tokens", None)
    assert path.read_text() == "[limits]\n"


def test_a_link_stays_a_link_and_a_mode_a_mode(user: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("# mine\n")
    real.chmod(0o644)
    (user / "cwm.toml").symlink_to(real)
    changes.write(user_file(), "log_level", "info")
    assert (user / "cwm.toml").is_symlink()
    assert real.read_text() == 'log_level = "info"\n# mine\n'
    assert real.stat().st_mode & 0o777 == 0o644
    with pytest.raises(SecurityError, match="is a secret, and others can read"):
        changes.write(user_file(), "vllm.api_key", "s3cret")
    assert "s3cret" not in real.read_text()


def test_paths_are_written_whole(user: Path) -> None:
    changes.write(user_file(), "cache_dir", "here")
    assert (user / "cwm.toml").read_text() == f'cache_dir = "{Path.cwd() / "here"}"\n'


@pytest.mark.parametrize(
    ("name", "text", "error", "said"),
    [
        ("limits.max_tokens", "0", ConfigError, r"limits\.max_tokens cannot be '0'"),
        ("lmcache.url", "http://127.0.0.1", ConfigError, r"vllm\.url is missing"),
        ("vllm.url", "http://192.0.2.1", SecurityError, "plain http"),
    ],
)
def test_what_is_wrong_is_not_written(
    user: Path, name: str, text: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        changes.write(user_file(), name, text)
    assert not (user / "cwm.toml").exists()


def test_what_several_write_at_once_is_all_kept(user: Path) -> None:
    values = {"limits.max_tokens": "3", "limits.keep_versions": "2", "vllm.retries": "1"}
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda item: changes.write(user_file(), *item), values.items()))
    assert {name: one.value for name, one in read_file(user_file()).items()} == {
        "limits.max_tokens": 3,
        "limits.keep_versions": 2,
        "vllm.retries": 1,
    }


def test_who_cannot_have_the_file_alone_leaves_it(
    user: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "_LOCK_S", 0.01)
    changes.write(user_file(), "limits.max_tokens", "3")
    before = user_file().path.read_text()
    with (
        filelock.FileLock(get_settings().home / "settings.lock"),
        pytest.raises(ConfigError, match="Another process"),
    ):
        changes.write(user_file(), "limits.max_tokens", "4")
    assert user_file().path.read_text() == before


def test_yaml_is_only_read(user: Path) -> None:
    (user / "cwm.yaml").write_text("log_level: info")
    with pytest.raises(ConfigError, match="is YAML, which is only read here"):
        changes.write(user_file(), "limits.max_tokens", "3")
    assert (user / "cwm.yaml").read_text() == "log_level: info"


def test_a_project_gets_harmless_fields_alone(user: Path) -> None:
    done = changes.write(project_file(), "limits.max_tokens", "3")
    path = Path.cwd() / "cwm.toml"
    assert done.written == str(path)
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(SecurityError, match=r"stack\.python may not be set by a project"):
        changes.write(project_file(), "stack.python", "/x")
    assert path.read_text() == "[limits]\nmax_tokens = 3\n"


def test_a_value_without_effect_is_said(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CWM_LIMITS_MAX_TOKENS", "5")
    done = changes.write(user_file(), "limits.max_tokens", "3")
    assert done.overridden_by == "CWM_LIMITS_MAX_TOKENS"
    assert done.settings[0].value == 5


# --- the workspace --------------------------------------------------------------------------------


def test_a_given_engine_is_connected_to(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def connect(settings: Any, *servers: Any) -> StackState:
        asked.append(servers)
        raise ConfigError("enough")

    monkeypatch.setattr("cwm_jupyter.stack.launcher.connect", connect)
    given = {"vllm.url": "http://127.0.0.1:1", "lmcache.url": "http://127.0.0.1:2"}
    workspace = Workspace(load(overrides={**given, "vllm.api_key": "k"}))
    with pytest.raises(ConfigError, match="enough"):
        workspace.run(workspace.connect)
    workspace.close()
    assert asked == [("http://127.0.0.1:1", "http://127.0.0.1:2", "k")]


def test_the_file_named_is_the_one_written(user: Path, tmp_path: Path) -> None:
    file = SettingsFile(tmp_path / "cwm.toml")
    changes.write(file, "log_level", "info")
    assert file.path.read_text() == 'log_level = "info"\n'

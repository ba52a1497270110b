"""Settings files: where they are found, what may be in them, and what is said of what may not."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.config import get_settings, load
from cwm_jupyter.config.files import SettingsFile, find_files, given_in, project_file, user_file
from cwm_jupyter.config.parsing import parse, toml_lines
from cwm_jupyter.config.schema import fields
from cwm_jupyter.errors import ConfigError, SecurityError

TOML = """
# mine
log_level = "info"

[stack]
chunk_tokens = 64 # a power of two
engine_args = ["--seed", "1"]
idle_stop_s = 60

[limits]
max_tokens = 9
"""
YAML = """
# mine
log_level: info
stack:
  chunk_tokens: 64
  engine_args: [--seed, "1"]
  idle_stop_s: 60
limits:
  max_tokens: 9
"""


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("cwm.yaml", YAML, marks=pytest.mark.covers("CF-002")),
        pytest.param("cwm.toml", TOML, marks=pytest.mark.covers("CF-003")),
    ],
)
def test_a_users_file_sets_fields(user: Path, project: Path, name: str, text: str) -> None:
    private(user / name, text)
    settings = get_settings()
    assert settings.log_level == "info"
    assert settings.stack.chunk_tokens == 64
    assert settings.stack.engine_args == ("--seed", "1")
    assert settings.stack.idle_stop_s == 60.0
    assert settings.limits.max_tokens == 9
    assert settings.limits.probe_top == 20


@pytest.mark.covers("CF-004")
def test_the_order_of_the_layers(
    user: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private(user / "cwm.toml", "[limits]\nmax_tokens = 1\nprobe_top = 1\n[vllm]\nretries = 1\n")
    private(project / "cwm.toml", "[limits]\nmax_tokens = 2\n[vllm]\nretries = 2\n")
    environ = {"CWM_LIMITS_MAX_TOKENS": "3"}
    files = find_files()
    assert load({}, files=files[:1]).limits.max_tokens == 1
    assert load({}, files=files).limits.max_tokens == 2
    assert load(environ, files=files).limits.max_tokens == 3
    settings = load(environ, {"limits.max_tokens": 4}, files)
    assert (settings.limits.max_tokens, settings.vllm.retries, settings.limits.probe_top) == (
        4,
        2,
        1,
    )


# --- where they are -------------------------------------------------------------------------------


def test_folders_of_jupyter_that_win_come_last(
    user: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "first"
    first.mkdir()
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(first))
    private(first / "cwm.yaml", "log_level: debug")
    private(user / "cwm.toml", 'log_level = "error"\n[limits]\nmax_tokens = 5')
    assert [file.path for file in find_files()] == [user / "cwm.toml", first / "cwm.yaml"]
    settings = get_settings()
    assert (settings.log_level, settings.limits.max_tokens) == ("debug", 5)


def test_the_nearest_projects_file_is_found_from_below(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = project / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find_files() == []
    assert project_file() == SettingsFile(below / "cwm.toml", project=True)
    far = private(project / "cwm.toml", "")
    assert find_files() == [SettingsFile(far, project=True)]
    near = private(project / "a" / "cwm.yaml", "")
    assert find_files() == [SettingsFile(near, project=True)]
    assert project_file() == SettingsFile(near, project=True)


def test_the_home_directory_is_no_project(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(project.parent)
    monkeypatch.setenv("HOME", str(tmp_path / "link"))
    private(project.parent / "cwm.toml", "[limits]\nmax_tokens = 5")
    assert find_files() == []
    monkeypatch.chdir(project.parent)
    assert find_files() == []


def test_a_users_file_is_no_project_where_one_works_beside_it(
    user: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private(user / "cwm.toml", "[stack]\nchunk_tokens = 64")
    monkeypatch.chdir(user)
    assert get_settings().stack.chunk_tokens == 64


def test_a_working_directory_that_is_gone(project: Path) -> None:
    project.rmdir()
    assert find_files() == []


def test_what_is_no_file_is_passed_over(user: Path, project: Path) -> None:
    (user / "cwm.toml").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(project / "cwm.yaml")
    (project / "cwm.toml").symlink_to(project / "nothing")
    assert find_files() == []


@pytest.mark.parametrize("where", ["user", "project"])
def test_toml_and_yaml_side_by_side_are_ambiguous(user: Path, project: Path, where: str) -> None:
    folder = {"user": user, "project": project}[where]
    private(folder / "cwm.toml", "")
    private(folder / "cwm.yaml", "")
    with pytest.raises(ConfigError, match=r"has cwm\.toml and cwm\.yaml: which one") as caught:
        get_settings()
    assert str(folder) in caught.value.message


# --- what is in them ------------------------------------------------------------------------------


@pytest.mark.covers("CF-007")
@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("cwm.toml", '[stack]\n# so\nchunk_tokens = "many"\n', 3),
        ("cwm.toml", 'stack.chunk_tokens = "many"', 1),
        ("cwm.toml", '[ stack ] # the engine\n"chunk_tokens" = "many"', 2),
        ("cwm.yaml", "\nstack:\n  chunk_tokens: many\n", 3),
        ("cwm.yaml", "stack.chunk_tokens: many", 1),
        ("cwm.yaml", "stack: {chunk_tokens: many}", 1),
    ],
)
def test_a_wrong_type_is_refused_with_field_file_and_line(
    user: Path, project: Path, name: str, text: str, line: int
) -> None:
    path = private(user / name, text)
    with pytest.raises(ConfigError) as caught:
        get_settings()
    source = f"{path}, line {line}"
    assert caught.value.message == f"stack.chunk_tokens cannot be 'many' (from {source})."
    assert caught.value.hint == "It must be a whole number, at least 16 and at most 4096."
    assert caught.value.context == {"field": "stack.chunk_tokens", "source": source}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("cwm.toml", "[limits]\nmax_token = 1", "'limits.max_token' ({path}, line 2) is not known"),
        ("cwm.toml", "[limit]\nmax_tokens = 1", "'limit' ({path}, line 1) is not known"),
        ("cwm.toml", "limits = 3", "'limits' ({path}, line 1) is not known"),
        ("cwm.yaml", "limits:\n  max_token: 1", "'limits.max_token' ({path}, line 2) is not known"),
        ("cwm.yaml", "3: 4", "'3' ({path}, line 1) is not known"),
        ("cwm.yaml", "[a, b]: 4", "is not known"),
        ("cwm.yaml", "limits: [1]", "'limits' ({path}, line 1) is not known"),
        ("cwm.toml", "limits = \n", "{path} cannot be understood: Invalid value (at line 1"),
        ("cwm.toml", "a = 1\na = 2\n", "Cannot overwrite a value (at line 2"),
        ("cwm.yaml", "a: b: c", "{path} cannot be understood: mapping values are not allowed"),
        ("cwm.yaml", "\n- a", "it is no table of settings"),
        ("cwm.yaml", "home: a\nhome: b", "home is there twice, on line 2 again"),
        ("cwm.yaml", "limits:\n  max_tokens: 1\nlimits.max_tokens: 2", "is set twice in {path}"),
        ("cwm.yaml", "home: &a x\ncache_dir: *a", "aliases have no use here on line 2"),
        ("cwm.yaml", "home: !!python/name:os.system", "could not determine a constructor"),
        ("cwm.yaml", "home: 2026-99-99", "{path} cannot be understood: "),
        ("cwm.yaml", "home: " + "[" * 5000, "{path} cannot be understood: "),
        ("cwm.toml", "home = " + "[" * 5000, "{path} cannot be understood: "),
        ("cwm.yaml", "a: \x07", "{path} cannot be understood: "),
    ],
)
def test_what_cannot_be_understood_is_refused_with_the_place(
    user: Path, project: Path, name: str, text: str, said: str
) -> None:
    path = private(user / name, text)
    with pytest.raises(ConfigError) as caught:
        get_settings()
    assert said.format(path=path) in caught.value.message
    assert caught.value.message.count("\n") == 0


def test_what_is_not_text_is_refused(user: Path, project: Path) -> None:
    path = user / "cwm.toml"
    path.write_bytes(b"home = '\xff'")
    with pytest.raises(ConfigError, match="cannot be understood"):
        get_settings()


def test_a_file_that_cannot_be_read(
    user: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = private(user / "cwm.toml", ""), Path.open

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == path:  # the mode alone would not keep root out
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        get_settings()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cwm.toml", ""),
        ("cwm.yaml", ""),
        ("cwm.yaml", "# all in comments\nlimits:\n  # max_tokens: 3\n"),
        ("cwm.toml", "\ufeff[limits]\r\n"),
    ],
)
def test_a_file_may_say_nothing(user: Path, project: Path, name: str, text: str) -> None:
    before = load()
    private(user / name, text)
    assert get_settings() == before


def test_yaml_can_say_nothing_where_that_is_a_value(user: Path, project: Path) -> None:
    private(user / "cwm.yaml", "stack:\n  idle_stop_s:\n  max_model_len: null")
    assert get_settings().stack.idle_stop_s is None
    private(user / "cwm.yaml", "limits:\n  max_tokens:")
    with pytest.raises(ConfigError, match=r"limits\.max_tokens cannot be None"):
        load(files=find_files())


def test_relative_paths_begin_at_the_file(user: Path, project: Path) -> None:
    private(user / "cwm.toml", 'cache_dir = "cache"\n[stack]\npython = "$HOME/python"')
    environ = {"HOME": str(project.parent)}
    settings = load(environ, files=find_files())
    assert settings.cache_dir == user / "cache"
    assert settings.stack.python == project.parent / "python"


@pytest.mark.covers("CF-006")
@pytest.mark.parametrize("layer", ["file", "environment", "argument"])
def test_what_another_field_needs_is_named(user: Path, project: Path, layer: str) -> None:
    url = "http://127.0.0.1:9"
    environ, overrides = {}, {}
    if layer == "file":
        private(user / "cwm.toml", f'\n[lmcache]\nurl = "{url}"')
        source = f"from {user / 'cwm.toml'}, line 3"
    elif layer == "environment":
        environ = {"CWM_LMCACHE_URL": url}
        source = "from CWM_LMCACHE_URL"
    else:
        overrides = {"lmcache.url": url}
        source = "given as argument"
    with pytest.raises(ConfigError) as caught:
        load(environ, overrides, find_files())
    assert caught.value.message == f"vllm.url is missing: lmcache.url ({source}) needs it."
    assert "CWM_VLLM_URL" in str(caught.value.hint)
    assert caught.value.context["field"] == "vllm.url"
    load({**environ, "CWM_VLLM_URL": url}, overrides, find_files())


def test_a_wrong_value_is_refused_also_where_another_wins(user: Path, project: Path) -> None:
    private(user / "cwm.toml", "[limits]\nmax_tokens = 0")
    with pytest.raises(ConfigError, match=r"max_tokens cannot be 0"):
        load({"CWM_LIMITS_MAX_TOKENS": "5"}, files=find_files())


def test_many_blanks_are_read_at_once(user: Path, project: Path) -> None:
    blanks = " " * 100_000
    document = f"{blanks}\n[{blanks}\n[ a{blanks}b ]{blanks}x\n{blanks}c{blanks}\nd{blanks}= 1"
    assert toml_lines(document) == {"d": 5}
    assert toml_lines(f"[{blanks}a . b{blanks}]{blanks}# c") == {"a.b": 1}
    private(project / "cwm.toml", f"{blanks[:60_000]}\n[limits]\nmax_tokens = 3")
    assert get_settings().limits.max_tokens == 3


@pytest.mark.parametrize("name", ["cwm.toml", "cwm.yaml"])
def test_a_file_that_is_too_long_is_refused(user: Path, project: Path, name: str) -> None:
    path = private(project / name, "#" * 64_000)
    get_settings()
    private(path, "#" * 64_001)
    with pytest.raises(ConfigError) as caught:
        load(files=find_files())
    assert caught.value.message == f"{path} is longer than 64 kB."
    assert caught.value.context == {"source": str(path)}


# --- what they may not say ------------------------------------------------------------------------

VALUES: dict[str, Any] = {
    "home": '"/x"',
    "cache_dir": '"/x"',
    "stack.model": '"/x"',
    "stack.python": '"/x/python"',
    "stack.engine_args": '["--trust-remote-code"]',
    "vllm.url": '"https://example.org"',
    "vllm.api_key": '"k"',
    "lmcache.url": '"https://example.org"',
    "storage.vault_dir": '"/x"',
    "storage.store": '"fs"',
    "security.allow_remote_plain_http": "true",
    "security.encrypt": "false",
    "limits.probe_tolerance": "10",
    "limits.session_ttl": '"1s"',
    "limits.window_ttl": '"1s"',
    "limits.keep_versions": "1",
}


@pytest.mark.parametrize("name", sorted(VALUES))
def test_a_projects_file_cannot_do_harm(user: Path, project: Path, name: str) -> None:
    path = private(project / "cwm.toml", f"{name} = {VALUES[name]}")
    with pytest.raises(SecurityError) as caught:
        get_settings()
    assert caught.value.message == f"{name} may not be set by a project ({path}, line 1)."
    hint = str(caught.value.hint)
    assert f"{user / 'cwm.toml'} or with CWM_{name.upper().replace('.', '_')}" in hint


def test_what_a_project_may_set_is_chosen_field_by_field() -> None:
    assert {name for name, field in fields().items() if field.rule.project} == {
        "limits.max_file_bytes",
        "limits.max_tokens",
        "lmcache.prefetch_timeout_s",
        "lmcache.request_timeout_s",
        "log_level",
        "storage.durable_timeout_s",
        "vllm.connect_timeout_s",
        "vllm.max_connections",
        "vllm.request_timeout_s",
        "vllm.retries",
    }


@pytest.mark.skipif(os.name == "nt", reason="a mode says nothing there")
def test_a_secret_must_not_lie_open(user: Path, project: Path) -> None:
    path = private(user / "cwm.yaml", "vllm:\n  api_key: s3cret")
    assert get_settings().vllm.api_key == "s3cret"
    for mode in (0o640, 0o604):
        path.chmod(mode)
        with pytest.raises(SecurityError, match=r"vllm\.api_key is a secret, and others") as caught:
            load(files=find_files())
        assert caught.value.hint == f"chmod 600 {path}"
        assert "s3cret" not in f"{caught.value}{caught.value.to_dict()}"


@pytest.mark.skipif(os.name == "nt", reason="a mode says nothing there")
def test_a_file_that_everybody_can_change_is_refused(user: Path, project: Path) -> None:
    path = private(user / "cwm.toml", "")
    path.chmod(0o664)
    load(files=find_files())
    path.chmod(0o666)
    with pytest.raises(SecurityError, match="Everybody can change"):
        load(files=find_files())


def test_a_wrong_secret_is_not_echoed(user: Path, project: Path) -> None:
    private(user / "cwm.toml", "[vllm]\napi_key = 12345")
    with pytest.raises(ConfigError) as caught:
        get_settings()
    assert "12345" not in f"{caught.value}{caught.value.to_dict()}"


# --- any text -------------------------------------------------------------------------------------

ALPHABET = "[]{}:=#\"'\n\t -.,&*!|>%@0123456789abtruenlimsx\\\ufeff"


@pytest.mark.parametrize("name", ["cwm.toml", "cwm.yaml"])
@given(text=st.text() | st.text(ALPHABET))
def test_any_text_is_refused_or_understood(name: str, text: str) -> None:
    file = SettingsFile(Path("/nowhere", name))
    try:
        given_in(file, text.encode("utf-8", "surrogatepass"))
    except ConfigError as error:
        assert name in error.message or "is not known" in error.message  # noqa: PT017


@given(st.text(ALPHABET))
def test_lines_are_those_of_the_document(text: str) -> None:
    for line in toml_lines(text).values():
        assert 1 <= line <= text.count("\n") + 1


def test_the_users_file_need_not_exist(user: Path) -> None:
    assert user_file() == SettingsFile(user / "cwm.toml")
    private(user / "cwm.yaml", "")
    assert user_file() == SettingsFile(user / "cwm.yaml")


def test_parse_keeps_what_it_does_not_know() -> None:
    values, lines = parse(Path("cwm.yaml"), b"a: {b: {c: 1}}\nd: 2")
    assert (values, lines) == ({"a": {"b": {"c": 1}}, "d": 2}, {"a": 1, "a.b": 1, "d": 2})

"""Settings: layers, checks, paths, the shared object."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter import config
from cwm_jupyter.config import Settings, check_url, get_settings, load, reset_settings, set_settings
from cwm_jupyter.errors import ConfigError, SecurityError
from cwm_jupyter.workspace import Workspace


def leaves(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat |= leaves(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


DEFAULTS = leaves(load({}).to_dict())
VARIABLES = {f"CWM_{name.upper().replace('.', '_')}": name for name in DEFAULTS}


@pytest.mark.covers("CF-001", "CF-019")
@pytest.mark.parametrize(
    ("variable", "text", "read", "value"),
    [
        ("CWM_STACK_CHUNK_TOKENS", "32", lambda s: s.stack.chunk_tokens, 32),
        ("CWM_STACK_KV_CACHE_GIB", "0.5", lambda s: s.stack.kv_cache_gib, 0.5),
        ("CWM_STACK_MODEL", "null", lambda s: s.stack.model, "null"),
        ("CWM_STACK_IDLE_STOP_S", "60", lambda s: s.stack.idle_stop_s, 60.0),
        (
            "CWM_STACK_ENGINE_ARGS",
            "--seed 1 --name 'a b'",
            lambda s: s.stack.engine_args,
            ("--seed", "1", "--name", "a b"),
        ),
        ("CWM_VLLM_URL", "https://gpu:8000", lambda s: s.vllm.url, "https://gpu:8000"),
        ("CWM_LMCACHE_PREFETCH_TIMEOUT_S", "5", lambda s: s.lmcache.prefetch_timeout_s, 5.0),
        ("CWM_STORAGE_VAULT_DIR", "/big", lambda s: s.vault_dir, Path("/big")),
        (
            "CWM_SECURITY_ALLOW_REMOTE_PLAIN_HTTP",
            "true",
            lambda s: s.security.allow_remote_plain_http,
            True,
        ),
        ("CWM_LIMITS_MAX_TOKENS", "7", lambda s: s.limits.max_tokens, 7),
        ("CWM_LOG_LEVEL", "DEBUG", lambda s: s.log_level, "debug"),
        ("CWM_HOME", "/h", lambda s: s.home, Path("/h")),
    ],
)
def test_environment_sets_a_field(variable: str, text: str, read: Any, value: Any) -> None:
    assert read(load({variable: text})) == value


@pytest.mark.covers("CF-001")
@pytest.mark.parametrize("variable", sorted(VARIABLES))
def test_every_field_has_a_variable_and_an_empty_one_is_unset(variable: str) -> None:
    assert leaves(load({variable: ""}).to_dict()) == DEFAULTS


def test_arguments_win_over_environment() -> None:
    environ = {"CWM_STACK_CHUNK_TOKENS": "32", "CWM_LIMITS_MAX_TOKENS": "7"}
    settings = load(environ, {"stack": {"chunk_tokens": 64}})
    assert (settings.stack.chunk_tokens, settings.limits.max_tokens) == (64, 7)


def test_arguments_may_be_dotted_or_nested() -> None:
    values = {"stack.chunk_tokens": 64, "limits": {"probe_top": 3}, "home": Path("/x")}
    settings = load({}, values)
    assert (settings.stack.chunk_tokens, settings.limits.probe_top) == (64, 3)
    assert settings.home == Path("/x")


@pytest.mark.covers("CF-005", "CF-018")
def test_defaults_make_whole_settings() -> None:
    settings = load({})
    assert settings == Settings()
    assert settings.home.name == "cwm"
    assert settings.home.is_absolute()
    assert settings.cache_dir.is_absolute()
    assert settings.stack.chunk_tokens == 128
    assert settings.stack.model is None


def test_home_lies_under_jupyters_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    assert load({}).home == tmp_path / "cwm"


@pytest.mark.covers("CF-012")
def test_vllm_defaults() -> None:
    vllm = load({}).vllm
    assert vllm.url is None
    assert vllm.api_key is None
    assert (vllm.connect_timeout_s, vllm.request_timeout_s, vllm.retries) == (5.0, 600.0, 3)


@pytest.mark.covers("CF-013")
def test_vllm_custom_values() -> None:
    environ = {
        "CWM_VLLM_URL": "http://127.0.0.1:8000",
        "CWM_VLLM_API_KEY": "k",
        "CWM_VLLM_CONNECT_TIMEOUT_S": "1",
        "CWM_VLLM_REQUEST_TIMEOUT_S": "2.5",
        "CWM_VLLM_RETRIES": "0",
        "CWM_VLLM_MAX_CONNECTIONS": "1",
    }
    assert msgspec.structs.asdict(load(environ).vllm) == {
        "url": "http://127.0.0.1:8000",
        "api_key": "k",
        "connect_timeout_s": 1.0,
        "request_timeout_s": 2.5,
        "retries": 0,
        "max_connections": 1,
    }


@pytest.mark.covers("CF-014")
def test_storage_defaults(home: Path) -> None:
    settings = load()
    assert settings.storage.vault_dir is None
    assert settings.vault_dir == home / "vault"
    assert settings.storage.durable_timeout_s == 60.0


@pytest.mark.covers("CF-016")
def test_security_defaults_refuse_what_is_unsafe() -> None:
    settings = load({})
    assert settings.security.allow_remote_plain_http is False
    with pytest.raises(SecurityError, match="plain http to another machine"):
        check_url("http://192.0.2.1:8000", settings)


@pytest.mark.covers("CF-017")
def test_limit_defaults() -> None:
    limits = load({}).limits
    assert (limits.max_tokens, limits.probe_top, limits.probe_tolerance) == (512, 20, 0.5)
    assert limits.max_file_bytes == 64 * 1024**2


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.covers("CF-008")
@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("stack.chunk_tokens", 15, "a whole number, at least 16 and at most 4096"),
        ("vllm.retries", 11, "a whole number, at least 0 and at most 10"),
        ("vllm.retries", -1, "a whole number, at least 0 and at most 10"),
        ("stack.idle_stop_s", 0, "a number, above 0 and at most 86400 or nothing"),
        ("limits.probe_tolerance", float("nan"), "a number, at least 0 and at most 10"),
        ("stack.kv_cache_gib", float("inf"), "a number, above 0 and at most 65536"),
        ("limits.max_tokens", 0, "a whole number, at least 1"),
    ],
)
@pytest.mark.parametrize("layer", ["environment", "argument"])
def test_out_of_range_is_refused_with_the_range(
    name: str, value: Any, allowed: str, layer: str
) -> None:
    variable = f"CWM_{name.upper().replace('.', '_')}"
    given = ({variable: str(value)}, {}) if layer == "environment" else ({}, {name: value})
    with pytest.raises(ConfigError) as caught:
        load(*given)
    source = variable if layer == "environment" else "argument"
    assert caught.value.message.startswith(f"{name} cannot be ")
    assert source in caught.value.message
    assert caught.value.hint == f"It must be {allowed}."
    assert caught.value.context == {"field": name, "source": source}


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("stack.chunk_tokens", "many", "a whole number"),
        ("stack.chunk_tokens", "64", "a whole number"),
        ("stack.engine_args", 3, "a list of strings"),
        ("stack.model", 3, "a string or nothing"),
        ("security.allow_remote_plain_http", "perhaps", "true or false"),
        ("home", 3, "a path"),
        ("home", " ", "a path"),
        ("log_level", "loud", "one of critical, debug, error, info, warning"),
        ("vllm.connect_timeout_s", None, "a number"),
    ],
)
def test_wrong_types_are_refused_by_name(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, {name: value})
    assert caught.value.message.startswith(f"{name} cannot be {value!r} (given as argument)")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"It must be {allowed}")


@pytest.mark.parametrize(
    ("environ", "overrides", "named", "meant"),
    [
        ({"CWM_STACK_CHUNKTOKENS": "1"}, {}, "CWM_STACK_CHUNKTOKENS", "CWM_STACK_CHUNK_TOKENS"),
        ({}, {"stack": {"chunk_token": 1}}, "stack.chunk_token", "stack.chunk_tokens"),
        ({}, {"hom": "/x"}, "hom", "home"),
        ({}, {"vllm": "http://x"}, "vllm", "vllm.url"),
    ],
)
def test_unknown_fields_are_refused_with_the_nearest(
    environ: dict[str, str], overrides: dict[str, Any], named: str, meant: str
) -> None:
    with pytest.raises(ConfigError, match=f"{named}.* is not known") as caught:
        load(environ, overrides)
    assert caught.value.hint == f"Did you mean {meant}?"


def test_a_field_that_resembles_none_gets_the_list() -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, {"zzzzzzz": 1})
    assert caught.value.hint is not None
    assert "stack.chunk_tokens" in caught.value.hint


def test_unbalanced_quotes_in_engine_args() -> None:
    with pytest.raises(ConfigError, match=r"stack\.engine_args .*No closing quotation"):
        load({"CWM_STACK_ENGINE_ARGS": "'x"})


# --- paths ----------------------------------------------------------------------------------------


@pytest.mark.covers("CF-015")
@pytest.mark.parametrize("variable", ["CWM_HOME", "CWM_CACHE_DIR", "CWM_STACK_PYTHON"])
def test_paths_expand(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    name = VARIABLES[variable]
    for text in ("~/a/b", "$BASE/b", "${BASE}/b"):
        settings = load({variable: text, "BASE": str(tmp_path / "a")})
        assert leaves(settings.to_dict())[name] == str(tmp_path / "a/b")


@pytest.mark.covers("CF-020")
def test_the_index_path_expands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for settings in (load({"CWM_HOME": "~/x"}), load({"CWM_HOME": "$P/x", "P": str(tmp_path)})):
        assert Workspace(settings).library.index.path == tmp_path / "x/index.json"


def test_relative_paths_do_not_follow_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load({"CWM_HOME": "rel"}).home == tmp_path / "rel"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("$NOT_THERE/x", "the environment variable NOT_THERE is not set"),
        ("~nobody-of-this-name/x", "home directory"),
        ("a$", "Invalid placeholder"),
        ("a\0b", "not a path"),
    ],
)
def test_paths_that_cannot_expand_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        load({}, {"home": text})
    assert caught.value.context["field"] == "home"


def test_everything_of_ours_lies_under_home(home: Path) -> None:
    settings = load()
    places = [
        settings.sessions_dir,
        settings.windows_dir,
        settings.keys_dir,
        settings.run_dir,
        settings.vault_dir,
    ]
    assert {place.parent for place in places} == {home}
    assert len(set(places)) == len(places)


# --- URLs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("http://localhost:1", "http://localhost:1"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("https://gpu.example/llm/", "https://gpu.example/llm"),
    ],
)
def test_good_urls(url: str, clean: str) -> None:
    assert check_url(url, load({})) == clean


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://x",
        "http://",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:x",
        "http://[::1",
        "http://127.0.0.1/a b",
        "https://x/?a=1",
        "https://x/#a",
    ],
)
def test_malformed_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^the engine is not a "):
        check_url(url, load({}), what="the engine")


@pytest.mark.parametrize("url", ["https://me:s3cret@x", "http://me:s3cret@x:no", "//s3cret@"])
def test_urls_with_passwords_are_refused_and_not_echoed(url: str) -> None:
    with pytest.raises(ConfigError, match="user name or password") as caught:
        check_url(url, load({}))
    assert "s3cret" not in f"{caught.value} {caught.value.to_dict()}"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("host", ["192.0.2.1", "example.org", "0.0.0.0", "localhost.example.org"])
def test_plain_http_to_another_machine_needs_leave(host: str) -> None:
    url = f"http://{host}:8000"
    for name in ("vllm.url", "lmcache.url"):
        with pytest.raises(SecurityError, match=f"{name} is plain http"):
            load({}, {name: url})
        allowed = {"vllm.url": url, name: url, "security.allow_remote_plain_http": True}
        assert check_url(url, load({}, allowed)) == url


@given(st.text())
def test_any_text_as_url_is_refused_or_usable(text: str) -> None:
    settings = Settings(home=Path("/h"), cache_dir=Path("/c"))
    try:
        clean = check_url(text, settings)
    except (ConfigError, SecurityError):
        return
    assert clean.startswith(("http", "HTTP"))


# --- secrets --------------------------------------------------------------------------------------


def test_the_api_key_is_shown_nowhere() -> None:
    settings = load({"CWM_VLLM_API_KEY": "s3cret"})
    assert settings.vllm.api_key == "s3cret"
    for shown in (repr(settings), str(settings.vllm), json.dumps(settings.to_dict())):
        assert "s3cret" not in shown
        assert "[redacted]" in shown
    assert load({}).to_dict()["vllm"]["api_key"] is None
    assert "api_key=None" in repr(load({}))


def test_a_refused_api_key_is_not_echoed() -> None:
    with pytest.raises(ConfigError, match=r"vllm\.api_key cannot be '\[redacted\]'") as caught:
        load({}, {"vllm.api_key": 12345})
    assert "12345" not in f"{caught.value}{caught.value.to_log_dict()}"


def test_the_encryption_key_is_no_setting() -> None:
    key = "ab" * 32
    settings = load({"CWM_ENCRYPTION_KEY": key, "CWM_SECURITY_ENCRYPT": "true"})
    assert settings.security.encrypt
    assert not load({}).security.encrypt
    assert key not in f"{settings!r} {settings.to_dict()}"
    assert load({"CWM_ENCRYPTION_KEY": "bad"}) == load({})  # the keyring's to refuse
    with pytest.raises(ConfigError, match="CWM_ENCRYPTION_KEYS is not known"):
        load({"CWM_ENCRYPTION_KEYS": key})


def test_to_dict_is_json_ready_and_loads_again(tmp_path: Path) -> None:
    settings = load({"CWM_HOME": str(tmp_path), "CWM_STACK_ENGINE_ARGS": "--seed 1"})
    assert load({}, json.loads(json.dumps(settings.to_dict()))) == settings


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        load({}).stack.chunk_tokens = 64  # type: ignore[misc]


# --- the shared object ----------------------------------------------------------------------------


@pytest.mark.covers("CF-021")
@pytest.mark.usefixtures("home")
def test_one_object_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    load_layers = config.shared.load_layers
    monkeypatch.setattr(
        config.shared, "load_layers", lambda **given: loads.append(1) or load_layers(**given)
    )
    barrier = threading.Barrier(8)

    def get(_: int) -> Settings:
        barrier.wait(10)
        return get_settings()

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(get, range(8)))
    assert all(settings is seen[0] for settings in seen)
    assert len(loads) == 1


@pytest.mark.covers("CF-022")
@pytest.mark.usefixtures("home")
def test_reset_gives_a_fresh_one(monkeypatch: pytest.MonkeyPatch) -> None:
    before = get_settings()
    monkeypatch.setenv("CWM_LIMITS_MAX_TOKENS", "9")
    assert get_settings() is before
    reset_settings()
    assert get_settings() is not before
    assert get_settings().limits.max_tokens == 9


@pytest.mark.usefixtures("home")
def test_set_settings_replaces_the_shared_one() -> None:
    mine = load(overrides={"limits.max_tokens": 3})
    set_settings(mine)
    assert get_settings() is mine


@pytest.mark.covers("CF-011")
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_log_level_sets_our_logger_and_no_other(
    level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    monkeypatch.setenv("CWM_LOG_LEVEL", level)
    get_settings()
    ours = logging.getLogger("cwm_jupyter")
    assert logging.getLevelName(ours.level) == level.upper()
    assert not ours.handlers
    assert (root.level, list(root.handlers)) == before


def test_import_is_light() -> None:
    code = "import sys, cwm_jupyter.config; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"IPython", "asyncio", "httpx2", "jupyter_core", "platformdirs", "tinydb", "yaml"}
    assert not heavy & set(done.stdout.split())

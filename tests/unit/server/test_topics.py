"""Sessions, lineage, the caches' figures, figures, and what is said about the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cwm_jupyter import _jupyter_server_extension_points
from cwm_jupyter._version import __version__
from cwm_jupyter.core.models import now
from cwm_jupyter.errors import (
    ArchiveError,
    CWMError,
    IndexBusyError,
    IndexCorruptError,
    KVStoreTimeoutError,
    ResourceExhaustedError,
    SecurityError,
    SessionBusyError,
    SessionEmptyError,
    StackDownError,
    StackStartError,
    ValidationError,
    VLLMConnectionError,
    WindowExistsError,
    WindowNotFoundError,
)
from cwm_jupyter.server.app import CWMServer
from cwm_jupyter.server.failures import status_of
from cwm_jupyter.server.routes import figures
from cwm_jupyter.stack import state
from cwm_jupyter.stack.state import StackState


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValidationError("x"), 400),
        (ArchiveError("x"), 400),
        (SecurityError("x"), 403),
        (WindowNotFoundError("x"), 404),
        (WindowExistsError("x"), 409),
        (SessionEmptyError("x"), 409),
        (SessionBusyError("x"), 423),
        (IndexBusyError("x"), 423),
        (IndexCorruptError("x"), 500),
        (StackStartError("x"), 500),
        (CWMError("x"), 500),
        (StackDownError("x"), 503),
        (VLLMConnectionError("x"), 503),
        (KVStoreTimeoutError("x"), 504),
        (ResourceExhaustedError("x"), 507),
    ],
)
def test_errors_have_the_status_of_their_kind(error: CWMError, status: int) -> None:
    assert status_of(error) == status


def test_it_is_enabled_on_install() -> None:
    assert _jupyter_server_extension_points() == [{"module": "cwm_jupyter", "app": CWMServer}]
    file = Path(__file__).parents[3] / "jupyter-config/server-config/cwm_jupyter.json"
    enabled = json.loads(file.read_text())["ServerApp"]["jpserver_extensions"]
    assert enabled == {"cwm_jupyter": True}


async def test_sessions(call: Any, kept: Any) -> None:
    await kept.talk("paper")
    await kept.talk("letter")
    listed = await call("GET", "sessions", params={"text": "pap"})
    assert [s["name"] for s in listed.document["items"]] == ["paper"]
    known = {"If-None-Match": listed.headers["ETag"]}
    assert (await call("GET", "sessions", headers=known)).status == 304
    one = await call("GET", "sessions/paper")
    assert len(one.document["turns"]) == 1
    assert (await call("DELETE", "sessions/paper")).document["state"] == "deleted"
    assert (await call("GET", "sessions/paper")).status == 404
    assert (await call("POST", "sessions/paper/undo")).document["name"] == "paper"
    assert (await call("POST", "sessions/paper/undo")).status == 404
    wrong = await call("GET", "sessions", params={"min_size": "1MB"})
    assert wrong.document["context"]["field"] == "min_size"


async def test_a_session_is_changed(call: Any, kept: Any) -> None:
    await kept.talk("paper")
    await kept.talk("letter")
    changed = await call(
        "PATCH", "sessions/paper", {"name": "essay", "add_tags": ["mine"], "ttl": "7d"}
    )
    assert changed.status == 200
    told = changed.document
    assert (told["name"], told["tags"], told["ttl_s"]) == ("essay", ["mine"], 7 * 86_400)
    assert (await call("PATCH", "sessions/essay", {"pinned": True})).document["pinned"]
    taken = await call("PATCH", "sessions/essay", {"name": "Letter"})
    assert (taken.status, taken.document["code"]) == (409, "session.exists")
    assert (await call("PATCH", "sessions/paper", {"pinned": True})).status == 404
    assert (await call("PATCH", "sessions/essay", {})).status == 400
    for wrong, field in (
        ({"name": "a/b"}, "name"),
        ({"add_tags": ["a b"]}, "add_tags"),
        ({"ttl": "soon"}, "ttl"),
        ({"pinned": "yes"}, "pinned"),
        ({"note": "x"}, "note"),
    ):
        answer = await call("PATCH", "sessions/essay", wrong)
        assert (answer.status, answer.document["context"]["field"]) == (400, field), wrong


async def test_tree_and_compare(call: Any, kept: Any) -> None:
    await kept.frozen("one")
    await call("POST", "windows/one/clone", {"name": "two"})
    tree = await call("GET", "tree")
    assert {node["name"] for node in tree.document["nodes"]} == {"one", "two"}
    both = await call("GET", "compare", params={"a": "one", "b": "two"})
    assert both.document["common_tokens"] > 0
    assert (await call("GET", "compare", params={"a": "one"})).document["context"]["field"] == "b"
    assert (await call("GET", "compare", params={"a": "one", "b": "no"})).status == 404
    assert (await call("GET", "tree", params={"window": "no"})).status == 404


async def test_statistics_and_their_history(call: Any, service: Any) -> None:
    figures = (await call("GET", "statistics")).document
    assert figures["running"] is True
    first = (await call("GET", "history")).document
    assert first["every_s"] > 0
    assert service.history.sampling


async def test_metrics_have_no_label_and_no_salt(call: Any, kept: Any) -> None:
    await kept.frozen("one")
    answer = await call("GET", "metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    families = list(text_string_to_metric_families(answer.body.decode()))
    values = {sample.name: sample.value for family in families for sample in family.samples}
    assert values["cwm_windows"] == values["cwm_sessions"] == values["cwm_stack_running"] == 1
    assert not any(sample.labels for family in families for sample in family.samples)


_FIGURES: list[tuple[str, dict[str, str]]] = [
    ("bytes_by_window", {}),
    ("cache_by_tier", {}),
    ("context_used", {"session": "one"}),
    ("family_tree", {}),
    ("family_tree", {"window": "one"}),
    ("hit_rate", {}),
    ("tokens_by_source", {}),
    ("thaw_waterfall", {"window": "one"}),
    ("thaw_against_recompute", {}),
    ("tokens_from_cache", {"window": "one"}),
    ("tokens_from_cache", {"session": "one"}),
]
_NO_FIGURES: list[tuple[str, dict[str, str], int]] = [
    ("context_used", {}, 400),
    ("context_used", {"session": "no"}, 404),
    ("tokens_from_cache", {}, 400),
    ("tokens_from_cache", {"window": "a", "session": "b"}, 400),
    ("family_tree", {"window": "no"}, 404),
    ("__class__", {}, 404),
    ("thaw_waterfall", {}, 400),
    ("thaw_waterfall", {"window": "no"}, 404),
]


async def test_figures_are_plotly_json(call: Any, kept: Any) -> None:
    await kept.frozen("one")
    await kept.thawed("one", "again")
    for name, params in _FIGURES:
        answer = await call("GET", f"figures/{name}", params=params)
        assert answer.status == 200, name
        assert {"data", "layout"} <= answer.document.keys(), name


async def test_a_figure_is_drawn_once_until_something_changes(
    call: Any, kept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.frozen("one")
    drawn = []
    real = figures._draw

    async def draw(asked: Any, name: str) -> str:
        drawn.append(name)
        return await real(asked, name)

    monkeypatch.setattr(figures, "_draw", draw)
    first = [await call("GET", "figures/family_tree") for _ in range(3)]
    assert len({answer.body for answer in first}) == 1
    assert drawn == ["family_tree"]
    await call("POST", "windows/one/clone", {"name": "two"})
    assert b"two" in (await call("GET", "figures/family_tree")).body
    assert drawn == ["family_tree"] * 2
    for _ in range(2):  # what failed is tried again
        assert (await call("GET", "figures/context_used")).status == 400
    assert drawn == ["family_tree"] * 2 + ["context_used"] * 2


async def test_the_overview_counts_all(call: Any, kept: Any) -> None:
    empty = (await call("GET", "overview")).document
    assert (empty["windows"], empty["saved_s"]) == (0, None)
    await kept.frozen("one")
    await kept.frozen("gone")
    await call("DELETE", "windows/gone")
    await kept.thawed("one", "again")
    answer = await call("GET", "overview")
    told = answer.document
    counted = [told[name] for name in ("windows", "damaged", "deleted", "thaws", "sessions")]
    assert counted == [1, 0, 1, 1, 3]
    assert told["tokens"] > 0
    known = {"If-None-Match": answer.headers["ETag"]}
    assert (await call("GET", "overview", headers=known)).status == 304


async def test_figures_that_cannot_be_drawn(call: Any) -> None:
    for name, params, status in _NO_FIGURES:
        answer = await call("GET", f"figures/{name}", params=params)
        assert answer.status == status, (name, params)


async def test_version_says_what_is_looked_at(call: Any, service: Any) -> None:
    told = (await call("GET", "version")).document
    workspace = await service.workspace()
    home = workspace.settings.home
    assert told["api_version"] == 1
    assert told["package_version"] == __version__
    assert (told["home"], told["index"]) == (str(home), str(workspace.library.index.path))
    assert told["stack"] is None
    running = StackState(
        kind="local",
        phase="ready",
        engine_url="http://127.0.0.1:1",
        lmcache_url=None,
        api_key="very secret",
        started_at=now(),
    )
    state.save(home, running)
    answer = await call("GET", "version")
    assert answer.document["stack"]["engine_url"] == "http://127.0.0.1:1"
    for path in ("version", "stack", "health", "settings"):
        assert b"very secret" not in (await call("GET", path)).body


async def test_health_by_part(call: Any, service: Any) -> None:
    told = (await call("GET", "health")).document
    ready = {part["name"]: part["ready"] for part in told["parts"]}
    assert (told["live"], told["ready"]) == (True, False)
    assert ready == {"index": True, "lmcache": False, "vllm": False}
    (await service.workspace()).library.index.path.write_text("{")
    broken = (await call("GET", "health")).document
    assert broken["live"]
    assert [part["ready"] for part in broken["parts"]] == [False]


async def test_settings_and_audit(call: Any, kept: Any) -> None:
    settings = (await call("GET", "settings")).document["settings"]
    assert {"limits.max_tokens", "vllm.api_key"} <= {one["name"] for one in settings}
    await kept.frozen("one")
    tail = (await call("GET", "audit", params={"last": 1})).document
    assert [record["line"]["action"] for record in tail["records"]] == ["freeze"]
    assert tail["intact"]
    none = (await call("GET", "audit", params={"name": "other", "since": "1h"})).document
    assert none["records"] == []
    for wrong in ({"last": "0"}, {"last": "501"}, {"since": "soon"}):
        assert (await call("GET", "audit", params=wrong)).status == 400


async def test_a_broken_home_fails_the_requests_and_not_the_server(
    call: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CWM_LIMITS_MAX_TOKENS", "many")
    answer = await call("GET", "windows")
    assert (answer.status, answer.document["category"]) == (400, "config")
    told = (await call("GET", "health")).document
    assert (told["live"], told["ready"]) == (True, False)
    assert (await call("GET", "openapi.json")).status == 200

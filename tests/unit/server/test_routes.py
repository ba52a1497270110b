"""Every route of the table: who may ask it, and what its description says."""

from __future__ import annotations

import json
import re
from http.cookies import SimpleCookie
from typing import Any

import pytest
from tornado.web import Application

from cwm_jupyter.server.handler import MAX_BODY_BYTES, ROOT, handlers
from cwm_jupyter.server.openapi import describe
from cwm_jupyter.server.operation import Operation
from cwm_jupyter.server.table import TABLE

_WRITES = [row for row in TABLE if row.method != "GET"]


def _path(row: Operation) -> str:
    return re.sub(r"\{\w+\}", "x", row.path)


async def test_nobody_gets_in_unasked(call: Any, authorizer: Any) -> None:
    for row in TABLE:
        answer = await call(row.method, _path(row), headers={"Authorization": "token wrong"})
        assert answer.status == 403, row
        assert answer.document["code"] == "http.forbidden", row
    assert authorizer.asked == []


async def test_every_route_asks_for_its_own_resource(call: Any, authorizer: Any) -> None:
    authorizer.allows = False
    for row in TABLE:
        answer = await call(row.method, _path(row))
        assert answer.status == 403, row
        action = "read" if row.method == "GET" else "write"
        assert authorizer.asked.pop() == (action, row.resource), row
    assert all(row.resource.startswith("cwm-") for row in TABLE)


async def test_a_cookie_alone_changes_nothing(call: Any, jp_serverapp: Any) -> None:
    token = jp_serverapp.identity_provider.token
    nobody = {"Authorization": ""}
    entered = await call("GET", "version", headers=nobody, params={"token": token})
    assert entered.status == 200
    cookies = SimpleCookie()
    for line in entered.headers.get_list("Set-Cookie"):
        cookies.load(line)
    cookie = "; ".join(f"{name}={morsel.coded_value}" for name, morsel in cookies.items())
    browser = {**nobody, "Cookie": cookie}
    assert (await call("GET", "version", headers=browser)).status == 200
    elsewhere = {**browser, "Origin": "https://elsewhere.example"}
    assert (await call("GET", "version", headers=elsewhere)).status == 404
    for row in _WRITES:
        answer = await call(row.method, _path(row), headers=browser)
        assert answer.status == 403, row
    token = "ab" * 16
    browser["Cookie"] += f"; _xsrf={token}"
    assert (await call("DELETE", "windows/x", headers=browser)).status == 403
    allowed = await call("DELETE", "windows/x", headers={**browser, "X-XSRFToken": token})
    assert allowed.status == 404


def test_every_path_has_a_handler_with_its_methods_alone() -> None:
    made = {pattern: kind for pattern, kind, _ in handlers(TABLE, object())}  # type: ignore[arg-type]
    for row in TABLE:
        method = getattr(made[ROOT + row.pattern], row.method.lower())
        assert method.__wrapped__, row  # decorated: authenticated, then authorized
        assert method.__wrapped__.__wrapped__.__doc__ == row.call.__doc__
    assert len(made) == len({row.path for row in TABLE})
    Application([(pattern, kind, {"service": None}) for pattern, kind in made.items()])


async def test_other_methods_are_refused(call: Any) -> None:
    for path in {row.path for row in TABLE}:
        there = {row.method for row in TABLE if row.path == path}
        for method in {"POST", "PATCH", "DELETE"} - there:
            answer = await call(method, re.sub(r"\{\w+\}", "x", path))
            assert answer.status == 405, (method, path)


async def test_the_description_is_that_of_the_table(call: Any) -> None:
    described = (await call("GET", "openapi.json")).document
    assert described == json.loads(json.dumps(describe(TABLE)))
    assert described["openapi"].startswith("3.1.")
    there = {
        (method.upper(), path.removeprefix("/"))
        for path, methods in described["paths"].items()
        for method in methods
    }
    assert there == {(row.method, row.path) for row in TABLE}
    ids = [one["operationId"] for path in described["paths"].values() for one in path.values()]
    assert len(ids) == len(set(ids)) == len(TABLE)


def test_each_description_is_whole() -> None:
    described = describe(TABLE)
    for row in TABLE:
        one = described["paths"][f"/{row.path}"][row.method.lower()]
        assert one["summary"], row
        assert str(row.status) in one["responses"], row
        assert [p["name"] for p in one["parameters"] if p["in"] == "path"] == row.parameters
        assert ("requestBody" in one) == (row.body is not None), row
    for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described)):
        assert reference in described["components"]["schemas"]


async def test_a_long_body_is_refused(call: Any) -> None:
    for body in (b"x" * (MAX_BODY_BYTES + 1), b"x" * (5 * MAX_BODY_BYTES)):
        answer = await call("POST", "windows", body=body)
        assert answer.status == 413
        assert answer.document["context"]["field"] == "body"


async def test_a_long_body_in_chunks_is_refused(call: Any) -> None:
    async def produce(write: Any) -> None:
        for _ in range(5):
            await write(b"x" * (MAX_BODY_BYTES // 4))

    answer = await call(
        "POST",
        "windows",
        body=None,
        body_producer=produce,
        headers={"Content-Type": "application/json"},
    )
    assert answer.status == 413


async def test_what_is_no_document_is_refused(call: Any) -> None:
    for body in (
        b"",
        b"{",
        b"\xff\xfe",
        b'{"name": "\\ud800", "session": "s"}',
        b"[" * 100_000,
        b'{"name": NaN}',
        b'{"name": "a\\u0000b", "session": "s"}',
    ):
        answer = await call("POST", "windows", body=body)
        assert (answer.status, answer.document["code"]) == (400, "input.invalid"), body
        assert answer.document["context"]["field"], body


async def test_what_jupyter_adds_to_a_query_is_left_to_it(call: Any) -> None:
    added = {"1764100000000": "", "no_track_activity": "1", "_xsrf": "x"}
    assert (await call("GET", "windows", params=added)).status == 200


async def test_a_form_is_refused(call: Any) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await call("POST", "windows", body=b"name=w&session=s", headers=form)
    assert answer.status == 415


async def test_hostile_names_find_nothing(http_server_client: Any, jp_auth_header: Any) -> None:
    names = ["..%2F..%2Findex.json", "%00", "%FF%FE", "%E2%80%AE", "a" * 5000, "%3Cscript%3E"]
    for path in ("windows", "sessions", "jobs", "figures"):
        for name in names:
            answer = await http_server_client.fetch(
                f"/a%40b/cwm/api/v1/{path}/{name}", headers=jp_auth_header, raise_error=False
            )
            assert answer.code in (400, 404), answer.body
            assert b"Traceback" not in answer.body
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_what_goes_wrong_inside_is_not_told(
    call: Any, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("the salt is 1234")

    monkeypatch.setattr(service.jobs, "all", broken)
    answer = await call("GET", "jobs")
    assert answer.status == 500
    assert b"1234" not in answer.body
    assert answer.document["code"] == "http.internal_server_error"


async def test_looking_is_no_activity(call: Any, jp_serverapp: Any, kept: Any) -> None:
    settings = jp_serverapp.web_app.settings
    before = settings.get("api_last_activity")
    await call("GET", "windows")
    assert settings.get("api_last_activity") == before
    await kept.talk("paper")
    await call("DELETE", "sessions/paper")
    assert settings.get("api_last_activity") != before


class TestUnguarded:
    """On a server that by itself would let anybody in, as is its default."""

    @pytest.fixture
    def jp_server_config(self, jp_server_config: dict[str, Any]) -> dict[str, Any]:
        jp_server_config["ServerApp"]["allow_unauthenticated_access"] = True
        return jp_server_config

    async def test_nobody_gets_in_unasked(self, call: Any, authorizer: Any) -> None:
        for row in TABLE:
            answer = await call(row.method, _path(row), headers={"Authorization": ""})
            assert answer.status == 403, row
        assert authorizer.asked == []


class TestElsewhere:
    """Behind the base URL that a hub gives."""

    @pytest.fixture
    def jp_base_url(self) -> str:
        return "/user/ada/lab-1/"

    async def test_it_is_below_the_base_url(self, call: Any, kept: Any) -> None:
        await kept.frozen("one")
        assert (await call("GET", "windows")).document["total"] == 1
        begun = await call("POST", "windows/one/verify")
        assert begun.headers["Location"].startswith("/user/ada/lab-1/cwm/api/v1/jobs/")
        assert (await kept.ended(begun.document))["state"] == "done"


async def test_no_secret_is_in_any_answer(
    call: Any, kept: Any, service: Any, jp_serverapp: Any
) -> None:
    await kept.frozen("one")
    workspace = await service.workspace()
    (window,) = workspace.library.index.all_windows()
    manifest = workspace.library.manifest(window)
    salt = workspace.library.lineages.salt(window.lineage_id, manifest.fingerprint)
    secrets = [salt, jp_serverapp.identity_provider.token]
    for key in (workspace.settings.home / "keys").glob("*"):
        content = key.read_bytes()
        secrets += re.findall(r"[0-9A-Za-z+/=_-]{32,}", content.decode("latin1"))
    assert len(secrets) > 2
    paths = [
        "windows/one",
        "sessions/one",
        "compare?a=one&b=one",
        "figures/context_used?session=one",
    ]
    paths += [_path(row) for row in TABLE if row.method == "GET" and row.path != "events"]
    for path in paths:
        where, _, query = path.partition("?")
        params = dict(pair.split("=") for pair in query.split("&")) if query else None
        answer = await call("GET", where, params=params)
        for secret in secrets:
            assert secret.encode() not in answer.body, path

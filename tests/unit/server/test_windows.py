"""Windows over HTTP."""

from __future__ import annotations

from typing import Any

import pytest


async def test_a_session_is_frozen_by_a_job(call: Any, kept: Any) -> None:
    await kept.talk("paper")
    begun = await call("POST", "windows", {"name": "read", "session": "paper", "tags": ["a"]})
    assert begun.status == 202
    assert begun.headers["Location"] == f"/a%40b/cwm/api/v1/jobs/{begun.document['id']}"
    job = await kept.ended(begun.document)
    assert job["state"] == "done", job
    assert job["result"]["window"]["name"] == "read"
    found = await call("GET", "windows/read")
    assert found.status == 200
    assert found.document["window"]["tags"] == ["a"]
    assert found.document["chunks_present"] == found.document["window"]["chunks"]


async def test_listing_filters_and_pages(call: Any, kept: Any) -> None:
    for name in ("one", "two", "three"):
        await kept.frozen(name)
    await call("PATCH", "windows/two", {"add_tags": ["mine"]})
    listed = await call("GET", "windows", params={"sort": "name", "limit": 2})
    assert [w["name"] for w in listed.document["items"]] == ["one", "three"]
    assert listed.document["total"] == 3
    tagged = await call("GET", "windows", params={"tags": "mine"})
    assert [w["name"] for w in tagged.document["items"]] == ["two"]
    old = await call("GET", "windows", params={"older_than": "7d"})
    assert old.document["total"] == 0
    assert "ETag" not in old.headers


async def test_listing_is_not_made_anew_until_the_index_changes(call: Any, kept: Any) -> None:
    await kept.frozen("one")
    first = await call("GET", "windows")
    assert first.headers["ETag"] == f'"{first.document["generation"]}"'
    known = {"If-None-Match": first.headers["ETag"]}
    assert (await call("GET", "windows", headers=known)).status == 304
    await call("PATCH", "windows/one", {"note": "x"})
    assert (await call("GET", "windows", headers=known)).status == 200


async def test_a_window_is_changed_deleted_and_brought_back(call: Any, kept: Any) -> None:
    await kept.frozen("one")
    changed = await call(
        "PATCH", "windows/one", {"name": "uno", "note": "n", "ttl": "7d", "pinned": True}
    )
    assert changed.status == 200
    assert changed.document["name"] == "uno"
    assert changed.document["ttl_s"] == 7 * 86_400
    assert (await call("DELETE", "windows/uno")).document["state"] == "deleted"
    assert (await call("GET", "windows/uno")).status == 404
    assert (await call("POST", "windows/uno/undo")).document["state"] == "intact"
    assert (await call("POST", "windows/uno/undo")).status == 404


async def test_clone_verify_prefetch(call: Any, kept: Any) -> None:
    await kept.frozen("one")
    cloned = await call("POST", "windows/one/clone", {"name": "copy"})
    assert (cloned.status, cloned.document["name"]) == (201, "copy")
    again = await call("POST", "windows/one/clone", {"name": "copy"})
    assert (again.status, again.document["code"]) == (409, "window.exists")
    verified = await kept.ended((await call("POST", "windows/one/verify")).document)
    assert verified["state"] == "done", verified
    warmed = await kept.ended((await call("POST", "windows/one/prefetch")).document)
    assert warmed["state"] == "done", warmed
    assert warmed["result"]["chunks_found"] == warmed["result"]["chunks_expected"] > 0
    assert (await call("GET", "sessions")).document["total"] == 1


async def test_a_window_is_thawed_by_a_job(call: Any, kept: Any) -> None:
    await kept.frozen("one")
    begun = await call("POST", "windows/one/thaw", {"as_session": "again"})
    assert begun.status == 202
    job = await kept.ended(begun.document)
    assert job["state"] == "done", job
    assert (job["result"]["session"], job["result"]["complete"]) == ("again", True)
    assert (await call("GET", "sessions/again")).status == 200
    [note] = (await call("GET", "windows/one")).document["window"]["last_thaws"]
    assert note["stages_s"].keys() == {"check", "load", "take into the engine"}
    taken = await kept.ended(
        (await call("POST", "windows/one/thaw", {"as_session": "one"})).document
    )
    assert taken["error"]["code"] == "session.exists"
    assert (await call("POST", "windows/no/thaw", {})).status == 404
    wrong = await call("POST", "windows/one/thaw", {"as_session": "a/b"})
    assert (wrong.status, wrong.document["context"]["field"]) == (400, "as_session")


async def test_another_engine_is_accepted_by_name(call: Any, kept: Any, fake_stack: Any) -> None:
    await kept.frozen("one")
    fake_stack.told |= {"threads": 8, "rope": None}

    async def thawed(body: dict[str, Any]) -> Any:
        return await kept.ended((await call("POST", "windows/one/thaw", body)).document)

    unknown = await thawed({"accept_engine": True})
    assert (unknown["state"], unknown["error"]["code"]) == ("failed", "window.engine_mismatch")
    numeric = await thawed({"accept_unknown": ["rope"]})
    assert [one["field"] for one in numeric["error"]["context"]["differences"]] == ["threads"]
    accepted = await thawed({"accept_engine": True, "accept_unknown": ["rope"]})
    assert accepted["state"] == "done", accepted
    for wrong in ({"accept_engine": "yes"}, {"accept_unknown": "rope"}):
        answer = await call("POST", "windows/one/thaw", wrong)
        assert (answer.status, answer.document["context"]["field"]) == (400, *wrong), wrong


async def test_where_chunks_are_is_told_and_they_are_repaired(
    call: Any, kept: Any, service: Any
) -> None:
    await kept.frozen("one")
    strip = (await call("GET", "windows/one/chunks")).document
    window = (await call("GET", "windows/one")).document["window"]
    assert strip["places"] == ["disk"] * window["chunks"]
    assert window["tokens"] == window["chunks"] * strip["chunk_tokens"] + strip["tail_tokens"]
    parts = (await service.workspace()).manager.parts
    manifest = parts.library.manifest(parts.library.index.require_window("one"))
    parts.store.vault.folder.content(manifest.refs[-1].digest).unlink()
    places = (await call("GET", "windows/one/chunks")).document["places"]
    assert places[-1] == "missing"
    job = await kept.ended((await call("POST", "windows/one/repair")).document)
    assert job["state"] == "done", job
    places = (await call("GET", "windows/one/chunks")).document["places"]
    assert set(places) <= {"disk", "recomputed"}
    assert (await call("GET", "windows/no/chunks")).status == 404
    assert (await call("POST", "windows/no/repair")).status == 404


async def test_what_is_plainly_wrong_begins_no_job(call: Any, kept: Any) -> None:
    await kept.frozen("one")
    taken = await call("POST", "windows", {"name": "one", "session": "one"})
    assert (taken.status, taken.document["context"]["field"]) == (409, "name")
    unknown = await call("POST", "windows", {"name": "new", "session": "nobody"})
    assert (unknown.status, unknown.document["code"]) == (404, "session.not_found")
    for path in ("windows/no/verify", "windows/no/prefetch"):
        assert (await call("POST", path)).status == 404
    assert (await call("GET", "jobs")).document == {"items": []}


_BAD_BODIES: list[tuple[Any, str]] = [
    ({}, "name"),
    ({"name": "w"}, "session"),
    ({"name": 1, "session": "s"}, "name"),
    ({"name": "", "session": "s"}, "name"),
    ({"name": "../../etc/passwd", "session": "s"}, "name"),
    ({"name": "w\u202e", "session": "s"}, "name"),
    ({"name": "w" * 301, "session": "s"}, "name"),
    ({"name": "w", "session": "s", "tags": ["a b"]}, "tags"),
    ({"name": "w", "session": "s", "tags": [1]}, "tags[0]"),
    ({"name": "w", "session": "s", "ttl": "soon"}, "ttl"),
    ({"name": "w", "session": "s", "note": "x" * 10_001}, "note"),
    ({"name": "w", "session": "s", "salt": "x"}, "salt"),
    ([], "body"),
    (None, "body"),
]
_BAD_QUERIES = [
    ({"limit": "many"}, "limit"),
    ({"limit": "-1"}, "limit"),
    ({"limit": "1001"}, "limit"),
    ({"offset": "9" * 400}, "offset"),
    ({"older_than": "soon"}, "older_than"),
    ({"min_size": "huge"}, "min_size"),
    ({"versions": "perhaps"}, "versions"),
    ({"colour": "red"}, "colour"),
]


async def test_a_bad_body_is_refused_by_its_field(call: Any) -> None:
    for document, field in _BAD_BODIES:
        answer = await call("POST", "windows", document)
        assert (answer.status, answer.document["code"]) == (400, "input.invalid"), document
        assert answer.document["context"]["field"] == field, document


async def test_a_bad_query_is_refused_by_its_field(call: Any) -> None:
    for query, field in _BAD_QUERIES:
        answer = await call("GET", "windows", params=query)
        assert answer.status == 400, query
        assert answer.document["context"]["field"] == field, query


@pytest.mark.parametrize("query", [{"sort": "colour"}, {"state": "melted"}])
async def test_unknown_sorts_and_states_are_named(call: Any, query: dict[str, str]) -> None:
    answer = await call("GET", "windows", params=query)
    assert answer.status == 400
    assert next(iter(query.values())) in answer.document["message"]


async def test_nothing_to_change_is_refused(call: Any, kept: Any) -> None:
    await kept.frozen("one")
    assert (await call("PATCH", "windows/one", {})).status == 400

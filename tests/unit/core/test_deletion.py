"""Deletion for good: what goes with a session, what stays, and the proof that nothing is left."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from bench import QUESTION, Bench
from damage import keys_of
from fake_stack import FakeStack

from cwm_jupyter.core.chunks import ChunkKey
from cwm_jupyter.core.models import Session
from cwm_jupyter.core.receipts import Receipts
from cwm_jupyter.errors import (
    IndexCorruptError,
    KVStoreError,
    SessionBusyError,
    SessionNotFoundError,
    StackDownError,
    WindowNotFoundError,
)
from cwm_jupyter.vault.fs import FsStore
from cwm_jupyter.vault.store import VaultStore

OTHER = "Something else altogether, and not a short text either: not one chunk is the same."


async def down() -> None:
    raise StackDownError("No stack is running.")


async def stored(bench: Bench, session: Session) -> list[ChunkKey]:
    """Return the keys that the vault has of a session's lineage."""
    salts = bench.library.lineages.salts(session.lineage_id)
    return await VaultStore(bench.stack.vault).salted(salts)


def records(bench: Bench) -> set[str]:
    return {path.stem for path in bench.stack.vault.folder.records.iterdir()}


def age(*folders: Path) -> None:
    """Make all files there two days old."""
    old = time.time() - 2 * 86400
    for folder in folders:
        for path in folder.rglob("*"):
            os.utime(path, (old, old))


def files(bench: Bench, text: str) -> Iterator[str]:
    """Find the files of the home that speak of something, receipts and audit log aside."""
    for path in bench.home.rglob("*"):
        name = path.relative_to(bench.home).as_posix()
        if not path.is_file() or name.startswith(("purged/", "audit")):
            continue
        if text in name or text.encode() in path.read_bytes():
            yield name


# --- sessions -------------------------------------------------------------------------------------


@pytest.mark.covers("SR-008")
async def test_removing_a_session_hides_it_and_keeps_its_windows(bench: Bench) -> None:
    window = await bench.frozen("chat")
    await bench.manager.remove_session("chat")
    assert await bench.manager.find_session("chat") is None
    assert bench.window("chat") == window
    bench.stack.restart()
    assert (await bench.manager.thaw("chat")).complete
    assert (await bench.manager.purge()).sessions == ["chat"]
    assert (await bench.manager.verify("chat")).intact


@pytest.mark.covers("SR-009")
async def test_a_session_goes_with_all_that_only_it_used(bench: Bench) -> None:
    window = await bench.frozen("chat")
    session = await bench.talk("chat", "And then?", "And what came after that?")
    beyond = set(await stored(bench, session)) - set(keys_of(bench, window))
    assert beyond
    report = await bench.manager.deletion.delete_session("chat")
    assert (report.sessions, report.windows, report.secrets) == (["chat"], [], 0)
    assert report.chunks == len(beyond)
    assert (report.memory_cleared, report.engine_cleared) == (True, True)
    assert set(await stored(bench, session)) == set(keys_of(bench, window))
    assert not beyond & (bench.stack.memory.keys() | bench.stack.engine_cache.keys())
    assert set(files(bench, session.id)) == {"index.json", "index.prev.json"}  # of its window
    assert bench.library.index.get_session(session.id) is None
    bench.stack.restart()
    assert (await bench.manager.thaw("chat")).complete

    await bench.manager.deletion.delete_session("chat")
    report = await bench.manager.deletion.delete_window("chat")
    assert (report.windows, report.secrets) == (["chat"], 1)
    assert records(bench) == set()
    assert list(files(bench, session.lineage_id)) == []


async def test_a_session_that_shares_a_lineage_loses_nothing(bench: Bench) -> None:
    await bench.frozen("chat")
    thawed = (await bench.manager.thaw("chat", as_session="branch")).session
    branch = await bench.talk(thawed, "And then?")
    await bench.talk("chat", "Something else, for long enough that there is another chunk.")
    before = set(await stored(bench, branch))
    await bench.manager.deletion.delete_session("chat")
    left = set(await stored(bench, branch))
    assert left < before
    bench.stack.restart()
    again = await bench.manager.say("branch", "Go on.")
    whole = branch.tokens // bench.stack.chunk_tokens * bench.stack.chunk_tokens
    assert (again.cached_tokens or 0) >= whole - bench.stack.chunk_tokens


async def test_what_a_session_left_on_another_engine_goes_too(bench: Bench) -> None:
    session = await bench.talk("chat")
    assert bench.stack.told is not None
    first = set(await stored(bench, session))
    bench.stack.restart()
    bench.stack.told = {**bench.stack.told, "dtype": "float32"}
    await bench.talk("chat", "And then?")
    everything = set(await stored(bench, session))
    assert first < everything
    assert len({key.cache_salt for key in everything}) == 2
    await bench.manager.remove_session("chat")
    bench.manager.parts.connect = down  # type: ignore[assignment]
    report = await bench.manager.purge()
    assert (report.chunks, report.secrets) == (len(everything), 1)
    assert (report.memory_cleared, report.engine_cleared) == (None, None)
    assert records(bench) == set()


async def test_a_session_in_use_is_not_deleted(bench: Bench) -> None:
    session = await bench.talk("chat")
    with bench.library.using(session):
        with pytest.raises(SessionBusyError):
            await bench.manager.deletion.delete_session("chat")
        bench.library.index.update_session(session.id, lambda s: s.to("deleted"))
        with pytest.raises(SessionBusyError):  # removed by somebody else, in the middle of a turn
            await bench.manager.purge()
    assert (await bench.manager.keeping.restore_session("chat")) == session.replace(
        updated_at=bench.library.index.require_session("chat").updated_at
    )
    assert list(Receipts(bench.home).all()) == []


async def test_deleting_takes_what_was_removed_before_too(bench: Bench) -> None:
    await bench.frozen("chat")
    await bench.manager.remove_session("chat")
    await bench.manager.remove_window("chat")
    assert (await bench.manager.deletion.delete_session("CHAT")).sessions == ["chat"]
    assert (await bench.manager.deletion.delete_window("CHAT")).windows == ["chat"]
    with pytest.raises(SessionNotFoundError):
        await bench.manager.deletion.delete_session("chat")
    with pytest.raises(WindowNotFoundError):
        await bench.manager.deletion.delete_window("chat")


async def test_nothing_is_removed_where_it_could_not_be_purged(bench: Bench) -> None:
    window = await bench.frozen("chat")
    bench.manager.parts.store = FsStore(bench.stack.vault.folder.path)
    with pytest.raises(KVStoreError, match="not in a vault of ours"):
        await bench.manager.deletion.delete_window("chat")
    with pytest.raises(KVStoreError, match="not in a vault of ours"):
        await bench.manager.deletion.delete_session("chat")
    assert bench.window("chat") == window
    assert (await bench.manager.session("chat")).state == "frozen"


# --- what the servers have ------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["DELETE /cache/objects", "POST /cwm/forget"])
async def test_a_server_that_does_not_answer_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr("cwm_jupyter.core.purge._PATIENCE_S", 0.1)
    await bench.frozen("chat")
    bench.stack.before = lambda made: (
        httpx2.Response(500, json={"error": "no"}) if made == call else None
    )
    report = await bench.manager.deletion.delete_window("chat")
    told = (report.memory_cleared, report.engine_cleared)
    assert told == ((False, True) if "cache" in call else (True, False))
    [receipt] = Receipts(bench.home).all()
    assert (receipt.memory_cleared, receipt.engine_cleared) == told


async def test_what_cannot_be_told_is_not_said_to_be_cleared(bench: Bench) -> None:
    """An engine that does not say what it is leaves open what a session has in memory."""
    await bench.talk("chat")
    bench.stack.before = lambda made: (
        httpx2.Response(500, json={"error": "no"}) if made == "GET /cwm/facts" else None
    )
    report = await bench.manager.deletion.delete_session("chat")
    assert (report.memory_cleared, report.engine_cleared) == (False, True)


async def test_an_engine_in_use_is_asked_again_until_it_is_idle(bench: Bench) -> None:
    await bench.frozen("chat")
    refusals = iter([True, True])

    def busy(call: str) -> httpx2.Response | None:
        if call == "POST /cwm/forget" and next(refusals, False):
            return httpx2.Response(409, json={"error": "in use"})
        return None

    bench.stack.before = busy
    assert (await bench.manager.deletion.delete_window("chat")).engine_cleared
    assert bench.stack.engine_cache == {}


async def test_lmcache_that_still_has_a_chunk_is_not_believed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.frozen("chat")
    delete = FakeStack._delete

    def keeps_one(stack: FakeStack, body: dict[str, Any]) -> dict[str, Any]:
        one = dict(list(stack.memory.items())[:1])
        answer = delete(stack, body)
        stack.memory |= one
        return answer

    monkeypatch.setattr(FakeStack, "_delete", keeps_one)
    assert (await bench.manager.deletion.delete_window("chat")).memory_cleared is False


async def test_chunks_on_their_way_are_waited_for(bench: Bench) -> None:
    await bench.talk("chat")
    waiting = iter([2, 1])
    status = bench.stack._status

    def on_their_way(body: dict[str, Any]) -> dict[str, Any]:
        told = status(body)
        told["storage_manager"]["store_controller"] = {"pending_keys_count": next(waiting, 0)}
        return told

    bench.stack._status = on_their_way  # type: ignore[method-assign]
    await bench.manager.deletion.delete_session("chat")
    assert next(waiting, None) is None


# --- the proof ------------------------------------------------------------------------------------


async def test_nothing_is_left_and_that_is_shown(bench: Bench) -> None:
    window = await bench.frozen("paper")
    session = await bench.manager.session("paper")
    await bench.frozen("other", OTHER)
    labels = {bench.stack.vault.name(key) for key in keys_of(bench, window)}
    await bench.manager.deletion.delete_session("paper")
    await bench.manager.deletion.delete_window("paper")
    report = await bench.manager.deletion.verify()
    assert report.gone
    assert [(c.windows, c.sessions) for c in report.checks] == [([], ["paper"]), (["paper"], [])]
    [check] = [c for c in report.checks if c.windows]
    assert check.chunks_deleted == len(labels)
    assert (check.files, check.holds, check.chunks, check.chunks_again) == ([], 0, 0, 0)
    assert check.listed is None  # this stack cannot list
    assert check.purged_at is not None
    by_id = await bench.manager.deletion.verify(window.id)
    assert [c.windows for c in by_id.checks] == [["paper"]]
    assert len((await bench.manager.deletion.verify("PAPER")).checks) == 2
    with pytest.raises(WindowNotFoundError) as refused:
        await bench.manager.deletion.verify("papr")
    assert "paper" in str(refused.value)
    told = "".join(p.read_text() for p in (bench.home / "purged").iterdir())
    others = keys_of(bench, bench.window("other"))
    hashes = (key.chunk_hash.hex() for key in others)
    for secret in ("France", *(key.cache_salt for key in others), *hashes):
        assert secret not in told
    assert session.lineage_id in told


async def test_whatever_is_left_is_found(bench: Bench) -> None:
    """Each trace of a deleted window is put back, alone, and found."""
    window = await bench.frozen("paper")
    session = await bench.manager.session("paper")
    await bench.frozen("other", OTHER)
    folder = bench.stack.vault.folder
    manifest = next((bench.home / "windows").glob(f"{window.id}.*"))
    transcript = bench.home / "sessions" / f"{session.id}.json"
    index = bench.library.index.path
    label = bench.stack.vault.name(keys_of(bench, window)[0])
    content = json.loads(folder.record(label).read_text())["body"]["content"]
    traces = [
        manifest,
        transcript,
        folder.hold(window.id),
        folder.record(label),
        folder.content(content),
    ]
    kept = {path: path.read_bytes() for path in traces}
    kept[bench.home / "index.corrupt-1.json"] = index.read_bytes()
    await bench.manager.deletion.delete_session("paper")
    await bench.manager.deletion.delete_window("paper")
    assert (await bench.manager.deletion.verify()).gone
    for path, data in kept.items():
        path.write_bytes(data)
        report = await bench.manager.deletion.verify()
        assert not report.gone, path
        found = [c for c in report.checks if not c.gone]
        if path == folder.content(content):
            assert (report.unmeant, found) == (1, [])
        elif path.is_relative_to(bench.home):
            assert {f.rpartition("/")[2] for c in found for f in c.files} == {path.name}
        else:
            assert sum(c.holds + c.chunks for c in found) >= 1
        path.unlink()
    assert (await bench.manager.deletion.verify()).gone


async def test_what_a_lineage_stores_again_is_no_remains(bench: Bench) -> None:
    """The session goes on, so the engine stores its chunks again: that is told apart."""
    window = await bench.frozen("paper")
    await bench.manager.deletion.delete_window("paper")
    await bench.manager.say("paper", "And then?")
    report = await bench.manager.deletion.verify()
    assert report.gone
    [check] = report.checks
    assert (check.chunks, check.chunks_again) == (0, window.chunks)


async def test_equal_content_of_somebody_else_is_no_remains(bench: Bench) -> None:
    await bench.frozen("one")
    await bench.frozen("other")
    await bench.manager.remove_session("one")
    await bench.manager.remove_window("one")
    await bench.manager.purge()
    assert (await bench.manager.deletion.verify()).gone


async def test_what_lmcache_lists_is_asked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    window = await bench.frozen("paper")
    keys = keys_of(bench, window)
    await bench.manager.deletion.delete_session("paper")
    await bench.manager.deletion.delete_window("paper")
    pages = [keys[:1], keys[1:2]]

    def listing(call: str) -> httpx2.Response | None:
        if call != "GET /cache/objects":
            return None
        page = pages.pop(0)
        entries = [
            {
                "key": {
                    "chunk_hash_hex": key.chunk_hash.hex(),
                    "model_name": key.model_name,
                    "kv_rank": key.kv_rank,
                    "cache_salt": key.cache_salt,
                }
            }
            for key in page
        ]
        token = "more" if pages else None
        return httpx2.Response(200, json={"entries": entries, "next_page_token": token})

    bench.stack.before = listing
    report = await bench.manager.deletion.verify("paper")
    assert [check.listed for check in report.checks] == [0, 2]
    assert not report.gone
    bench.manager.parts.connect = down  # type: ignore[assignment]
    assert [c.listed for c in (await bench.manager.deletion.verify()).checks] == [None, None]


async def test_a_purge_that_died_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.frozen("paper")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cwm_jupyter.core.purge.Purge._forget", die)
        with pytest.raises(KeyboardInterrupt):
            await bench.manager.deletion.delete_window("paper")
    report = await bench.manager.deletion.verify()
    [check] = report.checks
    assert (check.purged_at, check.gone, report.gone) == (None, False, False)
    assert len(check.files) == 1
    assert (await bench.manager.collect_garbage()).leftovers == 1
    report = await bench.manager.deletion.verify()
    assert report.gone
    assert report.checks[0].purged_at is not None


async def test_a_secret_that_was_left_is_found(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.talk("chat")
    with monkeypatch.context() as patch:
        patch.setattr("cwm_jupyter.core.lineage.Lineages.remove", lambda *_: None)
        await bench.manager.deletion.delete_session("chat")
    [check] = (await bench.manager.deletion.verify()).checks
    assert [file.partition("/")[0] for file in check.files] == ["keys"]


# --- a lost index ---------------------------------------------------------------------------------


@pytest.mark.parametrize("begun_anew", [False, True])
async def test_nothing_is_cleared_up_by_an_index_that_was_lost(
    bench: Bench, begun_anew: bool
) -> None:
    await bench.frozen("one")
    await bench.frozen("two", OTHER)
    index = bench.library.index.path
    kept = index.read_bytes()
    for path in bench.home.glob("index*.json"):
        path.unlink()
    if begun_anew:
        await bench.talk("three", QUESTION)
    age(bench.home, bench.stack.vault.folder.path)
    before = sorted(bench.home.rglob("*")), sorted(bench.stack.vault.folder.path.rglob("*"))
    for dry_run in (True, False):
        with pytest.raises(IndexCorruptError, match="seems to be lost") as refused:
            await bench.manager.collect_garbage(dry_run=dry_run)
        assert "Restore index.json" in str(refused.value)
    after = sorted(bench.home.rglob("*")), sorted(bench.stack.vault.folder.path.rglob("*"))
    assert [p for p in after[0] if "audit" not in p.name] == [
        p for p in before[0] if "audit" not in p.name
    ]
    assert after[1] == before[1]
    index.write_bytes(kept)
    assert (await bench.manager.verify()).intact
    bench.stack.restart()
    assert (await bench.manager.thaw("two")).complete


async def test_one_that_never_had_entries_is_no_lost_one(bench: Bench) -> None:
    assert (await bench.manager.collect_garbage()).leftovers == 0

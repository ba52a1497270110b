"""Deleting for good and freezing by itself, on the real stack."""

from __future__ import annotations

import io

import anyio
import anyio.lowlevel
import pytest
from stack_driver import Driver

from cwm_jupyter.config import Settings
from cwm_jupyter.core.models import FreezePolicy, Window
from cwm_jupyter.core.verify import window_keys
from cwm_jupyter.current import CurrentSession
from cwm_jupyter.errors import WindowNotFoundError
from cwm_jupyter.stack.state import StackState
from cwm_jupyter.terminal import Terminal
from cwm_jupyter.verbs import parse
from cwm_jupyter.workspace import Workspace

pytestmark = pytest.mark.stack


@pytest.mark.covers("E2E-004", "TD-003")
async def test_nothing_is_left_of_what_was_deleted(driver: Driver, name: str) -> None:
    """Not in a file, not in LMCache, not in the engine; what another window has is all there."""
    manager, library = driver.manager, driver.workspace.library
    stack = await driver.workspace.connect()
    vault = stack.store.vault
    other = f"{name}-other"
    await driver.talk(other, driver.text(1800, start=4000))
    await manager.freeze(other, other)
    await driver.talk(name, driver.text(1800, start=9000))
    window = (await manager.freeze(name, name, note="a secret note")).window
    await driver.talk(name, "And what does it not do?")  # more, of which no window knows
    held = await driver.held(name)
    keys = held.keys
    assert len(keys) >= window.chunks
    names = [vault.name(key) for key in keys]
    pieces = [(await stack.store.read(key))[1000:1064] for key in keys[: window.chunks]]
    contents = [ref.digest for ref in library.manifest(window).refs]
    there = everything(library.home, vault.folder.path)
    assert all(one in there for one in [window.id, *names, *contents])
    assert (await driver.go_on(name, tokens=1)).cached_tokens == len(keys) * stack.chunk_tokens

    session = await manager.deletion.delete_session(name)
    report = await manager.deletion.delete_window(name)
    for one in (session, report):
        assert (one.removed, one.memory_cleared, one.engine_cleared) == (True, True, True)
    assert report.chunks >= window.chunks
    assert report.freed_bytes >= (window.size_bytes or 0)
    assert report.secrets == 1

    with pytest.raises(WindowNotFoundError):
        await manager.status(window=name)
    left = everything(library.home, vault.folder.path)
    speaking = [window.id, held.session.id, held.session.lineage_id, *names, *contents]
    assert [one for one in (*speaking, held.salt, "a secret note") if one in left] == []
    data = raw(library.home, vault.folder.path)
    assert not any(piece in data for piece in pieces)
    assert not set(await listed(stack)) & set(keys)
    proof = await manager.deletion.verify(name)
    assert [(check.windows, check.sessions) for check in proof.checks] == [
        ([], [name]),
        ([name], []),
    ]
    for check in proof.checks:
        assert (check.gone, check.files, check.holds, check.chunks) == (True, [], 0, 0)
        assert check.listed == 0
    # Whoever had kept the salt finds nothing: neither LMCache nor the engine has a token of it.
    found = await stack.cache.prefetch(
        held.transcript.token_ids,
        model_name=stack.kv_model_name,
        world_size=stack.world_size,
        cache_salt=held.salt,
    )
    assert found.found == 0
    asked = await stack.engine.complete(
        held.transcript.token_ids, cache_salt=held.salt, max_tokens=1
    )
    assert asked.cached_tokens == 0
    # What that question has stored again is told apart.
    for _ in range(100):
        if not await stack.cache.unstored():
            break
        await anyio.sleep(0.05)
    # The vault is shared with tests that leave contents which no key means.
    assert all(check.gone for check in (await manager.deletion.verify(name)).checks)
    await stack.cache.delete(keys, tier="all")
    assert (await manager.verify(other)).intact
    assert (await manager.thaw(other)).complete


def everything(*folders) -> str:
    """All that files and their names say, receipts and audit log aside."""
    return raw(*folders).decode("latin-1")


def raw(*folders) -> bytes:
    files = {
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
        and path.parent.name not in ("purged", "audit")
        and not path.name.startswith("audit")
    }
    return b"".join(str(path).encode() + path.read_bytes() for path in sorted(files))


async def listed(stack):
    """The keys of all objects that LMCache lists."""
    keys, cursor = [], None
    while True:
        page = await stack.cache.list_page(limit=5000, cursor=cursor)
        keys += page.keys
        cursor = page.cursor
        if cursor is None:
            return keys


async def test_a_session_goes_and_its_windows_stay(driver: Driver, name: str) -> None:
    manager, library = driver.manager, driver.workspace.library
    stack = await driver.workspace.connect()
    await driver.talk(name, driver.text(1500, start=14000))
    window = (await manager.freeze(name, name)).window
    await driver.talk(name, driver.text(900, start=17000))
    held = await driver.held(name)
    kept = set(window_keys(library, window, library.manifest(window)))
    report = await manager.deletion.delete_session(name)
    assert report.chunks >= len(set(held.keys) - kept) > 0
    assert {key for key in await listed(stack) if key.cache_salt == held.salt} == kept
    thawed = await manager.thaw(name)
    assert (thawed.complete, thawed.probe.max_abs_logprob_diff) == (True, 0)


@pytest.mark.covers("E2E-002")
def test_a_long_conversation_is_frozen_by_itself(
    stack: StackState, stack_settings: Settings, name: str
) -> None:
    """At its threshold, once the answer is shown; then the conversation goes on from cache."""
    workspace = Workspace(stack_settings)
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(out, err, CurrentSession(name, tells=False))
    driver = Driver(workspace)

    def run(*arguments: str) -> object:
        verb, parsed = parse(arguments, "cwm")
        value = verb.run(workspace, parsed, terminal)
        terminal.show(value)
        shown.append(windows())
        terminal.finish()
        return value

    def windows() -> list[Window]:
        found: list[Window] = workspace.library.index.windows(tags=[name]).items
        return sorted(found, key=lambda w: w.created_at)

    shown: list[list[Window]] = []
    try:
        run("say", driver.text(900), "--max-tokens", "16")
        run("policy", "--at", "900", "--cooldown", "400", "--tag", name, "--name", f"{name}-{{n}}")
        replies = [
            run("say", driver.text(900, start=1000 * i), "--max-tokens", "16") for i in range(1, 7)
        ]
        frozen = windows()
        assert [w.name for w in frozen] == [f"{name}-{n}" for n in range(1, len(frozen) + 1)]
        assert len(frozen) >= 2
        tokens = [reply.turn.end for reply in replies]
        due = [reply.freeze_due for reply in replies]
        assert [w.tokens for w in frozen] == [t for t, d in zip(tokens, due, strict=True) if d]
        assert frozen[0].tokens == min(t for t in tokens if t >= 900)
        assert frozen[1].tokens >= frozen[0].tokens + 400
        # Each answer was shown before its freeze began.
        assert shown[2 + due.index(True)] == []
        assert err.getvalue().count("Frozen by itself, at 900 tokens") == len(frozen)
        after = replies[due.index(True) + 1]
        chunk = frozen[0].chunk_tokens
        assert after.cached_tokens == (frozen[0].tokens - 1) // chunk * chunk
        assert workspace.run(workspace.manager.verify, frozen[0].name).intact
        thawed = workspace.run(workspace.manager.thaw, frozen[0].name)
        assert thawed.complete
        assert thawed.probe.max_abs_logprob_diff == 0
    finally:
        workspace.close()


async def test_the_next_turn_waits_for_the_freeze(driver: Driver, name: str) -> None:
    manager = driver.manager
    await driver.talk(name, driver.text(900, start=20000))
    await manager.autofreeze.set_policy(name, FreezePolicy(at_tokens=100, name=f"{name}-{{n}}"))
    reply = await manager.say(name, "Go on.", max_tokens=16)
    assert reply.freeze_due
    async with anyio.create_task_group() as group:
        group.start_soon(manager.autofreeze.run, name)
        await anyio.lowlevel.checkpoint()
        reply = await manager.say(name, "And then?", max_tokens=16)
    window = driver.workspace.library.index.require_window(f"{name}-1")
    assert window.turns == 2
    assert (await manager.session(name)).turns == 3

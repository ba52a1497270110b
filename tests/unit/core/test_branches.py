"""Branches: clones share their chunks and nothing else, families, and where two windows part."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from bench import QUESTION, Bench
from damage import keys_of, refs_of
from entries import make_window

from cwm_jupyter.core.comparison import compare
from cwm_jupyter.core.family import TreeNode, family
from cwm_jupyter.core.going import Going
from cwm_jupyter.core.index import Transaction
from cwm_jupyter.core.kept import Freed
from cwm_jupyter.core.library import Manifest
from cwm_jupyter.core.models import Fingerprint, Message, Probe, Window
from cwm_jupyter.core.purge import Purge
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.errors import (
    KVStoreError,
    ValidationError,
    WindowError,
    WindowExistsError,
    WindowNotFoundError,
)
from cwm_jupyter.vault.fs import FsStore

OTHER = "Something else altogether, and not a short text either: not one chunk is the same."


def vault_files(bench: Bench) -> dict[str, int]:
    """What lies in the vault and how large it is, holds aside."""
    folder = bench.stack.vault.folder
    return {
        path.name: path.stat().st_size
        for where in (folder.contents, folder.records)
        for path in where.iterdir()
    }


async def assert_nothing_happened(bench: Bench, *windows: Window) -> None:
    """Nothing is there but these windows, as they were."""
    assert {w.id: w for w in bench.library.index.all_windows()} == {w.id: w for w in windows}
    assert len(bench.manifests()) == len(windows)
    assert set(bench.stack.vault.holds()) == {w.id for w in windows}


# --- clone ----------------------------------------------------------------------------------------


async def test_a_clone_shares_the_chunks_and_has_the_rest_of_its_own(bench: Bench) -> None:
    await bench.talk("paper")
    source = (await bench.manager.freeze("paper", "paper", tags=["eu"], note="a note")).window
    bench.library.index.update_window(source.id, lambda w: w.replace(thaws=3, pinned=True))
    source = bench.window("paper")
    before = vault_files(bench)
    prompts = len(bench.stack.prompts)
    clone = await bench.manager.branches.clone("paper", "other", tags=["b"], note="mine")
    assert clone == bench.window("other")
    assert bench.window("paper") == source
    assert vault_files(bench) == before
    assert len(bench.stack.prompts) == prompts
    assert clone.id != source.id
    assert (clone.tags, clone.note, clone.thaws, clone.pinned) == (["b"], "mine", 0, False)
    assert (clone.parent_window_id, clone.depth) == (source.id, 1)
    assert (clone.lineage_id, clone.session_id) == (source.lineage_id, source.session_id)
    assert (clone.proof, clone.tokens, clone.model) == (source.proof, source.tokens, source.model)
    manifests = [bench.library.manifest(window) for window in (source, clone)]
    assert manifests[1] == manifests[0].replace(window_id=clone.id)
    holds = bench.stack.vault.holds()
    assert holds[clone.id].records == holds[source.id].records
    assert holds[clone.id].contents == holds[source.id].contents
    again = await bench.manager.branches.clone("other", "third")
    assert (again.parent_window_id, again.depth, again.tags) == (clone.id, 2, [])
    shown = await bench.manager.status(window="other")
    assert (shown.parent, shown.children) == ("paper", ["third"])


async def test_a_clone_needs_no_stack(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.frozen("paper")
    bench.stack.restart()

    def down(call: str) -> None:
        raise httpx2.ConnectError("refused")

    monkeypatch.setattr(bench.stack, "before", down)
    await bench.manager.branches.clone("paper", "other")
    assert (await bench.manager.verify("other")).intact
    await bench.manager.branches.tree()
    assert (await bench.manager.branches.compare("paper", "other")).equal


@pytest.mark.covers("E2E-003")
async def test_clones_diverge_and_store_only_what_is_new(bench: Bench) -> None:
    await bench.talk("paper", QUESTION)
    source = (await bench.manager.freeze("paper", "paper")).window
    await bench.manager.branches.clone("paper", "other")
    # What the first session goes on to say is what its branches have to say too.
    await bench.manager.say("paper", "Why so, of all things? Tell me at some length.")
    live = bench.transcript(await bench.manager.session("paper"))
    questions = {"a": "Why so, of all things? Tell me at some length.", "b": OTHER}
    for (session, question), window in zip(questions.items(), ("paper", "other"), strict=True):
        bench.stack.restart()
        report = await bench.manager.thaw(window, as_session=session)
        assert (report.complete, report.probe.max_abs_logprob_diff) == (True, 0)
        await bench.manager.say(session, question)
    a, b = [bench.transcript(await bench.manager.session(name)) for name in "ab"]
    assert a.token_ids == live.token_ids
    assert b.token_ids[: source.tokens] == a.token_ids[: source.tokens]
    assert b.token_ids != a.token_ids
    for session in "ab":
        frozen = await bench.manager.freeze(f"{session}-2", session)
        new = frozen.window.chunks - source.chunks
        assert new > 0
        held = set(refs_of(bench, frozen.window))
        assert len(held & set(refs_of(bench, source))) == source.chunks
        assert frozen.newly_stored_bytes is not None
        assert frozen.newly_stored_bytes <= new * 128
    parted = await bench.manager.branches.compare("a-2", "b-2")
    assert parted.shared_bytes == parted.common_chunks * 128
    assert parted.common_tokens >= source.tokens


@pytest.mark.covers("TD-003")
async def test_purging_a_sibling_takes_nothing_from_the_others(bench: Bench) -> None:
    source = await bench.frozen("paper")
    clone = await bench.manager.branches.clone("paper", "other")
    files = vault_files(bench)
    await bench.manager.remove_window("paper")
    report = await bench.manager.purge(["paper"])
    assert (report.chunks, report.freed_bytes, report.secrets) == (0, 0, 0)
    assert vault_files(bench) == files
    await bench.manager.collect_garbage()
    bench.stack.restart()
    assert (await bench.manager.verify("other")).intact
    assert (await bench.manager.thaw("other", as_session="c")).complete
    [gone, node] = (await bench.manager.branches.tree("other")).nodes
    assert (gone.window_id, gone.name, gone.state) == (source.id, None, "gone")
    assert (node.name, node.level, node.own_bytes, node.shared_bytes) == (
        "other",
        1,
        sum(size for name, size in files.items() if name.endswith(".kv")),
        0,
    )
    await bench.manager.remove_session("c")
    await bench.manager.remove_session("paper")
    await bench.manager.remove_window("other")
    report = await bench.manager.purge()
    assert (report.chunks, report.secrets) == (clone.chunks, 1)
    assert vault_files(bench) == {}


async def test_a_clone_that_is_made_while_its_source_is_purged_keeps_its_secret(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.frozen("paper")
    await bench.manager.remove_session("paper")
    await bench.manager.remove_window("paper")
    real = Purge._free

    async def clone_meanwhile(self: Purge, going: Going, *, dry_run: bool = False) -> Freed:
        if dry_run:  # what goes has been chosen, and is not gone yet
            await bench.manager.restore_window("paper")
            await bench.manager.branches.clone("paper", "other")
            await bench.manager.remove_window("paper")
        return await real(self, going, dry_run=dry_run)

    monkeypatch.setattr(Purge, "_free", clone_meanwhile)
    await bench.manager.purge()
    bench.stack.restart()
    assert (await bench.manager.thaw("other")).complete
    assert (await bench.manager.verify("other")).intact


async def test_a_clone_of_a_window_whose_session_is_gone(bench: Bench) -> None:
    await bench.frozen("paper")
    await bench.manager.remove_session("paper")
    await bench.manager.purge()
    await bench.manager.branches.clone("paper", "other")
    await bench.manager.branches.clone("other", "third")
    assert (await bench.manager.thaw("third", as_session="back")).complete


async def test_a_heal_to_other_bytes_reaches_the_clones(bench: Bench) -> None:
    """The windows share a key; what it means anew is noted in all of them."""
    source = await bench.frozen("paper")
    clone = await bench.manager.branches.clone("paper", "other")
    bench.stack.restart()
    frozen = refs_of(bench, source)
    for ref in frozen[1:]:
        bench.stack.vault.folder.content(ref.digest).unlink()
    thawed = await bench.manager.thaw("paper", as_session="healed")
    assert not thawed.complete
    assert refs_of(bench, bench.window("other")) == refs_of(bench, bench.window("paper"))
    assert refs_of(bench, source) != frozen
    assert (await bench.manager.verify()).intact
    holds = bench.stack.vault.holds()
    assert holds[clone.id].records == holds[source.id].records
    await bench.manager.remove_window("paper")
    await bench.manager.purge()
    assert (await bench.manager.verify("other")).intact


@pytest.mark.parametrize(
    ("name", "new", "error"),
    [
        ("papr", "other", WindowNotFoundError),
        ("paper", "PAPER", WindowExistsError),
        ("paper", "a/b", ValidationError),
        ("paper", "other", WindowError),
        ("paper@v9", "other", WindowNotFoundError),
    ],
)
async def test_what_cannot_be_cloned(
    bench: Bench, name: str, new: str, error: type[Exception]
) -> None:
    window = await bench.frozen("paper")
    if error is WindowError:
        window = bench.library.index.update_window(window.id, lambda w: w.to("damaged"))
    with pytest.raises(error):
        await bench.manager.branches.clone(name, new)
    await assert_nothing_happened(bench, window)


async def test_a_tag_that_cannot_be_one_is_refused(bench: Bench) -> None:
    window = await bench.frozen("paper")
    with pytest.raises(ValidationError, match="tag"):
        await bench.manager.branches.clone("paper", "other", tags=["a b"])
    await assert_nothing_happened(bench, window)


async def test_a_window_whose_chunks_are_not_all_there_is_not_cloned(bench: Bench) -> None:
    """Nobody has verified it yet, so its state says intact."""
    window = await bench.frozen("paper")
    bench.stack.files()[0].unlink()
    with pytest.raises(KVStoreError, match=f"1 of {window.chunks} chunks") as refused:
        await bench.manager.branches.clone("paper", "other")
    assert "cwm verify paper" in str(refused.value)
    await assert_nothing_happened(bench, window)


async def test_a_window_that_is_removed_meanwhile_is_not_cloned(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = await bench.frozen("paper")

    async def hold_and_remove(owner: str, keys: object) -> None:
        await bench.manager.remove_window("paper")

    store = bench.manager.parts.store
    monkeypatch.setattr(store, "hold", hold_and_remove)
    with pytest.raises(WindowNotFoundError):
        await bench.manager.branches.clone("paper", "other")
    await assert_nothing_happened(bench, bench.library.index.get_window(window.id))


async def test_an_entry_that_fails_leaves_no_hold_and_no_manifest(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = await bench.frozen("paper")

    def fail(self: Transaction, window: Window) -> Window:
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "add_window", fail)
        with pytest.raises(OSError, match="no space"):
            await bench.manager.branches.clone("paper", "other")
    await assert_nothing_happened(bench, window)


async def test_windows_of_a_remote_stack_are_cloned_without_holds(bench: Bench) -> None:
    bench.readable = False
    window = await bench.frozen("paper")
    assert window.proof.level == "present"
    clone = await bench.manager.branches.clone("paper", "other")
    assert bench.stack.vault.holds() == {}
    node = (await bench.manager.branches.tree("other")).nodes[1]
    assert (node.own_bytes, node.shared_bytes) == (None, None)
    both = await bench.manager.branches.compare("paper", "other")
    assert (both.shared_bytes, both.only_a_bytes) == (clone.size_bytes, 0)
    await bench.manager.remove_window("paper")
    await bench.manager.purge(["paper"])
    bench.stack.restart()
    assert (await bench.manager.thaw("other", as_session="back")).complete


async def test_without_the_store_nothing_local_is_cloned(bench: Bench) -> None:
    window = await bench.frozen("paper")
    object.__setattr__(bench.manager.parts, "store", None)
    with pytest.raises(KVStoreError, match="not open here"):
        await bench.manager.branches.clone("paper", "other")
    assert [node.own_bytes for node in (await bench.manager.branches.tree()).nodes] == [None]
    await assert_nothing_happened(bench, window)


async def test_a_superseded_version_is_cloned(bench: Bench) -> None:
    first = await bench.frozen("paper")
    await bench.talk("paper", "And then?")
    await bench.manager.freeze("paper", "paper", update=True)
    clone = await bench.manager.branches.clone("paper@v1", "first")
    assert (clone.parent_window_id, clone.tokens) == (first.id, first.tokens)
    assert (clone.version, clone.superseded, clone.series) == (1, False, clone.id)
    tree = await bench.manager.branches.tree()
    assert [(node.name, node.level) for node in tree.nodes] == [
        ("paper@v1", 0),
        ("paper", 1),
        ("first", 1),
    ]


async def test_what_lmcaches_own_tier_keeps_is_cloned_too(bench: Bench, tmp_path: Path) -> None:
    """Its files tell no digest: that they are there is all that can be known."""
    window = await bench.frozen("paper")
    store = FsStore(tmp_path / "fs")
    (tmp_path / "fs").mkdir()
    keys = keys_of(bench, window)
    await store.write({key: bench.stack.engine_cache[key] for key in keys})
    object.__setattr__(bench.manager.parts, "store", store)
    await bench.manager.branches.clone("paper", "other")
    nodes = (await bench.manager.branches.tree("paper")).nodes
    assert [node.own_bytes for node in nodes] == [None, None]


# --- tree -----------------------------------------------------------------------------------------


def line(*names: str) -> list[Window]:
    """Windows, each made from the one before."""
    windows: list[Window] = []
    for number, name in enumerate(names):
        windows.append(
            make_window(
                name,
                name,
                parent_window_id=windows[-1].id if windows else None,
                depth=number,
                created_at=f"2026-01-01T00:00:{len(windows):02}Z",
            )
        )
    return windows


def drawn(nodes: list[TreeNode]) -> list[tuple[int, str | None, str]]:
    return [(node.level, node.name, node.state) for node in nodes]


def test_a_deleted_parent_is_shown_as_long_as_it_has_children() -> None:
    a, b, c = line("a", "b", "c")
    gone = b.to("deleted")
    assert drawn(family([c, gone, a], None).nodes) == [
        (0, "a", "intact"),
        (1, "b", "deleted"),
        (2, "c", "intact"),
    ]
    assert drawn(family([a, gone, c.to("deleted")], None).nodes) == [(0, "a", "intact")]
    assert family([], None).nodes == []


def test_children_of_what_was_purged_stay_together() -> None:
    a, b, c = line("a", "b", "c")
    d = c.replace(id="d", name="d", created_at="2026-01-01T00:00:09Z")
    alone = make_window("z", created_at="2026-01-01T00:00:05Z")
    nodes = family([d, c, a, alone], {}).nodes
    assert drawn(nodes) == [
        (0, "a", "intact"),
        (0, None, "gone"),
        (1, "c", "intact"),
        (1, "d", "intact"),
        (0, "window z", "intact"),
    ]
    assert (nodes[1].window_id, nodes[1].tokens) == (b.id, None)
    tree = family([d, c, a, alone], {}, of=d)
    assert drawn(tree.nodes) == [(0, None, "gone"), (1, "c", "intact"), (1, "d", "intact")]
    assert tree.window == "d"


def test_a_family_of_many_levels() -> None:
    """A session that is frozen after each turn makes one."""
    windows = [
        make_window(f"w{i}", parent_window_id=f"w{i - 1}" if i else None, created_at=f"2026-{i:05}")
        for i in range(3000)
    ]
    nodes = family(windows, None).nodes
    assert [node.level for node in nodes] == list(range(3000))
    assert family(windows, None, of=windows[-1]).nodes == nodes


# --- compare --------------------------------------------------------------------------------------


async def test_compare_says_where_two_branches_part(bench: Bench) -> None:
    source = await bench.frozen("paper")
    await bench.manager.thaw("paper", as_session="a")
    await bench.manager.thaw("paper", as_session="b")
    a = await bench.frozen("a", f"{QUESTION} In French?")
    b = await bench.frozen("b", f"{QUESTION} In German?")
    found = await bench.manager.branches.compare("a", "b")
    assert (found.a, found.b, found.equal) == ("a", "b", False)
    assert (found.common_turns, found.turns_a, found.turns_b) == (1, 2, 2)
    assert (found.common_messages, found.messages_a, found.messages_b) == (2, 4, 4)
    assert source.tokens < found.common_tokens < min(a.tokens, b.tokens)
    assert found.common_chunks == found.common_tokens // 16
    assert found.parting is not None
    assert (found.parting.message, found.parting.character) == (3, len(f"{QUESTION} In "))
    assert found.parting.excerpt_a.endswith("In French?")
    assert found.parting.excerpt_b.endswith("In German?")
    assert found.parting.excerpt_a.startswith("…")
    assert found.shared_bytes == found.common_chunks * 128
    assert found.shared_bytes + found.only_a_bytes == a.size_bytes
    assert found.shared_bytes + found.only_b_bytes == b.size_bytes
    assert found.differences == []


async def test_compare_a_version_with_what_it_became(bench: Bench) -> None:
    first = await bench.frozen("paper")
    await bench.talk("paper", "And then?")
    await bench.manager.freeze("paper", "paper", update=True)
    found = await bench.manager.branches.compare("paper@v1", "paper")
    assert (found.a, found.b) == ("paper@v1", "paper")
    assert (found.common_tokens, found.only_a_bytes) == (first.tokens, 0)
    assert found.parting is not None
    assert (found.parting.role_a, found.parting.excerpt_a) == (None, None)
    assert (found.parting.role_b, found.parting.excerpt_b) == ("user", "And then?")
    with pytest.raises(WindowNotFoundError):
        await bench.manager.branches.compare("paper", "other")


async def test_equal_content_is_shared_across_lineages(bench: Bench) -> None:
    await bench.frozen("one")
    await bench.frozen("two")
    found = await bench.manager.branches.compare("one", "two")
    assert found.equal
    assert found.parting is None
    assert (found.only_a_bytes, found.only_b_bytes) == (0, 0)


def manifest(tokens: list[int], said: list[str], **layout: str | int | None) -> Manifest:
    return Manifest(
        window_id="w",
        transcript=Transcript(
            messages=[Message(role="user", content=text) for text in said], token_ids=tokens
        ),
        fingerprint=Fingerprint(layout={"dtype": "bf16", **layout}, numeric={"threads": 2}),
        refs=[],
        probe=Probe(position_tokens=0, token_ids=[], logprobs=[]),
    )


def test_engines_and_chunk_sizes_that_differ() -> None:
    a, b = make_window("a"), make_window("b", chunk_tokens=64)
    found = compare(
        (a, manifest([1, 2, 3], ["x"], dtype="fp8", lora=None)),
        (b, manifest([9], ["y" * 300], lora=None)),
    )
    assert [(d.field, d.kind, d.a, d.b) for d in found.differences] == [
        ("dtype", "layout", "fp8", "bf16"),
        ("lora", "unknown", None, None),
    ]
    assert (found.common_tokens, found.common_chunks, found.common_messages) == (0, None, 0)
    assert found.parting is not None
    assert (found.parting.excerpt_a, len(found.parting.excerpt_b)) == ("x", 161)

"""Versions of a window: the newest has the name, whatever is deleted, brought back and renamed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bench import Bench
from entries import make_session, make_window
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cwm_jupyter.core.index import Index
from cwm_jupyter.core.models import Window
from cwm_jupyter.core.names import name_key
from cwm_jupyter.errors import WindowExistsError, WindowNotFoundError


def known(bench: Bench) -> dict[str, str]:
    """The windows that are not deleted: what each is found by, and its state."""
    there = [w for w in bench.library.index.all_windows() if w.state != "deleted"]
    return {w.known_as: w.state for w in there}


async def update(bench: Bench, times: int = 1, name: str = "paper") -> Window:
    """Say more in the session and freeze it under its name again."""
    for _ in range(times):
        await bench.talk(name, "And then?")
        report = await bench.manager.freeze(name, name, update=True)
    return report.window


def keeping(bench: Bench, versions: int | None) -> None:
    limits = msgspec.structs.replace(bench.settings.limits, keep_versions=versions)
    bench.manager.settings = msgspec.structs.replace(bench.settings, limits=limits)


async def test_an_update_supersedes_and_keeps_what_had_the_name(bench: Bench) -> None:
    first = await bench.frozen("paper")
    await bench.talk("paper", "And then?")
    report = await bench.manager.freeze("PAPER", "paper", update=True)
    second = report.window
    assert (second.name, second.version, second.parent_window_id) == ("paper", 2, first.id)
    assert bench.window("paper") == second
    assert bench.window("paper@v1") == first.replace(superseded=True)
    assert (await bench.manager.windows()).items == [second]
    assert report.pruned == []
    assert (await bench.manager.session("paper")).window_id == second.id
    shown = await bench.manager.status(window="paper")
    assert [w.known_as for w in shown.versions] == ["paper", "paper@v1"]
    assert shown.parent == "paper@v1"
    bench.stack.restart()
    thawed = await bench.manager.thaw("paper@v1", as_session="back")
    assert (thawed.complete, thawed.tokens) == (True, first.tokens)


async def test_an_update_where_nothing_has_the_name_is_a_freeze(bench: Bench) -> None:
    await bench.talk("paper")
    assert (await bench.manager.freeze("paper", "paper", update=True)).window.version == 1
    assert known(bench) == {"paper": "intact"}


async def test_without_update_the_name_is_taken_and_the_hint_says_so(bench: Bench) -> None:
    first = await bench.frozen("paper")
    with pytest.raises(WindowExistsError) as refused:
        await bench.manager.freeze("paper", "paper")
    assert "--update" in str(refused.value)
    with pytest.raises(WindowExistsError):  # a name that is another's id is not its name
        await bench.manager.freeze(first.id, "paper", update=True)
    assert known(bench) == {"paper": "intact"}


async def test_removing_the_newest_gives_the_name_back_and_undo_takes_it(bench: Bench) -> None:
    first = await bench.frozen("paper")
    await update(bench, 2)
    before = sorted(bench.library.index.all_windows(), key=lambda w: w.id)
    assert (await bench.manager.remove_window("paper")).version == 3
    assert known(bench) == {"paper": "intact", "paper@v1": "intact"}
    assert bench.window("paper").version == 2
    await bench.manager.remove_window("paper")
    assert bench.window("paper") == first
    await bench.manager.remove_window("paper")
    assert known(bench) == {}
    for version in (1, 2, 3):  # undone in the order in which it was done
        assert (await bench.manager.restore_window("paper")).version == version
        assert bench.window("paper").version == version
    assert sorted(bench.library.index.all_windows(), key=lambda w: w.id) == before
    with pytest.raises(WindowNotFoundError):
        await bench.manager.restore_window("paper")


async def test_a_version_is_removed_and_brought_back_alone(bench: Bench) -> None:
    await bench.frozen("paper")
    await update(bench, 2)
    removed = await bench.manager.remove_window("paper@v2")
    assert (removed.state, removed.known_as) == ("deleted", "paper@v2")
    assert known(bench) == {"paper": "intact", "paper@v1": "intact"}
    with pytest.raises(WindowNotFoundError) as missing:
        await bench.manager.restore_window("paper")
    assert "paper@v2" in str(missing.value)
    assert (await bench.manager.restore_window("paper@v2")).superseded
    assert bench.window("paper").version == 3


async def test_a_removed_version_comes_back_below_what_was_frozen_since(bench: Bench) -> None:
    await bench.frozen("paper")
    await update(bench)
    await bench.manager.remove_window("paper")
    third = await update(bench)
    assert third.version == 3  # no number is given twice
    assert (await bench.manager.restore_window("paper")).known_as == "paper@v2"
    assert bench.window("paper") == third


async def test_a_name_taken_by_another_window_is_not_taken_back(bench: Bench) -> None:
    await bench.frozen("paper")
    await update(bench)
    await bench.manager.remove_window("paper")
    await bench.manager.remove_window("paper")
    other = (await bench.manager.freeze("paper", "paper")).window
    assert other.version == 1
    with pytest.raises(WindowExistsError):
        await bench.manager.restore_window("paper")
    assert known(bench) == {"paper": "intact"}
    assert bench.window("paper") == other


async def test_a_new_name_goes_to_all_versions(bench: Bench) -> None:
    await bench.frozen("paper")
    await update(bench, 2)
    await bench.manager.remove_window("paper")
    index = bench.library.index
    index.update_window(bench.window("paper").id, lambda w: w.replace(name="article"))
    assert known(bench) == {"article": "intact", "article@v1": "intact"}
    assert (await bench.manager.restore_window("paper")).name == "article"
    assert bench.window("article").version == 3
    index.update_window(bench.window("article@v1").id, lambda w: w.replace(name="draft"))
    assert known(bench) == {"article": "intact", "article@v2": "intact", "draft": "intact"}
    assert bench.window("draft").version == 1


async def test_what_is_beyond_the_versions_to_keep_is_removed(bench: Bench) -> None:
    await bench.frozen("paper")
    await update(bench, 2)
    keeping(bench, 2)
    pinned = bench.window("paper@v1")
    bench.library.index.update_window(pinned.id, lambda w: w.replace(pinned=True))
    await bench.talk("paper", "And then?")
    report = await bench.manager.freeze("paper", "paper", update=True)
    assert report.pruned == ["paper@v2"]
    assert list(known(bench)) == ["paper@v1", "paper@v3", "paper"]
    assert (await bench.manager.restore_window("paper@v2")).known_as == "paper@v2"
    keeping(bench, 1)
    report = await bench.manager.freeze("paper", "paper", update=True)
    assert report.pruned == ["paper@v4", "paper@v3", "paper@v2"]


async def test_upkeep_knows_superseded_windows(bench: Bench) -> None:
    first = await bench.frozen("paper")
    second = await update(bench)
    report = await bench.manager.verify()
    assert [check.window for check in report.windows] == ["paper", "paper@v1"]
    bench.stack.files()[0].unlink()
    assert not (await bench.manager.verify("paper@v1")).intact
    assert (await bench.manager.repair("paper@v1")).window.known_as == "paper@v1"
    assert (await bench.manager.verify()).intact
    assert {row.window for row in (await bench.manager.disk_usage()).windows} == {
        "paper",
        "paper@v1",
    }
    assert (await bench.manager.collect_garbage()).holds == 0
    await bench.manager.remove_window("paper@v1")
    assert (await bench.manager.purge(["paper@v1"])).windows == ["paper@v1"]
    assert set(bench.stack.vault.holds()) == {second.id}
    assert (await bench.manager.verify()).intact
    assert bench.library.index.get_window(first.id) is None


class VersionsMachine(RuleBasedStateMachine):
    """Any sequence of freezes, deletions, undoings and new names."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.index = Index(Path(self.folder.name))
        self.index.add_session(make_session("s1"))
        self.frozen = 0

    def teardown(self) -> None:
        self.folder.cleanup()

    def attempt(self, change: Any) -> None:
        """Do it, or find that the name is taken: then nothing has changed."""
        before = {w.id: w for w in self.index.all_windows()}
        try:
            change()
        except WindowExistsError:
            assert {w.id: w for w in self.index.all_windows()} == before

    @rule(name=st.sampled_from(["a", "A", "b"]), update=st.booleans())
    def freeze(self, name: str, update: bool) -> None:
        self.frozen += 1
        window = make_window(f"w{self.frozen}", name, created_at=f"2026-01-{self.frozen:02}")

        def change() -> None:
            with self.index.transaction() as transaction:
                add = transaction.add_version if update else transaction.add_window
                add(window)
            assert self.index.require_window(name).id == window.id

        self.attempt(change)

    @precondition(lambda self: self.index.all_windows())
    @rule(data=st.data(), name=st.sampled_from([None, "a", "b", "c"]))
    def change(self, data: st.DataObject, name: str | None) -> None:
        """Rename a window, or delete it, or undo that."""
        everything = sorted(w.id for w in self.index.all_windows())
        id_ = data.draw(st.sampled_from(everything))

        def changed(window: Window) -> Window:
            if name is not None:
                return window.replace(name=name)
            return window.to("intact" if window.state == "deleted" else "deleted")

        self.attempt(lambda: self.index.update_window(id_, changed))

    @rule()
    def forget_deleted(self) -> None:
        for window in self.index.windows(state="deleted").items:
            self.index.remove_window(window.id)

    @invariant()
    def the_newest_has_the_name(self) -> None:
        everything = self.index.all_windows()
        present = [w for w in everything if w.state != "deleted"]
        assert len({(w.series, w.version) for w in everything}) == len(everything)
        live = {name_key(w.name): w for w in present if not w.superseded}
        assert len(live) == sum(not w.superseded for w in present)
        for window in present:
            holder = live[name_key(window.name)]
            assert holder.series == window.series
            assert holder.version >= window.version
            assert self.index.require_window(window.known_as) == window


VersionsMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestVersions = VersionsMachine.TestCase


async def test_the_number_of_a_purged_version_is_not_given_again(bench: Bench) -> None:
    await bench.frozen("paper")
    await update(bench, 2)
    await bench.manager.remove_window("paper")
    await bench.manager.remove_window("paper")
    await bench.manager.purge()
    assert bench.window("paper").version == 1
    fourth = await update(bench)
    assert (fourth.version, known(bench)) == (4, {"paper": "intact", "paper@v1": "intact"})
    await bench.manager.remove_window("paper@v1")
    await bench.manager.purge()
    assert (await update(bench)).version == 5


async def test_a_version_with_a_name_of_its_own_counts_anew(bench: Bench) -> None:
    await bench.frozen("paper")
    await update(bench, 2)
    await bench.manager.remove_window("paper")
    await bench.manager.purge()
    renamed = await bench.manager.keeping.edit_window("paper@v1", name="other")
    assert (renamed.version, renamed.last_version) == (1, 0)
    assert (await update(bench)).version == 4

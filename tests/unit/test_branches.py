"""What branches and versions look like, and their verbs and functions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from bench import QUESTION
from entries import TIME, make_window
from fake_stack import FakeStack

import cwm_jupyter as cwm
from cwm_jupyter.core.comparison import Comparison, EngineDifference, Parting
from cwm_jupyter.core.family import Tree, TreeNode
from cwm_jupyter.core.models import FreezeReport
from cwm_jupyter.errors import WindowExistsError
from cwm_jupyter.present import html, text
from cwm_jupyter.present.branches import FORMS
from cwm_jupyter.verbs import parse
from cwm_jupyter.workspace import get_workspace


def node(name: str | None, level: int, **fields: Any) -> TreeNode:
    values: dict[str, Any] = {
        "state": "intact",
        "tokens": 1200,
        "turns": 2,
        "own_bytes": 0,
        "shared_bytes": 5_898_240,
    }
    return TreeNode(
        window_id=name or "gone", name=name, parent_window_id=None, level=level, **values | fields
    )


def comparison(**fields: Any) -> Comparison:
    values: dict[str, Any] = {
        "a": "one",
        "b": "two",
        "equal": False,
        "tokens_a": 1300,
        "tokens_b": 1400,
        "common_tokens": 1210,
        "turns_a": 3,
        "turns_b": 4,
        "common_turns": 2,
        "messages_a": 6,
        "messages_b": 8,
        "common_messages": 4,
        "parting": Parting(
            message=5,
            character=40,
            role_a="user",
            role_b="user",
            excerpt_a="…In <b>French</b>,\nplease?",
            excerpt_b="…In German?",
        ),
        "common_chunks": 9,
        "shared_bytes": 26_542_080,
        "only_a_bytes": 2_949_120,
        "only_b_bytes": 0,
        "differences": [],
    }
    return Comparison(**{**values, **fields})


TREE = Tree(
    window="b",
    nodes=[
        node("a", 0),
        node("b", 1),
        node("b-1", 2, state="deleted"),
        node("b-1-1", 3, own_bytes=2_949_120),
        node("b-2", 2, own_bytes=None, shared_bytes=None),
        node("c", 1, state="damaged"),
        node(None, 0, state="gone", tokens=None),
        node("d@v1", 1),
    ],
)


def test_a_tree() -> None:
    assert (
        text(TREE).replace("\N{NO-BREAK SPACE}", " ")
        == """\
WINDOW             STATE    TURNS  TOKENS          OWN       SHARED
a                  intact       2   1,200      0 bytes      5.90 MB
├── b *            intact       2   1,200      0 bytes      5.90 MB
│   ├── b-1        deleted      2   1,200      0 bytes      5.90 MB
│   │   └── b-1-1  intact       2   1,200      2.95 MB      5.90 MB
│   └── b-2        intact       2   1,200  unavailable  unavailable
└── c              damaged      2   1,200      0 bytes      5.90 MB
(gone)             gone
└── d@v1           intact       2   1,200      0 bytes      5.90 MB"""
    )
    assert text(Tree(window=None, nodes=[])) == "There are no windows."
    assert "├── b *" in html(TREE)
    assert "│\N{NO-BREAK SPACE}" in html(TREE)  # HTML merges other spaces


def test_a_tree_of_names_that_are_markup() -> None:
    assert "<i>" not in html(Tree(window=None, nodes=[node("<i>", 0)]))


def test_a_comparison() -> None:
    assert (
        text(comparison())
        == """\
one and two part after 1,210 tokens
messages      4 common, of 6 and 8
turns         2 common, of 3 and 4
tokens        1,210 common, of 1,300 and 1,400
whole chunks  9 common
KV            26.5 MB shared, 2.95 MB of one alone, 0 bytes of two alone
engines       the same

The first that differs is message 5:
one  user: …In <b>French</b>, please?
two  user: …In German?"""
    )
    assert "<b>" not in html(comparison())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"equal": True, "common_tokens": 1300, "tokens_b": 1300, "parting": None},
            "one and two are the same, to the last of 1,300 tokens",
        ),
        ({"common_tokens": 1300}, "two goes on where one ends, after 1,300 tokens"),
        ({"common_tokens": 1400}, "one goes on where two ends, after 1,400 tokens"),
        ({"common_tokens": 0}, "one and two have no beginning in common"),
        ({"common_chunks": None}, "whole chunks  of other sizes"),
        ({"shared_bytes": None}, "unavailable shared, 2.95 MB of one alone"),
        (
            {
                "differences": [
                    EngineDifference(field="dtype", kind="layout", a="bf16", b="fp8"),
                    EngineDifference(field="lora", kind="unknown", a=None, b=None),
                ]
            },
            "engines       dtype: bf16 and fp8; lora: unknown to both",
        ),
        (
            {
                "parting": Parting(
                    message=7,
                    character=0,
                    role_a=None,
                    role_b="user",
                    excerpt_a=None,
                    excerpt_b="And then?",
                )
            },
            "one  ends before it\ntwo  user: And then?",
        ),
    ],
)
def test_what_a_comparison_says(fields: dict[str, Any], said: str) -> None:
    assert said in text(comparison(**fields))


@pytest.mark.parametrize("value", [TREE, comparison()])
def test_values_survive_json(value: Tree | Comparison) -> None:
    assert type(value) in FORMS
    assert type(value).from_dict(value.to_dict()) == value


def test_a_frozen_version_and_what_was_removed_for_it() -> None:
    window = make_window(name="paper", version=4, created_at=TIME)
    report = FreezeReport(
        window=window,
        session="main",
        commit_s=1.0,
        probe_s=0.1,
        already_stored_bytes=0,
        newly_stored_bytes=0,
        tail_tokens=0,
        stages_s={},
        pruned=["paper@v1"],
    )
    shown = text(report)
    assert shown.startswith("Froze main as paper, version 4: 300 tokens")
    assert shown.endswith("\nRemoved paper@v1, since only so many versions are kept")
    assert text(report.replace(window=window.replace(version=1))).startswith("Froze main as paper:")
    superseded = window.replace(superseded=True, state="deleted")
    assert "cwm rm --undo paper@v4" in text(superseded)


@pytest.mark.usefixtures("own_process")
def test_the_functions(fake_stack: FakeStack) -> None:
    session = cwm.session("main")
    session.say(QUESTION)
    session.freeze("paper")
    with pytest.raises(WindowExistsError):
        cwm.freeze("paper", "main")
    session.say("And then?")
    assert session.freeze("paper", update=True).window.version == 2
    assert cwm.freeze("paper", "main", update=True).window.version == 3
    clone = cwm.clone("paper@v1", "first", tags=["x"], note="n")
    assert (clone.tags, clone.note) == (["x"], "n")
    assert [n.name for n in cwm.tree("first").nodes] == ["paper@v1", "paper@v2", "paper", "first"]
    assert cwm.tree() == cwm.tree("first").replace(window=None)
    assert cwm.compare("first", "paper").common_messages == 2
    shown = text(cwm.show("paper"))
    assert "paper@v2, 2 levels below the first of its family" in shown
    assert "paper@v1" in shown


@pytest.mark.usefixtures("own_process")
def test_the_verbs(fake_stack: FakeStack) -> None:
    notes: list[object] = []

    def run(*arguments: str) -> Any:
        verb, parsed = parse(arguments, "cwm")
        return verb.run(get_workspace(), parsed, SimpleNamespace(note=notes.append))

    cwm.session("main").say(QUESTION)
    cwm.freeze("paper", "main")
    clone = run("clone", "paper", "other", "--tag", "x", "--note", "mine")
    assert (clone.name, clone.tags, clone.note) == ("other", ["x"], "mine")
    assert [n.name for n in run("tree").nodes] == ["paper", "other"]
    assert run("tree", "other").window == "other"
    assert run("compare", "paper", "other").equal
    cwm.freeze("paper", "main", update=True)
    assert run("rm", "paper").version == 2
    assert notes == ["paper is version 1 again."]
    assert run("rm", "--undo", "paper").version == 2
    run("rm", "paper@v1")
    run("rm", "paper")
    assert len(notes) == 1

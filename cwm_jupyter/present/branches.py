"""How branches look: a family drawn as a tree, and where two windows part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cwm_jupyter.core.comparison import Comparison, EngineDifference, Parting
from cwm_jupyter.core.family import Tree, TreeNode
from cwm_jupyter.layout import Block, Facts, Line, Table
from cwm_jupyter.present.phrases import many
from cwm_jupyter.units import count, megabytes

__all__ = ["FORMS"]

# Spaces that HTML does not merge.
_PAST, _OPEN = "\N{NO-BREAK SPACE}" * 4, "│" + "\N{NO-BREAK SPACE}" * 3
_LAST, _ANOTHER = "└── ", "├── "
_GONE = "(gone)"


def _tree(tree: Tree) -> list[Block]:
    if not tree.nodes:
        return [Line("There are no windows.")]
    rows = [
        (
            f"{line}{node.name or _GONE}{' *' if node.name == tree.window else ''}",
            *_figures(node),
        )
        for line, node in zip(_lines(tree.nodes), tree.nodes, strict=True)
    ]
    header = ("WINDOW", "STATE", "TURNS", "TOKENS", "OWN", "SHARED")
    return [Table(header, rows, frozenset({2, 3, 4, 5}))]


def _figures(node: TreeNode) -> tuple[str, ...]:
    if node.state == "gone":
        return ("gone", "", "", "", "")
    return (
        node.state,
        count(node.turns),
        count(node.tokens),
        megabytes(node.own_bytes),
        megabytes(node.shared_bytes),
    )


def _lines(nodes: Sequence[TreeNode]) -> list[str]:
    """Return what is drawn before each name: which branches go on is known from below."""
    drawn: list[str] = []
    going_on: set[int] = set()
    for node in reversed(nodes):
        level = node.level
        if level == 0:
            drawn.append("")
        else:
            passing = (_OPEN if above in going_on else _PAST for above in range(1, level))
            drawn.append("".join(passing) + (_ANOTHER if level in going_on else _LAST))
        going_on = {above for above in going_on if above < level} | {level}
    return drawn[::-1]


def _comparison(comparison: Comparison) -> list[Block]:
    a, b = comparison.a, comparison.b
    blocks: list[Block] = [Line(_verdict(comparison))]
    pairs = [
        ("messages", _of(comparison.common_messages, comparison.messages_a, comparison.messages_b)),
        ("turns", _of(comparison.common_turns, comparison.turns_a, comparison.turns_b)),
        ("tokens", _of(comparison.common_tokens, comparison.tokens_a, comparison.tokens_b)),
        (
            "whole chunks",
            f"{count(comparison.common_chunks)} common"
            if comparison.common_chunks is not None
            else "of other sizes",
        ),
        (
            "KV",
            f"{megabytes(comparison.shared_bytes)} shared, {megabytes(comparison.only_a_bytes)} "
            f"of {a} alone, {megabytes(comparison.only_b_bytes)} of {b} alone",
        ),
        ("engines", "; ".join(map(_difference, comparison.differences)) or "the same"),
    ]
    blocks.append(Facts(pairs))
    if comparison.parting is not None:
        blocks += [Line(""), *_parted(comparison.parting, a, b)]
    return blocks


def _verdict(comparison: Comparison) -> str:
    a, b = comparison.a, comparison.b
    tokens = many(comparison.common_tokens, "token")
    if comparison.equal:
        return f"{a} and {b} are the same, to the last of {tokens}"
    if comparison.common_tokens == comparison.tokens_a:
        return f"{b} goes on where {a} ends, after {tokens}"
    if comparison.common_tokens == comparison.tokens_b:
        return f"{a} goes on where {b} ends, after {tokens}"
    if not comparison.common_tokens:
        return f"{a} and {b} have no beginning in common"
    return f"{a} and {b} part after {tokens}"


def _of(common: int, a: int, b: int) -> str:
    return f"{count(common)} common, of {count(a)} and {count(b)}"


def _difference(difference: EngineDifference) -> str:
    a, b = ("unknown" if value is None else str(value) for value in (difference.a, difference.b))
    return f"{difference.field}: {a} and {b}" if a != b else f"{difference.field}: {a} to both"


def _parted(parting: Parting, a: str, b: str) -> list[Block]:
    said = [
        (name, f"{role}: {' '.join(excerpt.split())}" if excerpt is not None else "ends before it")
        for name, role, excerpt in (
            (a, parting.role_a, parting.excerpt_a),
            (b, parting.role_b, parting.excerpt_b),
        )
    ]
    return [Line(f"The first that differs is message {count(parting.message)}:"), Facts(said)]


#: by type, for `cwm_jupyter.present.blocks`
FORMS: dict[type, Callable[[Any], list[Block]]] = {Tree: _tree, Comparison: _comparison}

"""Lineage: the tree of windows, and where two of them part."""

from __future__ import annotations

from cwm_jupyter.core.comparison import Comparison
from cwm_jupyter.core.family import Tree
from cwm_jupyter.server.operation import Asked, Operation
from cwm_jupyter.server.requests import CompareQuery, TreeQuery

__all__ = ["OPERATIONS"]


async def tree(asked: Asked) -> Tree:
    """Return which window was made from which: the family of one, or all."""
    return await asked.run(lambda w: w.manager.branches.tree(asked.query.window))


async def compare(asked: Asked) -> Comparison:
    """Return where two windows part, and how many bytes they share."""
    return await asked.run(lambda w: w.manager.branches.compare(asked.query.a, asked.query.b))


OPERATIONS = (
    Operation("GET", "tree", "cwm-windows", tree, Tree, query=TreeQuery),
    Operation("GET", "compare", "cwm-windows", compare, Comparison, query=CompareQuery),
)

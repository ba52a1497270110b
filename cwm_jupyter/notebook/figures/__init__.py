"""Figures: each a function from models to a Plotly figure.

They have units, say what they show where there is nothing yet, aggregate what is too much, and take
their background from the page, so that they read on light and on dark. Importing this imports
Plotly, which takes a while: front ends do so when there is something to draw.
"""

from cwm_jupyter.notebook.figures.caches import (
    cache_by_tier,
    context_used,
    hit_rate,
    tokens_by_source,
    tokens_from_cache,
)
from cwm_jupyter.notebook.figures.thaws import thaw_against_recompute, thaw_waterfall
from cwm_jupyter.notebook.figures.windows import bytes_by_window, family_tree

__all__ = [
    "bytes_by_window",
    "cache_by_tier",
    "context_used",
    "family_tree",
    "hit_rate",
    "thaw_against_recompute",
    "thaw_waterfall",
    "tokens_by_source",
    "tokens_from_cache",
]

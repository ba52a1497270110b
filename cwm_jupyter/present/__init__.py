"""How every value looks: `text` for terminals and static notebooks, `html` for live ones.

Both draw the same `blocks`, so they say the same. The forms are in the modules beside this one; a
value of another package part can bring a form of its own: ``text.register(Kind)``.
"""

from __future__ import annotations

import functools
from html import escape
from typing import Any

from cwm_jupyter.layout import Block, Prose, draw_html, draw_text
from cwm_jupyter.present import (
    archive,
    audit,
    branches,
    keeping,
    listings,
    reports,
    settings,
    stack,
    turns,
    upkeep,
)
from cwm_jupyter.present.reports import footer
from cwm_jupyter.present.stack import LogLines
from cwm_jupyter.units import megabytes, seconds

__all__ = ["LogLines", "blocks", "footer", "has_form", "html", "megabytes", "seconds", "text"]


@functools.singledispatch
def text(value: Any) -> str:
    """Return a value as plain text, without a newline at the end."""
    return draw_text(blocks(value))


@functools.singledispatch
def html(value: Any) -> str:
    """Return a value as an HTML fragment; everything that a user or the model wrote is escaped."""
    own = text.dispatch(type(value))
    if own is not text.dispatch(object):
        return f'<pre style="background:transparent">{escape(own(value))}</pre>'
    return draw_html(blocks(value))


@functools.singledispatch
def blocks(value: Any) -> list[Block]:
    """Return what a value looks like, see `cwm_jupyter.layout`."""
    return [Prose(value if isinstance(value, str) else repr(value))]


def has_form(value: object) -> bool:
    """Return whether a value has a form of its own, and not just its repr."""
    return any(form.dispatch(type(value)) is not form.dispatch(object) for form in (blocks, text))


for _forms in (
    reports.FORMS,
    listings.FORMS,
    branches.FORMS,
    turns.FORMS,
    stack.FORMS,
    upkeep.FORMS,
    keeping.FORMS,
    settings.FORMS,
    archive.FORMS,
    audit.FORMS,
):
    for _kind, _form in _forms.items():
        blocks.register(_kind, _form)

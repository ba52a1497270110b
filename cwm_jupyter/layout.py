"""Blocks: what a value looks like, said once and drawn twice, as plain text and as HTML.

Control characters, which a terminal would obey, are replaced. The text is for terminals and static
notebooks: columns are aligned. The HTML escapes everything but what `cwm_jupyter.markdown` makes,
has no script, and takes its colours from the page, so that it reads well on light and on dark.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from cwm_jupyter import markdown
from cwm_jupyter.core.printable import printable

__all__ = [
    "Block",
    "Facts",
    "Line",
    "Markdown",
    "Prose",
    "Table",
    "draw_html",
    "draw_text",
]


@dataclass(frozen=True)
class Line:
    """One sentence. `loud` is for what must not be overlooked, `faint` for what may be."""

    text: str
    loud: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Prose:
    """Text that people or the model wrote, line breaks kept."""

    text: str


@dataclass(frozen=True)
class Markdown:
    """Text that the model wrote in full: as it is in text, and rendered in HTML."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Labels and values, one pair a line."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Columns under a header; `right` are the columns with figures."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: frozenset[int] = field(default=frozenset())


Block = Line | Prose | Markdown | Facts | Table


# --- plain text -----------------------------------------------------------------------------------


def draw_text(blocks: Sequence[Block]) -> str:
    """Return the blocks as plain text, without a newline at the end."""
    return printable("\n".join(_text(block) for block in blocks))


def _text(block: Block) -> str:
    if isinstance(block, Line | Prose | Markdown):
        return block.text
    if isinstance(block, Facts):
        return _columns(block.pairs)
    return _columns([block.header, *block.rows], block.right)


def _columns(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> str:
    rows = [[cell.replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            _padded(cell, width, left=i not in right)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _padded(cell: str, width: int, *, left: bool) -> str:
    space = " " * (width - _width(cell))
    return cell + space if left else space + cell


def _width(text: str) -> int:
    """Return how many columns a terminal gives to a text."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


# --- HTML -----------------------------------------------------------------------------------------

# Colours come from the page (inherit, currentColor); the notebook's own table striping is undone.
_CELL = "text-align:{};padding:0 1.2em 0 0;background:transparent;vertical-align:top"
_LOUD = "font-weight:bold;border-left:0.3em solid currentColor;padding-left:0.6em"
_FAINT = "opacity:0.7"
#: what MathJax passes over: its commands are not for the model to use
_NO_FORMULAS = "mathjax_ignore tex2jax_ignore"
_RENDERED = "overflow-wrap:anywhere;margin:0 0 0.4em"
_PROSE = "white-space:pre-wrap;overflow-wrap:anywhere;margin:0 0 0.4em"


def draw_html(blocks: Sequence[Block]) -> str:
    """Return the blocks as an HTML fragment."""
    return f"<div>{''.join(_html(block) for block in blocks)}</div>"


def _html(block: Block) -> str:
    if isinstance(block, Line):
        style = _LOUD if block.loud else _FAINT if block.faint else ""
        return f'<div style="{style}">{_escaped(block.text)}</div>'
    if isinstance(block, Markdown) and (rendered := markdown.render(block.text)) is not None:
        # It decodes entities, and so comes first.
        return f'<div class="{_NO_FORMULAS}" style="{_RENDERED}">{printable(rendered)}</div>'
    if isinstance(block, Prose | Markdown):
        return f'<div class="{_NO_FORMULAS}" style="{_PROSE}">{_escaped(block.text)}</div>'
    if isinstance(block, Facts):
        rows = "".join(
            f"<tr>{_cell(label, 'th')}{_cell(value, 'td')}</tr>" for label, value in block.pairs
        )
        return f"<table>{rows}</table>"
    head = "".join(_cell(name, "th", i in block.right) for i, name in enumerate(block.header))
    body = "".join(
        f"<tr>{''.join(_cell(cell, 'td', i in block.right) for i, cell in enumerate(row))}</tr>"
        for row in block.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _escaped(text: str) -> str:
    return html.escape(printable(text))


def _cell(text: str, tag: str, right: bool = False) -> str:
    style = _CELL.format("right" if right else "left")
    return f'<{tag} style="{style}">{_escaped(text)}</{tag}>'

"""Markdown that a model wrote, as HTML that a notebook can trust.

What a cell puts out is trusted: its HTML may run scripts and load what it likes. So this lets
nothing through that a page would run, load or hide: HTML in the text is shown as text, an image
becomes a link, a link must lead to ``http`` or ``https`` and says where, and no element has an
attribute that the text could choose but for that. What remains is emphasis, headings, lists, code,
quotations and tables. Formulas stay as they were written, and are not typeset: what typesets them
has commands of its own.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.renderer import RendererHTML
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

__all__ = ["LONGEST", "render"]

#: characters; a text that is longer reads no better for being rendered
LONGEST = 50_000
#: levels of lists and quotations; the parser leaves out what is below them
_DEEPEST = 40
_FORMULA = re.compile(
    r"\$\$.{1,1000}?\$\$|\$(?![\s$])[^$\n]{1,500}?(?<!\s)\$(?!\d)"
    r"|\\\(.{1,1000}?\\\)|\\\[.{1,1000}?\\\]",
    re.DOTALL,
)


def render(text: str) -> str | None:
    """Return Markdown as an HTML fragment; None if the text is better shown as it is.

    Parameters
    ----------
    text
        CommonMark with tables and strikethrough. One that is longer than `LONGEST`, or so deeply
        nested that something would be left out, is not rendered.
    """
    if len(text) > LONGEST:
        return None
    markdown = _markdown()
    context: dict[str, Any] = {}
    tokens = markdown.parse(text, context)
    if any(token.level >= _DEEPEST - 1 for token in tokens):
        return None
    rendered: str = markdown.renderer.render(tokens, markdown.options, context)
    return rendered


@functools.cache
def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False, "maxNesting": _DEEPEST})
    markdown.enable(["table", "strikethrough"])
    markdown.disable(["image", "html_inline", "html_block"])
    markdown.inline.ruler.before("escape", "formula", _formula)
    markdown.validateLink = _leads_to_the_web  # type: ignore[method-assign]
    markdown.add_render_rule("link_open", _link_open)
    markdown.add_render_rule("link_close", _link_close)
    markdown.add_render_rule("fence", _fence)
    return markdown


def _leads_to_the_web(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _formula(state: StateInline, silent: bool) -> bool:
    """Take a formula as text, so that what it has of underscores and backslashes stays."""
    found = _FORMULA.match(state.src, state.pos, state.posMax)
    if found is None:
        return False
    if not silent:
        state.push("text", "", 0).content = found[0]
    state.pos = found.end()
    return True


def _link_open(
    _renderer: RendererHTML, tokens: Sequence[Token], at: int, _options: Any, _env: Any
) -> str:
    return f'<a href="{_target(tokens[at])}" target="_blank" rel="noopener noreferrer">'


def _link_close(
    _renderer: RendererHTML,
    tokens: Sequence[Token],
    at: int,
    _options: Any,
    _env: MutableMapping[str, Any],
) -> str:
    """End a link, and say where it leads, unless its text does."""
    # Links hold no links: the nearest opening is this one's.
    opening = max(i for i in range(at) if tokens[i].type == "link_open")
    target = _target(tokens[opening])
    said = "".join(token.content for token in tokens[opening + 1 : at])
    return "</a>" if html.escape(said) == target else f"</a> ({target})"


def _target(token: Token) -> str:
    return html.escape(str(token.attrGet("href")))


def _fence(
    _renderer: RendererHTML, tokens: Sequence[Token], at: int, _options: Any, _env: Any
) -> str:
    return f"<pre><code>{html.escape(tokens[at].content)}</code></pre>\n"

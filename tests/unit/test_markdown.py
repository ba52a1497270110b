"""Markdown from a model: what is in the HTML, and what must never be."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.layout import Markdown, draw_html, draw_text
from cwm_jupyter.markdown import LONGEST, render

#: elements that may have attributes, and which; and those that may have none
ALLOWED = {
    "div": {"class", "style"},
    "a": {"href", "target", "rel"},
    "ol": {"start"},
    "th": {"style"},
    "td": {"style"},
}
PLAIN = {
    *("p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "li", "blockquote", "pre", "code"),
    *("em", "strong", "s", "br", "hr", "table", "thead", "tbody", "tr"),
}
STYLES = {
    "overflow-wrap:anywhere;margin:0 0 0.4em",
    "white-space:pre-wrap;overflow-wrap:anywhere;margin:0 0 0.4em",
    "text-align:left",
    "text-align:right",
    "text-align:center",
}
VOID = {"br", "hr"}


class Reader(HTMLParser):
    """Reads HTML and refuses what a page could run or load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == [], "all elements are closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED or tag in PLAIN
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert name in ALLOWED.get(tag, ())
            assert value is not None
            if name == "href":
                assert value.lower().startswith(("http://", "https://"))
                self.links.append(value)
            if name == "style":
                assert value in STYLES
            if name == "start":
                assert value.isdigit()
            if name == "class":
                assert value == "mathjax_ignore tex2jax_ignore"

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError("a comment")

    def handle_decl(self, decl: str) -> None:
        raise AssertionError("a declaration")

    def handle_pi(self, data: str) -> None:
        raise AssertionError("an instruction")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError("a declaration")


def read(text: str) -> Reader:
    return Reader(draw_html([Markdown(text)]))


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("# Title", "h1"),
        ("*so*", "em"),
        ("**so**", "strong"),
        ("~~so~~", "s"),
        ("* one\n* two", "li"),
        ("3. three\n4. four", "ol"),
        ("> said", "blockquote"),
        ("`x`", "code"),
        ("```python\nx = 1\n```", "pre"),
        ("    x = 1", "pre"),
        ("| a | b |\n|--:|:-:|\n| 1 | 2 |", "td"),
        ("---", "hr"),
        ("[here](https://a.example/b)", "a"),
    ],
)
def test_what_is_rendered(text: str, tag: str) -> None:
    assert tag in read(text).tags


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<ScRiPt\n>alert(1)</ScRiPt>",
        "![x](https://evil.example/pixel.png)",
        '![x](https://evil.example/a.png "title")',
        "[![x](https://evil.example/a.png)](https://evil.example)",
        "![x][r]\n\n[r]: https://evil.example/a.png",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](java\tscript:alert(1))",
        "[x](&#106;avascript:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "![x](data:image/svg+xml;base64,PHN2Zz4=)",
        "[x](vbscript:x)",
        "[x](file:///etc/passwd)",
        "[x](//evil.example/x)",
        "[x][r]\n\n[r]: javascript:alert(1)",
        "<javascript:alert(1)>",
        "<data:text/html,x>",
        "<!-- a comment",
        "<!-- a comment -->",
        "<![CDATA[x]]>",
        "<?php x ?>",
        "<!DOCTYPE html>",
        "<div><p>never closed",
        "</div></div></div>",
        "<iframe src=https://evil.example>",
        "<audio autoplay src=https://evil.example/x.mp3>",
        "<style>@import 'https://evil.example/x.css'</style>",
        '```python" onclick="alert(1)\nx\n```',
        "```x><script>alert(1)</script>\nx\n```",
        '[x](https://a.example/"onmouseover="alert(1))',
        '[x](https://a.example "t\\" onclick=\\"alert(1)")',
        "| a |\n|---|\n| <script>x</script> |",
        "`<script>x</script>`",
        "&lt;script&gt;x&lt;/script&gt;",
        "$<script>x</script>$",
        "$$\n<img src=x onerror=y>\n$$",
        "\\(<b>\\)",
        "<https://a.example/<script>>",
        "*" * 500 + "[" * 500 + "`" * 499,
        "> " * 300 + "x",
    ],
)
def test_what_is_hostile_is_shown_and_not_obeyed(text: str) -> None:
    read(text)


PIECES = st.lists(
    st.sampled_from(
        [
            *"<>&\"'`*_[]()!#|~$\\:/\n\t -=",
            *("<script>", "</script>", "<img src=x onerror=y>", "<!--", "-->", "]]>", "&#x3c;"),
            *(
                "javascript:",
                "https://a.example/",
                "data:",
                "![",
                "](",
                "\n\n",
                "```",
                "$$",
                "|---|",
            ),
            *("[r]: ", "\n> ", "\n1. ", "\n* ", "a", "\u202e", "&#8238;", "\x1b", "\x00"),
        ]
    )
    | st.text(max_size=5),
    max_size=60,
).map("".join)


@given(PIECES)
def test_nothing_gets_through(text: str) -> None:
    seen = read(text)
    assert not set("\x00\x1b\u202e") & set(seen.text)


def test_a_link_says_where_it_leads() -> None:
    said = read("[your bank](https://evil.example/?a=1&b=2) <https://a.example>")
    assert said.links == ["https://evil.example/?a=1&b=2", "https://a.example"]
    assert said.text.strip() == "your bank (https://evil.example/?a=1&b=2) https://a.example"


def test_an_image_is_a_link() -> None:
    seen = read("![a chart](https://a.example/c.png)")
    assert (seen.tags[2:], seen.links) == (["p", "a"], ["https://a.example/c.png"])


@pytest.mark.parametrize(
    "formula", ["$a_1 * b * c$", "$$\\sum_{i} x_i$$", "\\(x_1 \\le y_1\\)", "\\[a * b * c\\]"]
)
def test_a_formula_stays_as_it_was_written(formula: str) -> None:
    assert formula in read(f"As {formula} has it.").text


def test_money_is_no_formula() -> None:
    assert read("It costs $5, *not* $6.").tags.count("em") == 1


def test_in_text_it_stays_as_it_is() -> None:
    assert draw_text([Markdown("**so** [x](https://a.example)")]) == "**so** [x](https://a.example)"


def test_what_is_too_long_is_shown_as_it_is() -> None:
    assert "<h1>" not in draw_html([Markdown("# x\n" + "y" * LONGEST)])


@pytest.mark.parametrize(
    "text", ["> " * 300 + "deep", "".join(f"{'  ' * i}* item {i}\n" for i in range(60))]
)
def test_nothing_is_left_out_of_what_is_deeply_nested(text: str) -> None:
    assert text.split()[-1] in read(text).text.split()


def test_the_same_text_gives_the_same() -> None:
    assert render("*x*") == render("*x*") == "<p><em>x</em></p>\n"

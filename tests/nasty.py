"""Text that does harm where somebody forgets to escape it."""

from __future__ import annotations

import unicodedata

from hypothesis import strategies as st

#: in front of everything nasty, to find it again
MARK = "zqx"
NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</td></tr></table><iframe src=//evil.example>",
    "<!-- ", "-->", "<![CDATA[", "&lt;b&gt;", "&#60;b&#62;",
    "javascript:alert(1)", "[click](javascript:alert(1))", "![](https://evil.example/p.png)",
    "$$\\href{javascript:alert(1)}{x}$$", "{{7*7}}", "{0}", "%s%n", "${HOME}",
    "$(touch /tmp/zqx)", "`touch /tmp/zqx`", "; rm -rf ~", "| sh", "&& true", "--json", "-o",
    "'; DROP TABLE windows; --", '{"state": "deleted"}', "\\", "\\x1b[31m", "*", "?", "~root",
    "\x1b[31mred", "\x1b]0;title\x07", "\x1b]52;c;ZXZpbA==\x07", "\x9b2J", "\x08\x08\x08", "\r",
    "\x00", "\x7f", "\x85", "a\nb", "\u2028", "\u202egnp.exe", "\u2066x", "\u200b", "\ufeff",
    "../../../etc/passwd", "..\\..\\windows", "/etc/passwd", "C:\\x", "file:///etc/passwd",
    "%2e%2e%2f", "=cmd|' /C calc'!A0",
)  # fmt: skip

nasty = st.one_of(
    st.sampled_from(NASTY),
    st.lists(st.sampled_from(NASTY), min_size=1, max_size=3).map("".join),
    st.text(
        st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Po", "Sm", "Ps", "Pe", "Ll"]),
        max_size=20,
    ),
).map(lambda text: MARK + text)


def turns_or_controls(text: str) -> list[str]:
    """The characters in a text that a terminal obeys, or that turn its direction."""
    turning = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return [
        c for c in text if c in turning or (unicodedata.category(c) == "Cc" and c not in "\n\t")
    ]

"""Nasty text from users, models and files, on its way to terminals, pages, JSON and arguments."""

from __future__ import annotations

import functools
import json
import re
import types
import typing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from entries import TIME
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from nasty import MARK, NASTY, nasty, turns_or_controls

from cwm_jupyter import errors, present
from cwm_jupyter.bench import show  # noqa: F401  (brings the form of its results)
from cwm_jupyter.bench.rows import BenchResult
from cwm_jupyter.core.models import Message, Page, Reply, Session, Value, Window
from cwm_jupyter.core.printable import printable
from cwm_jupyter.notebook.magics import split

_TAGS = {"div", "table", "thead", "tbody", "tr", "th", "td", "pre"}
_MARKDOWN = {
    *("p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "code"),
    *("em", "strong", "s", "br", "hr"),
}
_STYLE = re.compile(r"[a-z0-9:;.\- ]*(currentColor[a-z0-9:;.\- ]*)?")
#: forms that draw by themselves, and values that are no structs
_FORMS = [
    kind
    for kind in present.blocks.registry
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
]


class Drawn(HTMLParser):
    """What a browser makes of a page: its tags, attributes and text."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.seen: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _TAGS
        for name, value in attrs:
            if name == "class":  # or MathJax would obey commands in the text
                assert value == "mathjax_ignore tex2jax_ignore"
                continue
            assert name == "style"
            assert _STYLE.fullmatch(value or ""), value

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(decl)

    unknown_decl = handle_pi = handle_decl


class Rendered(Drawn):
    """The same of a page with Markdown in it."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            (target,) = (value or "" for name, value in attrs if name == "href")
            assert target.startswith(("http://", "https://"))
            assert {name for name, _ in attrs} == {"href", "target", "rel"}
        elif tag in _MARKDOWN:
            assert all(name == "start" for name, _ in attrs)
        else:
            super().handle_starttag(tag, attrs)


@functools.cache
def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type, with nasty text wherever there is text."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return values_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(values_of, arguments))
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (list, typing.Sequence) or hint is list:
        inner = values_of(arguments[0]) if arguments else nasty
        return st.lists(inner, max_size=2 if inner is nasty else 1)
    if origin is tuple:
        return st.tuples(*(values_of(one) for one in arguments if one is not ...))
    if origin is dict or hint is dict:
        return st.dictionaries(nasty, values_of(arguments[1]) if arguments else nasty, max_size=2)
    if hint is Any:
        return nasty
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return structs(hint)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: nasty,
        int: st.integers(1, 10**6),
        float: st.floats(0.001, 1000),
        bool: st.booleans(),
        type(None): st.none(),
        Path: nasty.map(lambda text: Path(text.replace("\0", ""))),
    }
    return simple[hint]


#: a bench's machine is a dict, all of whose parts are always there
_MACHINES = st.fixed_dictionaries(
    {
        "cpu": nasty,
        "cores": st.integers(1, 99),
        "flags": st.lists(nasty, max_size=2),
        "memory_bytes": st.integers(1, 10**12),
        "disk": nasty,
        "bounds": st.just({f"{what}_bytes_per_s": 1e9 for what in ("read", "copy", "write")}),
        "versions": st.dictionaries(nasty, nasty, max_size=2),
        "notes": st.lists(nasty, max_size=2),
    }
)


def structs(kind: type) -> st.SearchStrategy[Any]:
    fields = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if name == "__struct_config__" or name not in kind.__struct_fields__:
            continue
        if re.search(r"(_at|^time|^since)$", name):
            fields[name] = st.just(TIME)
        elif kind is Page and name == "items":
            listed = st.sampled_from([Window, Session]).flatmap(
                lambda one: st.lists(structs(one), max_size=2)
            )
            fields[name] = listed
        elif kind is BenchResult and name == "machine":
            fields[name] = _MACHINES
        else:
            fields[name] = values_of(hint)
    return st.builds(kind, **fields)


def strings_in(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        return set().union(*map(strings_in, (*value, *value.values())))
    if isinstance(value, list | tuple):
        return set().union(*map(strings_in, value))
    return set()


@pytest.mark.covers("SC-005")
@pytest.mark.parametrize("kind", _FORMS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@hypothesis_settings(max_examples=8, suppress_health_check=list(HealthCheck))
def test_no_value_draws_anything_but_text(kind, data) -> None:
    value = data.draw(structs(kind))
    try:
        shown = present.text(value)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        assume(False)  # its parts contradict each other, as no real one's do
    assert turns_or_controls(shown) == []
    page = (Rendered if kind is Reply else Drawn)(present.html(value))
    assert turns_or_controls(page.text) == []
    if isinstance(value, Value):
        assert json.loads(json.dumps(value.to_dict())) is not None


@given(text=nasty)
def test_what_is_said_is_shown_as_it_is(text) -> None:
    """Escaped, not cut: nothing that was written is lost from the page."""
    shown = Drawn(present.html(text)).text
    assert shown.replace("\r\n", "\n") == printable(text)
    assert MARK in present.text(text)


@given(text=nasty)
def test_errors_draw_nothing_but_text(text) -> None:
    for error in (
        errors.WindowNotFoundError(text, [text]),
        errors.ValidationError(f"Not a name: {text}", hint=text, name=text),
        errors.VLLMRequestError(text),
    ):
        assert turns_or_controls(present.text(error)) == []
        Drawn(present.html(error))
        assert json.loads(json.dumps(error.to_dict()))["code"] == error.code


@given(words=st.lists(st.sampled_from([n for n in NASTY if not set(n) & set("'\"\\\n\r")])))
def test_arguments_of_magics_are_split_and_never_expanded(words) -> None:
    joined = " ".join(f"'{word}'" for word in words)
    assert split(joined) == words


@pytest.mark.parametrize("line", ["$HOME", "~", "*", "`id`", "$(id)", "a;b", "a|b", "a>b", "{1}"])
def test_no_argument_means_anything_to_us(line) -> None:
    assert split(line) == [line]


@given(text=nasty)
def test_messages_keep_what_was_said(text) -> None:
    message = Message(role="user", content=text)
    assert Message.from_dict(json.loads(json.dumps(message.to_dict()))) == message

"""What may be a name, and which names are the same."""

from __future__ import annotations

import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cwm_jupyter.core.names import (
    MAX_NAME_LENGTH,
    check_id,
    check_name,
    check_tag,
    check_unicode,
    name_key,
    new_id,
    numbered,
)
from cwm_jupyter.errors import ValidationError


@pytest.mark.covers("TF-004")
@pytest.mark.parametrize(
    "name",
    [
        "paper",
        "Paper 2.1 (draft)",
        "a",
        "论文-第一章",
        "Überblick",
        "دفتر",
        "1",
        "x" * MAX_NAME_LENGTH,
        "console",
        "com10",
        "v1.0",
        "a~b#c!d",
        "🧊",
    ],
)
def test_ordinary_names_are_allowed(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.covers("TF-004")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "cannot be empty"),
        ("x" * (MAX_NAME_LENGTH + 1), "it has 129 characters, and 128 are allowed"),
        ("语" * 67, "it has 201 bytes, and 200 are allowed"),
        ("a/b", "'/' at position 2"),
        ("a\\b", r"'\\\\' at position 2"),
        ("../x", "'/' at position 3"),
        ("a:b", "':' at position 2"),
        ("what?", r"'\?' at position 5"),
        ("paper@2", "'@' at position 6"),
        ("$HOME", r"'\$' at position 1"),
        ("{x}", "'{' at position 1"),
        ("a;b", "';' at position 2"),
        ("it's", '"\'" at position 3'),
        ("a\x00b", r"U\+0000 \(no name\) at position 2"),
        ("a\nb", r"U\+000A .* at position 2"),
        ("a\u200bb", r"U\+200B \(zero width space\) at position 2"),
        ("abc\u202etxt", r"U\+202E \(right-to-left override\)"),
        ("a\u00a0b", r"U\+00A0 \(no-break space\)"),
        ("a\ud800", r"U\+D800"),
        ("a\ue000", r"U\+E000"),
        ("a\uffff", r"U\+FFFF"),
        ("\u3164", r"U\+3164 \(hangul filler\)"),
        ("a\ufe0f", r"U\+FE0F \(variation selector-16\)"),
        (" a", r"begin with U\+0020 \(space\)"),
        ("a ", r"end with U\+0020 \(space\)"),
        ("a.", "end with '.'"),
        (".", "begin with '.'"),
        ("..", "begin with '.'"),
        (".hidden", "begin with '.'"),
        ("-rf", "begin with '-'"),
        ("~", "begin with '~'"),
        ("CON", "CON is a device"),
        ("nul.txt", "NUL is a device"),
        ("Aux .x", "AUX is a device"),
        ("com1", "COM1 is a device"),
        ("COM¹", "COM1 is a device"),
        ("lpt9.tar.gz", "LPT9 is a device"),
        ("ＣＯＮ", "CON is a device"),
        ("CONIN$", r"'\$' at position 6"),
    ],
)
def test_other_names_are_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason) as caught:
        check_name(name)
    assert caught.value.message.startswith(("Not a window name", "A window name"))
    assert caught.value.message.isprintable()
    assert caught.value.hint


@pytest.mark.covers("TF-004")
@pytest.mark.parametrize("name", [None, 3, b"paper", ["paper"]])
def test_what_is_no_text_is_refused(name: Any) -> None:
    with pytest.raises(ValidationError, match="A session name is text, not"):
        check_name(name, "session")


@pytest.mark.parametrize(
    "name", ["paper", "x" * MAX_NAME_LENGTH, "\u6587" * 66 + "é", "a." + "b" * 126]
)
def test_a_numbered_name_is_a_name(name: str) -> None:
    second, tenth = numbered(name, 2), numbered(name, 10)
    assert check_name(second) == second != check_name(tenth) == tenth
    assert second.endswith("-2")
    assert name.startswith(second.removesuffix("-2"))


def test_a_decomposed_name_is_stored_composed() -> None:
    assert check_name("u\u0308ber") == "über"


@pytest.mark.covers("TF-004")
@given(st.text(max_size=140) | st.text(alphabet="aC.o-n1@ü \u0308\u200d", max_size=8))
@example("\u0340.")  # composing can change which character comes last
def test_what_is_allowed_is_fit_for_every_place(name: str) -> None:
    try:
        allowed = check_name(name)
    except ValidationError:
        return
    assert check_name(allowed) == allowed
    assert unicodedata.is_normalized("NFC", allowed)
    assert allowed.isprintable()
    assert len(allowed.encode()) <= 200
    assert not set(allowed) & set('/\\:*?"<>|@%$`;&\0')
    assert allowed == allowed.strip() == allowed.strip(".")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paper", "pAPER"),
        ("über", "u\u0308ber"),
        ("ＰＡＰＥＲ", "paper"),
        ("straße", "STRASSE"),
        ("ﬁne", "fine"),
        ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
    ],
)
def test_names_that_are_easily_mixed_up_are_the_same(one: str, other: str) -> None:
    assert name_key(one) == name_key(other)


def test_names_that_differ_are_not_the_same() -> None:
    assert len({name_key(n) for n in ("paper", "papers", "paper 2", "páper", "раper")}) == 5


def test_the_key_of_a_key_is_the_key_for_every_character() -> None:
    unstable = [
        hex(code)
        for code in range(sys.maxunicode + 1)
        if name_key(name_key(chr(code))) != name_key(chr(code))
    ]
    assert unstable == []


@given(st.text())
def test_keys_do_not_depend_on_composition_or_case(name: str) -> None:
    decomposed = unicodedata.normalize("NFD", name)
    assert name_key(name) == name_key(decomposed) == name_key(name.casefold())


@pytest.mark.parametrize("tag", ["draft", "chapter-1", "2026", "重要", "a.b"])
def test_ordinary_tags_are_allowed(tag: str) -> None:
    assert check_tag(tag) == tag


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("", "cannot be empty"),
        ("a b", r"U\+0020 \(space\) at position 2"),
        ("a,b", "',' at position 2"),
        ("x" * 65, "64 are allowed"),
        ("-x", "begin with '-'"),
        ("a|b", r"'\|' at position 2"),
    ],
)
def test_other_tags_are_refused(tag: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        check_tag(tag)


def test_fresh_ids_differ_and_are_allowed() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert {check_id(i) for i in ids} == ids


@pytest.mark.parametrize("value", ["", "A", "a/b", "..", "a.b", "nul", "x" * 65, "a\n", "é", 5])
def test_what_could_lead_elsewhere_as_a_file_name_is_no_id(value: Any) -> None:
    with pytest.raises(ValidationError, match="Not the id of a session"):
        check_id(value, "session")


def test_text_that_cannot_be_written_down_is_refused() -> None:
    assert check_unicode("a\x1b\n\u202e\U0001d51e", "note") == "a\x1b\n\u202e\U0001d51e"
    with pytest.raises(ValidationError, match=r"The note is no valid text: U\+D800 .* position 2"):
        check_unicode("a\ud800", "note")

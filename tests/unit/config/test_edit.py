"""Writing one field into a TOML file: all else stays as it was, or nothing is written."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.config.checks import flattened
from cwm_jupyter.config.edit import edited
from cwm_jupyter.errors import ConfigError

TEXT = """\
# mine
log_level = "info"   # not "debug" # at all

[stack] # the engine
# a power of two
chunk_tokens=64
model = "a # b" # c

[limits]
max_tokens = 9
"""


@pytest.mark.parametrize(
    ("name", "value", "old", "new"),
    [
        ("stack.chunk_tokens", 32, "chunk_tokens=64", "chunk_tokens = 32"),
        ("log_level", "error", '"info"   # not', '"error"   # not'),
        ("stack.model", Path("/m"), '"a # b" # c', '"/m" # c'),
        ("stack.kv_cache_gib", 0.5, "[stack] # the engine\n", "*kv_cache_gib = 0.5\n"),
        ("limits.probe_top", 3, "[limits]\n", "*probe_top = 3\n"),
        ("home", Path('/a"ö'), "# mine\n", '"home = "/a\\"ö"\n# mine\n'),
        ("vllm.retries", 0, "max_tokens = 9\n", "*\n[vllm]\nretries = 0\n"),
        ("security.encrypt", True, "max_tokens = 9\n", "*\n[security]\nencrypt = true\n"),
        (
            "stack.engine_args",
            ("--a", "b c"),
            "[stack] # the engine\n",
            '*engine_args = ["--a", "b c"]\n',
        ),
        ("limits.max_tokens", None, "max_tokens = 9\n", ""),
        ("stack.idle_stop_s", None, "", ""),
    ],
)
def test_one_line_changes(name: str, value: Any, old: str, new: str) -> None:
    if new.startswith("*"):
        new = old + new[1:]
    elif new.startswith('"home'):
        new = new[1:]
    assert edited(TEXT, name, value) == TEXT.replace(old, new)


@pytest.mark.parametrize("text", ["", "\n\n", "[limits]", "# nothing\n", "\r\n"])
def test_an_empty_file_gets_its_first_field(text: str) -> None:
    assert tomllib.loads(edited(text, "limits.max_tokens", 5)) == {"limits": {"max_tokens": 5}}
    assert tomllib.loads(edited(text, "log_level", "info"))["log_level"] == "info"


@pytest.mark.parametrize(
    "text",
    [
        "limits.probe_top = 1\n",  # the section cannot be opened again
        "limits = {max_tokens = 1}\n",
        'home = """\n[limits]\nmax_tokens = 1\n"""\n',  # what looks like the field is none
        "[limits]\nmax_tokens = [\n1,\n]\n",
    ],
)
def test_what_cannot_be_changed_safely_is_left_to_the_user(text: str) -> None:
    with pytest.raises(ConfigError, match=r"limits\.max_tokens cannot be changed in the file"):
        edited(text, "limits.max_tokens", 5)


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "home": st.text(),
        "limits.max_tokens": st.integers(),
        "stack.engine_args": st.lists(st.text()),
        "stack.kv_cache_gib": st.floats(allow_nan=False),
        "security.encrypt": st.booleans(),
    },
)


@given(FIELDS, FIELDS)
def test_what_is_written_can_be_read(before: dict[str, Any], after: dict[str, Any]) -> None:
    text, written = "", {}
    for name, value in [*before.items(), *after.items(), *((name, None) for name in before)]:
        try:
            text = edited(text, name, value)
        except ConfigError:  # what TOML cannot say
            continue
        written = {**written, name: value}
        if value is None:
            del written[name]
        assert dict(flattened(tomllib.loads(text))) == written

"""The error tree: codes, contexts, what is shown where, and that no secret is."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from cwm_jupyter import errors
from cwm_jupyter.errors import CWMError, redact


def subclasses(cls: type[CWMError]) -> Iterator[type[CWMError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from subclasses(child)


# Other tests may define errors of their own.
TREE = [cls for cls in subclasses(CWMError) if cls.__module__.startswith("cwm_jupyter")]
every_error = pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)


# --- the tree -------------------------------------------------------------------------------------


@pytest.mark.covers("ER-016")
def test_all_derive_from_the_base_and_are_public() -> None:
    defined = {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert set(defined.values()) == set(TREE)
    assert {*defined, "redact"} == set(errors.__all__)


def test_the_docstrings_tree_is_the_tree() -> None:
    drawn: dict[str, tuple[str | None, str]] = {}
    above: list[str] = []
    lines = re.findall(r"^    ([│├└─ ]*)(\w+) +(\S+\.\S+)$", errors.__doc__ or "", re.MULTILINE)
    for indent, name, code in lines:
        depth = len(indent) // 4
        above = [*above[:depth], name]
        drawn[name] = (above[-2] if depth else None, code)
    real = {
        cls.__name__: (cls.__base__.__name__ if cls is not CWMError else None, cls.code)  # type: ignore[union-attr]
        for cls in TREE
    }
    assert drawn == real


@pytest.mark.covers("ER-018")
def test_codes_have_one_format_and_are_unique() -> None:
    codes = [cls.code for cls in TREE]
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", code) for code in codes)
    assert len(set(codes)) == len(codes)
    assert all("code" in vars(cls) for cls in TREE), "a class has its code from its parent"


@pytest.mark.covers("ER-019")
@every_error
def test_codes_carry_their_category(cls: type[CWMError]) -> None:
    error = cls("x")
    assert error.category == cls.code.split(".")[0]
    assert error.to_dict()["category"] == error.category


@pytest.mark.covers("ER-017")
@every_error
def test_the_base_catches_all(cls: type[CWMError]) -> None:
    with pytest.raises(CWMError) as caught:
        raise cls("x")
    assert type(caught.value) is cls


@every_error
def test_every_class_says_what_it_is_for(cls: type[CWMError]) -> None:
    assert cls.__doc__
    assert cls.__doc__.strip()


def _row(id_: str, name: str, code: str, parent: str) -> Any:
    return pytest.param(name, code, parent, marks=pytest.mark.covers(id_), id=name)


# Codes that programs may rely on: a change here breaks them.
@pytest.mark.parametrize(
    ("name", "code", "parent"),
    [
        _row("ER-005", "ValidationError", "input.invalid", "CWMError"),
        _row("ER-006", "SessionNotFoundError", "session.not_found", "SessionError"),
        _row("ER-007", "WindowNotFoundError", "window.not_found", "WindowError"),
        _row("ER-008", "StateTransitionError", "session.state", "SessionError"),
        _row("ER-009", "KVStoreError", "store.error", "CWMError"),
        _row("ER-010", "KVStoreConnectionError", "store.connection", "KVStoreError"),
        _row("ER-011", "KVStoreTimeoutError", "store.timeout", "KVStoreError"),
        _row("ER-012", "VLLMConnectionError", "vllm.connection", "VLLMError"),
        _row("ER-013", "VLLMTimeoutError", "vllm.timeout", "VLLMError"),
        _row("ER-014", "ResourceExhaustedError", "resource.exhausted", "CWMError"),
        _row("ER-015", "SecurityError", "security.refused", "CWMError"),
    ],
)
def test_released_codes_and_parents(name: str, code: str, parent: str) -> None:
    cls = getattr(errors, name)
    with pytest.raises(getattr(errors, parent)) as caught:
        raise cls("paper")
    assert caught.value.code == code
    assert "paper" in str(caught.value)


# --- one error ------------------------------------------------------------------------------------


@pytest.mark.covers("ER-001")
def test_message_and_code() -> None:
    error = CWMError("The disk is full.")
    assert (error.message, error.code, str(error)) == (
        "The disk is full.",
        "cwm.error",
        "The disk is full.",
    )


@pytest.mark.covers("ER-002")
def test_context_is_kept() -> None:
    error = errors.ResourceExhaustedError("No room.", needed_bytes=5, path="/x")
    assert error.context == {"needed_bytes": 5, "path": "/x"}


def test_hint_is_the_second_line_and_overrides_the_classs_own() -> None:
    assert str(errors.StackDownError("Down.")).splitlines() == [
        "Down.",
        "Start it with %cwm up, or cwm up in a terminal.",
    ]
    assert str(errors.StackDownError("Down.", hint="Wait.")) == "Down.\nWait."


@pytest.mark.covers("ER-003")
def test_to_dict() -> None:
    error = errors.VLLMRequestError("Refused.", hint="Ask less.", status=400, cache_salt="s3cret")
    document = error.to_dict()
    assert document == {
        "code": "vllm.request",
        "category": "vllm",
        "message": "Refused.",
        "hint": "Ask less.",
        "context": {"status": 400, "cache_salt": "[redacted]"},
    }
    assert json.loads(json.dumps(document)) == document


@pytest.mark.covers("ER-004")
def test_to_log_dict_is_flat_and_names_the_cause() -> None:
    error = errors.VLLMConnectionError("Gone.", url="http://x", api_key="s3cret")
    error.__cause__ = OSError("refused")
    assert error.to_log_dict() == {
        "error": "VLLMConnectionError",
        "code": "vllm.connection",
        "message": "Gone.",
        "cause": "OSError: refused",
        "context.url": "http://x",
        "context.api_key": "[redacted]",
    }
    assert "cause" not in errors.VLLMConnectionError("Gone.").to_log_dict()


@every_error
def test_errors_travel_between_processes(cls: type[CWMError]) -> None:
    error = cls("paper", known=["papers"]) if "NotFound" in cls.__name__ else cls("x", n=[1])
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is cls
        assert twin.to_dict() == error.to_dict()
        assert (str(twin), twin.args) == (str(error), error.args)


# --- not found ------------------------------------------------------------------------------------

NOT_FOUND = [errors.WindowNotFoundError, errors.SessionNotFoundError]


@pytest.mark.covers("ER-007")
def test_window_not_found_suggests_the_nearest() -> None:
    error = errors.WindowNotFoundError("papre", ["recipes", "paper", "paper-2"])
    assert str(error).splitlines() == [
        "There is no window 'papre'.",
        "Did you mean paper, paper-2?",
    ]
    assert error.context == {"window": "papre"}


@pytest.mark.covers("ER-006")
def test_session_not_found_names_the_session() -> None:
    error = errors.SessionNotFoundError("mian", ["main"])
    assert str(error) == "There is no session 'mian'.\nDid you mean main?"
    assert error.context == {"session": "mian"}


@pytest.mark.parametrize("cls", NOT_FOUND)
def test_without_a_near_name_the_known_ones_are_listed(cls: Any) -> None:
    assert cls("zzz", ["b", "a"]).hint == "There are: a, b."
    assert cls("zzz", iter("fedcba")).hint == "There are: a, b, c, d, e, …."
    assert cls("zzz").hint == cls.default_hint


# --- in a notebook --------------------------------------------------------------------------------


def test_in_ipython_the_traceback_is_two_lines(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    no_history = Config({"HistoryManager": {"enabled": False}})
    shell = InteractiveShell(ipython_dir=str(tmp_path), config=no_history)
    shell.run_cell(
        "from cwm_jupyter.errors import StackDownError\n"
        "def deep():\n    raise StackDownError('No stack is running.')\n"
        "deep()"
    )
    shown = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert shown == [
        "No stack is running.  [stack.down]",
        "Start it with %cwm up, or cwm up in a terminal.",
    ]


def test_without_a_hint_it_is_one_line() -> None:
    assert CWMError("x")._render_traceback_() == ["x  [cwm.error]"]


# --- secrets --------------------------------------------------------------------------------------

SECRET = "s3cret-value"
secret_names = st.sampled_from(["salt", "cache_salt", "SALT", "lineage_secret", "api_key"]) | (
    st.sampled_from(["apiKey", "token", "hub_token", "Authorization", "db_password"])
)
plain_names = st.sampled_from(["url", "tokens", "token_ids", "keys", "found_keys", "total_keys"])
plain_values = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
secret_documents = st.recursive(
    st.dictionaries(secret_names, st.just(SECRET) | st.just([SECRET]), min_size=1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_names, inner, max_size=3),
    max_leaves=8,
)
plain_documents = st.recursive(
    plain_values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_names, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.covers("ER-004")
@given(secret_documents)
def test_no_secret_is_shown_however_deep(document: Any) -> None:
    before = copy.deepcopy(document)
    error = CWMError("x", details=document, cache_salt=SECRET)
    for shown in (error.to_dict(), error.to_log_dict()):
        assert SECRET not in json.dumps(shown)
    assert document == before


@given(plain_documents)
def test_what_is_no_secret_is_shown(document: Any) -> None:
    assert redact(document) == document
    assert redact({"pair": (1, "a")}) == {"pair": [1, "a"]}

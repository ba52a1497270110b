"""A session belongs to a notebook, and another can take it up; nothing secret is put out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bench import QUESTION
from fake_stack import FakeStack
from IPython.core.interactiveshell import InteractiveShell
from shells import Published, failure, run

from cwm_jupyter.current import shared


@pytest.fixture
def other(kernel: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Go to another notebook: returns what does, given its name."""

    def go(name: str) -> None:
        monkeypatch.setenv("JPY_SESSION_NAME", f"/home/me/{name}.ipynb")
        monkeypatch.setattr(shared, "_name", None)
        monkeypatch.setattr(shared, "_used", set())

    return go


@pytest.mark.usefixtures("own_process", "fake_stack")
class TestSessions:
    def test_each_notebook_has_its_own(self, kernel: InteractiveShell, other: Any) -> None:
        run(kernel, f"%%cwm -o first\n{QUESTION}")
        other("Second")
        seen = run(kernel, f"%%cwm -o second\n{QUESTION}").outputs[-1].data["text/plain"]
        assert kernel.user_ns["first"].session == "My-notebook"
        assert kernel.user_ns["second"].session == "Second"
        assert "Going on in" not in seen
        # Neither knows of the other: their secrets differ, and so their chunks.
        assert kernel.user_ns["second"].cached_tokens == 0

    def test_another_takes_it_up_by_name_and_stays_in_it(
        self, kernel: InteractiveShell, other: Any
    ) -> None:
        run(kernel, f"%%cwm -o first\n{QUESTION}")
        other("Second")
        seen = run(kernel, "%%cwm -s My-notebook -o second\nAnd then?").outputs[-1].data
        assert seen["text/plain"].startswith("Going on in session My-notebook: 1 turn,")
        assert kernel.user_ns["second"].cached_tokens > 0
        run(kernel, "%%cwm -o third\nAnd then?")
        assert kernel.user_ns["third"].session == "My-notebook"
        frozen = run(kernel, "%freeze paper").outputs[-1].data["text/plain"]
        assert frozen.startswith("Froze My-notebook as paper")

    def test_a_branch_is_taken_up_and_the_session_left_as_it_is(
        self, kernel: InteractiveShell
    ) -> None:
        run(kernel, f"%%cwm\n{QUESTION}")
        run(kernel, "%%cwm\nAnd then?")
        run(kernel, "%cwm rewind 1")
        run(kernel, "%%cwm -o reply\nOr else?")
        assert kernel.user_ns["reply"].session == "My-notebook-2"
        run(kernel, "%cwm show -s My-notebook -o left")
        assert kernel.user_ns["left"].session.turns == 2

    def test_one_that_is_not_there_is_two_lines(self, kernel: InteractiveShell) -> None:
        _, seen = failure(kernel, "%freeze paper -s nothing")
        assert seen.startswith("There is no session 'nothing'.")
        assert seen.count("\n") <= 2


@pytest.mark.usefixtures("own_process")
def test_nothing_secret_is_put_out(
    kernel: InteractiveShell,
    fake_stack: FakeStack,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    asked: list[str] = []

    def secret(prompt: str) -> str:
        asked.append(prompt)
        return "open sesame please"

    monkeypatch.setattr("getpass.getpass", secret)
    published = Published(kernel)
    file = tmp_path / "all.cwm"
    for cell in (
        f"%%cwm\n{QUESTION}",
        "%freeze paper",
        f"%cwm export paper {file} --encrypt",
        f"%cwm import {file} --as theirs",
        "%thaw paper",
        "%cwm show paper",
        "%cwm show -s paper",
        "%cwm tree",
        "%cwm du",
        "%cwm config",
        "%cwm audit",
        "%cwm status",
    ):
        kernel.run_cell(cell).raise_error()
    assert asked
    said = repr(published.bundles)
    secrets = [path for path in home.rglob("*") if path.is_file() and path.stat().st_size == 32]
    assert secrets
    for path in secrets:
        assert path.read_bytes().hex() not in said
        assert repr(path.read_bytes())[2:-1] not in said
    salts = {salt for salt, _ in fake_stack._engine_blocks}
    assert salts
    assert not [salt for salt in salts if salt in said]
    assert "open sesame" not in said

"""What the notebook toolbar learns of a kernel."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_stack import FakeStack
from IPython.core.interactiveshell import InteractiveShell
from shells import run

from cwm_jupyter import workspace as workspaces
from cwm_jupyter.current import shared
from cwm_jupyter.notebook.toolbar import MIME_TYPE, facts
from cwm_jupyter.workspace import get_workspace

pytestmark = pytest.mark.usefixtures("own_process")

_ASK = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
known = set(sys.modules)
expression = sys.argv[1]
print(json.dumps(shell.user_expressions({"cwm": expression})["cwm"]["data"]))
assert not {m for m in set(sys.modules) - known if m.startswith("cwm_jupyter")}
"""


def document() -> dict[str, Any]:
    """What Lab is given."""
    given = facts()._repr_mimebundle_()[MIME_TYPE]
    return json.loads(json.dumps(given))


def test_without_a_workspace_nothing_is_opened(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspaces, "_shared", None)
    assert document() == {"magics": True, "home": None, "session": None}
    assert workspaces.opened_workspace() is None
    run(shell, "%unload_ext cwm_jupyter")
    assert document()["magics"] is False


def test_the_session_that_was_used_last(fake_stack: FakeStack, shell: InteractiveShell) -> None:
    run(shell, "%%cwm -s first\nWhat is the capital of France?")
    run(shell, "%%cwm -s second\nWhat is the capital of Spain?")
    run(shell, "%%cwm\nAnd how many people live there?")
    given = document()
    assert given["home"] == str(get_workspace().settings.home)
    session = given["session"]
    found = get_workspace().library.index.find_session("second")
    assert found is not None
    assert (session["name"], session["turns"]) == ("second", 2)
    assert session["tokens"] == found.tokens
    assert session["max_context_tokens"] == found.max_context_tokens
    last = get_workspace().library.transcript(found).turns[-1]
    assert session["cached_tokens"] == last.cached_tokens
    assert session["cached_tokens"] + session["computed_tokens"] == last.prompt_end


def test_a_session_that_is_not_there_is_none(
    fake_stack: FakeStack, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(shell, "%cwm ls")
    monkeypatch.setattr(shared, "_name", "nobody")
    assert document()["session"] is None


def test_the_shell_hands_it_over_as_json(shell: InteractiveShell) -> None:
    given = shell.user_expressions({"cwm": lab_expression()})
    assert given["cwm"]["status"] == "ok"
    assert given["cwm"]["data"][MIME_TYPE]["magics"] is True


def test_lab_asks_nothing_of_a_kernel_that_has_not_imported_the_package() -> None:
    expression = lab_expression()
    done = subprocess.run(
        [sys.executable, "-c", _ASK, expression], check=True, capture_output=True, text=True
    )
    assert MIME_TYPE not in json.loads(done.stdout)


def lab_expression() -> str:
    """The expression that the extension has the kernel evaluate."""
    source = Path(__file__).parents[3] / "labextension" / "src" / "notebook" / "kernel.ts"
    found = re.search(r"const FACTS =\s*((?:\s*(?:\+ )?\"[^\"]*\"\s*\+?)+);", source.read_text())
    assert found is not None
    return "".join(re.findall(r'"([^"]*)"', found[1]))

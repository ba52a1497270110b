"""The list in the documentation is that of the verbs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cwm_jupyter.notebook.reference import reference
from cwm_jupyter.verbs import VERBS

DOCUMENT = Path(__file__).parents[3] / "docs" / "magics.md"


def test_the_documentation_is_fresh() -> None:
    """Made anew by ``python -m cwm_jupyter.notebook.reference``."""
    assert DOCUMENT.read_text("utf-8").endswith(f"## All verbs\n\n{reference()}")


def test_every_verb_is_in_it_under_the_shortest_name() -> None:
    said = reference()
    for name in {*VERBS, *VERBS["admin"].verbs} - {"admin", "trust", "say", "freeze", "thaw"}:
        assert f"\n### `%cwm {name}`\n" in f"\n{said}"
    assert "### `%%cwm`, `%cwm say`\n" in said
    assert "### `%freeze`, `%cwm freeze`\n" in said
    assert "### `%cwm trust add`\n" in said


def test_the_command_prints_it() -> None:
    command = [sys.executable, "-m", "cwm_jupyter.notebook.reference"]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == reference()

"""The list in the documentation is that of the schema."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cwm_jupyter.config.reference import descriptions, reference
from cwm_jupyter.config.schema import fields

DOCUMENT = Path(__file__).parents[3] / "docs" / "settings.md"


def test_every_field_is_described() -> None:
    assert [name for name in fields() if not descriptions().get(name)] == []


def test_the_documentation_is_fresh() -> None:
    """Made anew by ``python -m cwm_jupyter.config.reference``."""
    assert reference() in DOCUMENT.read_text("utf-8")


def test_the_command_prints_it() -> None:
    command = [sys.executable, "-m", "cwm_jupyter.config.reference"]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == reference()

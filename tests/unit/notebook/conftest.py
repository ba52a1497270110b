"""Shells for tests of the magics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from IPython.core.interactiveshell import InteractiveShell
from shells import shell_with_magics


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    """A terminal's shell."""
    with shell_with_magics() as shell:
        yield shell


@pytest.fixture
def kernel(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> InteractiveShell:
    """A shell that takes itself for a notebook's."""
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/My notebook.ipynb")
    shell.kernel = object()
    return shell

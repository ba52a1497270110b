"""The demo notebooks, run as they are committed, on the real stack."""

from __future__ import annotations

import asyncio
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.stack

_FOLDER = Path(__file__).parent.parent.parent / "demo_notebooks"


def _text(cell: nbformat.NotebookNode) -> str:
    """All plain text that a cell printed or showed."""
    return "".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    )


async def test_01_freeze_and_thaw(stack, stack_settings, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("CWM_HOME", str(stack_settings.home))
    monkeypatch.setenv("CWM_CACHE_DIR", str(stack_settings.cache_dir))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(_FOLDER / "01_freeze_and_thaw.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    await client.async_execute()
    cells = {cell.source: _text(cell) for cell in notebook.cells if cell.cell_type == "code"}
    compared = next(text for source, text in cells.items() if source.startswith("print("))
    assert "largest difference of a log-probability: 0.0\n" in compared
    assert "textwrap" in cells["%cwm ls"]


@pytest.mark.parametrize("path", sorted(_FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
async def test_committed_notebooks_have_outputs_and_no_secret(path: Path) -> None:
    content = await asyncio.to_thread(path.read_text, encoding="utf-8")
    notebook = nbformat.reads(content, as_version=4)
    executed = [c for c in notebook.cells if c.cell_type == "code" and c.execution_count]
    assert executed
    assert any(cell.outputs for cell in executed)
    for words in ("api_key", "Bearer", "/root", "/home/", "cache_salt"):
        assert words not in content

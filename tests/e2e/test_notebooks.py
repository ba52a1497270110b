"""The demo notebooks, run as they are committed, on the real stack.

By nbclient, and not by nbmake: that only asks whether a cell failed, and here the answers count.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.stack

#: what each code cell showed, by its source
Told = dict[str, str]

_FOLDER = Path(__file__).parent.parent.parent / "demo_notebooks"

#: where people and their systems keep things: a committed notebook names none of them
_HOME = re.compile(r"(?:/root|/home|/Users|/tmp|/var)/|[A-Z]:\\\\Users")


def _text(cell: nbformat.NotebookNode) -> str:
    """All plain text that a cell printed or showed."""
    return "".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    )


@pytest.fixture
async def run(stack, stack_settings, monkeypatch, tmp_path) -> Callable[[str], Awaitable[Told]]:
    """Runs a notebook of this name on the shared stack, and gives what its cells showed."""
    monkeypatch.setenv("CWM_HOME", str(stack_settings.home))
    monkeypatch.setenv("CWM_CACHE_DIR", str(stack_settings.cache_dir))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("PLOTLY_RENDERER", "plotly_mimetype")

    async def run(name: str) -> Told:
        notebook = nbformat.read(_FOLDER / name, as_version=4)
        resources = {"metadata": {"path": str(tmp_path)}}
        await NotebookClient(notebook, timeout=600, resources=resources).async_execute()
        return {cell.source: _text(cell) for cell in notebook.cells if cell.cell_type == "code"}

    return run


def _of(told: Told, beginning: str) -> str:
    """What the first cell that begins so showed."""
    return next(text for source, text in told.items() if source.startswith(beginning))


async def test_01_freeze_and_thaw(run) -> None:
    told = await run("01_freeze_and_thaw.ipynb")
    assert "largest difference of a log-probability: 0.0\n" in _of(told, "print(")
    assert "textwrap" in told["%cwm ls"]


async def test_02_branches(run) -> None:
    told = await run("02_branches.ipynb")
    assert _of(told, "%cwm ask").count("4,864") == 4  # the context was computed once
    assert "├── indenting" in told["%cwm tree context"]
    assert "38 common" in _of(told, "%cwm compare")
    assert "4,864 of " in _of(told, "print(")


async def test_03_a_long_day(run) -> None:
    told = await run("03_a_long_day.ipynb")
    assert "day-1" in told["%cwm ls --tag auto"]
    assert "other-way goes on from the end of turn 2" in _of(told, "%cwm rewind")
    assert "difflib-first" in told["%cwm ls difflib"]
    assert "probe equal to the bit" in told["%thaw difflib-first"]


async def test_04_moving(run) -> None:
    told = await run("04_moving.ipynb")
    assert "all read from the disk and right" in _of(told, 'there("thaw travels --as arrived")')
    assert "probe equal to the bit" in _of(told, 'there("thaw travels --as arrived")')
    assert "DAMAGED" in _of(told, 'there("verify')
    assert "1 computed again" in _of(told, 'there("repair')
    assert "probe equal to the bit" in _of(told, 'there("thaw travels --as repaired")')
    refusal = _of(told, 'there("thaw travels --as refused")')
    assert "block_tokens: frozen with 128, the engine has 64" in refusal
    assert "--recompute" in refusal
    assert "computed anew" in _of(told, 'there("thaw travels --as anew')


async def test_05_what_it_costs(run) -> None:
    told = await run("05_what_it_costs.ipynb")
    assert _of(told, "costs =").count(" MB") == 4
    assert "ms a token" in _of(told, "def line")
    assert _of(told, "usage =").count("of its own") == 4


@pytest.mark.parametrize("path", sorted(_FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
async def test_committed_notebooks_have_outputs_and_no_secret(path: Path) -> None:
    content = await asyncio.to_thread(path.read_text, encoding="utf-8")
    notebook = nbformat.reads(content, as_version=4)
    executed = [c for c in notebook.cells if c.cell_type == "code" and c.execution_count]
    assert executed
    assert any(cell.outputs for cell in executed)
    assert not [c.source for c in executed for o in c.outputs if o.output_type == "error"]
    for words in ("api_key", "Bearer", "cache_salt"):
        assert words not in content
    assert not _HOME.findall(content)

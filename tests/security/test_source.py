"""What the package's own code never does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import cwm_jupyter

PACKAGE = Path(cwm_jupyter.__file__).parent
#: calls that hand text to a shell, run it as code, or build objects from untrusted bytes
FORBIDDEN = {
    "eval", "exec", "compile", "execfile", "__import__",
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell", "anyio.run_process_shell",
    "pickle.load", "pickle.loads", "marshal.load", "marshal.loads", "shelve.open",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load",
    "tarfile.open.extractall", "shutil.unpack_archive", "tempfile.mktemp",
}  # fmt: skip


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.covers("SC-005")
def test_nothing_reaches_a_shell_or_is_run_as_code() -> None:
    found = []
    for path in sources():
        for name, node in calls(path):
            shell = [k for k in node.keywords if k.arg == "shell"]
            if name in FORBIDDEN or shell or name.endswith(".extractall"):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}")
    assert found == []
    assert len(sources()) > 50


def test_every_process_is_started_with_a_list() -> None:
    """A string would be split, or given to a shell, by the system's own rules."""
    for path in sources():
        for name, node in calls(path):
            if name in ("subprocess.run", "subprocess.Popen", "subprocess.check_output"):
                assert not isinstance(node.args[0], ast.Constant | ast.JoinedStr), ast.unparse(node)


def test_html_is_made_where_it_is_escaped() -> None:
    """Tags are in `layout` and `markdown`; another module that writes them must escape itself."""
    tags = ("<div", "<td", "<tr", "<table", "<span", "<a ", "<img", "<script", "<p>", "<b>")
    with_tags = []
    for path in sources():
        strings = _strings(path)
        if any(tag in strings for tag in tags):
            with_tags.append(path.relative_to(PACKAGE).as_posix())
    assert with_tags == ["layout.py", "markdown.py"]


def _strings(path: Path) -> str:
    """All string constants of a module, docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return "\n".join(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if id(node) not in docstrings
    )

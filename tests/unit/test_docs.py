"""README and docs/: links lead somewhere, lines can be typed, snippets name what there is."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

import cwm_jupyter as cwm
from cwm_jupyter.api.reference import reference
from cwm_jupyter.errors import CWMError, UsageError
from cwm_jupyter.notebook.magics import _cell_parser, magic_parser, split
from cwm_jupyter.verbs import VERBS, find, parse

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PYTHON = ROOT / "docs" / "python.md"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")
#: where a terminal's line ends for `cwm`
_END = re.compile(r"\s+(?:#|<|>|\||&&).*$")
#: two spaces and more: what a line does is said beside it
_REMARK = re.compile(r"\s{2,}\S.*$")


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text("utf-8"))


def _fences(page: Path, *languages: str) -> Iterator[str]:
    for language, body in _FENCE.findall(page.read_text("utf-8")):
        if language in languages:
            yield body


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub names them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE):
        said = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", said).replace(" ", "-")
        number = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", one) is not None for one in found)
        found.add(f"{anchor}-{number}" if number else anchor)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in (one or other for one, other in _LINK.findall(_prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


def _typed(page: Path) -> Iterator[str]:
    """Return the lines of fenced blocks that begin with a magic or with `cwm`."""
    for body in _fences(page, "", "bash", "text"):
        for line in body.splitlines():
            typed = re.match(r"%%?(cwm|freeze|thaw)\b|cwm |bash \.ci/venv cwm ", line)
            if typed and "──" not in line:  # which drawings have
                yield line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_can_be_typed(page: Path) -> None:
    for line in _typed(page):
        try:
            _parse(line)
        except UsageError as error:
            pytest.fail(f"{line!r}: {error}")


def _parse(line: str) -> None:
    if not line.startswith("%"):
        words = shlex.split(_END.sub("", line).removeprefix("bash .ci/venv ")[len("cwm ") :])
        parse([word for word in words if word not in ("--json", "…")], "cwm")
        return
    magic, *words = split(_REMARK.sub("", line))
    words = [word for word in words if word not in ("...", "…")]
    if magic == "%%cwm":
        _cell_parser().parse(words)
    elif magic == "%cwm":
        verb, path, rest = find(words, magic)
        magic_parser(verb, path).parse(rest)
    else:
        magic_parser(VERBS[magic[1:]], magic).parse(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_name_what_there_is(page: Path) -> None:
    for body in _fences(page, "python"):
        tree = compile(body, page.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "cwm"
            ):
                assert node.attr in cwm.__all__, f"cwm.{node.attr}"
            if isinstance(node, ast.ImportFrom) and node.module == "cwm_jupyter":
                assert {one.name for one in node.names} <= {*cwm.__all__}


def test_every_page_is_in_the_list_of_pages() -> None:
    linked = set(
        re.findall(r"\]\((\w[\w-]*\.md)\)", (ROOT / "docs" / "README.md").read_text("utf-8"))
    )
    assert linked == {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}


def test_the_list_of_the_api_is_fresh() -> None:
    """Made anew by ``python -m cwm_jupyter.api.reference``."""
    assert PYTHON.read_text("utf-8").endswith(reference())


def test_every_public_name_is_in_it() -> None:
    said = reference()
    for name in {*cwm.__all__} - {"__version__"}:
        assert f"`{name}`" in said, name


def test_the_command_prints_it() -> None:
    command = [sys.executable, "-m", "cwm_jupyter.api.reference"]
    run = subprocess.run(command, capture_output=True, check=True, encoding="utf-8")
    assert run.stdout == reference()


def test_the_guide_says_of_every_error_what_to_do() -> None:
    guide = (ROOT / "docs" / "guide.md").read_text("utf-8")
    rows = re.findall(r"^\| (`[a-z]+\..*?) \|", guide, re.MULTILINE)
    said = set(re.findall(r"`([a-z]+\.[a-z_]+)`", "".join(rows)))
    # These two are bases, and raised in no form of their own.
    raised = _codes(CWMError) - {"session.error", "vllm.error"}
    assert said == raised


def _codes(error: type[CWMError]) -> set[str]:
    below = [one for one in error.__subclasses__() if one.__module__ == CWMError.__module__]
    return {error.code}.union(*map(_codes, below))

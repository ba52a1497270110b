"""Conversations as Markdown, JSON and notebooks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbformat
import pytest
from bench import QUESTION, Bench
from entries import TIME, make_window
from hypothesis import given, settings
from hypothesis import strategies as st

from cwm_jupyter.core.archive.texts import as_text
from cwm_jupyter.core.models import Message
from cwm_jupyter.core.printable import printable
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.errors import ValidationError, WindowNotFoundError

HOSTILE = (
    "Look:\n```\ncode\n```\n````md\n[click](javascript:alert(1)) ![x](http://evil.example/?q)\n"
    "<script>alert(1)</script>\n# Heading\n\x1b]0;title\x07 --- | a | b |\r\n%%bash\nrm -rf ~"
)


def transcript(*pairs: tuple[str, str]) -> Transcript:
    return Transcript(messages=[Message(role=role, content=text) for role, text in pairs])


def shown(ending: str, found: Transcript, **fields: object) -> str:
    return as_text(ending, make_window(name="paper", **fields), found)


async def test_a_conversation_in_all_forms(there: Bench, tmp_path: Path) -> None:
    await there.frozen("paper", QUESTION, "And Rome?")
    messages = there.library.manifest(there.window("paper")).transcript.messages
    for ending in (".md", ".json", ".ipynb", ".MD"):
        path = tmp_path / f"paper{ending}"
        report = await there.manager.archives.export_text("paper", path)
        assert (report.window, report.messages) == ("paper", 4)
        assert report.size_bytes == len(text_of(path).encode())
        text = text_of(path)
        assert all(json.dumps(m.content)[1:-1] in text or m.content in text for m in messages)
        if os.name != "nt":
            assert mode_of(path) == 0o600
        with pytest.raises(ValidationError, match="already"):
            await there.manager.archives.export_text("paper", path)
        await there.manager.archives.export_text("paper", path, force=True)
    for wrong in ("paper", "paper.txt", "paper.md.exe"):
        with pytest.raises(ValidationError, match=r"\.md, \.json, \.ipynb"):
            await there.manager.archives.export_text("paper", tmp_path / wrong)
    with pytest.raises(WindowNotFoundError):
        await there.manager.archives.export_text("other", tmp_path / "other.md")


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_json_has_all_of_it() -> None:
    found = transcript(("system", "Be brief."), ("user", HOSTILE), ("assistant", "\u2028é\0"))
    document = json.loads(shown(".json", found, tags=["eu"], note="n"))
    assert [m["content"] for m in document["messages"]] == [m.content for m in found.messages]
    assert document["window"] == "paper"
    assert (document["frozen_at"], document["tags"], document["note"]) == (TIME, ["eu"], "n")
    assert "token_ids" not in document


#: a terminal obeys these, or they turn the direction of what follows
CONTROLS = "\0\a\r\x1b\x7f\x85\x9b\u202a\u202e\u2066\u2069"


@pytest.mark.parametrize("where", ["name", "note", "model", "tags", "created_at", "role", "said"])
def test_what_is_not_printable_is_replaced(where: str) -> None:
    """In JSON it stays: that is for programs."""
    nasty = f"a{CONTROLS}b"
    fields: dict[str, object] = {"name": "paper"}
    if where == "tags":
        fields[where] = ["a", nasty]
    elif where not in ("role", "said"):
        fields[where] = nasty
    role, text = ("tool", nasty) if where == "said" else (nasty, "c")
    found = transcript(("user", text), ("assistant", text), (role, text))
    window = make_window(**fields)
    notebook = json.loads(as_text(".ipynb", window, found))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    shown = [as_text(".md", window, found), *("".join(c["source"]) for c in notebook["cells"])]
    shown += ["".join(output["text"]) for output in outputs]
    assert all(text == printable(text) for text in shown)
    assert any("\N{REPLACEMENT CHARACTER}" in text for text in shown)
    assert not any(set(CONTROLS) & set(text) for text in shown)
    if where == "said":
        assert json.loads(as_text(".json", window, found))["messages"][0]["content"] == nasty


# --- Markdown -------------------------------------------------------------------------------------


def outside_of_fences(markdown: str) -> list[str]:
    """Return the lines that Markdown would format; fences as CommonMark has them."""
    fence, found = "", []
    for line in markdown.split("\n"):
        ticks = len(line) - len(line.lstrip("`"))
        if fence:
            if line.strip() == "`" * ticks and ticks >= len(fence):
                fence = ""
        elif ticks >= 3 and "`" not in line[ticks:]:
            fence = line[:ticks]
        else:
            found.append(line)
    assert not fence
    return found


def test_markdown_keeps_text_in_fences() -> None:
    found = transcript(("system", "Be brief."), ("user", HOSTILE), ("assistant", HOSTILE))
    markdown = shown(".md", found, note=HOSTILE, model="a_b*c<d>[e](f)")
    lines = [line for line in outside_of_fences(markdown) if line]
    assert lines[0] == "# paper"
    assert lines[1].startswith(r"A conversation with a\_b\*c\<d\>\[e\]\(f\): 2 turns")
    assert lines[2:] == ["## system", "## user", "## assistant"]
    assert "\x1b" not in markdown
    assert "\r" not in markdown
    assert "`````text\nLook:\n```\ncode" in markdown


def test_a_name_cannot_be_a_link() -> None:
    window = make_window(name="[x](y) ![z](w) #1")
    markdown = as_text(".md", window, transcript(("user", "a")))
    assert markdown.startswith(r"# \[x\]\(y\) \!\[z\]\(w\) \#1")


@settings(max_examples=200)
@given(texts=st.lists(st.text(st.sampled_from("`~\n\r #<a")) | st.text(), min_size=1, max_size=4))
def test_no_text_gets_out_of_its_fence(texts: list[str]) -> None:
    found = transcript(*(("user", text) for text in texts))
    markdown = shown(".md", found)
    lines = [line for line in outside_of_fences(markdown) if line]
    assert lines[2:] == ["## user"] * len(texts)


# --- notebooks ------------------------------------------------------------------------------------


def test_a_notebook_is_valid_and_can_be_run() -> None:
    found = transcript(
        ("system", HOSTILE),
        ("user", "What is it?"),
        ("assistant", HOSTILE),
        ("user", "And then?\nTell me."),
    )
    text = shown(".ipynb", found, note="for later")
    notebook = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.source for cell in code] == [
        "%load_ext cwm_jupyter",
        "%%cwm\nWhat is it?",
        "%%cwm\nAnd then?\nTell me.",
    ]
    [output] = code[1].outputs
    assert (output.output_type, output.name) == ("stream", "stdout")
    assert "<script>" in output.text  # plain text, which nothing renders
    assert "\x1b" not in output.text
    assert code[2].outputs == []
    prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert [line for line in outside_of_fences(prose) if line][2:] == ["**system**"]


@settings(max_examples=100)
@given(
    pairs=st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), st.text()), max_size=6
    )
)
def test_any_conversation_is_a_notebook(pairs: list[tuple[str, str]]) -> None:
    text = shown(".ipynb", transcript(*pairs))
    notebook = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    asked = [c.source for c in notebook.cells if c.cell_type == "code"][1:]
    assert asked == [f"%%cwm\n{printable(text)}" for role, text in pairs if role == "user"]

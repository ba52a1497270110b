"""A window's conversation for people and other programs: Markdown, JSON, or a notebook.

What the user and the model wrote is text and stays text: in Markdown it stands in fences that are
longer than any within it, so that it cannot format, link or load anything; in a notebook questions
are the text of ``%%cwm`` cells, and answers are plain output. Both are for eyes, and have only what
is printable; JSON is for programs, and has all of it as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cwm_jupyter._version import __version__
from cwm_jupyter.core.archive.reports import TextReport
from cwm_jupyter.core.archive.writer import check_target
from cwm_jupyter.core.files import write_atomic
from cwm_jupyter.core.models import Message, Window
from cwm_jupyter.core.printable import printable
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.errors import ValidationError

__all__ = ["as_text", "write_text"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#!|~&:$.@])")
_BACKTICKS = re.compile("`+")


def write_text(
    path: Path, window: Window, transcript: Transcript, *, force: bool = False
) -> TextReport:
    """Write a conversation, in the form that the file's ending names.

    Raises
    ------
    ValidationError
        There is no such form, or there is a file already and not `force`.
    """
    text = as_text(path.suffix, window, transcript)
    check_target(path, force=force)
    data = text.encode("utf-8", "replace")
    write_atomic(path, data)
    return TextReport(
        file=str(path),
        window=window.known_as,
        messages=len(transcript.messages),
        size_bytes=len(data),
    )


def as_text(suffix: str, window: Window, transcript: Transcript) -> str:
    """Return a conversation in the form of a file's ending.

    Raises
    ------
    ValidationError
        There is no such form.
    """
    form = _FORMS.get(suffix.lower())
    if form is None:
        raise ValidationError(
            f"The ending {suffix!r} does not say which form the conversation is to have.",
            hint=f"Give a file that ends with {', '.join(_FORMS)}.",
        )
    return form(window, transcript)


def _markdown(window: Window, transcript: Transcript) -> str:
    parts = [f"# {_escaped(window.name)}", _facts(window)]
    if window.note:
        parts.append(_fenced(window.note))
    for message in transcript.messages:
        parts += [f"## {_escaped(message.role)}", _fenced(message.content)]
    return printable("\n\n".join(parts) + "\n")


def _facts(window: Window) -> str:
    tags = f" Tags: {', '.join(map(_escaped, window.tags))}." if window.tags else ""
    return (
        f"A conversation with {_escaped(window.model)}: {window.turns} turns, {window.tokens} "
        f"tokens, frozen {window.created_at}.{tags}"
    )


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _fenced(text: str) -> str:
    """Return text in a fence that nothing in it ends."""
    longest = max(map(len, _BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _json(window: Window, transcript: Transcript) -> str:
    document = {
        "format": "cwm-jupyter conversation",
        "version": 1,
        "product": f"cwm-jupyter {__version__}",
        "window": window.name,
        "model": window.model,
        "frozen_at": window.created_at,
        "tags": window.tags,
        "note": window.note,
        "tokens": window.tokens,
        "messages": msgspec.to_builtins(transcript.messages),
        "turns": msgspec.to_builtins(transcript.turns),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _notebook(window: Window, transcript: Transcript) -> str:
    """Return a notebook, nbformat 4.5, that shows the conversation and could hold it again."""
    cells = [_markdown_cell(f"# {_escaped(window.name)}\n\n{_facts(window)}")]
    if window.note:
        cells.append(_markdown_cell(_fenced(window.note)))
    cells.append(_code_cell("%load_ext cwm_jupyter"))
    messages = list(transcript.messages)
    while messages:
        message = messages.pop(0)
        if message.role == "user":
            answer = messages.pop(0) if messages and messages[0].role == "assistant" else None
            cells.append(_code_cell(f"%%cwm\n{message.content}", answer))
        else:
            heading = f"**{_escaped(message.role)}**"
            cells.append(_markdown_cell(f"{heading}\n\n{_fenced(message.content)}"))
    document = {
        "cells": [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells, 1)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1).decode() + "\n"


def _markdown_cell(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": _lines(source)}


def _code_cell(source: str, answer: Message | None = None) -> dict[str, Any]:
    outputs: list[dict[str, Any]] = []
    if answer is not None:
        text = _lines(answer.content)
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": outputs,
        "source": _lines(source),
    }


def _lines(text: str) -> Sequence[str]:
    """Return text as notebooks keep it: line by line, so that their differences can be read."""
    return re.findall(r"[^\n]*\n|[^\n]+", printable(text))


_FORMS: dict[str, Callable[[Window, Transcript], str]] = {
    ".md": _markdown,
    ".json": _json,
    ".ipynb": _notebook,
}

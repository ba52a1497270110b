"""Nasty text on its whole way: in by a magic or the manager, kept, and shown again."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from bench import QUESTION, Bench
from IPython.core.interactiveshell import InteractiveShell
from nasty import MARK, NASTY, turns_or_controls
from traitlets.config import Config

from cwm_jupyter import present
from cwm_jupyter.core.models import Page
from cwm_jupyter.core.printable import printable
from cwm_jupyter.notebook.magics import CWMMagics

pytestmark = pytest.mark.covers("SC-005")


async def test_what_people_write_is_kept_and_shown_as_text(tmp_path) -> None:
    bench = Bench(tmp_path)
    manager, nasty = bench.manager, MARK + " ".join(NASTY)
    await manager.create_session("talk", system=nasty)
    reply = await manager.say("talk", nasty + QUESTION)
    report = await manager.freeze("paper", "talk", note=nasty)
    status = await manager.status(window="paper")
    assert status.messages[0].content == nasty
    assert status.window.note == nasty
    listed = await manager.windows()
    session = await manager.status(session="talk")
    for value in (reply, report, status, session, listed, report.window):
        shown = present.text(value)
        assert turns_or_controls(shown) == []
        page = present.html(value)
        assert "<script" not in page
        assert "<img" not in page
        assert turns_or_controls(page) == []
        assert json.loads(json.dumps(value.to_dict())) == value.to_dict()
    assert isinstance(listed, Page)
    assert printable(nasty).splitlines()[0] in present.text(status)
    assert manager.audit.read().intact
    assert MARK not in (bench.home / "audit" / "audit.jsonl").read_text()
    again = Bench(tmp_path)  # what was written is read again as it was
    assert (await again.manager.status(window="paper")).window.note == nasty
    await bench.reconnect()


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    shell.run_line_magic("load_ext", "cwm_jupyter")
    yield shell
    shell.restore_sys_module_state()
    InteractiveShell.clear_instance()


@pytest.mark.parametrize("text", [n for n in NASTY if "\r" not in n and n.strip() == n])
def test_a_cell_is_said_as_it_stands(shell, monkeypatch, text) -> None:
    """Nothing in it is expanded, run, or taken for an option."""
    said = []

    def note(self, verb, parser, arguments, cell=None) -> None:
        said.append((parser.parse(arguments).session, cell))

    monkeypatch.setattr(CWMMagics, "_run", note)
    shell.user_ns["HOME"] = "expanded"
    shell.run_cell(f"%%cwm -s talk\n{MARK}{text}").raise_error()
    assert said == [("talk", f"{MARK}{text}\n")]

"""The panel and the magics in a real kernel, on the real stack."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from kernel import CellError, Kernel, running_kernel

from cwm_jupyter.config import Settings
from cwm_jupyter.core.library import Library
from cwm_jupyter.stack.state import StackState

pytestmark = pytest.mark.stack

#: real text; about a thousand tokens of it take the engine some seconds
SOURCE = Path(argparse.__file__).read_text(encoding="utf-8")[:3500]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory, stack_settings: Settings) -> Iterator[Kernel]:
    """A kernel that finds the shared stack, with the magics loaded."""
    environ = {name: value for name, value in os.environ.items() if name.startswith("CWM_")}
    environ["CWM_HOME"] = str(stack_settings.home)
    with running_kernel(tmp_path_factory.mktemp("kernel"), environ) as kernel:
        kernel.run("import cwm_jupyter as cwm\n%load_ext cwm_jupyter")
        yield kernel


def do(kernel: Kernel, panel: str, action: str, **message: Any) -> str:
    """Send what a click sends, and return what the user is then told."""
    before = kernel.comms[panel]["notice"]
    kernel.send(panel, do=action, **message)

    def told(state: Mapping[str, Any]) -> bool:
        return bool(state["notice"] != before and state["job"] is None)

    kernel.until(panel, told)
    return str(kernel.comms[panel]["notice"]["text"])


def names(state: Mapping[str, Any]) -> set[str]:
    return {window["name"] for window in state["listing"]["windows"]}


def test_freeze_thaw_clone_and_delete_by_messages(
    stack: StackState, stack_settings: Settings, kernel: Kernel, name: str
) -> None:
    index = Library(stack_settings.home).index
    kernel.run(f"%%cwm -s {name} --max-tokens 8\n{SOURCE}")
    panel = kernel.show("panel = cwm.panel()")
    kernel.send(panel, do="open", view="v")
    assert f"Froze {name} as {name}" in do(kernel, panel, "freeze", name=name, session=name)
    assert index.require_window(name).proof.level == "verified"
    assert f"Thawed {name} into session" in do(kernel, panel, "thaw", window=name)
    assert index.require_window(name).last_thaws[0].complete
    # The notebook goes on in the session that was thawed, and the panel shows it.
    thawed = kernel.run("from cwm_jupyter.current import shared; print(shared.name)").strip()
    kernel.until(panel, lambda state: state["session"]["name"] == thawed)
    twin = f"{name}-twin"
    assert do(kernel, panel, "clone", window=name, name=twin) == f"Cloned as {twin}."
    kernel.until(panel, lambda state: twin in names(state))
    assert twin in do(kernel, panel, "delete", window=twin)
    kernel.until(panel, lambda state: twin not in names(state))
    assert index.find_window(twin) is None
    kernel.run("panel.close()")
    assert kernel.comms == {}


def test_an_answer_that_is_interrupted_is_kept_as_far_as_it_came(
    stack: StackState, stack_settings: Settings, kernel: Kernel, name: str
) -> None:
    library = Library(stack_settings.home)
    kernel.run(f"%%cwm -s {name} --max-tokens 8\nCount from one to three.")
    first = library.transcript(library.index.require_session(name)).turns
    cell = kernel.start(f"%%cwm -s {name} --max-tokens 400\n{SOURCE}\nExplain all of this code.")
    kernel.shows(lambda text: len(text) > 40 and "waiting" not in text)
    kernel.interrupt()
    with pytest.raises(CellError, match=r"^Interrupted\.$"):
        kernel.finish(cell)
    session = library.index.require_session(name)
    turns = library.transcript(session).turns
    assert turns[:1] == first
    assert [turn.finish_reason for turn in turns[1:]] == ["interrupted"]
    assert session.state == "active"
    kernel.run(f"%%cwm -s {name} --max-tokens 4\nGo on.")
    assert library.index.require_session(name).turns == 3


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.2, 0.6])
def test_a_freeze_and_a_thaw_that_are_interrupted_are_whole_or_nothing(
    stack: StackState, stack_settings: Settings, kernel: Kernel, name: str, delay_s: float
) -> None:
    library = Library(stack_settings.home)
    kernel.run(f"%%cwm -s {name} --max-tokens 8\n{SOURCE}")
    before = library.index.require_session(name)

    interrupted(kernel, f"%freeze {name} -s {name}", delay_s)
    window = library.index.find_window(name)
    if window is None:
        assert library.index.require_session(name).state == "active"
        kernel.run(f"%freeze {name} -s {name}")
    window = library.index.require_window(name)
    assert window.proof.level == "verified"
    assert window.tokens == before.tokens

    sessions = {session.id for session in library.index.all_sessions()}
    interrupted(kernel, f"%thaw {name} --as {name}-again", delay_s)
    new = [one for one in library.index.all_sessions() if one.id not in sessions]
    assert all(library.transcript(one).turns for one in new)
    kernel.run(f"%thaw {name} --as {name}-at-last")
    assert library.index.require_window(name).last_thaws[0].complete


def interrupted(kernel: Kernel, code: str, delay_s: float) -> None:
    """Run a cell and interrupt it after a while, or not, if it was quicker."""
    cell = kernel.start(code)
    time.sleep(delay_s)
    kernel.interrupt()
    try:
        kernel.finish(cell)
    except CellError as error:
        # The second is IPython's own, where the magic has not begun.
        assert error.name in ("Interrupted", "KeyboardInterrupt")  # noqa: PT017

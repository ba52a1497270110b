"""The magics in a real shell: in a terminal's, and in one that takes itself for a kernel's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from bench import QUESTION
from entries import make_session, make_window
from fake_stack import FakeStack
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from shells import complete, failure, run

from cwm_jupyter.core.library import Library
from cwm_jupyter.core.models import Message, Reply
from cwm_jupyter.current import default_session, shared
from cwm_jupyter.errors import StackDownError
from cwm_jupyter.notebook.magics import Interrupted
from cwm_jupyter.verbs import VERBS

pytestmark = pytest.mark.usefixtures("own_process")


# --- loading --------------------------------------------------------------------------------------


def test_loading_imports_nothing_heavy() -> None:
    code = """
import sys
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance().run_line_magic("load_ext", "cwm_jupyter")
heavy = ("anyio", "blake3", "httpx2", "msgspec", "psutil", "stamina", "tinydb")
print([m for m in heavy if m in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_unloading_undoes_it(shell: InteractiveShell) -> None:
    magics = shell.magics_manager.magics
    assert {"cwm", "freeze", "thaw"} <= set(magics["line"])
    shell.run_line_magic("unload_ext", "cwm_jupyter")
    assert not {"cwm", "freeze", "thaw"} & (set(magics["line"]) | set(magics["cell"]))
    assert "%cwm" not in shell.strdispatchers["complete_command"].strs
    message = Message(role="user", content="x")
    assert "text/html" not in shell.display_formatter.format(make_window())[0]
    assert shell.display_formatter.format(message)[0]["text/plain"].startswith("Message(")
    shell.run_line_magic("load_ext", "cwm_jupyter")
    assert "thaw" in magics["line"]


# --- errors and help ------------------------------------------------------------------------------


@pytest.mark.covers("MS-001")
def test_without_a_stack_two_lines_say_so(shell: InteractiveShell) -> None:
    error, seen = failure(shell, "%%cwm\nhello")
    assert isinstance(error, StackDownError)
    assert seen == (
        "No stack is running.  [stack.down]\nStart it with %cwm up, or cwm up in a terminal.\n"
    )


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%thaw nothing", "There is no window 'nothing'.  [window.not_found]"),
        ("%freeze", "%freeze: the following arguments are required: NAME.  [input.usage]"),
        ("%cwm frezze", "Did you mean freeze"),
        ("%freeze 'x", "No closing quotation."),
        ("%cwm ls -o 1x", "must be the name of a variable, not '1x'"),
        ("%cwm ls -o class", "must be the name of a variable, not 'class'"),
        ("%%cwm hello\nthere", "Put the question under %%cwm, not beside it."),
        ("%%cwm\n   ", "There is nothing to say."),
    ],
)
def test_what_cannot_be_is_said_in_two_lines(shell: InteractiveShell, cell: str, said: str) -> None:
    _, seen = failure(shell, cell)
    assert said in seen
    assert seen.count("\n") <= 2


def test_an_error_from_parallel_work_is_as_short(
    shell: InteractiveShell, fake_stack: FakeStack
) -> None:
    run(shell, f"%%cwm\n{QUESTION}")
    run(shell, "%freeze paper")
    fake_stack.restart()
    fake_stack.before = lambda call: (
        httpx2.Response(500, json={"detail": "no room"}) if "prefetches" in call else None
    )
    _, seen = failure(shell, "%thaw paper")
    assert "no room" in seen
    assert seen.count("\n") <= 2


@pytest.mark.parametrize(
    "cell", ["%cwm", "%cwm -h", "%cwm thaw -h", "%thaw --help", "%freeze -h", "%%cwm -h\nx"]
)
def test_help_is_printed(shell: InteractiveShell, cell: str) -> None:
    seen = run(shell, cell).stdout
    assert seen.startswith(f"usage: {cell.split(' -')[0].split()[0]}")


def test_question_marks_help_too(shell: InteractiveShell) -> None:
    for name in ("freeze", "thaw"):
        assert "-o" in (shell.find_line_magic(name).__doc__ or "")
    said = shell.find_cell_magic("cwm").__doc__ or ""
    assert said.startswith("usage: %cwm VERB ...")
    assert "--max-tokens" in said
    assert "TEXT ..." not in said
    assert "doctor" in said


# --- at work --------------------------------------------------------------------------------------


def test_a_terminals_conversation(shell: InteractiveShell, fake_stack: FakeStack) -> None:
    seen = run(shell, f"%%cwm -o reply --max-tokens 30\n{QUESTION}\n")
    reply = shell.user_ns["reply"]
    assert isinstance(reply, Reply)
    assert (reply.session, reply.generated_tokens) == ("terminal", 30)
    assert seen.stdout == f"{reply.text}\n"
    assert "from cache 0" in seen.stderr
    seen = run(shell, "%freeze paper -o frozen --note 'a note'")
    assert seen.stdout.startswith("Froze terminal as paper")
    assert shell.user_ns["frozen"].window.note == "a note"
    fake_stack.restart()
    assert "all read from the disk and right" in run(shell, "%thaw paper").stdout
    run(shell, "%%cwm -o reply\nAnd then?")
    assert shell.user_ns["reply"].session == "paper"
    assert shell.user_ns["reply"].cached_tokens > 0


def test_a_notebooks_conversation(kernel: InteractiveShell, fake_stack: FakeStack) -> None:
    seen = run(kernel, f"%%cwm -o reply\n{QUESTION}")
    reply = kernel.user_ns["reply"]
    assert reply.session == "My-notebook"
    last = seen.outputs[-1].data
    assert last["text/plain"].startswith(reply.text)
    assert "from cache 0" in last["text/html"]
    assert "text/markdown" not in last
    assert seen.stdout == seen.stderr == ""
    frozen = run(kernel, "%freeze paper").outputs
    assert frozen[0].data["text/plain"].startswith("Freezing My-notebook: ")
    assert frozen[-1].data["text/plain"].startswith("Froze My-notebook as paper: ")
    fake_stack.restart()
    shown = run(kernel, "%thaw paper --as again").outputs[-1].data["text/html"]
    assert "all read from the disk and right" in shown
    assert shared.name == "again"
    listed = run(kernel, "%cwm ls").outputs[-1].data
    assert "<table>" in listed["text/html"]
    assert listed["text/plain"].startswith("WINDOW  STATE")


def test_one_output_is_rewritten(kernel: InteractiveShell, fake_stack: FakeStack) -> None:
    published: list[dict[str, Any]] = []
    original = kernel.display_pub.publish

    def publish(data: Any, **options: Any) -> None:
        published.append(options)
        original(data, **options)

    kernel.display_pub.publish = publish
    kernel.run_cell("%%cwm\nhello").raise_error()
    ids = {options["transient"]["display_id"] for options in published}
    assert len(ids) == 1
    assert [options.get("update", False) for options in published][:2] == [False, True]


@pytest.mark.covers("SC-005")
def test_what_the_model_says_is_shown_and_not_obeyed(
    kernel: InteractiveShell, fake_stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "<script>alert(1)</script>"
    monkeypatch.setattr("fake_stack.decode", lambda ids: evil)
    shown = run(kernel, "%%cwm --max-tokens 1\nhello").outputs[-1].data
    assert evil in shown["text/plain"]
    assert "<script" not in shown["text/html"]


def test_a_session_that_was_there_is_told_once(
    kernel: InteractiveShell, fake_stack: FakeStack
) -> None:
    run(kernel, "%%cwm\nhello")
    shared._used.clear()  # as in a kernel that was restarted
    told = run(kernel, "%%cwm\nhello").outputs[-1].data["text/plain"]
    assert told.startswith("Going on in session My-notebook: 1 turn,")
    assert "Going on" not in run(kernel, "%%cwm\nhello").outputs[-1].data["text/plain"]


def test_ctrl_c_ends_quietly(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cwm_jupyter.stack.launcher.status", interrupted)
    with capture_output() as seen:
        result = shell.run_cell("%cwm status")
    assert isinstance(result.error_in_exec, Interrupted)
    assert seen.stdout == "Interrupted.\n"


@pytest.mark.parametrize("cell", ["%freeze paper", "%thaw paper", "%cwm ls", "%%cwm\nhello"])
def test_ctrl_c_ends_quietly_before_there_is_anything_to_do(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, cell: str
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cwm_jupyter.parsing.Parser.parse", interrupted)
    with capture_output() as seen:
        shell.run_cell(cell)
    assert seen.stdout == "Interrupted.\n"


# --- display and completion -----------------------------------------------------------------------


def test_values_display_well(shell: InteractiveShell) -> None:
    data, _ = shell.display_formatter.format(make_window(name="paper"))
    assert data["text/plain"].startswith("Window paper, intact: 2 turns, 300 tokens")
    assert data["text/html"].startswith("<div>")
    data, _ = shell.display_formatter.format(Message(role="user", content="x"))
    assert data == {"text/plain": "Message(role='user', content='x')"}


@pytest.fixture
def filled(home: Path) -> None:
    index = Library(home).index
    index.add_session(make_session("s1", "chat", tags=["draft"]))
    index.add_session(make_session("s2", "my chat"))
    index.add_window(make_window("w1", "paper", tags=["draft", "done"]))
    index.add_window(make_window("w2", "gone"))
    index.update_window("w2", lambda window: window.to("deleted"))
    index.add_window(make_window("w3", "paper", superseded=True, version=1))


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("%cwm th", ["thaw"]),
        ("cwm th", ["thaw"]),
        ("%thaw p", ["paper"]),
        ("%cwm rm p", ["paper"]),
        ("%cwm thaw --a", ["--as", "--accept-engine", "--accept-unknown"]),
        ("%%cwm -s c", ["chat"]),
        ("%freeze new -s ", ["chat", "'my chat'"]),
        ("%freeze new --no", ["--note"]),
        ("%cwm show --session ch", ["chat"]),
        ("%cwm verify p", ["paper"]),
        ("%cwm repair p", ["paper"]),
        ("%cwm admin pu", ["purge"]),
        ("%cwm admin purge g", ["gone"]),
        ("%cwm admin purge --d", ["--dry-run"]),
        ("%cwm admin gc --d", ["--dry-run"]),
        ("%cwm admin nonsense --x", []),
        ("%cwm ls --tag d", ["draft", "done"]),
        ("%cwm ls --model Smol", ["SmolLM2"]),
        ("%cwm ls --state d", ["damaged", "deleted"]),
        ("%cwm ls --sort -t", ["-tokens"]),
        ("%cwm ls --sort u", ["used"]),
        ("%cwm ls -s c", ["chat"]),
        ("%cwm ls --session=c", ["chat"]),
        ("%cwm clone p", ["paper"]),
        ("%cwm tree p", ["paper"]),
        ("%cwm compare paper p", ["paper"]),
        ("%cwm compare paper@v", ["v1"]),
        ("%cwm thaw paper@", ["v1"]),
        ("%cwm rewind 2 -s c", ["chat"]),
        ("%cwm rewind 2 --a", ["--as"]),
        ("%cwm ask p", ["paper"]),
        ("%cwm ask paper x --k", ["--keep"]),
        ("%cwm rm --undo g", ["gone"]),
        ("%cwm edit p", ["paper"]),
        ("%cwm admin edit p", ["paper"]),
        ("%cwm edit paper --untag d", ["draft", "done"]),
        ("%cwm policy --then f", ["fresh"]),
        ("%cwm logs lm", ["lmcache"]),
        ("%cwm config limits.max_t", ["limits.max_tokens"]),
        ("%cwm pur", ["purge"]),
        ("%cwm rot", ["rotate-key"]),
        ("%cwm trust a", ["add"]),
        ("%cwm export p", ["paper"]),
        ("%cwm export paper p", ["paper"]),
        ("%cwm thaw paper --b", ["--background"]),
        ("%cwm show paper --p", ["--plot"]),
        ("%cwm freeze 'my", []),
        ("%freeze new -s 'my", ["my chat'"]),
    ],
)
def test_completion(shell: InteractiveShell, line: str, found: list[str]) -> None:
    assert complete(shell, line) == found


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    "line", ["%cwm import arch", "%cwm export paper arch", "%%cwm --file arch"]
)
def test_files_are_completed(
    shell: InteractiveShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    (tmp_path / "archive.cwm").touch()
    monkeypatch.chdir(tmp_path)
    assert complete(shell, line) == ["archive.cwm"]


@pytest.mark.parametrize("name", [*VERBS, *VERBS["admin"].verbs])
def test_every_verb_is_completed_with_or_without_admin(shell: InteractiveShell, name: str) -> None:
    assert name in complete(shell, "%cwm ")
    if name not in ("admin", "trust"):
        assert "-o" in complete(shell, f"%cwm {name} -")


def test_completion_never_raises(shell: InteractiveShell, home: Path) -> None:
    assert "--as" in complete(shell, "%thaw ")
    home.mkdir()
    (home / "index.json").write_text("damaged")
    assert "paper" not in complete(shell, "%thaw p")
    assert complete(shell, "%cwm nonsense --x") == []


# --- the default session --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/me/paper.ipynb", "paper"),
        ("a/日本語 x.ipynb", "日本語-x"),
        ("/x/..weird$%&{}.ipynb", "weird"),
        ("/x/con.ipynb", "notebook-01234567"),
        ("", "notebook-01234567"),
    ],
)
def test_a_notebook_has_its_own_session(
    kernel: InteractiveShell, monkeypatch: pytest.MonkeyPatch, path: str, name: str
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", path)
    monkeypatch.setattr(
        "ipykernel.connect.get_connection_file", lambda: "/run/kernel-0123456789ab.json"
    )
    assert default_session() == name


def test_programs_have_main() -> None:
    InteractiveShell.clear_instance()
    assert default_session() == "main"

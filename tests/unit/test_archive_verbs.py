"""The verbs of archives, how their results look, and the Python API to them."""

from __future__ import annotations

import getpass
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench import QUESTION
from entries import TIME, make_window
from fake_stack import FakeStack

import cwm_jupyter as cwm
from cwm_jupyter.cli import main
from cwm_jupyter.core.archive import writer
from cwm_jupyter.core.archive.format import Sealing
from cwm_jupyter.core.archive.reports import (
    ExportReport,
    ImportedWindow,
    ImportReport,
    Signer,
    SignerList,
    TextReport,
)
from cwm_jupyter.core.models import ProbeResult
from cwm_jupyter.errors import UsageError, ValidationError
from cwm_jupyter.notebook.display import NotebookOutput
from cwm_jupyter.present import html, text
from cwm_jupyter.present.archive import FORMS

Cwm = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def quick_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "Sealing", lambda salt: Sealing(salt=salt, log2_n=10))


@pytest.fixture
def run(home: Path, fake_stack: FakeStack, capsys: pytest.CaptureFixture[str]) -> Cwm:
    """Run a command; returns exit status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([*map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    run("say", QUESTION)
    run("freeze", "paper")
    return run


def test_from_a_file_and_back(run: Cwm, tmp_path: Path) -> None:
    path = tmp_path / "paper.cwm"
    status, out, _ = run("export", "paper", path)
    assert status == 0
    assert out.startswith(f"Exported paper to {path}: 7 contents, ")
    assert "not encrypted" in out
    assert run("export", "paper", path)[0] == 1
    assert run("export", "paper", path, "--force")[0] == 0
    status, out, _ = run("import", path, "--as", "copy")
    assert status == 0
    assert out.startswith("Imported copy: ")
    assert "whom you trust" in out
    status, out, _ = run("import", path, "--json")
    assert status == 1
    assert json.loads(out)["error"]["code"] == "window.exists"
    assert run("thaw", "copy")[0] == 0


def test_several_windows_and_the_file_comes_last(run: Cwm, tmp_path: Path) -> None:
    run("freeze", "draft")
    status, out, _ = run("export", "paper", "draft", tmp_path / "all.cwm", "--json")
    assert status == 0
    assert json.loads(out)["windows"] == ["paper", "draft"]
    assert run("export", "paper")[0] == 2


def test_text(run: Cwm, tmp_path: Path) -> None:
    status, out, _ = run("export", "--text", "paper", tmp_path / "paper.md")
    assert status == 0
    assert out.startswith(f"Wrote 2 messages of paper to {tmp_path / 'paper.md'}")
    assert (tmp_path / "paper.md").read_text().startswith("# paper\n")
    for wrong in (["paper", "paper"], ["paper", "--encrypt"]):
        assert run("export", "--text", *wrong, tmp_path / "x.md")[0] == 2
    assert run("export", "--text", "paper", tmp_path / "x.pdf")[0] == 1


def test_a_passphrase_of_the_environment(
    run: Cwm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "paper.cwm"
    monkeypatch.setenv("SECRET", "correct horse")
    assert "encrypted" in run("export", "paper", path, "--passphrase-env", "SECRET")[1]
    status, _, err = run("import", path, "--as", "copy")
    assert status == 2  # there is no terminal to ask in
    assert "--passphrase-env" in err
    monkeypatch.setenv("WRONG", "wrong")
    assert "security.decrypt" in run("import", path, "--passphrase-env", "WRONG")[2]
    assert "holds no passphrase" in run("import", path, "--passphrase-env", "UNSET")[2]
    assert run("import", path, "--as", "copy", "--passphrase-env", "SECRET")[0] == 0


def test_a_passphrase_that_is_typed(
    run: Cwm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed, prompts = ["horse", "house", "horse", "horse", "horse"], []

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        return typed.pop(0)

    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(getpass, "getpass", ask)
    path = tmp_path / "paper.cwm"
    status, _, err = run("export", "paper", path, "--encrypt")
    assert (status, path.exists()) == (1, False)
    assert "two passphrases" in err
    assert run("export", "paper", path, "--encrypt")[0] == 0
    assert run("import", path, "--as", "copy")[0] == 0
    assert prompts[-1] == "Passphrase of paper.cwm: "
    assert NotebookOutput.secret.__doc__
    with pytest.raises(IndexError):
        NotebookOutput.secret(object(), "More: ")  # type: ignore[arg-type]
    assert prompts[-1] == "More: "


def test_trust(run: Cwm) -> None:
    key = "ab" * 32
    assert "No signer is trusted" in run("admin", "trust", "list")[1]
    assert "trusted from now on" in run("admin", "trust", "add", key, "--name", "Ada")[1]
    _, out, _ = run("admin", "trust", "list", "--json")
    [signer] = json.loads(out)["signers"]
    assert (signer["public"], signer["name"]) == (key, "Ada")
    assert "Ada" in run("admin", "trust", "list")[1]
    assert "trusted no longer" in run("admin", "trust", "remove", "Ada")[1]
    assert run("admin", "trust", "remove", "Ada")[0] == 1
    assert run("admin", "trust", "add", "nothing")[0] == 1
    assert run("admin", "trust")[0] == 0  # which explains itself


@pytest.mark.usefixtures("own_process")
def test_the_python_api(fake_stack: FakeStack, tmp_path: Path) -> None:
    session = cwm.session("talk")
    session.say(QUESTION)
    session.freeze("paper")
    path = tmp_path / "paper.cwm"
    exported = cwm.export_windows("paper", file=str(path), passphrase="open")
    assert exported.encrypted
    assert cwm.export_text("paper", tmp_path / "paper.json").messages == 2
    imported = cwm.import_windows(path, as_name="copy", passphrase="open")
    assert imported.windows[0].window.name == "copy"
    [own] = cwm.trusted_signers().signers
    assert own.fingerprint == exported.signer.fingerprint
    assert cwm.trust("ab" * 32, "Ada").trusted
    assert not cwm.distrust("Ada").trusted
    with pytest.raises(ValidationError):
        cwm.export_windows(file=path)


@pytest.mark.usefixtures("own_process")
async def test_the_python_api_awaited(fake_stack: FakeStack, tmp_path: Path) -> None:
    session = await cwm.asession("talk")
    await session.asay(QUESTION)
    await session.afreeze("paper")
    await cwm.aexport_windows("paper", file=tmp_path / "paper.cwm")
    report = await cwm.aimport_windows(tmp_path / "paper.cwm", as_name="copy")
    assert report.windows[0].archived_name == "paper"


# --- how it looks ---------------------------------------------------------------------------------

SIGNER = Signer(fingerprint="SHA256:abc", public="ab" * 32, name="", added_at=None, trusted=False)
TRUSTED = SIGNER.replace(name="<b>Ada</b>", added_at=TIME, trusted=True)


def imported(**fields: Any) -> ImportReport:
    values: dict[str, Any] = {
        "file": "x.cwm",
        "windows": [
            ImportedWindow(
                window=make_window(name="paper"),
                archived_name="paper",
                frozen_at=TIME,
                probe=fields.pop("probe", None),
                as_shown=fields.pop("as_shown", None),
            )
        ],
        "sessions": ["paper"],
        "signer": TRUSTED,
        "encrypted": False,
        "recomputed": None,
        "differences": [],
        "size_bytes": 6_000_000,
        "import_s": 0.4,
        "stages_s": {},
    }
    return ImportReport(**{**values, **fields})


def probe(*, passed: bool) -> ProbeResult:
    return ProbeResult(passed=passed, max_abs_logprob_diff=0.02, tolerance=0.5, repeated=False)


def test_an_import_says_who_signed_and_what_was_done_of_it() -> None:
    kept = text(imported())
    assert "300 tokens, 5.90 MB of KV, all checked and verified on disk" in kept
    assert "Signed by SHA256:abc (<b>Ada</b>), whom you trust." in kept
    assert "<b>" not in html(imported())
    other = text(imported(differences=["threads: frozen with 2, the engine has 4"]))
    assert "thaw may refuse: threads: frozen with 2" in other
    anew = text(
        imported(recomputed="untrusted", signer=SIGNER, probe=probe(passed=True), as_shown=True)
    )
    assert "computed anew from the tokens" in anew
    assert "whom you do NOT trust" in anew
    assert "--trust" in anew
    assert "within 0.02 nats" in anew
    assert "OTHER WORDS" not in anew
    assert "COMPARED" not in anew
    differs = text(imported(recomputed="asked", probe=probe(passed=False), as_shown=False))
    assert "THE MODEL SEES OTHER WORDS" in differs
    assert "are not those of the archive" in differs
    assert "--trust" not in differs
    unknown = imported(recomputed="untrusted", signer=SIGNER, probe=probe(passed=True))
    assert "paper: its messages COULD NOT BE COMPARED with what the model sees" in text(unknown)
    assert html(unknown).count("font-weight:bold") == 2  # this, and that nobody trusts the signer
    assert "COMPARED" not in kept


def test_every_value_has_a_form() -> None:
    values = [
        ExportReport(
            file="x.cwm",
            windows=["a", "b"],
            contents=1,
            content_bytes=10,
            size_bytes=2000,
            encrypted=True,
            signer=TRUSTED,
            export_s=0.1,
        ),
        TextReport(file="x.md", window="a", messages=1, size_bytes=10),
        imported(),
        TRUSTED,
        SignerList(signers=[SIGNER, TRUSTED]),
    ]
    assert {type(value) for value in values} == set(FORMS)
    for value in values:
        assert text(value)
        assert "<b>" not in html(value)
    assert "1 content, 2.00 kB, encrypted" in text(values[0])


def test_the_terminal_asks_nobody_who_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from cwm_jupyter.current import CurrentSession
    from cwm_jupyter.terminal import Terminal

    monkeypatch.setattr(sys, "stdin", io.StringIO("piped"))
    terminal = Terminal(io.StringIO(), io.StringIO(), CurrentSession("main", tells=False))
    with pytest.raises(UsageError, match="no terminal"):
        terminal.secret("Passphrase: ")

"""The engine environment: what is checked before, while and after it is built."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from cwm_jupyter.config import Settings
from cwm_jupyter.core.job import Job
from cwm_jupyter.errors import CancelledJobError, EnvironmentBuildError, ResourceExhaustedError
from cwm_jupyter.stack import environment

PINS = Path(environment.__file__).parent / "requirements"


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_every_pin_is_hashed_and_names_no_host(kind: str) -> None:
    text = (PINS / f"engine-{kind}.txt").read_text()
    pins = re.findall(r"^[a-z0-9][\w.-]*==\S+.*?(?=^[a-z0-9]|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(pins) > 100
    assert all("--hash=sha256:" in pin for pin in pins)
    assert "://" not in text
    assert "--index" not in text


def test_an_environment_without_vllm_is_refused(settings: Settings) -> None:
    stack = msgspec.structs.replace(settings.stack, python=Path(sys.executable))
    with pytest.raises(EnvironmentBuildError, match="lacks vllm and lmcache"):
        environment.ensure_environment(msgspec.structs.replace(settings, stack=stack), Job("up"))


def test_an_interpreter_that_does_not_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentBuildError, match="no-python does not run"):
        environment.installed_versions(tmp_path / "no-python")


def test_a_full_disk_is_told_before_anything_is_made(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(10**10, 10**10 - 10**9, 10**9)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ResourceExhaustedError, match=r"6\.5 GB.*1\.0 GB left"):
        environment.ensure_environment(settings, Job("up"))
    assert environment.built_python(settings) is None


def test_a_failed_build_says_what_uv_said_and_is_not_taken_for_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_REQUIREMENTS", settings.home)
    settings.home.mkdir(parents=True)
    for kind in ("cpu", "gpu"):
        (settings.home / f"engine-{kind}.txt").write_text("no-hash==1.0\n")
    with pytest.raises(EnvironmentBuildError, match="--require-hashes"):
        environment.ensure_environment(settings, Job("up"))
    assert environment.built_python(settings) is None


def test_a_program_that_is_silent_can_be_cancelled() -> None:
    job = Job("up")
    threading.Timer(0.05, job.cancel).start()
    with pytest.raises(CancelledJobError):
        environment.run_logged([sys.executable, "-c", "import time; time.sleep(60)"], job)


def test_lines_are_passed_on_and_the_last_ones_are_in_the_error() -> None:
    lines: list[str] = []
    code = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"
    with pytest.raises(EnvironmentBuildError, match=r"one \| two") as raised:
        environment.run_logged([sys.executable, "-u", "-c", code], Job("up"), on_line=lines.append)
    assert lines == ["one", "two"]
    assert raised.value.context["returncode"] == 3


def test_downloads_are_counted() -> None:
    job = Job("up")
    count = environment._DownloadCount(job)
    for line in ("Downloading torch (500MiB)", "Downloading vllm", " Downloaded torch", ""):
        count(line)
    assert (job.state.done, job.state.total) == (1, 2)


def test_the_servers_get_our_code_alone_and_unchanged_while_they_run(tmp_path: Path) -> None:
    folder = environment.publish_code(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["cwm_jupyter"]
    assert environment.publish_code(tmp_path) == folder
    said = subprocess.run(
        [sys.executable, "-SP", "-c", "import cwm_jupyter.engine.auth as a; print(a.__file__)"],
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.startswith(str(folder))


def test_who_waits_for_a_lock_says_so_and_can_give_up(tmp_path: Path) -> None:
    stages: list[str] = []
    job = Job("up", lambda state: (stages.append(state.stage), job.cancel())[0])
    with (
        environment.locked(tmp_path / "lock", Job("other"), "x"),
        pytest.raises(CancelledJobError),
        environment.locked(tmp_path / "lock", job, "another process starts the stack"),
    ):
        raise AssertionError("got a lock that is held")
    assert stages == ["waiting: another process starts the stack"]

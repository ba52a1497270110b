"""Systems without a local engine: everything is imported, and what is refused says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import acceptance
import psutil
import pytest

import cwm_jupyter
from cwm_jupyter import config
from cwm_jupyter.config import Settings
from cwm_jupyter.core import portable
from cwm_jupyter.errors import EnvironmentBuildError
from cwm_jupyter.stack import doctor, environment, launcher, state
from cwm_jupyter.stack.doctor import diagnose


@pytest.fixture
def settings(home: Path) -> Settings:
    return config.load()


@pytest.fixture(params=["win32", "darwin"])
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A system for which there is no engine."""
    monkeypatch.setattr(environment, "sys", SimpleNamespace(platform=request.param))
    return request.param


@pytest.mark.covers("PW-001", "PW-004")
def test_everything_of_the_kernel_s_is_imported_without_what_posix_alone_has(
    tmp_path: Path,
) -> None:
    """And works: settings, an index, a vault, the shell's front end."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", acceptance.HERE / "windows_imports.py", tmp_path],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(Path(cwm_jupyter.__file__).parents[1]), str(acceptance.HERE)]
            ),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    imported = set(ended.stdout.split())
    assert {"cwm_jupyter.core.manager", "cwm_jupyter.vault.store", "cwm_jupyter.cli"} <= imported
    assert not any(name.startswith("cwm_jupyter.engine.") for name in imported)


def test_up_says_that_no_engine_runs_here_and_what_to_do(
    settings: Settings, elsewhere: str
) -> None:
    with pytest.raises(EnvironmentBuildError, match=f"no local engine for {elsewhere}") as caught:
        launcher.up(settings)
    assert "cwm connect URL" in (caught.value.hint or "")
    assert not settings.home.exists()  # nothing was begun
    given = config.load(overrides={"stack.python": sys.executable})
    with pytest.raises(EnvironmentBuildError, match="no local engine"):
        launcher.up(given)


def test_where_no_engine_runs_the_doctor_asks_for_nothing_of_it(
    settings: Settings, elsewhere: str
) -> None:
    found = {one.id: one for one in diagnose(settings)}
    assert found["platform"].level == "warn"
    assert "cwm connect URL" in (found["platform"].hint or "")
    assert not {"environment", "model", "memory", "shm", "disk.cache", "ports"} & found.keys()
    assert {"disk.vault", "filesystem.home", "users", "stack"} <= found.keys()
    assert not [one for one in found.values() if one.level == "error"]


def test_who_names_an_environment_may_have_another_processor(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "platform", SimpleNamespace(machine=lambda: "riscv64"))
    monkeypatch.setattr(environment, "sys", SimpleNamespace(platform="linux"))
    assert not environment.has_engine(settings)
    assert environment.has_engine(config.load(overrides={"stack.python": sys.executable}))


def test_a_stack_elsewhere_is_connected_to_and_left(
    settings: Settings, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of that needs an engine here."""

    class Servers:
        def __init__(self, stack: state.StackState) -> None:
            pass

        def __enter__(self) -> Servers:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def served_model(self) -> str:
            return "far"

        def cache_facts(self) -> dict[str, object]:
            return {}

        def engine_answers(self) -> bool:
            return True

        cache_answers = engine_answers

    monkeypatch.setattr(launcher, "Servers", Servers)
    launcher.connect(settings, "http://127.0.0.1:8000/")
    assert launcher.status(settings).model == "far"
    launcher.down(settings)
    assert launcher.status(settings).phase == "down"


def test_macos_syncs_to_the_drive_and_not_into_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    synced: list[int] = []
    full = SimpleNamespace(F_FULLFSYNC=51, fcntl=lambda handle, what: asked.append((handle, what)))
    monkeypatch.setattr(portable, "fcntl", full)
    monkeypatch.setattr(os, "fsync", synced.append)
    portable.sync_file(7)
    assert (asked, synced) == ([(7, 51)], [])

    def refuse(handle: int, what: int) -> None:
        raise OSError

    monkeypatch.setattr(full, "fcntl", refuse)  # a network file system
    portable.sync_file(7)
    assert synced == [7]
    monkeypatch.setattr(portable, "fcntl", None)
    portable.sync_file(8)
    assert synced == [7, 8]


@pytest.mark.parametrize(
    ("mount", "options", "wanted"),
    [("C:\\", "rw,fixed", "NTFS"), ("C:\\", "rw,remote", "smbfs")],
)
def test_a_share_under_a_letter_is_a_network_file_system(
    mount: str, options: str, wanted: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    part = SimpleNamespace(mountpoint=str(tmp_path), fstype="NTFS", opts=options)
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: [part])
    assert doctor._file_system(tmp_path) == wanted

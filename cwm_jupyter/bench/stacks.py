"""Stacks of the bench's own, in homes of their own: what users keep is not touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from cwm_jupyter.bench.subject import Context, Subject
from cwm_jupyter.config import Settings
from cwm_jupyter.core.files import make_private_dir
from cwm_jupyter.core.job import Job
from cwm_jupyter.errors import EnvironmentBuildError, ModelError
from cwm_jupyter.stack import launcher
from cwm_jupyter.stack.environment import ensure_environment, locked, publish_code, run_logged
from cwm_jupyter.stack.model import ensure_model
from cwm_jupyter.vault.fs import FsStore
from cwm_jupyter.workspace import Workspace

__all__ = ["Stacks", "random_model"]

_LONG_MODEL = "bench-random-40k"
_NOT_COPIED = ("run", "vault", "codings", "*.lock")


class Stacks:
    """Starts stacks below one folder; a context manager that stops them and removes the folder.

    Parameters
    ----------
    settings
        The user's.
    folder
        Where the homes go; whatever is there is removed.
    job
        Told of starts and stops.
    """

    def __init__(self, settings: Settings, folder: Path, job: Job) -> None:
        self._settings, self.folder, self._job = settings, folder, job
        self._running: dict[str, Settings] = {}
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        for home in self.folder.glob("*/run/stack.json"):  # of a bench that was killed
            launcher.down(self._in(home.parents[1].name))
        shutil.rmtree(self.folder, ignore_errors=True)
        make_private_dir(self.folder.parent)
        make_private_dir(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._exit.close()
            for name in list(self._running):
                self.stop(name)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(
        self,
        name: str,
        *,
        store: Literal["vault", "fs"] = "vault",
        codec: Literal["raw", "planes"] = "raw",
        **stack: Any,
    ) -> Workspace:
        """Start a stack in the home of this name, and return a workspace on it.

        `stack` are fields of `cwm_jupyter.config.StackSettings` that differ from the user's.
        """
        settings = self._in(name, store=store, codec=codec, **stack)
        self._running[name] = settings  # before: a start that is interrupted leaves its state
        launcher.up(settings, self._job)
        workspace = Workspace(settings)
        self._exit.callback(workspace.close)
        return workspace

    def stop(self, name: str) -> None:
        """Stop a stack, if it runs."""
        settings = self._running.pop(name, None)
        if settings is not None:
            launcher.down(settings, self._job)

    def copied(self, subject: Subject, contexts: Sequence[Context], name: str) -> Subject:
        """Return a subject with the same windows, on a new stack that has them in ``fs``.

        Computing them there would take minutes, and measure nothing new: the bytes are the same.
        """
        home = self.folder / name
        source = subject.workspace.settings.home
        shutil.copytree(source, home, ignore=shutil.ignore_patterns(*_NOT_COPIED))
        store = FsStore(home / "vault")

        async def copy() -> None:
            stack = await subject.workspace.connect()
            if stack.store is not None:
                for key in dict.fromkeys(key for c in contexts for key in c.keys):
                    await store.write({key: await stack.store.read(key)})

        subject.workspace.run(copy)
        return Subject(self.start(name, store="fs"), "fs", "raw")

    def _in(self, name: str, **changed: Any) -> Settings:
        storage = {n: changed.pop(n) for n in ("store", "codec") if n in changed}
        replace = msgspec.structs.replace
        return replace(
            self._settings,
            home=self.folder / name,
            stack=replace(self._settings.stack, idle_stop_s=None, **changed),
            storage=replace(self._settings.storage, vault_dir=None, quota_gib=None, **storage),
        )


def random_model(settings: Settings, job: Job) -> Path:
    """Return the folder of a small model with a long context, made in the user's cache once.

    Raises
    ------
    ModelError
        It could not be made.
    """
    folder = settings.cache_dir / "models" / _LONG_MODEL
    python = ensure_environment(settings, job)
    embedded = msgspec.structs.replace(
        settings, stack=msgspec.structs.replace(settings.stack, model=None)
    )
    source = ensure_model(embedded, python, job).path
    with locked(folder.with_suffix(".lock"), job, "another process makes the model"):
        if (folder / "config.json").exists():
            return folder
        job.stage("making a small model with a long context")
        work = folder.with_suffix(".work")
        shutil.rmtree(work, ignore_errors=True)
        make_private_dir(settings.home)
        code = publish_code(make_private_dir(settings.run_dir))
        try:
            run_logged(
                [
                    str(python),
                    "-P",
                    "-m",
                    "cwm_jupyter.engine.random_model",
                    str(source),
                    str(work),
                ],
                job,
                env={**os.environ, "PYTHONPATH": str(code), "HF_HUB_OFFLINE": "1"},
            )
        except EnvironmentBuildError as error:
            raise ModelError(f"The small model was not made: {error.message}") from error
        work.rename(folder)
    return folder

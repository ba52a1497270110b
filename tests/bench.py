"""A home, a stack without a model, and a manager that knows both, for tests of the core."""

from __future__ import annotations

from pathlib import Path

from fake_stack import FakeStack

from cwm_jupyter.config import Settings, StorageSettings
from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.library import Library
from cwm_jupyter.core.manager import Manager
from cwm_jupyter.core.models import Session, Window
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.vault.store import VaultStore

#: long enough for several chunks of 16 tokens
QUESTION = "What is the capital of France, and what is it known for? Tell me in a few words."


class Bench:
    """A home, a stack, and a manager that knows both.

    `readable` is whether the manager's stack shows its chunks' files, `cache` whether it has an
    LMCache; both count from the next `reconnect`.
    """

    def __init__(self, folder: Path) -> None:
        self.readable = self.cache = True
        self.home = folder / "home"
        self.stack = FakeStack(folder / "vault")
        self.settings = Settings(
            home=self.home, storage=StorageSettings(vault_dir=folder / "vault", durable_timeout_s=5)
        )
        self.library = Library(self.home)
        self.manager = Manager(
            self.library, self.connect, VaultStore(self.stack.vault), self.settings
        )
        self._connected: ConnectedStack | None = None

    async def connect(self) -> ConnectedStack:
        """Return the connection, made on first use."""
        if self._connected is None:
            self._connected = await self.stack.connect(readable=self.readable, cache=self.cache)
        return self._connected

    async def reconnect(self, stack: FakeStack | None = None) -> None:
        """Close the connection, and go to another stack if one is given."""
        connected, self._connected = self._connected, None
        if connected is not None:
            await connected.aclose()
        self.stack = stack or self.stack

    async def talk(self, name: str, *questions: str) -> Session:
        """Say things in a session, a new one if there is none of this name."""
        if await self.manager.find_session(name) is None:
            await self.manager.create_session(name)
        for question in questions or (QUESTION,):
            await self.manager.say(name, question)
        return await self.manager.session(name)

    async def frozen(self, name: str, *questions: str) -> Window:
        """Say things in a session and freeze it, both of this name."""
        await self.talk(name, *questions)
        return (await self.manager.freeze(name, name)).window

    def transcript(self, session: Session) -> Transcript:
        """Return a session's transcript."""
        return self.library.transcript(session)

    def window(self, name: str) -> Window:
        """Return a live window."""
        return self.library.index.require_window(name)

    def manifests(self) -> list[str]:
        """Return the names of the manifests on disk."""
        return sorted(path.name for path in (self.home / "windows").glob("*.json"))

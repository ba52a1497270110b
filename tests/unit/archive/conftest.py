"""Two homes, each with a stack of its own, and an archive of the one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from bench import Bench

from cwm_jupyter.core.archive import writer
from cwm_jupyter.core.archive.format import Sealing


@pytest.fixture(autouse=True)
def quick_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make keys of passphrases in a moment."""
    monkeypatch.setattr(writer, "Sealing", partial(Sealing, log2_n=10))


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Bench]:
    """Where windows come from."""
    bench = Bench(tmp_path / "there")
    yield bench
    await bench.reconnect()


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Bench]:
    """Where they are imported."""
    bench = Bench(tmp_path / "here")
    yield bench
    await bench.reconnect()


@pytest.fixture
async def archive(there: Bench, tmp_path: Path) -> Path:
    """An archive of one window."""
    await there.frozen("paper")
    await there.manager.archives.export(["paper"], tmp_path / "paper.cwm")
    return tmp_path / "paper.cwm"

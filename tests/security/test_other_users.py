"""What another user of the machine can do with a home on the disk.

As root the tests become another user and try; as anyone else they can only look at the modes.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench
from second_user import REFUSED, attempt, is_root

from cwm_jupyter.config import Settings
from cwm_jupyter.core.audit import Audit
from cwm_jupyter.core.cipher import Keyring
from cwm_jupyter.core.files import make_private_dir
from cwm_jupyter.errors import SecurityError
from cwm_jupyter.stack import state
from cwm_jupyter.stack.state import StackState

pytestmark = [
    pytest.mark.covers("SC-001"),
    pytest.mark.skipif(os.name == "nt", reason="Windows has lists of rights and no modes"),
]
needs_root = pytest.mark.skipif(not is_root(), reason="only root can become another user")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that all users can enter: pytest's own are closed to them already."""
    folder = Path(tempfile.mkdtemp(prefix="cwm-test-open-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def everything(open_folder) -> Path:
    """A home with one of everything, made under the mask that lets others read."""
    before = os.umask(0o000)
    try:
        bench = Bench(open_folder)
        await bench.frozen("paper", "the quick brown fox " * 4)
        await bench.manager.thaw("paper", as_session="again")
        Keyring.load_or_create(bench.home, {})
        Audit(bench.home)
        stack = StackState(
            kind="local",
            phase="ready",
            engine_url="http://127.0.0.1:1",
            lmcache_url=None,
            api_key="the-key",
            started_at="2026-01-01T00:00:00Z",
        )
        state.save(bench.home, stack)
        await bench.reconnect()
    finally:
        os.umask(before)
    return bench.home


async def test_all_that_is_written_is_its_owners_alone(everything, open_folder) -> None:
    for path in [everything, *everything.rglob("*"), *(open_folder / "vault").rglob("*")]:
        private = everything if everything in (path, *path.parents) else open_folder / "vault"
        assert stat.S_IMODE(private.stat().st_mode) == 0o700, private
        if path.is_dir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
        elif path.suffix != ".lock":  # which are empty, and in a closed folder
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    names = {path.name for path in everything.rglob("*")}
    assert {"audit.key", "audit.head", "audit.jsonl", "encryption.json", "stack.json"} <= names


@needs_root
async def test_another_user_gets_nothing_of_a_home(everything, open_folder) -> None:
    attempts = []
    for path in [everything, *everything.rglob("*"), *(open_folder / "vault").rglob("*")]:
        if path.is_dir():
            attempts += [("list", str(path)), ("create", str(path))]
        else:
            attempts += [("read", str(path)), ("write", str(path)), ("unlink", str(path))]
    assert len(attempts) > 40
    results = attempt(attempts)
    assert set(results) == {REFUSED}, [
        (one, result) for one, result in zip(attempts, results, strict=True) if result != REFUSED
    ]


@needs_root
def test_the_attempts_are_real(open_folder) -> None:
    """The same attempts work where the folder lets them."""
    path = open_folder / "file"
    path.write_bytes(b"abc")
    path.chmod(0o666)
    (open_folder / "all").mkdir(mode=0o777)
    (open_folder / "all").chmod(0o777)
    results = attempt(
        [("read", str(path)), ("write", str(path)), ("create", str(open_folder / "all"))]
    )
    assert results == [3, "opened", "created"]


@needs_root
def test_a_folder_of_another_user_is_refused(open_folder) -> None:
    """Who made it could read along."""
    theirs = open_folder / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    with pytest.raises(SecurityError, match="belongs to another user"):
        make_private_dir(theirs)


def test_a_folder_that_is_open_is_closed(open_folder) -> None:
    folder = open_folder / "mine"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    make_private_dir(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_default_home_is_the_users_own() -> None:
    assert Settings().home.is_relative_to(Path.home())

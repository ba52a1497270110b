"""Changing the key: whatever stops it, all stays readable; then the old key opens nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from entries import make_session, make_window
from hypothesis import given, settings
from hypothesis import strategies as st

from cwm_jupyter.core import files, rotation
from cwm_jupyter.core.cipher import KEY_VARIABLE, Keyring
from cwm_jupyter.core.library import Library, Manifest
from cwm_jupyter.core.models import ChunkRef, Fingerprint, Message, Probe, Window
from cwm_jupyter.core.rotation import open_keyring, rotate_key
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.errors import DecryptError, SecurityError, SessionBusyError, ValidationError

pytestmark = pytest.mark.usefixtures("home")
NAMES = ("one", "two")
SECRET = "ab" * 32


def transcript(name: str) -> Transcript:
    message = Message(role="user", content=f"what {name} said")
    return Transcript(messages=[message], token_ids=[1, 2, len(name)])


def manifest(name: str) -> Manifest:
    return Manifest(
        window_id=f"w-{name}",
        transcript=transcript(name),
        fingerprint=Fingerprint(layout={"dtype": "bfloat16"}, numeric={}),
        refs=[ChunkRef(chunk_hash="00" * 32, digest=name, size_bytes=128)],
        probe=Probe(position_tokens=3, token_ids=[5], logprobs=[-0.1]),
    )


def opened(home: Path) -> Library:
    """A home as another process sees it."""
    return Library(home, open_keyring(home, encrypts=True))


class FakeVault:
    """Files that are sealed each for itself, as the vault's are."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "vault"

    def fill(self, keyring: Keyring) -> None:
        self.folder.mkdir(exist_ok=True)
        for name in NAMES:
            (self.folder / name).write_bytes(keyring.seal(name.encode(), b"chunk"))

    def reseal(self, keyring: Keyring) -> int:
        for path in sorted(self.folder.iterdir()):
            plain = keyring.open(path.read_bytes(), b"chunk")
            files.write_atomic(path, keyring.seal(plain, b"chunk"))
        return len(NAMES)

    def check(self, keyring: Keyring) -> None:
        for name in NAMES:
            assert keyring.open((self.folder / name).read_bytes(), b"chunk") == name.encode()


def fill(library: Library) -> None:
    """Write sessions, their windows and chunks."""
    for name in NAMES:
        library.add_session(make_session(f"s-{name}", name), transcript(name))
        digest = library.write_manifest(manifest(name))
        window = make_window(
            f"w-{name}", f"{name} frozen", session_id=f"s-{name}", manifest_digest=digest
        )
        library.index.add_window(window)
    if library.keyring is not None:
        FakeVault(library.home).fill(library.keyring)


def window(library: Library, name: str) -> Window:
    return library.index.require_window(f"{name} frozen")


def check(library: Library) -> None:
    """Everything is there and can be read."""
    for name in NAMES:
        assert library.transcript(library.index.require_session(name)) == transcript(name)
        assert library.manifest(window(library, name)) == manifest(name)
    assert library.keyring is not None
    FakeVault(library.home).check(library.keyring)


def keys(library: Library) -> set[str | None]:
    return {files.key_of(path.read_bytes()) for path in library.documents()}


@pytest.fixture
def library(tmp_path: Path) -> Library:
    library = opened(tmp_path / "home")
    fill(library)
    return library


@pytest.fixture
def vault(library: Library) -> Callable[[Keyring], int]:
    return FakeVault(library.home).reseal


def current(library: Library) -> str:
    assert library.keyring is not None
    return library.keyring.refresh().hex()


def test_all_is_encrypted_under_a_new_key_and_the_old_one_opens_nothing(
    library: Library, vault: Callable[[Keyring], int], tmp_path: Path
) -> None:
    before = current(library)
    old = shutil.copytree(library.home / "keys", tmp_path / "old" / "keys")
    digests = {window(library, name).manifest_digest for name in NAMES}
    report = rotate_key(library, vault)
    assert report.to_dict() == {
        "current": current(library),
        "new_key": True,
        "documents": 4,
        "contents": 2,
        "dropped": 1,
        "unreadable": [],
    }
    assert current(library) != before
    assert keys(library) == {current(library)}
    check(library)
    check(opened(library.home))
    assert {window(library, name).manifest_digest for name in NAMES} == digests
    thief = Library(library.home, Keyring.load(old.parent, {}))
    with pytest.raises(DecryptError, match="which is not here"):
        check(thief)


def test_who_had_the_old_key_goes_on(library: Library, vault: Callable[[Keyring], int]) -> None:
    other = opened(library.home)
    check(other)
    rotate_key(library, vault)
    check(other)
    other.write_transcript("s-one", transcript("one"))
    assert keys(library) == {current(library)}


def test_what_was_plain_is_encrypted(tmp_path: Path) -> None:
    fill(Library(tmp_path / "home"))
    library = opened(tmp_path / "home")
    assert keys(library) == {None}
    assert rotate_key(library, None).documents == 4
    assert keys(library) == {current(library)}


def test_where_encryption_is_off_there_is_nothing_to_rotate(tmp_path: Path) -> None:
    opened(tmp_path)
    for ring in (None, open_keyring(tmp_path, encrypts=False)):
        with pytest.raises(ValidationError, match="Encryption is off") as caught:
            rotate_key(Library(tmp_path, ring), None)
        assert "CWM_SECURITY_ENCRYPT" in (caught.value.hint or "")


def test_an_error_of_the_vault_keeps_the_old_key(
    library: Library, vault: Callable[[Keyring], int]
) -> None:
    def broken(_: Keyring) -> int:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        rotate_key(library, broken)
    check(opened(library.home))
    assert rotate_key(library, vault).dropped == 2
    check(opened(library.home))


def test_what_is_written_with_the_old_key_meanwhile_is_caught(library: Library) -> None:
    late = opened(library.home)
    assert library.keyring is not None
    path = library.documents()[0]
    sealed = files.seal_document("transcript", 1, transcript("one"), path.name, late.keyring)

    def meanwhile(keyring: Keyring) -> int:
        files.write_atomic(path, sealed)
        return FakeVault(library.home).reseal(keyring)

    assert rotate_key(library, meanwhile).documents == 5
    check(opened(library.home))
    assert keys(library) == {current(library)}


def test_a_busy_session_is_waited_for(
    library: Library, vault: Callable[[Keyring], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = library.index.require_session("one")
    using = opened(library.home).using(session)
    using.__enter__()
    slept = []

    def turn_ends(_: float) -> None:
        slept.append(using.__exit__(None, None, None))

    monkeypatch.setattr(rotation.time, "sleep", turn_ends)
    assert rotate_key(library, vault).documents == 4
    assert len(slept) == 1
    check(library)


def test_one_that_stays_busy_stops_it_and_nothing_is_lost(
    library: Library, vault: Callable[[Keyring], int]
) -> None:
    session = library.index.require_session("one")
    with (
        opened(library.home).using(session),
        pytest.raises(SessionBusyError, match="s-one"),
    ):
        rotate_key(library, vault, patience_s=0)
    check(opened(library.home))
    assert len(keys(library)) == 2
    assert rotate_key(library, vault).dropped == 2


def test_a_damaged_document_is_told_and_keeps_the_old_keys(
    library: Library, vault: Callable[[Keyring], int]
) -> None:
    path = library.documents()[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    report = rotate_key(library, vault)
    assert (report.documents, report.dropped, report.unreadable) == (3, 0, [path.name])
    path.write_bytes(whole)  # from a backup
    check(opened(library.home))
    assert rotate_key(library, vault).dropped == 2
    check(opened(library.home))


def test_two_rotations_at_once_are_refused(
    library: Library, vault: Callable[[Keyring], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    import filelock

    other, real = opened(library.home), filelock.FileLock
    assert other.keyring is not None
    with other.keyring.rotating(), monkeypatch.context() as patch:
        patch.setattr(filelock, "FileLock", lambda path, **_: real(path, timeout=0))
        with pytest.raises(SecurityError, match="Another process"):
            rotate_key(library, vault)
    check(library)


def test_a_key_of_the_environment_is_changed_by_the_user(
    library: Library, vault: Callable[[Keyring], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    moved = opened(library.home)
    check(moved)  # the file's key still opens
    report = rotate_key(moved, vault)
    assert (report.new_key, report.documents, report.dropped) == (False, 4, 1)
    assert not (library.home / "keys" / "encryption.json").exists()
    monkeypatch.setenv(KEY_VARIABLE, f"{'cd' * 32},{SECRET}")
    assert rotate_key(opened(library.home), vault).documents == 4
    monkeypatch.setenv(KEY_VARIABLE, "cd" * 32)
    check(opened(library.home))


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["rotate", "say", "reopen", "plain"]), max_size=6))
def test_whatever_the_order_all_is_read(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    home = tmp_path_factory.mktemp("home")
    first = opened(home)
    fill(first)
    library = first
    for step in steps:
        if step == "rotate":
            rotate_key(library, FakeVault(home).reseal)
        elif step == "say":
            first.write_transcript("s-one", transcript("one"))
        elif step == "plain":
            Library(home, open_keyring(home, encrypts=False)).write_transcript(
                "s-two", transcript("two")
            )
        else:
            library = opened(home)
        check(library)
        check(first)


# --- kill -9 --------------------------------------------------------------------------------------

KILLED = """
    import os, shutil, signal, sys
    from pathlib import Path
    from test_rotation import FakeVault, opened
    from cwm_jupyter.core.rotation import rotate_key

    left = None

    def kill_before_the_last(owner, name):
        real = getattr(owner, name)

        def step(*arguments, **options):
            global left
            if left is not None:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        setattr(owner, name, step)

    for name in ("fsync", "open"):
        kill_before_the_last(os, name)
    for name in ("replace", "unlink", "read_bytes"):
        kill_before_the_last(Path, name)
    home, steps, whole = Path(sys.argv[1]), 0, False
    while not whole:
        folder = home.with_name(f"killed-{steps}")
        shutil.copytree(home, folder)
        child = os.fork()
        if child == 0:
            library, left = opened(folder), steps
            rotate_key(library, FakeVault(folder).reseal)
            os._exit(0)
        whole = os.WIFEXITED(os.waitpid(child, 0)[1])
        steps += 1
    print(steps)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes")
def test_killed_at_any_step_everything_is_readable_and_the_next_one_ends_well(
    library: Library, tmp_path: Path
) -> None:
    helpers = [str(Path(__file__).parent), *sys.path]
    script = textwrap.dedent(KILLED)
    done = subprocess.run(
        [sys.executable, "-c", script, str(library.home)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(helpers)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    steps = int(done.stdout)
    print(f"killed at {steps} steps")
    assert steps > 40
    for step in range(steps):
        home = tmp_path / f"killed-{step}"
        survivor = opened(home)
        check(survivor)
        if step % 7 == 0:
            rotate_key(survivor, FakeVault(home).reseal)
            assert keys(survivor) == {current(survivor)}
            assert survivor.keyring is not None
            assert "older=[]" in repr(survivor.keyring)
            check(opened(home))

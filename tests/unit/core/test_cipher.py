"""The keyring: what it refuses to open, where its keys come from, and that it shows none."""

from __future__ import annotations

import copy
import os
import pickle
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.core import cipher
from cwm_jupyter.core.cipher import KEY_VARIABLE, OVERHEAD, Keyring
from cwm_jupyter.core.files import write_checked
from cwm_jupyter.errors import ConfigError, DecryptError, SecurityError

posix_only = pytest.mark.skipif(os.name == "nt", reason="permission bits are POSIX")
SECRET, OTHER = "ab" * 32, "0f" * 32


def ring_of(*secrets: str) -> Keyring:
    ring = Keyring.from_environment({KEY_VARIABLE: ",".join(secrets)})
    assert ring is not None
    return ring


RING = ring_of(SECRET)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "encryption.json"


@pytest.fixture
def ring(tmp_path: Path, place: Path) -> Keyring:
    """A keyring with a key of its own in a file."""
    return Keyring.load_or_create(tmp_path, {})


def other_process(home: Path) -> Keyring:
    found = Keyring.load(home, {})
    assert found is not None
    return found


# --- sealing and opening --------------------------------------------------------------------------


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_what_was_sealed_opens_to_what_it_was(plain: bytes, context: bytes) -> None:
    sealed = RING.seal(plain, context)
    assert len(sealed) == len(plain) + OVERHEAD
    assert RING.open(sealed, context) == plain
    assert RING.open(memoryview(sealed), context) == plain
    buffer = bytearray(len(plain))
    RING.open_into(memoryview(sealed), context, memoryview(buffer))
    assert buffer == plain
    again = bytearray(len(sealed))
    RING.seal_into(memoryview(plain), context, memoryview(again))
    assert RING.open(bytes(again), context) == plain


@given(st.data())
def test_any_changed_byte_is_refused(data: st.DataObject) -> None:
    plain = data.draw(st.binary(max_size=100))
    sealed = bytearray(RING.seal(plain, b"chunk 1"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DecryptError):
        RING.open(bytes(sealed), b"chunk 1")
    buffer = bytearray(b"x" * len(plain))
    with pytest.raises(DecryptError):
        RING.open_into(sealed, b"chunk 1", buffer)
    assert not any(buffer) or not RING.knows(sealed)


@given(st.binary(max_size=50), st.data())
def test_cut_or_longer_is_refused(plain: bytes, data: st.DataObject) -> None:
    sealed = RING.seal(plain, b"c")
    cut = sealed[: data.draw(st.integers(0, len(sealed) - 1))]
    for wrong in (cut, sealed + b"\0", b"\0" + sealed):
        with pytest.raises(DecryptError):
            RING.open(wrong, b"c")


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_another_context_is_refused(one: bytes, other: bytes) -> None:
    sealed = RING.seal(b"x", one)
    if one != other:
        with pytest.raises(DecryptError, match="damaged, or belongs elsewhere"):
            RING.open(sealed, other)


def test_no_two_sealings_are_alike() -> None:
    assert len({RING.seal(b"same", b"") for _ in range(100)}) == 100


def test_another_key_is_refused_and_named() -> None:
    sealed = ring_of(OTHER).seal(b"x", b"")
    assert not RING.knows(sealed)
    with pytest.raises(DecryptError, match=f"the key {sealed[:8].hex()}, which is not") as caught:
        RING.open(sealed, b"")
    assert KEY_VARIABLE in (caught.value.hint or "")
    assert caught.value.code == "security.decrypt"
    assert isinstance(caught.value, SecurityError)


def test_a_key_under_another_key_s_id_is_refused() -> None:
    sealed = ring_of(OTHER).seal(b"x", b"")
    with pytest.raises(DecryptError, match="damaged"):
        RING.open(RING.current_id + sealed[8:], b"")


def test_a_buffer_of_another_size_is_refused() -> None:
    sealed = RING.seal(b"four", b"")
    for size in (3, 5):
        with pytest.raises(ValueError, match="4 bytes do not fit"):
            RING.open_into(sealed, b"", bytearray(size))
    with pytest.raises(ValueError, match="40 bytes do not fit"):
        RING.seal_into(b"four", b"", bytearray(4))


def test_where_the_library_cannot_use_a_buffer_it_is_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Older:
        """As the library was before it could."""

        def __init__(self, key: bytes) -> None:
            self.encrypt, self.decrypt = AESGCM(key).encrypt, AESGCM(key).decrypt

    monkeypatch.setattr("cryptography.hazmat.primitives.ciphers.aead.AESGCM", Older)
    ring = ring_of(SECRET)
    sealed, buffer = ring.seal(b"four", b"c"), bytearray(4)
    ring.open_into(sealed, b"c", buffer)
    assert buffer == b"four"
    with pytest.raises(DecryptError):
        ring.open_into(sealed, b"d", buffer)
    assert buffer == bytes(4)


def test_the_format_is_key_id_nonce_ciphertext() -> None:
    sealed = RING.seal(b"plain", b"context")
    assert sealed[:8] == RING.current_id == Keyring.key_id_of(sealed)
    opened = AESGCM(bytes.fromhex(SECRET)).decrypt(sealed[8:20], sealed[20:], b"context")
    assert opened == b"plain"


# --- the environment ------------------------------------------------------------------------------


def test_the_first_key_of_the_environment_seals_and_the_others_open() -> None:
    both = ring_of(OTHER, SECRET.upper())
    assert both.current_id == ring_of(OTHER).current_id
    assert both.open(RING.seal(b"x", b""), b"") == b"x"
    assert Keyring.from_environment({}) is None
    assert Keyring.from_environment({KEY_VARIABLE: " "}) is None


@pytest.mark.parametrize(
    "text", ["not-a-key", SECRET[:-1], SECRET + "a", "g" * 64, f"{SECRET},", f"{SECRET} {OTHER}"]
)
def test_what_is_no_key_is_refused_and_not_echoed(tmp_path: Path, text: str) -> None:
    for make in (Keyring.from_environment, lambda env: Keyring.load(tmp_path, env)):
        with pytest.raises(ConfigError, match=f"{KEY_VARIABLE} does not hold a key") as caught:
            make({KEY_VARIABLE: text})
        shown = f"{caught.value}{caught.value.to_dict()}{caught.value.to_log_dict()}"
        assert text not in shown
        assert "64 hexadecimal digits" in shown


def test_the_environment_comes_before_the_file(tmp_path: Path, ring: Keyring) -> None:
    both = Keyring.load(tmp_path, {KEY_VARIABLE: SECRET})
    assert both is not None
    assert both.current_id == RING.current_id
    assert both.open(ring.seal(b"x", b""), b"") == b"x"


def test_with_a_key_in_the_environment_no_file_is_made(tmp_path: Path, place: Path) -> None:
    ring = Keyring.load_or_create(tmp_path, {KEY_VARIABLE: SECRET})
    assert ring.current_id == RING.current_id
    assert not place.exists()


def test_the_process_s_own_environment_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    found = Keyring.load(tmp_path)
    assert found is not None
    assert found.current_id == RING.current_id


# --- the file -------------------------------------------------------------------------------------


def test_no_key_is_made_unasked(tmp_path: Path) -> None:
    assert Keyring.load(tmp_path, {}) is None
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_made_once_and_kept(tmp_path: Path, ring: Keyring) -> None:
    sealed = ring.seal(b"x", b"")
    for again in (other_process(tmp_path), Keyring.load_or_create(tmp_path, {})):
        assert again.current_id == ring.current_id
        assert again.open(sealed, b"") == b"x"
    assert Keyring.load_or_create(tmp_path / "other", {}).current_id != ring.current_id


@posix_only
def test_the_file_is_its_owner_s_alone(place: Path, ring: Keyring) -> None:
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.with_suffix(".lock").stat().st_mode) == 0o600


@posix_only
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_can_read_is_refused(
    tmp_path: Path, place: Path, ring: Keyring, mode: int
) -> None:
    place.chmod(mode)
    with pytest.raises(SecurityError, match="open to other users") as caught:
        Keyring.load(tmp_path, {})
    assert "chmod 600" in (caught.value.hint or "")


def test_of_many_who_make_the_first_key_one_does(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def make(_: int) -> bytes:
        barrier.wait(10)
        return Keyring.load_or_create(tmp_path, {}).current_id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(make, range(8)))) == 1


DAMAGE: dict[str, Any] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
    "flipped": lambda path: path.write_bytes(path.read_bytes().replace(b"keyring", b"keyrinG")),
    "of another shape": lambda path: write_checked(path, "keyring", 1, {"keys": SECRET}),
    "without keys": lambda path: write_checked(path, "keyring", 1, {"keys": []}),
    "without the field": lambda path: write_checked(path, "keyring", 1, {}),
    "with a short key": lambda path: write_checked(path, "keyring", 1, {"keys": [SECRET[2:]]}),
    "with what is no key": lambda path: write_checked(path, "keyring", 1, {"keys": ["zz" * 32]}),
    "of a newer release": lambda path: write_checked(path, "keyring", 2, {"keys": [SECRET]}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_and_left_as_it_is(
    tmp_path: Path, place: Path, ring: Keyring, damage: str
) -> None:
    DAMAGE[damage](place)
    before = place.read_bytes()
    attempts = [
        lambda: Keyring.load(tmp_path, {}),
        lambda: Keyring.load_or_create(tmp_path, {}),
        lambda: ring.seal(b"x", b""),
    ]
    for attempt in attempts:
        with pytest.raises(SecurityError, match=r"encryption(\.json| key)") as caught:
            attempt()
        assert "backup" in (caught.value.hint or "")
        assert SECRET[2:] not in f"{caught.value}{caught.value.to_log_dict()}"
    assert place.read_bytes() == before


def test_where_the_file_is_gone_nothing_is_sealed_any_more(place: Path, ring: Keyring) -> None:
    sealed = ring.seal(b"x", b"")
    place.unlink()
    with pytest.raises(SecurityError, match=r"the encryption key, is gone"):
        ring.seal(b"x", b"")
    assert ring.open(sealed, b"") == b"x"


@posix_only
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, place: Path, ring: Keyring) -> None:
    place.unlink()
    place.mkdir()
    with pytest.raises(SecurityError, match="cannot be read: Is a directory"):
        Keyring.load(tmp_path, {})


# --- other processes ------------------------------------------------------------------------------


def test_a_new_key_is_seen_by_who_has_the_old_one(tmp_path: Path, ring: Keyring) -> None:
    rotating, old = other_process(tmp_path), ring.seal(b"x", b"")
    with rotating.rotating():
        assert rotating.renew()
    assert rotating.current_id != ring.current_id
    assert rotating.open(old, b"") == b"x"
    assert ring.open(rotating.seal(b"new", b""), b"") == b"new"
    assert not ring.is_current(old)
    assert ring.is_current(ring.seal(b"x", b""))
    with rotating.rotating():
        assert rotating.forget_older() == 1
    assert ring.refresh() == rotating.current_id
    with pytest.raises(DecryptError, match="which is not here") as caught:
        ring.open(old, b"")
    assert "encryption.json" in (caught.value.hint or "")


def test_two_cannot_change_the_file_at_once(
    tmp_path: Path, ring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    import filelock

    other = other_process(tmp_path)
    with ring.rotating():
        real = filelock.FileLock
        monkeypatch.setattr(filelock, "FileLock", lambda path, **_: real(path, timeout=0))
        with pytest.raises(SecurityError, match="Another process"), other.rotating():
            pass


def test_a_key_of_the_environment_is_not_ours_to_change(tmp_path: Path, ring: Keyring) -> None:
    mixed = Keyring.load(tmp_path, {KEY_VARIABLE: SECRET})
    assert mixed is not None
    with mixed.rotating():
        assert not mixed.renew()
        assert mixed.forget_older() == 1
    assert Keyring.load(tmp_path, {}) is None
    assert (RING.renew(), RING.forget_older()) == (False, 0)
    with RING.rotating():
        pass


# --- secrets --------------------------------------------------------------------------------------


def test_no_secret_is_shown(tmp_path: Path, place: Path, ring: Keyring) -> None:
    shown = f"{RING!r} {RING} {ring!r} {vars(RING)} {RING._keys}"
    assert SECRET not in shown
    assert repr(bytes.fromhex(SECRET))[2:-1] not in shown
    assert RING.current_id.hex() in repr(RING)
    for key in ring._keys:
        assert key.secret.hex() in place.read_text()
        assert key.secret.hex() not in shown


def test_a_keyring_does_not_travel() -> None:
    for travel in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            travel(RING)


def test_the_library_is_imported_when_it_is_used() -> None:
    """Loading the notebook extension must not wait for it."""
    code = "import sys, cwm_jupyter.core.cipher; sys.exit('cryptography' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert cipher.OVERHEAD == 36


def test_a_keyring_that_watches_finds_a_key_that_comes_later(home: Path) -> None:
    watching = Keyring.watch(home, {}, encrypts=False)
    sealed = Keyring.load_or_create(home, {}).seal(b"later", b"c")
    assert watching.open(sealed, b"c") == b"later"

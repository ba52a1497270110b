"""Encrypted documents, and a home that has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import blake3
import msgspec
import pytest
from entries import make_session, make_window
from hypothesis import given
from hypothesis import strategies as st

from cwm_jupyter.core import files
from cwm_jupyter.core.cipher import KEY_VARIABLE, Keyring
from cwm_jupyter.core.library import Library, Manifest
from cwm_jupyter.core.models import ChunkRef, Fingerprint, Message, Probe, Window
from cwm_jupyter.core.rotation import open_keyring
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.errors import DecryptError, IndexCorruptError, SchemaError, SecurityError

TOLD = "what nobody else may read"
TRANSCRIPT = Transcript(messages=[Message(role="user", content=TOLD)], token_ids=[101, 202, 303])
RING = Keyring.from_environment({KEY_VARIABLE: "ab" * 32})
OTHER = Keyring.from_environment({KEY_VARIABLE: "cd" * 32})


def sealed(body: Any = TOLD, kind: str = "thing", name: str = "a.json") -> bytes:
    return files.seal_document(kind, 1, body, name, RING)


def opened(data: bytes, kind: str = "thing", name: str = "a.json", ring: Any = RING) -> Any:
    return msgspec.json.decode(files.open_document(data, kind, 1, name, ring).body)


# --- documents ------------------------------------------------------------------------------------


@given(st.none() | st.text() | st.lists(st.integers(0, 2**31)))
def test_an_encrypted_document_comes_back_as_it_was(body: Any) -> None:
    assert opened(sealed(body)) == body


def test_the_envelope_says_that_it_is_encrypted_and_with_which_key() -> None:
    assert RING is not None
    data = sealed()
    assert TOLD.encode() not in data
    document = json.loads(data)
    assert list(document) == ["schema", "kind", "checksum", "key", "sealed"]
    assert document["key"] == files.key_of(data) == RING.current_id.hex()
    assert files.key_of(files.seal_document("thing", 1, TOLD)) is None
    assert files.key_of(data[:-1]) is None


def test_a_plain_document_is_as_it_always_was() -> None:
    data = files.seal_document("thing", 1, {"a": 1}, "a.json")
    checksum = blake3.blake3(b'{"a":1}').hexdigest()
    assert data.decode() == (
        f'{{"schema":1,"kind":"thing","checksum":"{checksum}","body":{{"a":1}}}}'
    )
    assert opened(data) == {"a": 1}


@given(data=st.data())
def test_any_changed_byte_of_an_encrypted_document_is_refused(data: st.DataObject) -> None:
    changed = bytearray(sealed({"tokens": [1, 2, 3]}))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises((IndexCorruptError, SchemaError, DecryptError)):
        opened(bytes(changed))


@given(data=st.data())
def test_so_is_one_whose_checksum_was_made_to_fit(data: st.DataObject) -> None:
    """As by somebody who wants it to be read, and not by a failing disk."""
    document = json.loads(sealed({"tokens": [1, 2, 3]}))
    text = bytearray(document["sealed"].encode())
    position = data.draw(st.integers(0, len(text) - 3))  # the last may hold bits without meaning
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    text[position] = ord(data.draw(st.sampled_from(alphabet)))
    if text.decode() == document["sealed"]:
        return
    changed = {**document, "sealed": text.decode(), "checksum": blake3.blake3(text).hexdigest()}
    with pytest.raises((IndexCorruptError, DecryptError), match=r"^a\.json"):
        opened(msgspec.json.encode(changed))


def test_a_truncated_document_is_refused_at_every_length() -> None:
    data = sealed()
    for length in range(len(data)):
        with pytest.raises(IndexCorruptError):
            opened(data[:length])


@pytest.mark.parametrize(
    "change",
    [
        {"sealed": None},
        {"key": None},
        {"key": "00" * 8},
        {"body": "x"},
        {"schema": 0},
        {"sealed": "", "checksum": blake3.blake3(b"").hexdigest()},
        {"sealed": "AAAA", "checksum": blake3.blake3(b"AAAA").hexdigest()},
        {"sealed": "é", "checksum": blake3.blake3("é".encode()).hexdigest()},
        {"sealed": "A", "checksum": blake3.blake3(b"A").hexdigest()},
    ],
)
def test_what_was_put_together_otherwise_is_refused(change: dict[str, Any]) -> None:
    document = {**json.loads(sealed()), **change}
    with pytest.raises((IndexCorruptError, DecryptError)):
        opened(msgspec.json.encode(document))


def test_a_document_opens_under_its_own_name_and_kind_alone() -> None:
    with pytest.raises(DecryptError, match=r"^b\.json: It cannot be decrypted"):
        opened(sealed(), name="b.json")
    renamed = sealed().replace(b'"thing"', b'"other"')
    with pytest.raises(DecryptError):
        opened(renamed, kind="other")


def test_without_the_key_the_error_says_where_it_belongs() -> None:
    with pytest.raises(DecryptError, match=r"a\.json is encrypted .* no key is here") as caught:
        opened(sealed(), ring=None)
    assert "keys/encryption.json" in (caught.value.hint or "")
    assert KEY_VARIABLE in (caught.value.hint or "")
    with pytest.raises(DecryptError, match=r"^a\.json: It is encrypted with the key"):
        opened(sealed(), ring=OTHER)


def test_a_write_that_a_rotation_overtook_is_written_again(tmp_path: Path) -> None:
    ring = Keyring.load_or_create(tmp_path, {})
    rotating = Keyring.load_or_create(tmp_path, {})
    path = tmp_path / "a.json"
    write, writes = files.write_atomic, []

    def overtaken(target: Path, data: bytes) -> None:
        write(target, data)
        writes.append(target)
        if len(writes) == 1:
            with rotating.rotating():
                rotating.renew()
                rotating.forget_older()  # it had looked at the file before

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "write_atomic", lambda p, d: (overtaken if p == path else write)(p, d))
        files.write_checked(path, "thing", 1, TOLD, ring)
    assert len(writes) == 2
    assert files.read_checked(path, "thing", 1, keyring=rotating) == TOLD


# --- a home ---------------------------------------------------------------------------------------


def manifest() -> Manifest:
    return Manifest(
        window_id="w1",
        transcript=TRANSCRIPT,
        fingerprint=Fingerprint(layout={"dtype": "bfloat16"}, numeric={"threads": 2}),
        refs=[ChunkRef(chunk_hash="00" * 32, digest="d1", size_bytes=128)],
        probe=Probe(position_tokens=3, token_ids=[5], logprobs=[-0.1]),
    )


def fill(library: Library) -> Window:
    """Write a session and its window."""
    session = make_session("s1", "talk")
    library.add_session(session, TRANSCRIPT)
    digest = library.write_manifest(manifest())
    return library.index.add_window(
        make_window("w1", "paper", session_id="s1", manifest_digest=digest)
    )


def check(library: Library) -> None:
    assert library.transcript(library.index.require_session("talk")) == TRANSCRIPT
    assert library.manifest(library.index.require_window("paper")) == manifest()


def open_home(home: Path, *, encrypts: bool) -> Library:
    return Library(home, open_keyring(home, encrypts=encrypts))


def texts(home: Path) -> list[bytes]:
    return [path.read_bytes() for path in Library(home).documents()]


@pytest.mark.usefixtures("home")
def test_transcripts_and_manifests_are_encrypted_where_it_is_on(tmp_path: Path) -> None:
    encrypted, plain = open_home(tmp_path / "e", encrypts=True), Library(tmp_path / "p")
    digests = {fill(library).manifest_digest for library in (encrypted, plain)}
    assert len(digests) == 1  # it is that of the plain text, so no rotation changes it
    assert all(TOLD.encode() in text for text in texts(plain.home))
    assert len(texts(encrypted.home)) == 2
    assert not any(TOLD.encode() in text for text in texts(encrypted.home))
    check(open_home(encrypted.home, encrypts=True))


@pytest.mark.usefixtures("home")
def test_what_is_encrypted_is_read_where_it_is_off_again(tmp_path: Path) -> None:
    fill(open_home(tmp_path, encrypts=True))
    library = open_home(tmp_path, encrypts=False)
    check(library)
    library.write_transcript("s1", TRANSCRIPT)
    assert [TOLD.encode() in text for text in texts(tmp_path)] == [True, False]
    check(library)


@pytest.mark.usefixtures("home")
def test_what_is_plain_is_read_where_it_is_on(tmp_path: Path) -> None:
    fill(open_home(tmp_path, encrypts=False))
    assert not (tmp_path / "keys").exists()
    check(open_home(tmp_path, encrypts=True))


@pytest.mark.usefixtures("home")
def test_a_lost_key_is_said_and_no_other_is_made(tmp_path: Path) -> None:
    fill(open_home(tmp_path, encrypts=True))
    key = tmp_path / "keys" / "encryption.json"
    kept = key.rename(tmp_path / "backup")
    with pytest.raises(SecurityError, match="is encrypted, and there is no key") as caught:
        open_home(tmp_path, encrypts=True)
    assert "keys/encryption.json" in (caught.value.hint or "")
    assert KEY_VARIABLE in (caught.value.hint or "")
    assert not key.exists()

    library = open_home(tmp_path, encrypts=False)
    with pytest.raises(DecryptError, match=r"^s1\.json is encrypted with the key"):
        library.transcript(library.index.require_session("talk"))
    with pytest.raises(DecryptError, match=r"^w1\."):
        library.manifest(library.index.require_window("paper"))
    kept.rename(key)
    check(open_home(tmp_path, encrypts=True))


@pytest.mark.usefixtures("home")
def test_one_document_cannot_stand_for_another(tmp_path: Path) -> None:
    library = open_home(tmp_path, encrypts=True)
    library.add_session(make_session("s1", "talk"), TRANSCRIPT)
    library.add_session(make_session("s2", "other"), Transcript(messages=[], token_ids=[]))
    one, other = library.documents()
    other.write_bytes(one.read_bytes())
    with pytest.raises(DecryptError, match="belongs elsewhere"):
        library.transcript(library.index.require_session("other"))

"""The signing key, and whose signatures are trusted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from cwm_jupyter.core.archive.signing import Signers, check_signature, fingerprint
from cwm_jupyter.errors import ArchiveError, IndexCorruptError, SecurityError, ValidationError

KEY, OTHER = "ab" * 32, "cd" * 32


def test_the_key_is_made_on_first_use_for_its_owner_alone(tmp_path: Path) -> None:
    signers = Signers(tmp_path)
    assert signers.own() is None
    assert signers.all() == []
    public, signature = signers.sign(b"this")
    check_signature(public, signature, b"this")
    again, _ = Signers(tmp_path).sign(b"that")
    assert again == public
    path = tmp_path / "keys" / "signing.key"
    if os.name != "nt":
        assert path.stat().st_mode & 0o777 == 0o600
    [own] = signers.all()
    assert (own.public, own.trusted, own.name) == (public.hex(), True, "this home")
    assert own.fingerprint == fingerprint(public.hex())


def test_a_signature_is_of_one_message_and_one_key(tmp_path: Path) -> None:
    public, signature = Signers(tmp_path / "a").sign(b"this")
    other, _ = Signers(tmp_path / "b").sign(b"this")
    for key, sign, message in (
        (public, signature, b"that"),
        (other, signature, b"this"),
        (public, bytes(64), b"this"),
        (b"\xff" * 32, signature, b"this"),
    ):
        with pytest.raises(ArchiveError, match="signature is wrong"):
            check_signature(key, sign, message)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such bits")
def test_a_key_that_others_can_read_signs_nothing(tmp_path: Path) -> None:
    signers = Signers(tmp_path)
    signers.sign(b"this")
    (tmp_path / "keys" / "signing.key").chmod(0o640)
    with pytest.raises(SecurityError, match="open to other users"):
        signers.sign(b"this")


@pytest.mark.parametrize("kind", ["nothing", "other"])
def test_a_file_that_holds_no_such_key(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "keys" / "signing.key"
    path.parent.mkdir()
    other = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    path.write_bytes(b"nothing" if kind == "nothing" else other)
    path.chmod(0o600)
    with pytest.raises(SecurityError, match="no signing key"):
        Signers(tmp_path).sign(b"this")


@pytest.mark.skipif(os.name == "nt", reason="a folder opens there in another way")
def test_a_key_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "keys" / "signing.key").mkdir(parents=True)
    with pytest.raises(SecurityError, match="cannot be read"):
        Signers(tmp_path).own()


def test_trust_is_given_and_taken(tmp_path: Path) -> None:
    signers = Signers(tmp_path)
    assert not signers.describe(bytes.fromhex(KEY)).trusted
    added = signers.add(KEY.upper(), "Ada")
    assert (added.trusted, added.name, added.public) == (True, "Ada", KEY)
    signers.add(OTHER)
    signers.add(KEY, "Ada L.")  # named anew, not twice
    assert [one.name for one in signers.all()] == ["", "Ada L."]
    assert Signers(tmp_path).describe(bytes.fromhex(KEY)).name == "Ada L."
    gone = signers.remove("Ada L.")
    assert not gone.trusted
    assert signers.remove(fingerprint(OTHER)).public == OTHER
    assert signers.all() == []


def test_the_own_key_is_trusted_and_stays_so(tmp_path: Path) -> None:
    signers = Signers(tmp_path)
    public, _ = signers.sign(b"this")
    assert signers.describe(public).trusted
    with pytest.raises(ValidationError, match="no trusted signer"):
        signers.remove(public.hex())
    signers.add(public.hex(), "me")
    assert [one.name for one in signers.all()] == ["this home"]


def test_what_is_refused(tmp_path: Path) -> None:
    signers = Signers(tmp_path)
    for wrong in ("", "xy" * 32, KEY[:-1], KEY + "00", f"{KEY}\n", "../" + KEY):
        with pytest.raises(ValidationError, match="64 hexadecimal"):
            signers.add(wrong)
    for name in ("a\nb", "\x1b[31m", "x" * 201):
        with pytest.raises(ValidationError, match="printable"):
            signers.add(KEY, name)
    signers.add(KEY, "twin")
    signers.add(OTHER, "twin")
    with pytest.raises(ValidationError, match="more than one"):
        signers.remove("twin")


def test_a_damaged_list_trusts_nobody(tmp_path: Path) -> None:
    signers = Signers(tmp_path)
    signers.add(KEY)
    path = tmp_path / "trusted_signers.json"
    path.write_bytes(path.read_bytes().replace(b"abab", b"abac", 1))
    with pytest.raises(IndexCorruptError):
        signers.describe(bytes.fromhex(KEY))

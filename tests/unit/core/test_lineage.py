"""Lineages: secrets on disk, and the salts that are made of them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cwm_jupyter.core.fingerprint import LAYOUT_FIELDS, NUMERIC_FIELDS
from cwm_jupyter.core.lineage import Lineages, make_salt
from cwm_jupyter.core.models import Fingerprint
from cwm_jupyter.errors import KVStoreError

VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
LAYOUTS = st.fixed_dictionaries(dict.fromkeys(LAYOUT_FIELDS, VALUES))
NUMERICS = st.fixed_dictionaries(dict.fromkeys(NUMERIC_FIELDS, VALUES))
SECRETS = st.binary(min_size=32, max_size=32)


@given(SECRETS, LAYOUTS, NUMERICS, NUMERICS)
def test_numeric_fields_never_change_the_salt(
    secret: bytes, layout: dict[str, str], one: dict[str, str], other: dict[str, str]
) -> None:
    assert make_salt(secret, Fingerprint(layout=layout, numeric=one)) == make_salt(
        secret, Fingerprint(layout=layout, numeric=other)
    )


@given(SECRETS, LAYOUTS, st.sampled_from(LAYOUT_FIELDS), VALUES)
def test_every_layout_field_changes_the_salt(
    secret: bytes, layout: dict[str, object], name: str, value: object
) -> None:
    assume((layout[name], type(layout[name])) != (value, type(value)))
    one = Fingerprint(layout=layout, numeric={})
    other = Fingerprint(layout={**layout, name: value}, numeric={})
    assert make_salt(secret, one) != make_salt(secret, other)


@given(SECRETS, LAYOUTS)
def test_the_order_of_fields_does_not_matter(secret: bytes, layout: dict[str, str]) -> None:
    turned = dict(reversed(layout.items()))
    assert make_salt(secret, Fingerprint(layout=layout, numeric={})) == make_salt(
        secret, Fingerprint(layout=turned, numeric={})
    )


@given(SECRETS, SECRETS, LAYOUTS)
def test_lineages_have_salts_of_their_own_that_lmcache_takes(
    secret: bytes, other: bytes, layout: dict[str, str]
) -> None:
    assume(secret != other)
    fingerprint = Fingerprint(layout=layout, numeric={})
    salt = make_salt(secret, fingerprint)
    assert salt != make_salt(other, fingerprint)
    assert re.fullmatch(r"[0-9a-f]{32}", salt)


FINGERPRINT = Fingerprint(layout={"dtype": "bfloat16"}, numeric={})


def test_a_lineage_is_one_private_file_and_outlives_the_process(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    lineage = Lineages(folder).create()
    (secret,) = folder.iterdir()
    assert secret.name == f"{lineage}.secret"
    assert len(secret.read_bytes()) == 32
    if os.name == "posix":
        assert secret.stat().st_mode & 0o777 == 0o600
        assert folder.stat().st_mode & 0o777 == 0o700
    salt = Lineages(folder).salt(lineage, FINGERPRINT)
    assert salt == make_salt(secret.read_bytes(), FINGERPRINT)


def test_no_two_lineages_are_alike(tmp_path: Path) -> None:
    lineages = Lineages(tmp_path)
    one, other = lineages.create(), lineages.create()
    assert one != other
    assert lineages.salt(one, FINGERPRINT) != lineages.salt(other, FINGERPRINT)


def test_a_lost_secret_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    lineages = Lineages(tmp_path)
    lineage = lineages.create()
    (tmp_path / f"{lineage}.secret").unlink()
    with pytest.raises(KVStoreError, match=f"secret of lineage {lineage}") as caught:
        lineages.salt(lineage, FINGERPRINT)
    assert "--recompute" in (caught.value.hint or "")


@pytest.mark.parametrize("left", [0, 31])
def test_a_damaged_secret_is_an_error_too(tmp_path: Path, left: int) -> None:
    lineages = Lineages(tmp_path)
    lineage = lineages.create()
    path = tmp_path / f"{lineage}.secret"
    secret = path.read_bytes()
    path.write_bytes(secret[:left])
    with pytest.raises(KVStoreError, match="damaged"):
        lineages.salt(lineage, FINGERPRINT)


@given(st.lists(LAYOUTS, min_size=1, max_size=3))
def test_all_salts_that_were_given_can_be_told_again(
    tmp_path_factory: pytest.TempPathFactory, layouts: list[dict[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("keys")
    lineages = Lineages(folder)
    one, other = lineages.create(), lineages.create()
    fingerprints = [Fingerprint(layout=layout, numeric={"threads": 2}) for layout in layouts]
    given_salts = {lineages.salt(one, fingerprint) for fingerprint in fingerprints}
    told = Lineages(folder).salts(one)
    assert set(told) == given_salts
    assert {lineages.salt(one, layout) for layout in told.values()} == given_salts
    assert all(layout.numeric == {} for layout in told.values())
    assert not given_salts & set(lineages.salts(other))
    assert lineages.ids() == sorted([one, other])


def test_a_layout_is_noted_before_its_salt_is_given_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lineages = Lineages(tmp_path)
    one = lineages.create()
    fingerprint = Fingerprint(layout={"dtype": "bfloat16"}, numeric={})

    def full(*_: object) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("cwm_jupyter.core.lineage.write_checked", full)
        with pytest.raises(OSError, match="no room"):
            lineages.salt(one, fingerprint)
    assert lineages.salts(one) == {}
    salt = lineages.salt(one, fingerprint)
    monkeypatch.setattr("cwm_jupyter.core.lineage.write_checked", full)
    assert lineages.salt(one, fingerprint) == salt
    assert Lineages(tmp_path).salt(one, fingerprint) == salt
    [note] = tmp_path.glob("*.layout")
    assert note.stat().st_mode & 0o777 == 0o600
    assert salt.encode() not in note.read_bytes()


def test_a_note_that_is_damaged_hides_no_other(tmp_path: Path) -> None:
    lineages = Lineages(tmp_path)
    one = lineages.create()
    salts = [
        lineages.salt(one, Fingerprint(layout={"dtype": dtype}, numeric={}))
        for dtype in ("bfloat16", "float32")
    ]
    damaged = min(tmp_path.glob("*.layout"))
    damaged.write_bytes(b"{")
    assert len(set(lineages.salts(one)) & set(salts)) == 1
    lineages.remove(one)
    assert lineages.salts(one) == {}

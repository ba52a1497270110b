"""The few ways in which the vault changes a disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path, PureWindowsPath

import pytest
from vaults import content_path, get, keys, names, noise, put

from cwm_jupyter.vault import disk
from cwm_jupyter.vault.files import Vault


@pytest.mark.covers("PW-002")
def test_a_file_that_is_open_is_replaced_once_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses while somebody reads."""
    real, refused = os.replace, []

    def replace(source: Path, target: Path) -> None:
        if len(refused) < 3:
            refused.append(target)
            raise PermissionError(errno.EACCES, "in use")
        real(source, target)

    monkeypatch.setattr(disk, "_BUSY_DELAYS_S", (0.001,) * 5)
    monkeypatch.setattr(os, "replace", replace)
    target = tmp_path / "target"
    target.write_bytes(b"old")
    disk.add(tmp_path, target, b"new")
    assert target.read_bytes() == b"new"
    assert len(refused) == 3
    assert names(tmp_path) == {"target"}


@pytest.mark.covers("PW-002")
def test_a_file_that_stays_open_is_a_failed_store_and_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = Vault(tmp_path / "vault")
    first, second = keys(2)
    put(vault, {first: noise(1), second: noise(2)})
    open_file = content_path(vault, first)
    open_file.write_bytes(b"damaged")
    real_replace, real_unlink = os.replace, os.unlink

    def replace(source: Path, target: Path) -> None:
        if open_file in (Path(source), Path(target)):
            raise PermissionError(errno.EACCES, "in use")
        real_replace(source, target)

    def unlink(path: Path) -> None:
        if Path(path) == open_file:
            raise PermissionError(errno.EACCES, "in use")
        real_unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "_BUSY_DELAYS_S", (0.001,) * 3)
        patch.setattr(os, "replace", replace)
        patch.setattr(os, "unlink", unlink)
        assert get(vault, first) is None
        assert put(vault, {first: noise(1)}) == ["failed"]
        assert get(vault, second) == noise(2)
        with pytest.raises(PermissionError):
            vault.delete([first])
    assert put(vault, {first: noise(1)}) == ["stored"]
    assert get(vault, first) == noise(1)
    assert not list(vault.folder.contents.glob("*.tmp"))
    vault.close()


@pytest.mark.covers("PW-003")
def test_long_paths_get_the_prefix_that_windows_wants() -> None:
    deep = "\\".join(["C:", *["folder"] * 60])
    assert disk.long_path(PureWindowsPath(deep)) == "\\\\?\\" + deep
    assert disk.long_path(PureWindowsPath(f"\\\\?\\{deep}")) == "\\\\?\\" + deep
    share = "\\\\server\\share\\folder"
    assert disk.long_path(PureWindowsPath(share)) == "\\\\?\\UNC\\server\\share\\folder"


@pytest.mark.covers("PW-003")
def test_a_vault_may_lie_deep(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 12)
    assert len(str(folder)) > 260
    vault = Vault(folder)
    (key,) = keys(1)
    assert put(vault, {key: noise(1)}) == ["stored"]
    assert get(vault, key) == noise(1)
    vault.close()


def test_what_is_listed_are_plain_files(tmp_path: Path) -> None:
    (tmp_path / "folder.kv").mkdir()
    (tmp_path / "file.kv").write_bytes(b"12")
    (tmp_path / "other").write_bytes(b"")
    found = {path.name: status.st_size for path, status in disk.files(tmp_path, ".kv")}
    assert found == {"file.kv": 2}
    assert disk.exists(tmp_path / "file.kv")
    assert not disk.exists(tmp_path / "file.kv" / "below")

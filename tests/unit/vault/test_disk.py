"""The few ways in which the vault changes a disk."""

from __future__ import annotations

from pathlib import Path

from cwm_jupyter.vault import disk


def test_what_is_listed_are_plain_files(tmp_path: Path) -> None:
    (tmp_path / "folder.kv").mkdir()
    (tmp_path / "file.kv").write_bytes(b"12")
    (tmp_path / "other").write_bytes(b"")
    found = {path.name: status.st_size for path, status in disk.files(tmp_path, ".kv")}
    assert found == {"file.kv": 2}
    assert disk.exists(tmp_path / "file.kv")
    assert not disk.exists(tmp_path / "file.kv" / "below")

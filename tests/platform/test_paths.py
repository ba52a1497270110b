"""Paths of Windows: letters, shares, any length, names that differ by case alone."""

from __future__ import annotations

import errno
import ntpath
from pathlib import Path, PureWindowsPath

import pytest
from bench import Bench
from hypothesis import given
from hypothesis import strategies as st
from vaults import get, keys, noise, put
from windows_disk import EXTENDED, WindowsDisk

from cwm_jupyter.core import portable
from cwm_jupyter.core.names import check_id, check_name, name_key
from cwm_jupyter.errors import ValidationError
from cwm_jupyter.notebook.magics import split
from cwm_jupyter.vault.files import Vault

DEEP = ["a folder with a long name"] * 12


@pytest.mark.covers("PW-001", "PW-003")
@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("C:\\Users\\me\\cwm", "\\\\?\\C:\\Users\\me\\cwm"),
        ("c:/Users/me", "\\\\?\\c:\\Users\\me"),
        ("D:\\", "\\\\?\\D:\\"),
        ("\\\\server\\share\\cwm", "\\\\?\\UNC\\server\\share\\cwm"),
        ("//server/share/cwm", "\\\\?\\UNC\\server\\share\\cwm"),
        ("\\\\?\\C:\\Users\\me", "\\\\?\\C:\\Users\\me"),
        ("\\\\?\\UNC\\server\\share\\a", "\\\\?\\UNC\\server\\share\\a"),
        ("C:\\Users\\me\\..\\you\\.\\cwm", "\\\\?\\C:\\Users\\you\\cwm"),
    ],
)
def test_a_path_gets_the_prefix_that_lets_it_be_long(path: str, wanted: str) -> None:
    long = portable.extended(PureWindowsPath(path), ntpath.normpath)
    assert long == wanted
    assert portable.extended(PureWindowsPath(long), ntpath.normpath) == long
    below = PureWindowsPath(long) / "vault" / "x.kv"
    assert str(below).startswith(EXTENDED)
    assert below.parent.parent == PureWindowsPath(wanted)


@pytest.mark.covers("PW-003")
def test_what_is_not_prefixed_is_refused_at_260(windows: WindowsDisk, tmp_path: Path) -> None:
    """The emulated folder refuses what Windows does, or the tests below would show nothing."""
    deep = tmp_path.joinpath(*DEEP)
    assert len(str(deep)) > 260
    with pytest.raises(FileNotFoundError):
        deep.mkdir(parents=True)
    with pytest.raises(FileNotFoundError):
        (deep / "file").write_bytes(b"")
    portable.long_path(deep).mkdir(parents=True)
    (portable.long_path(deep) / "file").write_bytes(b"1")


@pytest.mark.covers("PW-003")
@pytest.mark.parametrize("system", ["here", "windows"])
async def test_a_home_and_a_vault_may_lie_deep(
    system: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A window's whole life, in folders deeper than 260 characters."""
    if system == "windows":
        request.getfixturevalue("windows")
    bench = Bench(tmp_path.joinpath(*DEEP))
    window = await bench.frozen("paper")
    await bench.reconnect()
    bench.stack.restart()
    assert (await bench.manager.verify("paper")).intact
    thawed = await bench.manager.thaw("paper")
    assert thawed.complete
    await bench.manager.say(thawed.session, "And then?")
    ref = bench.library.manifest(window).refs[1]
    path = bench.stack.vault.folder.content(ref.digest)
    assert len(str(path)) > 300
    path.write_bytes(path.read_bytes()[:-1])
    bench.stack.restart()
    assert (await bench.manager.repair("paper")).chunks_bit_equal == 1
    await bench.manager.remove_window("paper")
    assert (await bench.manager.purge()).removed
    assert not bench.manifests()
    await bench.reconnect()


@pytest.mark.covers("PW-001")
def test_names_that_differ_by_case_are_one_there(windows: WindowsDisk, tmp_path: Path) -> None:
    (tmp_path / "Vault").mkdir()
    (tmp_path / "Vault" / "A").write_bytes(b"1")
    assert (tmp_path / "vault" / "a").read_bytes() == b"1"
    assert (tmp_path / "VAULT").exists()


@pytest.mark.covers("PW-001")
def test_a_vault_is_found_under_any_case(windows: WindowsDisk, tmp_path: Path) -> None:
    (key,) = keys(1)
    vault = Vault(tmp_path / "Vault")
    assert put(vault, {key: noise(1)}) == ["stored"]
    vault.close()
    again = Vault(tmp_path / "VAULT")
    assert get(again, key) == noise(1)
    again.close()


@pytest.mark.covers("PW-001")
@given(st.text("abcdefABCDEFßİıſK. -_", min_size=1, max_size=12))
def test_what_is_one_name_there_is_one_name_here(name: str) -> None:
    """Names of windows are compared so that no two of them could be one file."""
    for other in (name.upper(), name.lower(), name.swapcase()):
        if ntpath.normcase(other) == ntpath.normcase(name):
            assert name_key(other) == name_key(name)


@pytest.mark.covers("PW-001")
@pytest.mark.parametrize(
    "name", ["con", "NUL", "nul.txt", "com1", "LPT9.json", "ends.", "ends ", "a:b", "a\\b", "a?"]
)
def test_names_that_windows_refuses_name_nothing(
    name: str, windows: WindowsDisk, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError):
        check_name(name)
    with pytest.raises(ValidationError):
        check_id(name)
    if "\\" not in name:
        with pytest.raises(OSError, match="not a file name") as caught:
            (tmp_path / name).write_bytes(b"")
        assert caught.value.errno == errno.EINVAL


def test_whoever_holds_chunks_is_a_file_name_everywhere(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault")
    for owner in ("con", "Window", "a:b", "..", ""):
        with pytest.raises(ValidationError):
            vault.hold(owner, keys(1))
    vault.close()


@pytest.mark.covers("PW-001")
def test_a_magic_takes_a_path_with_backslashes(monkeypatch: pytest.MonkeyPatch) -> None:
    line = r'--file C:\Users\me\notes.txt "C:\two words\a.txt" and \\server\share'
    monkeypatch.setattr(portable, "WINDOWS", True)
    assert split(line) == [
        "--file",
        r"C:\Users\me\notes.txt",
        r"C:\two words\a.txt",
        "and",
        r"\\server\share",
    ]
    monkeypatch.setattr(portable, "WINDOWS", False)
    assert split(r"two\ words") == ["two words"]

"""Export and import of windows, from home to home."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from bench import QUESTION, Bench
from fake_stack import FakeStack

from cwm_jupyter.core.archive.format import VERSION
from cwm_jupyter.core.archive.importing import Import
from cwm_jupyter.core.archive.reader import Reader, is_encrypted
from cwm_jupyter.core.cipher import Keyring
from cwm_jupyter.core.job import Job, JobState
from cwm_jupyter.core.models import Window
from cwm_jupyter.core.verify import window_keys
from cwm_jupyter.errors import (
    ArchiveError,
    CancelledJobError,
    CWMError,
    DecryptError,
    EngineMismatchError,
    KVStoreError,
    ResourceExhaustedError,
    SchemaError,
    StackDownError,
    ValidationError,
    WindowExistsError,
    WindowNotFoundError,
)
from cwm_jupyter.vault.store import VaultStore


async def assert_nothing_is_there(bench: Bench) -> None:
    """A home into which nothing was imported, and a vault with no trace of it."""
    assert bench.library.index.all_windows() == []
    assert bench.library.index.all_sessions() == []
    assert bench.library.documents() == []
    assert bench.library.lineages.ids() == []
    assert bench.stack.files() == []
    assert bench.stack.vault.holds() == {}


def down(bench: Bench) -> None:
    """Stop the stack of a home."""

    async def connect() -> None:
        raise StackDownError("No stack is running.")

    bench.manager.parts.connect = connect  # type: ignore[assignment]


def cancelled_at(stage: str) -> Job:
    """A job that is cancelled when it comes to a stage."""
    job = Job("work", lambda state: job.cancel() if state.stage == stage else None)
    return job


def refusing(number: int) -> Callable[..., None]:
    """A disk that does not do it, for this reason."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def set_version(path: Path, version: int) -> None:
    data = bytearray(path.read_bytes())
    data[8:10] = version.to_bytes(2, "little")
    path.write_bytes(data)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(bench: Bench, window: Window) -> list[bytes | None]:
    manifest = bench.library.manifest(window)
    keys = window_keys(bench.library, window, manifest)
    return [bench.stack.vault.read(key)[1] for key in keys]


async def test_a_window_goes_from_home_to_home(there: Bench, here: Bench, tmp_path: Path) -> None:
    await there.talk("talk", QUESTION, "And Rome?")
    frozen = (await there.manager.freeze("paper", "talk", tags=["eu"], note="for later <b>")).window
    path = tmp_path / "paper.cwm"
    stages: list[JobState] = []
    exported = await there.manager.archives.export(
        ["paper"], path, job=Job("export", stages.append)
    )
    assert exported.size_bytes == path.stat().st_size
    assert (exported.windows, exported.encrypted) == (["paper"], False)
    assert exported.content_bytes == frozen.size_bytes
    assert stages[-2].done == exported.content_bytes
    assert {s.stage for s in stages} >= {"read", "write"}
    if os.name != "nt":
        assert path.stat().st_mode & 0o777 == 0o600

    down(here)  # none is needed
    report = await here.manager.archives.import_file(path, trust=True)
    [imported] = report.windows
    window = imported.window
    assert window == here.window("paper")
    assert (window.tags, window.note, window.turns) == (["eu"], "for later <b>", 2)
    assert window.id != frozen.id
    assert window.lineage_id != frozen.lineage_id
    assert window.session_id != frozen.session_id
    assert (report.recomputed, report.differences) == (None, None)
    assert imported.frozen_at == frozen.created_at
    assert report.signer.fingerprint == exported.signer.fingerprint
    old, new = there.library.manifest(frozen), here.library.manifest(window)
    assert new.transcript == old.transcript
    assert new.fingerprint == old.fingerprint
    assert new.probe == old.probe
    assert contents(here, window) == contents(there, frozen)
    # the vault names contents by a secret of its own, and that is not in the archive
    assert {ref.digest for ref in new.refs}.isdisjoint(ref.digest for ref in old.refs)
    assert here.stack.vault.holds()[window.id].contents == sorted(r.digest for r in new.refs)
    assert (await here.manager.verify("paper")).intact

    session = await here.manager.session("paper")
    assert (session.state, session.window_id) == ("frozen", window.id)
    assert here.transcript(session) == old.transcript
    here.manager.parts.connect = here.connect
    thawed = await here.manager.thaw("paper", as_session="again")
    assert thawed.complete
    assert thawed.probe is not None
    assert thawed.probe.max_abs_logprob_diff == 0
    live = await there.manager.say("talk", "Go on.")
    assert (await here.manager.say("again", "Go on.")).text == live.text
    assert (await here.manager.say("paper", "Go on.")).text == live.text


async def test_no_secret_of_the_home_is_in_the_file(there: Bench, tmp_path: Path) -> None:
    window = await there.frozen("paper")
    path = tmp_path / "paper.cwm"
    await there.manager.archives.export(["paper"], path)
    data = path.read_bytes()
    manifest = there.library.manifest(window)
    secrets = [file.read_bytes() for file in (there.home / "keys").iterdir() if file.is_file()]
    secrets += [there.stack.vault.folder.secret]
    keys = window_keys(there.library, window, manifest)
    names = [window.id, window.lineage_id, window.session_id, keys[0].cache_salt, str(tmp_path)]
    names += [ref.digest for ref in manifest.refs] + [there.stack.vault.name(k) for k in keys]
    assert all(secret not in data for secret in secrets if secret)
    for name in names:
        assert name.encode() not in data
        if len(name) % 2 == 0 and set(name) <= set("0123456789abcdef"):
            assert bytes.fromhex(name) not in data


async def test_what_windows_share_is_there_once(there: Bench, here: Bench, tmp_path: Path) -> None:
    """A family of one session, and a stranger with the very same content."""
    await there.talk("talk", QUESTION)
    first = (await there.manager.freeze("first", "talk")).window
    await there.talk("talk", "And Rome?")
    second = (await there.manager.freeze("second", "talk")).window
    await there.talk("talk", "And Oslo?")
    third = (await there.manager.freeze("third", "talk")).window
    twin = await there.frozen("twin", QUESTION)
    path = tmp_path / "all.cwm"
    names = ["third", "first", "twin", "third"]
    report = await there.manager.archives.export(names, path)
    assert report.windows == ["first", "twin", "third"]
    assert report.contents == len({*contents(there, third), *contents(there, twin)})
    assert report.contents < first.chunks + twin.chunks + third.chunks

    imported = await here.manager.archives.import_file(path, trust=True, as_name="old")
    windows = {one.archived_name: one.window for one in imported.windows}
    assert [w.name for w in windows.values()] == ["old-first", "old-twin", "old-third"]
    assert windows["third"].parent_window_id == windows["first"].id  # the nearest that came along
    assert (windows["third"].depth, windows["twin"].depth) == (1, 0)
    assert windows["third"].lineage_id == windows["first"].lineage_id
    assert windows["third"].session_id == windows["first"].session_id
    assert windows["twin"].lineage_id != windows["first"].lineage_id
    assert len(here.stack.files()) == report.contents
    assert sorted(imported.sessions) == ["old-third", "old-twin"]
    session = await here.manager.session("old-third")
    assert session.tokens == third.tokens
    for name in ("old-first", "old-twin", "old-third"):
        assert (await here.manager.thaw(name)).complete
    assert second.depth == 1


async def test_names_that_are_taken(there: Bench, here: Bench, archive: Path) -> None:
    archives = here.manager.archives
    await archives.import_file(archive, trust=True)
    before = here.library.index.all_windows()
    with pytest.raises(WindowExistsError, match=r"paper.*\n.*--as NAME"):
        await archives.import_file(archive)
    assert here.library.index.all_windows() == before
    await archives.import_file(archive, as_name="other")
    # a session that is called so already is no obstacle
    await here.talk("third")
    report = await archives.import_file(archive, as_name="third")
    assert report.sessions == ["third-2"]
    for wrong in ("../x", "a/b", "con", "", "x" * 129):
        with pytest.raises(ValidationError):
            await archives.import_file(archive, as_name=wrong)
    assert {w.name for w in here.library.index.all_windows()} == {"paper", "other", "third"}


async def test_an_earlier_version_gets_a_name_of_its_own(
    there: Bench, here: Bench, tmp_path: Path
) -> None:
    await there.talk("talk", QUESTION)
    await there.manager.freeze("paper", "talk")
    await there.talk("talk", "And Rome?")
    await there.manager.freeze("paper", "talk", update=True)
    path = tmp_path / "both.cwm"
    report = await there.manager.archives.export(["paper", "paper@v1"], path)
    assert report.windows == ["paper-1", "paper"]
    await here.manager.archives.import_file(path, trust=True)
    assert here.window("paper-1").turns == 1
    assert here.window("paper").turns == 2
    assert (here.window("paper").version, here.window("paper").superseded) == (1, False)


async def test_encrypted(there: Bench, here: Bench, tmp_path: Path) -> None:
    await there.frozen("paper", "a secret question " + QUESTION)
    path = tmp_path / "paper.cwm"
    report = await there.manager.archives.export(["paper"], path, passphrase="correct horse")
    assert report.encrypted
    assert is_encrypted(path)
    assert report.size_bytes == path.stat().st_size
    data = path.read_bytes()
    for plain in (b"paper", b"a secret question", b"chunk_hashes", b"tokens"):
        assert plain not in data
    for passphrase in (None, "wrong"):
        with pytest.raises(DecryptError):
            await here.manager.archives.import_file(path, passphrase=passphrase)
    await assert_nothing_is_there(here)
    imported = await here.manager.archives.import_file(path, passphrase="correct horse", trust=True)
    assert imported.encrypted
    assert (await here.manager.thaw("paper")).complete
    with pytest.raises(ValidationError, match="empty"):
        await there.manager.archives.export(["paper"], tmp_path / "x", passphrase="")


async def test_homes_that_encrypt(tmp_path: Path) -> None:
    """What is encrypted on both disks goes from one to the other, each having its own key."""
    benches = []
    for name in ("one", "two"):
        bench = Bench(tmp_path / name)
        ring = Keyring.load_or_create(bench.home, {})
        bench.stack.vault.keyring = bench.stack.vault.folder.keyring = ring
        bench.library.keyring = ring
        benches.append(bench)
    one, two = benches
    await one.frozen("paper")
    await one.manager.archives.export(["paper"], tmp_path / "paper.cwm")
    report = await two.manager.archives.import_file(tmp_path / "paper.cwm", trust=True)
    raw = {data for data in contents(two, report.windows[0].window) if data}
    assert raw
    for path in (*two.stack.files(), *two.library.documents()):
        data = path.read_bytes()
        assert not any(one in data for one in raw)
        assert QUESTION.encode() not in data
    assert (await two.manager.thaw("paper")).complete
    for bench in benches:
        await bench.reconnect()


# --- where to export ------------------------------------------------------------------------------


async def test_a_file_that_is_there_stays(there: Bench, tmp_path: Path) -> None:
    await there.frozen("paper")
    export = there.manager.archives.export
    path = tmp_path / "paper.cwm"
    path.write_bytes(b"precious")
    with pytest.raises(ValidationError, match=r"already.*\n.*--force"):
        await export(["paper"], path)
    assert path.read_bytes() == b"precious"
    await export(["paper"], path, force=True)
    with Reader(path) as reader:
        assert reader.catalogue.windows[0].name == "paper"
    with pytest.raises(ValidationError, match="is no file"):
        await export(["paper"], tmp_path, force=True)
    with pytest.raises(ValidationError, match="no folder"):
        await export(["paper"], tmp_path / "no" / "paper.cwm")
    assert names_in(tmp_path) == ["paper.cwm", "there"]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
async def test_a_link_is_replaced_and_not_followed(there: Bench, tmp_path: Path) -> None:
    await there.frozen("paper")
    target, path = tmp_path / "precious", tmp_path / "paper.cwm"
    target.write_bytes(b"precious")
    path.symlink_to(target)
    with pytest.raises(ValidationError, match="already"):
        await there.manager.archives.export(["paper"], path)
    await there.manager.archives.export(["paper"], path, force=True)
    assert target.read_bytes() == b"precious"
    assert not path.is_symlink()


async def test_a_cancelled_export_leaves_no_file(there: Bench, tmp_path: Path) -> None:
    await there.frozen("paper")
    path = tmp_path / "paper.cwm"
    for stage in ("read", "write"):
        with pytest.raises(CancelledJobError):
            await there.manager.archives.export(["paper"], path, job=cancelled_at(stage))
        assert names_in(tmp_path) == ["there"]


async def test_a_disk_that_is_full(
    there: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await there.frozen("paper")
    path = tmp_path / "paper.cwm"
    with monkeypatch.context() as patch:
        usage = type("Usage", (), {"free": 3000})
        patch.setattr("shutil.disk_usage", lambda path: usage)
        with pytest.raises(ResourceExhaustedError, match="3,000 left"):
            await there.manager.archives.export(["paper"], path)
    for where in ("cwm_jupyter.core.archive.body.PlainSink.write", "os.fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(where, refusing(errno.ENOSPC))
            with pytest.raises(ResourceExhaustedError, match="No room"):
                await there.manager.archives.export(["paper"], path)
    with monkeypatch.context() as patch:
        patch.setattr("cwm_jupyter.core.archive.body.PlainSink.write", refusing(errno.EIO))
        with pytest.raises(OSError, match="error"):
            await there.manager.archives.export(["paper"], path)
    assert names_in(tmp_path) == ["there"]


async def test_a_window_that_changes_while_it_is_exported(there: Bench, tmp_path: Path) -> None:
    window = await there.frozen("paper")

    def change(state: JobState) -> None:
        if state.stage == "write" and not state.done:
            manifest = there.library.manifest(there.window("paper"))
            changed = manifest.replace(recomputed=[manifest.refs[0].chunk_hash])
            there.library.replace_manifest(changed, lambda w: w)

    with pytest.raises(KVStoreError, match="paper was changed meanwhile"):
        await there.manager.archives.export(
            ["paper"], tmp_path / "paper.cwm", job=Job("export", change)
        )
    assert names_in(tmp_path) == ["there"]
    assert there.window("paper").id == window.id


async def test_a_window_that_is_not_whole_is_not_exported(there: Bench, tmp_path: Path) -> None:
    await there.frozen("paper")
    await there.reconnect()
    there.stack.files()[1].unlink()
    with pytest.raises(KVStoreError, match=r"1 of 7 chunks.*\n.*repair paper"):
        await there.manager.archives.export(["paper"], tmp_path / "paper.cwm")
    damaged = there.stack.files()[2]
    await there.manager.repair("paper")
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(KVStoreError):
        await there.manager.archives.export(["paper"], tmp_path / "paper.cwm")
    assert names_in(tmp_path) == ["there"]


async def test_what_cannot_be_exported(there: Bench, tmp_path: Path) -> None:
    path = tmp_path / "paper.cwm"
    archives = there.manager.archives
    with pytest.raises(ValidationError, match="Name a window"):
        await archives.export([], path)
    with pytest.raises(WindowNotFoundError):
        await archives.export(["paper"], path)
    there.readable = False
    await there.frozen("remote")
    with pytest.raises(KVStoreError, match="remote store"):
        await archives.export(["remote"], path)
    there.manager.parts.store = None
    with pytest.raises(KVStoreError, match="cannot be read from here"):
        await archives.export(["remote"], path)
    assert not path.exists()


# --- whom to trust --------------------------------------------------------------------------------


async def test_kv_of_a_stranger_is_computed_anew(
    there: Bench, here: Bench, archive: Path, tmp_path: Path
) -> None:
    report = await here.manager.archives.import_file(archive)
    assert report.recomputed == "untrusted"
    assert not report.signer.trusted
    [one] = report.windows
    assert one.probe is not None
    assert one.probe.passed
    assert one.as_shown
    assert here.stack.prompts  # the engine was asked
    manifest = here.library.manifest(one.window)
    assert manifest.fingerprint == (await (await here.connect()).facts()).fingerprint
    thawed = await here.manager.thaw("paper")
    assert thawed.complete
    assert thawed.probe is not None
    assert (thawed.probe.tolerance, thawed.probe.max_abs_logprob_diff) == (0, 0)
    assert not (await here.manager.archives.signers()).signers


async def test_without_a_stack_the_kv_of_a_stranger_is_refused(here: Bench, archive: Path) -> None:
    down(here)
    with pytest.raises(StackDownError, match=r"SHA256:.*do not trust(.|\n)*--trust"):
        await here.manager.archives.import_file(archive)
    await assert_nothing_is_there(here)
    report = await here.manager.archives.import_file(archive, accept_untrusted=True)
    assert report.recomputed is None
    assert not report.signer.trusted
    with pytest.raises(StackDownError):  # it was for once
        await here.manager.archives.import_file(archive, as_name="again")
    with pytest.raises(StackDownError, match="No stack"):
        await here.manager.archives.import_file(archive, as_name="again", recompute=True)


async def test_trust_lasts_until_it_is_taken_back(here: Bench, archive: Path) -> None:
    archives = here.manager.archives
    down(here)
    report = await archives.import_file(archive, trust=True)
    assert report.signer.trusted
    assert report.signer.name == archive.name
    again = await archives.import_file(archive, as_name="again")
    assert again.recomputed is None
    assert again.signer.trusted
    [signer] = (await archives.signers()).signers
    await archives.distrust(signer.fingerprint)
    with pytest.raises(StackDownError):
        await archives.import_file(archive, as_name="third")
    await archives.trust(signer.public, "Ada")
    assert (await archives.import_file(archive, as_name="third")).signer.name == "Ada"


async def test_what_was_refused_is_not_trusted_either(here: Bench, archive: Path) -> None:
    await here.frozen("paper")
    with pytest.raises(WindowExistsError):
        await here.manager.archives.import_file(archive, trust=True)
    assert (await here.manager.archives.signers()).signers == []


async def test_a_home_trusts_itself(there: Bench, archive: Path) -> None:
    report = await there.manager.archives.import_file(archive, as_name="copy")
    assert report.signer.trusted
    assert report.recomputed is None
    assert there.window("copy").lineage_id != there.window("paper").lineage_id
    # equal bytes are one file, whichever lineage they are of
    assert len(there.stack.files()) == there.window("paper").chunks
    assert (await there.manager.thaw("copy")).complete


# --- on which engine ------------------------------------------------------------------------------


async def test_an_archive_of_another_layout(there: Bench, archive: Path, tmp_path: Path) -> None:
    """It is kept for the engine that it is of; this one has to compute it."""
    here = Bench(tmp_path / "here")
    await here.reconnect(FakeStack(tmp_path / "here" / "vault", chunk_tokens=32))
    here.manager.parts.store = here.manager._store = VaultStore(here.stack.vault)
    report = await here.manager.archives.import_file(archive, trust=True)
    assert any("chunk_tokens" in one for one in report.differences or [])
    with pytest.raises(EngineMismatchError, match="chunk_tokens"):
        await here.manager.thaw("paper")
    computed = await here.manager.archives.import_file(archive, as_name="mine", recompute=True)
    assert computed.recomputed == "asked"
    window = computed.windows[0].window
    assert (window.chunk_tokens, window.chunks) == (32, 3)
    assert (await here.manager.thaw("mine")).complete
    await here.reconnect()


@pytest.mark.parametrize(
    ("field", "asked", "match"),
    [
        ("tokenizer_digest", True, "another tokenizer"),
        ("tokenizer_digest", False, "another tokenizer"),
        ("weights_digest", False, r"another model(.|\n)*--recompute"),
    ],
)
async def test_an_engine_that_cannot_compute_it(
    here: Bench, archive: Path, field: str, asked: bool, match: str
) -> None:
    assert here.stack.told is not None
    here.stack.told[field] = "other"
    with pytest.raises(EngineMismatchError, match=match):
        await here.manager.archives.import_file(archive, recompute=asked)
    await assert_nothing_is_there(here)
    if not asked and field == "weights_digest":
        assert (await here.manager.archives.import_file(archive, recompute=True)).windows


async def test_several_ranks(tmp_path: Path) -> None:
    one, two = Bench(tmp_path / "one"), Bench(tmp_path / "two")
    for bench in (one, two):
        await bench.reconnect(FakeStack(bench.home.parent / "ranks", world_size=2))
        bench.manager.parts.store = bench.manager._store = VaultStore(bench.stack.vault)
    window = await one.frozen("paper")
    await one.manager.archives.export(["paper"], tmp_path / "paper.cwm")
    await two.manager.archives.import_file(tmp_path / "paper.cwm", trust=True)
    assert two.window("paper").chunks == window.chunks
    assert len(two.library.manifest(two.window("paper")).refs) == 2 * window.chunks
    assert (await two.manager.thaw("paper")).complete
    for bench in (one, two):
        await bench.reconnect()


async def test_a_window_without_a_whole_chunk(there: Bench, here: Bench, tmp_path: Path) -> None:
    there.stack.answer_tokens = 4
    window = await there.frozen("short", "Hi")
    assert window.chunks == 0
    await there.manager.archives.export(["short"], tmp_path / "short.cwm")
    await here.manager.archives.import_file(tmp_path / "short.cwm", trust=True)
    assert (await here.manager.thaw("short")).complete


# --- when it fails --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "recompute"),
    [
        ("check", False),
        ("store", False),
        ("verify", False),
        ("check", True),
        ("compute paper", True),
        ("store", True),
    ],
)
async def test_a_cancelled_import_leaves_nothing(
    here: Bench, archive: Path, stage: str, recompute: bool
) -> None:
    with pytest.raises(CancelledJobError):
        await here.manager.archives.import_file(
            archive, trust=True, recompute=recompute, job=cancelled_at(stage)
        )
    if recompute and stage != "check":
        assert len(here.library.lineages.ids()) == 1  # which leads to what comes later
        here.library.lineages.remove(*here.library.lineages.ids())
    await assert_nothing_is_there(here)
    assert (await here.manager.archives.signers()).signers == []
    assert (await here.manager.archives.import_file(archive, trust=True)).windows


async def test_a_name_that_is_taken_meanwhile(
    here: Bench, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[Window] = []

    def take(state: JobState) -> None:
        if state.stage == "index" and not others:
            others.append(here.library.index.add_window(stolen))

    session = await here.talk("talk")
    stolen = (await here.manager.freeze("other", "talk")).window
    stolen = stolen.replace(id="thief", name="Paper")
    before = set(here.stack.files())
    with pytest.raises(WindowExistsError):
        await here.manager.archives.import_file(archive, trust=True, job=Job("import", take))
    assert {w.name for w in here.library.index.all_windows()} == {"other", "Paper"}
    assert here.library.index.all_sessions() == [await here.manager.session(session.id)]
    assert set(here.stack.files()) == before
    assert len(here.library.lineages.ids()) == 1


async def test_what_is_in_the_index_is_not_undone(
    here: Bench, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interruption that comes too late changes nothing."""
    enter = Import._enter

    def entered_and_interrupted(self: Import) -> None:
        enter(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Import, "_enter", entered_and_interrupted)
        with pytest.raises(KeyboardInterrupt):
            await here.manager.archives.import_file(archive, accept_untrusted=True)
    assert (await here.manager.verify("paper")).intact
    assert (await here.manager.thaw("paper")).complete


async def test_an_engine_that_fails(here: Bench, archive: Path) -> None:
    here.stack.before = lambda call: httpx2.Response(500) if call == "GET /cwm/facts" else None
    with pytest.raises(CWMError):
        await here.manager.archives.import_file(archive)
    await assert_nothing_is_there(here)
    assert (await here.manager.archives.import_file(archive, trust=True)).differences is None


async def test_a_vault_that_has_no_room(here: Bench, archive: Path) -> None:
    here.stack.vault.room.quota_bytes = 500
    with pytest.raises(ResourceExhaustedError, match="896 bytes of KV, and the vault has room for"):
        await here.manager.archives.import_file(archive, trust=True)
    await assert_nothing_is_there(here)


async def test_a_vault_that_refuses(
    here: Bench, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("cwm_jupyter.vault.storing._write_content", refusing(errno.EIO))
        with pytest.raises(KVStoreError, match="7 of 7 chunks could not be stored"):
            await here.manager.archives.import_file(archive, trust=True)
    await assert_nothing_is_there(here)
    here.manager.parts.store = None
    with pytest.raises(KVStoreError, match="no vault"):
        await here.manager.archives.import_file(archive, trust=True)


async def test_a_chunk_that_is_not_read_back(
    here: Bench, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def seal(self: object, keys: list[object], on_bytes: object = None) -> list[None]:
        return [None for _ in keys]

    with monkeypatch.context() as patch:
        patch.setattr(VaultStore, "seal", seal)
        with pytest.raises(KVStoreError, match="not read back"):
            await here.manager.archives.import_file(archive, trust=True)
        await assert_nothing_is_there(here)
        with pytest.raises(KVStoreError, match="not read back"):
            await here.manager.archives.import_file(archive, recompute=True)
    assert here.library.index.all_windows() == []


async def test_a_stack_whose_files_cannot_be_read(here: Bench, archive: Path) -> None:
    here.readable = False
    await here.reconnect()
    with pytest.raises(KVStoreError, match="cannot be read from here"):
        await here.manager.archives.import_file(archive)
    await assert_nothing_is_there(here)


async def test_a_newer_version_says_so(here: Bench, archive: Path) -> None:
    set_version(archive, VERSION + 1)
    with pytest.raises(SchemaError, match="upgrade"):
        await here.manager.archives.import_file(archive, trust=True)
    set_version(archive, 0)
    with pytest.raises(ArchiveError, match="damaged"):
        await here.manager.archives.import_file(archive, trust=True)


async def test_what_is_no_archive(here: Bench, tmp_path: Path) -> None:
    path = tmp_path / "x"
    for data in (b"", b"\x89CW", b"PK\x03\x04" + bytes(100), b"not an archive at all"):
        path.write_bytes(data)
        with pytest.raises(ArchiveError, match="not an archive"):
            await here.manager.archives.import_file(path)
    for wrong in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValidationError):
            await here.manager.archives.import_file(wrong)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ValidationError, match="is no file"):
            await here.manager.archives.import_file(tmp_path / "pipe")
    await assert_nothing_is_there(here)


async def test_the_audit_log_tells_of_it(here: Bench, archive: Path) -> None:
    report = await here.manager.archives.import_file(archive, trust=True)
    await here.manager.archives.export(["paper"], archive.with_name("out.cwm"))
    lines = [record.line for record in here.manager.audit.read().records]
    assert [(line.action, line.result) for line in lines] == [
        ("import", "done"),
        ("export", "done"),
    ]
    assert lines[0].names == {
        "file": archive.name,
        "window": ["paper"],
        "signer": report.signer.fingerprint,
    }
    assert lines[0].size_bytes == report.size_bytes

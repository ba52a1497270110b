"""The home folder: transcripts, manifests bound to their windows, one user of a session."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blake3
import msgspec
import pytest
from entries import make_session, make_window

from cwm_jupyter.core import files
from cwm_jupyter.core.leftovers import lost_files
from cwm_jupyter.core.library import Library, Manifest
from cwm_jupyter.core.models import ChunkRef, Fingerprint, Message, Probe, Session, Window
from cwm_jupyter.core.transcript import Transcript
from cwm_jupyter.errors import IndexCorruptError, SchemaError, SessionBusyError

pytestmark = pytest.mark.every_system

TRANSCRIPT = Transcript(messages=[Message(role="user", content="hi")], token_ids=[1, 2, 3])


def manifest(window_id: str = "w1", digest: str = "d1") -> Manifest:
    return Manifest(
        window_id=window_id,
        transcript=TRANSCRIPT,
        fingerprint=Fingerprint(layout={"dtype": "bfloat16"}, numeric={"threads": 2}),
        refs=[ChunkRef(chunk_hash="00" * 32, digest=digest, size_bytes=128)],
        probe=Probe(position_tokens=3, token_ids=[5], logprobs=[-0.1]),
    )


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "home")


@pytest.fixture
def session(library: Library) -> Session:
    return library.index.add_session(make_session("s1", "talk"))


@pytest.fixture
def window(library: Library, session: Session) -> Window:
    digest = library.write_manifest(manifest())
    made = make_window("w1", "paper", session_id=session.id, manifest_digest=digest)
    return library.index.add_window(made)


def test_transcripts_and_manifests_come_back_as_written(
    library: Library, session: Session, window: Window
) -> None:
    library.write_transcript(session.id, TRANSCRIPT)
    again = Library(library.home)
    assert again.transcript(session) == TRANSCRIPT
    assert again.manifest(window) == manifest()


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_everything_is_the_owner_s_alone(
    library: Library, session: Session, window: Window
) -> None:
    library.write_transcript(session.id, TRANSCRIPT)
    library.lineages.create()
    with library.using(session):
        modes = {
            path.relative_to(library.home): path.stat().st_mode & 0o777
            for path in [library.home, *library.home.rglob("*")]
        }
        folders = {path for path in modes if (library.home / path).is_dir()}
    assert {modes[path] for path in folders} == {0o700}
    assert {modes[path] for path in modes.keys() - folders} == {0o600}


def test_a_missing_transcript_says_which(library: Library, session: Session) -> None:
    with pytest.raises(IndexCorruptError, match=r"s1\.json cannot be read"):
        library.transcript(session)


def test_a_damaged_manifest_is_refused(library: Library, window: Window) -> None:
    (path,) = (library.home / "windows").iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IndexCorruptError):
        library.manifest(window)


def test_a_whole_manifest_that_is_not_the_window_s_is_refused(
    library: Library, window: Window
) -> None:
    """Its own checksum holds, but the index speaks of another."""
    other = library.write_manifest(manifest(digest="d2"))
    folder = library.home / "windows"
    (folder / f"w1.{other[:16]}.json").replace(folder / f"w1.{window.manifest_digest[:16]}.json")
    with pytest.raises(IndexCorruptError, match="not the one in the index"):
        library.manifest(window)


def written(library: Library, document: dict[str, Any], schema: int) -> Window:
    """Put a window's manifest there as a release of that schema would have written it."""
    data = msgspec.json.encode(document, order="sorted")
    digest = blake3.blake3(data).hexdigest()
    path = library.home / "windows" / f"w1.{digest[:16]}.json"
    files.write_checked(path, "manifest", schema, document)
    return make_window("w1", "paper", manifest_digest=digest)


@pytest.mark.covers("SR-030")
def test_a_manifest_from_before_a_field_was_added_is_read(library: Library) -> None:
    document = manifest().to_dict()
    del document["recomputed"]
    assert library.manifest(written(library, document, 1)) == manifest()


@pytest.mark.covers("SR-030")
def test_a_manifest_of_a_newer_schema_is_refused(library: Library) -> None:
    window = written(library, manifest().to_dict(), 2)
    with pytest.raises(SchemaError, match=r"has schema version 2; this release knows 1"):
        library.manifest(window)


def replace(library: Library) -> Window:
    return library.replace_manifest(manifest(digest="d2"), lambda w: w.to("damaged"))


def exchange(library: Library) -> Window:
    old, new = manifest().refs[0], manifest(digest="d2").refs[0]
    return library.exchange("w1", {old: new}, lambda w: w.to("damaged"))


@pytest.mark.parametrize("change", [replace, exchange])
def test_a_manifest_that_was_replaced_stays_for_a_day(
    library: Library, window: Window, change: Callable[[Library], Window]
) -> None:
    (first,) = (library.home / "windows").iterdir()
    long_ago = time.time() - 2 * 86400
    os.utime(first, (long_ago, long_ago))
    updated = change(library)
    assert (updated.state, library.manifest(updated).refs) == ("damaged", manifest("w1", "d2").refs)
    assert (len(library.documents()), lost_files(library)) == (2, [])
    library.index.path.write_bytes(b"{")  # what comes back names the first one
    again = Library(library.home)
    assert again.manifest(again.index.require_window("paper")) == manifest()
    change(again)
    os.utime(first, (long_ago, long_ago))
    assert lost_files(again) == [first]
    library.forget_manifests("w1")
    assert library.documents() == []


def test_a_crash_between_manifest_and_index_leaves_the_old_one(
    library: Library, window: Window
) -> None:
    def crash(_: Window) -> Window:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.replace_manifest(manifest(digest="d2"), crash)
    again = Library(library.home)
    found = again.index.require_window("paper")
    assert found == window
    assert again.manifest(found) == manifest()


def test_forgetting_takes_one_window_s_manifests(library: Library, window: Window) -> None:
    library.write_manifest(manifest("w10"))
    library.forget_manifests("w1")
    (left,) = (library.home / "windows").iterdir()
    assert left.name.startswith("w10.")
    library.forget_manifests("w1")


def test_a_session_has_one_user(library: Library, session: Session) -> None:
    other = Library(library.home)
    with library.using(session):
        with pytest.raises(SessionBusyError, match="'talk' is busy"), other.using(session):
            pytest.fail("both use it")
        with other.using(library.index.add_session(make_session("s2", "other"))):
            pass
    with other.using(session):
        pass


def test_a_session_is_free_again_after_an_error(library: Library, session: Session) -> None:
    with pytest.raises(ZeroDivisionError), library.using(session):
        raise ZeroDivisionError
    with library.using(session):
        pass

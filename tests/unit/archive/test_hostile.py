"""Archives that somebody made to do harm, and those that went bad on the way.

A signature keeps nobody from signing nonsense, so the worst of these are signed rightly, by a
signer who is trusted.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from archives import Kit, read_all
from bench import QUESTION, Bench
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cwm_jupyter.core.archive import importing
from cwm_jupyter.core.archive.body import SealedSink
from cwm_jupyter.core.archive.checks import MAX_CONTENT_BYTES
from cwm_jupyter.core.archive.format import PREAMBLE_BYTES, Sealing, pack_preamble
from cwm_jupyter.core.archive.reader import Reader
from cwm_jupyter.core.archive.signing import Signers
from cwm_jupyter.errors import ArchiveError, CWMError, DecryptError
from cwm_jupyter.vault.fs import FsStore

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive of a window of two turns."""
    folder = tmp_path_factory.mktemp("made")

    async def make() -> None:
        bench = Bench(folder / "there")
        await bench.frozen("paper", QUESTION, "And Rome?")
        export = bench.manager.archives.export
        await export(["paper"], folder / "plain.cwm")
        await bench.reconnect()

    asyncio.run(make())
    return folder


@pytest.fixture
def archive(made: Path, tmp_path: Path) -> Path:
    path = tmp_path / "paper.cwm"
    path.write_bytes((made / "plain.cwm").read_bytes())
    return path


@pytest.fixture
def sealed(made: Path, tmp_path: Path) -> Path:
    return seal(tmp_path / "sealed.cwm", (made / "plain.cwm").read_bytes()[PREAMBLE_BYTES:])


def seal(path: Path, body: bytes) -> Path:
    """Write an encrypted archive; its passphrase is ``mine``."""
    sealing = Sealing(salt=bytes(16), log2_n=10)
    context = pack_preamble(encrypted=True) + sealing.pack()
    with path.open("wb") as file:
        file.write(context)
        sink = SealedSink(file, sealing, "mine", context)
        sink.write(body)
        sink.close()
    return path


def places(whole: bytes) -> list[int]:
    """Positions in every part of a file: all at its ends, and some between."""
    return [*range(150), *range(150, len(whole) - 50, 23), *range(len(whole) - 50, len(whole))]


@pytest.fixture
def kit(made: Path) -> Kit:
    return Kit.of(made / "plain.cwm")


@pytest.fixture(scope="module")
def mallory(tmp_path_factory: pytest.TempPathFactory) -> Signers:
    """Who signs all of these."""
    return Signers(tmp_path_factory.mktemp("mallory"))


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files of a folder, but those that only say that something is going on or went wrong."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_file() and not path.name.endswith("lock") and "audit" not in name:
            found[name] = path.read_bytes()
    return found


async def import_refused(here: Bench, path: Path) -> None:
    """An import is refused, and no file anywhere is another one afterwards."""
    root = here.home.parent.parent
    before = snapshot(root)
    with pytest.raises(ArchiveError):
        await here.manager.archives.import_file(path, accept_untrusted=True)
    assert snapshot(root) == before


# --- bytes ----------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_is_found(archive: Path) -> None:
    whole = archive.read_bytes()
    for at in places(whole):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        archive.write_bytes(changed)
        with pytest.raises(CWMError):
            read_all(archive)


def test_it_is_found_wherever_it_is_cut_off(archive: Path) -> None:
    whole = archive.read_bytes()
    for length in places(whole):
        archive.write_bytes(whole[:length])
        with pytest.raises(ArchiveError):
            read_all(archive)


@pytest.mark.parametrize("more", [b"\0", b"PK\x05\x06" + bytes(18), bytes(100_000)])
def test_what_follows_is_refused(archive: Path, more: bytes) -> None:
    archive.write_bytes(archive.read_bytes() + more)
    with pytest.raises(ArchiveError, match="followed by something"):
        read_all(archive)


@pytest.mark.skipif(os.name == "nt", reason="there a sparse file takes room")
def test_a_file_of_a_terabyte_takes_no_memory(archive: Path) -> None:
    with archive.open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(ArchiveError, match="followed by something"):
        read_all(archive)


def test_an_encrypted_one_is_no_worse(sealed: Path) -> None:
    whole = sealed.read_bytes()
    read_all(sealed, "mine")
    for at in places(whole):
        changed = bytearray(whole)
        changed[at] ^= 0x10
        sealed.write_bytes(changed)
        with pytest.raises(CWMError):
            read_all(sealed, "mine")
    for length in places(whole):
        sealed.write_bytes(whole[:length])
        with pytest.raises((ArchiveError, DecryptError)):
            read_all(sealed, "mine")
    sealed.write_bytes(whole + b"\0")
    with pytest.raises((ArchiveError, DecryptError)):
        read_all(sealed, "mine")


@pytest.mark.parametrize(("at", "value"), [(32, 40), (32, 9), (33, 255), (34, 2), (35, 1)])
def test_a_key_that_would_take_too_much_memory(sealed: Path, at: int, value: int) -> None:
    changed = bytearray(sealed.read_bytes())
    changed[at] = value
    sealed.write_bytes(changed)
    with pytest.raises(ArchiveError, match="not one that is known"):
        read_all(sealed, "mine")


def test_a_catalogue_of_another_length(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    for length in (0xFFFF_FFFF, (64 << 20) + 1, 0, 5):
        data[PREAMBLE_BYTES : PREAMBLE_BYTES + 4] = struct.pack("<I", length)
        archive.write_bytes(data)
        with pytest.raises(ArchiveError):
            read_all(archive)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=400), encrypted=st.none() | st.booleans())
def test_noise_is_refused(tmp_path: Path, data: bytes, encrypted: bool | None) -> None:
    path = tmp_path / "noise"
    start = b"" if encrypted is None else pack_preamble(encrypted=encrypted)
    path.write_bytes(start + data)
    with pytest.raises(CWMError):
        read_all(path, "x")


# --- signatures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [slice(20, 52), slice(52, 116)], ids=["key", "signature"])
def test_the_signature_of_another(kit: Kit, archive: Path, mallory: Signers, part: slice) -> None:
    """Neither the key nor the signature of one archive can be put into another."""
    right = archive.read_bytes()
    changed = bytearray(kit.write(archive, mallory).read_bytes())
    read_all(archive)
    changed[part] = right[part]
    archive.write_bytes(changed)
    with pytest.raises(ArchiveError, match="signature is wrong"):
        read_all(archive)


def test_swapped_contents(archive: Path) -> None:
    with Reader(archive) as reader:
        *_, one, two = reader.contents()
    archive.write_bytes(archive.read_bytes().replace(one + two, two + one))
    with pytest.raises(ArchiveError, match=r"content \d+ of \d+ is damaged"):
        read_all(archive)


def test_sealed_again(archive: Path, tmp_path: Path) -> None:
    """Who can open it can seal again what was signed, under another passphrase: nothing else."""
    body = archive.read_bytes()[PREAMBLE_BYTES:]
    again = seal(tmp_path / "again.cwm", body)
    read_all(again, "mine")
    with Reader(archive) as one, Reader(again, "mine") as two:
        assert one.public == two.public
    for changed in (body[:-1] + bytes([body[-1] ^ 1]), body[:-128] + body[-256:-128]):
        seal(again, changed)
        with pytest.raises(ArchiveError, match="is damaged"):
            read_all(again, "mine")


# --- what is signed rightly, and wrong ------------------------------------------------------------

BIG = 1 << 47
NAMES = [
    "../../etc/passwd",
    "..\\..\\windows",
    "/etc/passwd",
    "C:\\x",
    "a/b",
    "con",
    "NUL.txt",
    "",
    ".",
    "..",
    "x" * 129,
    "x" * 100_000,
    "a\0b",
    "a\nb",
    "\u202egnp.exe",
    "$(rm -rf ~)",
    "<script>",
    "paper@3",
    "-rf",
]


#: devices of Windows, which no file may be called, and a tag may
DEVICES = [name for name in NAMES if name.lower().startswith(("con", "nul"))]


@pytest.mark.parametrize(
    ("where", "name"),
    [
        *(("name", name) for name in NAMES),
        *(("tags", name) for name in NAMES if name not in DEVICES),
    ],
    ids=map(str, itertools.count()),
)
def test_names_that_no_window_has(
    kit: Kit, tmp_path: Path, mallory: Signers, name: str, where: str
) -> None:
    kit.catalogue["windows"][0][where] = name if where == "name" else ["a", name]
    kit.write(tmp_path / "x.cwm", mallory)
    with pytest.raises(ArchiveError):
        read_all(tmp_path / "x.cwm")


def setting(*where: str | int, to: Any) -> Change:
    """Set something deep in a JSON value."""

    def change(value: Any) -> None:
        for step in where[:-1]:
            value = value[step]
        value[where[-1]] = to(value[where[-1]]) if callable(to) else to

    return change


CATALOGUES: dict[str, Change] = {
    "no window": setting("windows", to=[]),
    "the same name twice": setting("windows", to=lambda w: [w[0], w[0] | {"name": "PAPER"}]),
    "its own parent": setting("windows", 0, "parent", to=0),
    "a parent that is not there": setting("windows", 0, "parent", to=7),
    "a negative parent": setting("windows", 0, "parent", to=-1),
    "no tokens": setting("windows", 0, "tokens", to=0),
    "negative tokens": setting("windows", 0, "tokens", to=-5),
    "other tokens": setting("windows", 0, "tokens", to=lambda n: n + 1),
    "other turns": setting("windows", 0, "turns", to=3),
    "too many chunks": setting("windows", 0, "chunks", to=lambda n: n + 1),
    "fewer chunks": setting("windows", 0, "chunks", to=lambda n: n - 1),
    "no chunk size": setting("windows", 0, "chunk_tokens", to=0),
    "another chunk size": setting("windows", 0, "chunk_tokens", to=8),
    "no ranks": setting("windows", 0, "ranks", to=0),
    "more ranks": setting("windows", 0, "ranks", to=2),
    "very many ranks": setting("windows", 0, "ranks", to=BIG),
    "a huge number": setting("windows", 0, "tokens", to=10**400),
    "a fraction": setting("windows", 0, "tokens", to=1.5),
    "a time that is none": setting("windows", 0, "created_at", to="yesterday"),
    "a time without a zone": setting("created_at", to="2026-01-01T00:00:00"),
    "a model that is a command": setting("windows", 0, "model", to="\x1b]0;x\x07"),
    "a long note": setting("windows", 0, "note", to="x" * ((1 << 20) + 1)),
    "many tags": setting("windows", 0, "tags", to=[f"t{i}" for i in range(1001)]),
    "huge details": setting("windows", 0, "details", "size_bytes", to=BIG),
    "negative details": setting("windows", 0, "details", "size_bytes", to=-1),
    "a huge content": setting("contents", 0, "size_bytes", to=BIG),
    "a content of a gigabyte": setting("contents", 0, "size_bytes", to=MAX_CONTENT_BYTES),
    "an empty content": setting("contents", 0, "size_bytes", to=0),
    "no digest": setting("contents", 0, "digest", to=""),
    "a path for a digest": setting("contents", 0, "digest", to="../" * 21 + "x"),
    "another digest": setting("contents", 0, "digest", to="ab" * 32),
    "one content too few": setting("contents", to=lambda c: c[:-1]),
    "one content too many": setting("contents", to=lambda c: [*c, c[-1]]),
    "an unknown field": lambda catalogue: catalogue.update(extra=1),
    "a file name": lambda catalogue: catalogue["contents"][0].update(path="/etc/passwd"),
    "deep": setting("windows", 0, "note", to=msgspec.Raw(b"[" * 200_000 + b"]" * 200_000)),
    "deep and unknown": lambda c: c.update(x=msgspec.Raw(b"[" * 200_000 + b"]" * 200_000)),
    "wrong types": setting("windows", to={}),
}


@pytest.mark.parametrize("change", CATALOGUES.values(), ids=CATALOGUES)
def test_catalogues_that_cannot_be(
    kit: Kit, tmp_path: Path, mallory: Signers, change: Change
) -> None:
    kit.write(tmp_path / "x.cwm", mallory, lie=change)
    with pytest.raises(ArchiveError):
        read_all(tmp_path / "x.cwm")


def chunks(*counts: int, ranks: int = 1) -> Change:
    """Set how many chunks of 16 tokens the windows have."""

    def change(catalogue: dict[str, Any]) -> None:
        [entry] = catalogue["windows"]
        catalogue["windows"] = [
            entry | {"name": f"w{i}", "tokens": 16 * count + 1, "chunks": count, "ranks": ranks}
            for i, count in enumerate(counts)
        ]

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (setting("windows", 0, "chunk_tokens", to=15), "chunks are too small"),
        (setting("windows", 0, "ranks", to=65), "65 parts"),
        (chunks(2_000_001), "2,000,001 parts of chunks"),
        (chunks(1_000_000, 1_000_001), "2,000,001 parts of chunks"),
        (chunks(31_251, ranks=64), "2,000,064 parts of chunks"),
        (chunks(31_250, ranks=64), "tokens are not as many"),  # so many may be
    ],
)
def test_a_small_file_that_would_take_much_room(
    kit: Kit, tmp_path: Path, mallory: Signers, change: Change, match: str
) -> None:
    """It lists one content many times: in memory and on disk each would take its place."""
    kit.write(tmp_path / "x.cwm", mallory, lie=change)
    with pytest.raises(ArchiveError, match=match):
        read_all(tmp_path / "x.cwm")


DETAILS: dict[str, Change] = {
    "other tokens": setting("transcript", "token_ids", 3, to=9),
    "a token too large": setting("transcript", "token_ids", -1, to=1 << 32),
    "a negative token": setting("transcript", "token_ids", -1, to=-1),
    "a huge token": setting("transcript", "token_ids", -1, to=10**400),
    "one token more": setting("transcript", "token_ids", to=lambda ids: [*ids, 1]),
    "no turns": setting("transcript", "turns", to=[]),
    "a turn twice": setting("transcript", "turns", to=lambda turns: [*turns, turns[-1]]),
    "a turn of another number": setting("transcript", "turns", 0, "number", to=2),
    "a turn that begins later": setting("transcript", "turns", 0, "start", to=1),
    "a negative turn": setting("transcript", "turns", 0, "start", to=-1),
    "a turn that overlaps": setting("transcript", "turns", 1, "start", to=lambda n: n - 1),
    "turns apart": setting("transcript", "turns", 1, "start", to=lambda n: n + 1),
    "a turn turned round": setting("transcript", "turns", 0, "prompt_end", to=10**6),
    "a turn that goes on": setting("transcript", "turns", -1, "end", to=lambda n: n + 1),
    "a turn that took for ever": setting("transcript", "turns", 0, "total_s", to=1e300),
    "a turn before its time": setting("transcript", "turns", 0, "ttft_s", to=-1.0),
    "huge cached tokens": setting("transcript", "turns", 0, "cached_tokens", to=10**400),
    "a turn without a time": setting("transcript", "turns", 0, "created_at", to="x"),
    "another finish": setting("transcript", "turns", 0, "finish_reason", to="x"),
    "a question without an answer": setting("transcript", "messages", to=lambda m: m[:-1]),
    "fewer messages than turns": setting("transcript", "messages", to=lambda m: m[:1]),
    "no messages": setting("transcript", "messages", to=[]),
    "answers before their questions": setting("transcript", "messages", to=lambda m: m[::-1]),
    "an answer of another": setting("transcript", "messages", 1, "role", to="system"),
    "more words than turns": setting("transcript", "messages", to=lambda m: [*m, m[0]]),
    "a role that is a tag": setting("transcript", "messages", 0, "role", to="<b>"),
    "a long role": setting("transcript", "messages", 0, "role", to="x" * 65),
    "no text": setting("transcript", "messages", 0, "content", to=None),
    "another hash": setting("chunk_hashes", 0, to="ab" * 32),
    "hashes swapped": setting("chunk_hashes", to=lambda h: [h[1], h[0], *h[2:]]),
    "one hash too few": setting("chunk_hashes", to=lambda h: h[:-1]),
    "one hash too many": setting("chunk_hashes", to=lambda h: [*h, h[-1]]),
    "a content that is not there": setting("contents", 0, to=10**6),
    "a negative content": setting("contents", 0, to=-1),
    "one content too few": setting("contents", to=lambda c: c[:-1]),
    "recomputed of another": setting("recomputed", to=["ab" * 32]),
    "recomputed too often": setting("recomputed", to=lambda _: ["ab" * 32] * 1000),
    "a probe of elsewhere": setting("probe", "position_tokens", to=5),
    "an empty probe": setting("probe", to={"position_tokens": 1, "token_ids": [], "logprobs": []}),
    "a probe cut short": setting("probe", "logprobs", to=lambda p: p[:-1]),
    "not a number": setting("probe", "logprobs", 0, to=msgspec.Raw(b"NaN")),
    "infinity": setting("probe", "logprobs", 0, to=msgspec.Raw(b"1e999")),
    "no number": setting("probe", "logprobs", 0, to=None),
    "a probe's token twice": setting("probe", "token_ids", to=lambda ids: [ids[1], *ids[1:]]),
    "a probe of no token": setting("probe", "token_ids", 0, to=-1),
    "a field of no engine": setting("fingerprint", "layout", "x", to=1),
    "other chunks": setting("fingerprint", "layout", "chunk_tokens", to=32),
    "another hash algorithm": setting("fingerprint", "layout", "hash_algorithm", to="sha256"),
    "a huge field": setting("fingerprint", "layout", "block_tokens", to=10**400),
    "a long field": setting("fingerprint", "numeric", "vllm_version", to="x" * 513),
    "a field that is a list": setting("fingerprint", "layout", "dtype", to=[1]),
    "an unknown field": lambda details: details.update(salt="x"),
    "deep": setting("probe", to=msgspec.Raw(b"[" * 200_000 + b"]" * 200_000)),
    "deep in a value": lambda d: d["transcript"].update(
        x=msgspec.Raw(b"[" * 200_000 + b"]" * 200_000)
    ),
}


@pytest.mark.parametrize("change", DETAILS.values(), ids=DETAILS)
def test_details_that_cannot_be(kit: Kit, tmp_path: Path, mallory: Signers, change: Change) -> None:
    change(kit.details[0])
    kit.write(tmp_path / "x.cwm", mallory)
    with pytest.raises(ArchiveError):
        read_all(tmp_path / "x.cwm")


@pytest.mark.parametrize(
    ("cut", "match"), [(slice(2, 3), "different sizes"), (slice(None), "does not fit its engine")]
)
def test_chunks_of_wrong_sizes(
    kit: Kit, tmp_path: Path, mallory: Signers, cut: slice, match: str
) -> None:
    kit.contents[cut] = [data[:-2] for data in kit.contents[cut]]
    kit.write(tmp_path / "x.cwm", mallory)
    with pytest.raises(ArchiveError, match=match):
        read_all(tmp_path / "x.cwm")


# --- through the whole import ---------------------------------------------------------------------


@pytest.mark.covers("SC-004")
async def test_nothing_is_kept_of_any_of_these(
    here: Bench, kit: Kit, tmp_path: Path, mallory: Signers
) -> None:
    path = tmp_path / "x.cwm"
    for name in NAMES:
        named = kit.copy()
        named.catalogue["windows"][0]["name"] = name
        await import_refused(here, named.write(path, mallory))
    for change in CATALOGUES.values():
        await import_refused(here, kit.copy().write(path, mallory, lie=change))
    for change in DETAILS.values():
        changed = kit.copy()
        change(changed.details[0])
        await import_refused(here, changed.write(path, mallory))
    stowaway = kit.copy()
    stowaway.contents.append(b"stowaway")
    await import_refused(here, stowaway.write(path, mallory))
    assert not (here.home / "trusted_signers.json").exists()


@pytest.mark.covers("SC-004")
@pytest.mark.parametrize("model", ["../../../x", "a/../b", "/etc/passwd", "..", "."])
async def test_a_models_name_leads_nowhere(
    here: Bench, kit: Kit, tmp_path: Path, mallory: Signers, model: str
) -> None:
    """It is part of a chunk's key, of which one kind of store makes the name of a file."""
    kit.details[0]["fingerprint"]["layout"]["kv_model_name"] = model
    path, store = kit.write(tmp_path / "x.cwm", mallory), tmp_path / "store"
    here.manager.parts.store = FsStore(store)
    os.mkdir(store)  # noqa: PTH102
    before = set(os.listdir(tmp_path))  # noqa: PTH208
    report = await here.manager.archives.import_file(path, accept_untrusted=True)
    assert set(os.listdir(tmp_path)) == before  # noqa: PTH208
    assert len(snapshot(store)) == report.windows[0].window.chunks


async def test_windows_that_disagree(
    there: Bench, here: Bench, tmp_path: Path, mallory: Signers
) -> None:
    """Two windows of a lineage have one chunk, and say that it has two contents."""
    await there.talk("talk")
    await there.manager.freeze("one", "talk")
    await there.manager.freeze("two", "talk")
    path = tmp_path / "x.cwm"
    await there.manager.archives.export(["one", "two"], path)
    kit = Kit.of(path)
    kit.contents.append(bytes(128))
    kit.details[1]["contents"][3] = len(kit.contents) - 1
    await import_refused(here, kit.write(path, mallory))
    kit.catalogue["windows"][1]["lineage"] = 1  # of one session all the same
    await import_refused(here, kit.write(path, mallory))
    kit.catalogue["windows"][1]["session"] = 1
    await here.manager.archives.import_file(kit.write(path, mallory), accept_untrusted=True)


async def test_windows_of_too_many_engines(
    here: Bench, kit: Kit, tmp_path: Path, mallory: Signers
) -> None:
    """Each layout is noted for good."""
    entry, details = kit.catalogue["windows"][0], kit.details[0]
    kit = Kit(kit.catalogue, [], kit.contents)
    kit.catalogue["windows"] = [
        {**entry, "name": f"w{i}", "session": i, "lineage": i} for i in range(101)
    ]
    for i in range(101):
        one = Kit({}, [details], []).copy().details[0]
        one["fingerprint"]["layout"]["dtype"] = f"type {i}"
        kit.details.append(one)
    await import_refused(here, kit.write(tmp_path / "x.cwm", mallory))


async def test_what_a_stranger_says_is_not_believed(
    here: Bench, kit: Kit, tmp_path: Path, mallory: Signers
) -> None:
    """KV of another making is not used, and a probe of another making is told apart."""
    kit.contents = [bytes([i]) * 128 for i in range(len(kit.contents))]
    kit.details[0]["probe"]["logprobs"][0] += 3
    path = kit.write(tmp_path / "x.cwm", mallory)
    report = await here.manager.archives.import_file(path)
    assert report.recomputed == "untrusted"
    assert report.windows[0].probe is not None
    assert not report.windows[0].probe.passed
    thawed = await here.manager.thaw("paper")
    assert thawed.complete
    assert thawed.probe is not None
    assert thawed.probe.max_abs_logprob_diff == 0


async def test_words_that_only_the_model_sees(
    here: Bench, kit: Kit, tmp_path: Path, mallory: Signers
) -> None:
    """The tokens are another conversation than the messages: what is shown is told apart."""
    path = kit.write(tmp_path / "x.cwm", mallory)
    report = await here.manager.archives.import_file(path, as_name="right")
    assert report.windows[0].as_shown
    kit.details[0]["transcript"]["messages"][0]["content"] = "What is 2 + 2?"
    kit.write(path, mallory)
    report = await here.manager.archives.import_file(path, as_name="wrong")
    assert report.windows[0].as_shown is False

    def without_detokenizer(call: str) -> httpx2.Response | None:
        return httpx2.Response(404) if call == "POST /detokenize" else None

    here.stack.before = without_detokenizer
    report = await here.manager.archives.import_file(path, as_name="unknown")
    assert report.windows[0].as_shown is None


async def test_a_turn_that_ends_elsewhere(
    here: Bench, kit: Kit, tmp_path: Path, mallory: Signers
) -> None:
    """As a whole it says what it shows; gone back in, the model would see more than is shown."""
    first, second = kit.details[0]["transcript"]["turns"]
    end = second["end"] - 1
    first["end"] = second["start"] = second["prompt_end"] = end
    report = await here.manager.archives.import_file(kit.write(tmp_path / "x.cwm", mallory))
    assert report.windows[0].as_shown is False


TOO_LONG = "This model's maximum context length is 5 tokens."


@pytest.mark.parametrize(
    ("status", "said", "of_a_stranger"),
    [(400, "Roles must alternate", False), (400, TOO_LONG, False), (500, "Broken", None)],
)
async def test_messages_that_cannot_be_compared(
    here: Bench,
    kit: Kit,
    tmp_path: Path,
    mallory: Signers,
    status: int,
    said: str,
    of_a_stranger: bool | None,
) -> None:
    """Of a stranger, that the template refuses them is taken for what it may be."""

    def refuse(call: str) -> httpx2.Response | None:
        answer = httpx2.Response(status, json={"error": {"message": said}})
        return answer if call == "POST /tokenize" else None

    here.stack.before = refuse
    path, import_file = kit.write(tmp_path / "x.cwm", mallory), here.manager.archives.import_file
    for name, recompute in (("untrusted", False), ("asked", True)):
        report = await import_file(path, as_name=name, recompute=recompute)
        assert report.recomputed == name
        assert report.windows[0].as_shown is of_a_stranger
    report = await import_file(path, as_name="trusted", recompute=True, trust=True)
    assert report.windows[0].as_shown is None


async def test_others_go_on_while_windows_are_compared(
    here: Bench, kit: Kit, tmp_path: Path, mallory: Signers, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, threads = importing.check_together, []

    def checked(*arguments: Any) -> None:
        threads.append(threading.current_thread())
        check(*arguments)

    monkeypatch.setattr(importing, "check_together", checked)
    await here.manager.archives.import_file(kit.write(tmp_path / "x.cwm", mallory))
    assert threading.current_thread() not in threads
    assert len(threads) == 1


# --- and what may be, comes through ---------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    note=TEXT,
    texts=st.lists(TEXT, min_size=4, max_size=6),
    logprobs=st.lists(st.floats(-1e6, 0), min_size=1, max_size=20),
    ttft_s=st.none() | st.floats(0, 1e4),
)
def test_whatever_was_said_comes_through(
    kit: Kit,
    tmp_path: Path,
    mallory: Signers,
    note: str,
    texts: list[str],
    logprobs: list[float],
    ttft_s: float | None,
) -> None:
    kit.catalogue["windows"][0]["note"] = note
    details = kit.details[0]
    roles = ["system"] * (len(texts) - 4) + ["user", "assistant"] * 2
    details["transcript"]["messages"] = [
        {"role": role, "content": text} for role, text in zip(roles, texts, strict=True)
    ]
    details["transcript"]["turns"][0]["ttft_s"] = ttft_s
    details["probe"] |= {"token_ids": list(range(len(logprobs))), "logprobs": logprobs}
    path = kit.write(tmp_path / "x.cwm", mallory)
    with Reader(path) as reader:
        assert msgspec.to_builtins(reader.catalogue) == kit.catalogue
        assert msgspec.to_builtins(reader.details(0)) == details
        assert list(reader.contents()) == kit.contents

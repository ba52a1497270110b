"""The text and the HTML of what upkeep says."""

from __future__ import annotations

from typing import Any

import pytest
from entries import make_window

from cwm_jupyter.core.reports import (
    ChunkFault,
    DiskUsage,
    GarbageReport,
    Outcome,
    PurgeReport,
    RepairReport,
    VerifyReport,
    WindowCheck,
    WindowUsage,
)
from cwm_jupyter.core.rotation import RotationReport
from cwm_jupyter.present import html, text
from cwm_jupyter.present.upkeep import FORMS


def check(window: str = "paper", **fields: Any) -> WindowCheck:
    values: dict[str, Any] = {
        "state": "intact",
        "chunks": 46,
        "chunks_intact": 46,
        "chunks_relinked": 0,
        "chunks_missing": 0,
        "chunks_corrupt": 0,
        "chunks_recomputed": 0,
        "size_bytes": 135_659_520,
        "verify_s": 0.081,
        "faults": [],
        "problem": None,
    }
    return WindowCheck(window=window, **{**values, **fields})


def verified(*checks: WindowCheck) -> VerifyReport:
    intact = all(one.state != "damaged" for one in checks)
    return VerifyReport(
        windows=list(checks), intact=intact, size_bytes=135_659_520, verify_s=0.0912
    )


DAMAGED = check(
    "my paper",
    state="damaged",
    chunks_intact=44,
    chunks_relinked=1,
    chunks_missing=1,
    chunks_corrupt=1,
    faults=[
        ChunkFault(chunk=0, rank=0, state="relinked", reason="there is no record"),
        ChunkFault(chunk=1, rank=0, state="corrupt", reason="other bytes than were written"),
        ChunkFault(chunk=2, rank=1, state="missing", reason=None),
    ],
)


def test_an_intact_window() -> None:
    assert (
        text(verified(check()))
        == "Window paper is intact: 46 chunks read and right (136 MB, 81 ms)"
    )
    assert text(verified(check(chunks_recomputed=2))).endswith(
        "; 2 of them computed anew since the freeze, which is not bit-equal to what was frozen"
    )


def test_a_hold_that_was_lost_is_told() -> None:
    assert "put back" not in text(verified(check(hold="kept")))
    shown = text(verified(check(hold="renewed"))).split("\n")
    assert shown[1] == (
        "paper: what keeps its chunks from quotas and clean-ups was lost, and is put back."
    )
    assert "could not be put back" in text(verified(check(hold="lost")))
    assert "font-weight:bold" in html(verified(check(hold="lost")))


def test_a_repair_tells_which_windows_are_intact_with_it() -> None:
    assert "Intact again with it: two, three." in text(repaired(also_intact=["two", "three"]))
    assert "Intact again" not in text(repaired())


def test_a_damaged_window_says_what_and_what_to_do() -> None:
    assert text(verified(DAMAGED)).split("\n") == [
        "Window my paper is DAMAGED: of 46 chunks, 1 missing and 1 corrupt",
        "chunk 2 of 46          corrupt: other bytes than were written",
        "chunk 3 of 46, rank 1  missing",
        "Repair it with: cwm repair 'my paper'",
        "my paper: 1 record lost, and made anew: what was frozen was still there.",
    ]
    assert "font-weight:bold" in html(verified(DAMAGED))


def test_long_lists_of_faults_are_cut() -> None:
    faults = [ChunkFault(chunk=i, rank=0, state="missing", reason="gone") for i in range(46)]
    shown = text(verified(check(state="damaged", chunks_missing=46, faults=faults)))
    assert shown.count("missing: gone") == 20
    assert "and 26 more" in shown


def test_several_windows() -> None:
    far = check("far", problem="its chunks are elsewhere", chunks_intact=0, size_bytes=0)
    torn = check("torn", state="damaged", problem="its manifest is damaged")
    shown = text(verified(check(), DAMAGED, far, torn)).split("\n")
    assert shown[0].split() == [
        "WINDOW", "STATE", "CHUNKS", "INTACT", "MISSING", "CORRUPT", "RECOMPUTED", "READ",
    ]  # fmt: skip
    assert shown[1].split() == ["paper", "intact", "46", "46", "0", "0", "0", "136", "MB"]
    assert "not verified" in shown[3]
    assert "unavailable" in shown[3]
    assert "Window far was not verified: its chunks are elsewhere." in shown
    assert "Window torn is DAMAGED: its manifest is damaged" in shown
    assert shown[-1] == "1 window intact, 2 DAMAGED, 1 not verified; 136 MB read in 91 ms"
    assert text(verified()) == "There are no windows to verify."


def repaired(**fields: Any) -> RepairReport:
    outcomes: list[Outcome] = ["intact", "bit-equal"]
    values: dict[str, Any] = {
        "window": make_window(name="paper", chunks=46),
        "outcomes": outcomes,
        "chunks_intact": 44,
        "chunks_relinked": 0,
        "chunks_bit_equal": 2,
        "chunks_recomputed": 0,
        "turns_replayed": 1,
        "turns_differed": 0,
        "computed_tokens": 5993,
        "repair_s": 47.2,
        "stages_s": {},
        "accepted_differences": [],
    }
    return RepairReport(**{**values, **fields})


def test_a_repair() -> None:
    assert text(repaired()) == (
        "Repaired paper: of 46 chunks, 2 computed again, equal to the bit, 44 intact before; "
        "5,993 tokens in 1 turn computed, 47 s"
    )
    other = text(
        repaired(chunks_recomputed=1, turns_differed=1, accepted_differences=["threads: 2, 4"])
    ).split("\n")
    assert "1 computed again to other bytes" in other[0]
    assert "their turns had been sampled" in other[1]
    assert other[2] == "Accepted: threads: 2, 4."
    nothing = repaired(turns_replayed=0, chunks_relinked=2)
    assert text(nothing) == (
        "Nothing to compute: paper has all its 46 chunks, 2 of them linked again"
    )


def usage(**fields: Any) -> DiskUsage:
    rows = [
        WindowUsage(
            window="paper", state="intact", size_bytes=3_000_000, held_bytes=2_000_000,
            exclusive_bytes=500_000,
        ),
        WindowUsage(
            window="far", state="deleted", size_bytes=None, held_bytes=None, exclusive_bytes=None
        ),
    ]  # fmt: skip
    values: dict[str, Any] = {
        "folder": "/home/me/vault",
        "windows": rows,
        "stored_bytes": 4_000_000,
        "raw_bytes": 6_000_000,
        "unfrozen_bytes": 2_000_000,
        "other_bytes": 0,
        "quarantined": 0,
        "quarantined_bytes": 0,
        "quota_bytes": None,
        "free_bytes": 80_000_000_000,
    }
    return DiskUsage(**{**values, **fields})


def test_disk_usage() -> None:
    assert text(usage()).split("\n") == [
        "WINDOW  STATE             KV      ON DISK      ITS OWN       SHARED",
        "paper   intact       3.00 MB      2.00 MB       500 kB      1.50 MB",
        "far     deleted  unavailable  unavailable  unavailable  unavailable",
        "",
        "in all        4.00 MB (codec ratio 1.50)",
        "unfrozen      2.00 MB",
        "quota         none",
        "free on disk  80.0 GB",
        "folder        /home/me/vault",
        "Deleted windows keep their chunks until: cwm admin purge",
    ]
    full = text(
        usage(quota_bytes=8_000_000, quarantined=1, quarantined_bytes=5, other_bytes=7, windows=[])
    )
    assert "quota           8.00 MB, 50% used" in full
    assert "in quarantine   1 file, 5 bytes" in full
    assert "held otherwise  7 bytes" in full
    assert "WINDOW" not in full


def test_garbage() -> None:
    none = GarbageReport(
        contents=0, records=0, holds=0, temporary_files=0, quarantined=0, chunks=0, leftovers=0,
        freed_bytes=0, removed=True,
    )  # fmt: skip
    assert text(none) == "There is no garbage."
    some = none.replace(contents=2, leftovers=1, freed_bytes=2_000_000)
    assert text(some).split("\n") == [
        "contents that nothing means         2",
        "files in the home without an entry  1",
        "Freed 2.00 MB",
    ]
    assert text(some.replace(removed=False)).endswith("Would free 2.00 MB")


def test_a_purge() -> None:
    report = PurgeReport(
        windows=["a", "b"], sessions=["main"], chunks=12, freed_bytes=27_600_000, secrets=1,
        memory_cleared=True, engine_cleared=True, removed=True,
    )  # fmt: skip
    assert text(report) == (
        "Purged windows a, b and session main: 12 chunks, 27.6 MB freed; "
        "they cannot be brought back"
    )
    assert text(report.replace(removed=False, sessions=[])) == (
        "Would purge windows a, b: 12 chunks, 27.6 MB would be freed"
    )
    assert "no chunk of its own, 0 bytes" in text(report.replace(chunks=0, freed_bytes=0))
    for name, field in (("LMCache", "memory_cleared"), ("The engine", "engine_cleared")):
        said = f"{name} could not be asked to forget them: it does when it stops (cwm down)."
        assert said in text(report.replace(**{field: False}))
    assert "remote store may still have" in text(report.replace(remote_cleared=False))
    assert "cwm admin gc clears it" in text(report.replace(copies_cleared=False))
    assert text(report.replace(windows=[], sessions=[])) == (
        "Nothing was removed that could be purged."
    )


def test_a_rotation() -> None:
    report = RotationReport(
        current="ab12", new_key=True, documents=3, contents=1, dropped=1, unreadable=[]
    )
    assert text(report) == (
        "A new key is in use (ab12): 3 documents and 1 file of the vault encrypted anew, "
        "1 older dropped"
    )
    kept = text(report.replace(new_key=False, dropped=0, unreadable=["x.json"]))
    assert kept.startswith("The key that the environment gives is in use (ab12):")
    assert kept.endswith("\nx.json")


@pytest.mark.parametrize("kind", FORMS)
def test_markup_in_names_is_escaped(kind: type) -> None:
    evil = "<b>x</b>"
    values: dict[type, Any] = {
        VerifyReport: verified(check(evil)),
        RepairReport: repaired(window=make_window(name=evil)),
        DiskUsage: usage(folder=evil),
        GarbageReport: None,
        PurgeReport: PurgeReport(
            windows=[evil], sessions=[], chunks=1, freed_bytes=1, secrets=0,
            memory_cleared=None, engine_cleared=None, removed=True,
        ),
        RotationReport: RotationReport(
            current=evil, new_key=True, documents=1, contents=1, dropped=0, unreadable=[evil]
        ),
    }  # fmt: skip
    if values[kind] is not None:
        assert evil not in html(values[kind])
        assert "&lt;b&gt;x" in html(values[kind])

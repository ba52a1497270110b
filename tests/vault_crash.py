"""Run by the tests in a process of its own: die at a step of an action, or work beside others.

``vault_crash.py die TEMPLATE FOLDER ACTION STEPS`` lets a child be killed before each step, which
is after the one before it, and after the last, each in its copy of the template.
``vault_crash.py work FOLDER SEED SECONDS`` stores, reads, deletes, evicts and collects.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from vaults import CHUNKS, get, killed_at_each_step, perform, put

from cwm_jupyter.vault.files import Vault


def die(template: Path, folder: Path, action: str, count: int) -> None:
    print(killed_at_each_step(template, folder, count, lambda copy: perform(copy, action)))


def work(folder: Path, seed: int, seconds: float) -> None:
    rng, counts = random.Random(seed), {"read": 0, "missed": 0, "wrong": 0, "lost": 0, "failed": 0}
    vault = Vault(folder, quota_bytes=4 * 728)
    mine = [list(CHUNKS)[seed]]
    vault.hold(f"window{seed}", mine)
    counts["failed"] += put(vault, {mine[0]: CHUNKS[mine[0]]}) == ["failed"]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        key = rng.choice(list(CHUNKS))
        what = rng.random()
        if what < 0.4:
            counts["failed"] += put(vault, {key: CHUNKS[key]}) == ["failed"]
        elif what < 0.5:
            vault.delete([key])
        elif what < 0.65:
            vault.room.collect(None)
        else:
            read = get(vault, key)
            counts["read" if read else "missed"] += 1
            counts["wrong"] += read not in (CHUNKS[key], None)
        counts["lost"] += get(vault, mine[0]) != CHUNKS[mine[0]]
    counts["corrupt"] = vault.counters.corrupt
    counts["unreadable"] = vault.counters.unreadable
    counts["evicted"] = vault.counters.evicted
    vault.close()
    print(json.dumps(counts))


if __name__ == "__main__":
    if sys.argv[1] == "die":
        die(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
    else:
        work(Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))

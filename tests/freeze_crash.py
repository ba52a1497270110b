"""Run by the tests in a process of its own: make a window and die at a step of it.

``freeze_crash.py count WHAT FOLDER`` prints how many steps it takes; ``freeze_crash.py die WHAT
TEMPLATE FOLDER STEPS`` lets a child be killed before each of them and after the last, each in its
copy of the template. WHAT is one of `WORK`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from bench import Bench
from vaults import in_order, killed_at_each_step, steps


async def freeze(bench: Bench) -> None:
    await bench.manager.freeze("paper", "talk")


async def update(bench: Bench) -> None:
    await bench.manager.freeze("paper", "talk", update=True)


async def clone(bench: Bench) -> None:
    await bench.manager.branches.clone("paper", "other")


async def take_in(bench: Bench) -> None:
    archive = bench.home.parent / "paper.cwm"
    await bench.manager.archives.import_file(archive, accept_untrusted=True)


WORK = {work.__name__: work for work in (freeze, update, clone, take_in)}


def do(what: str, folder: Path) -> None:
    async def run() -> None:
        bench = Bench(folder)
        await WORK[what](bench)
        await bench.reconnect()

    asyncio.run(run())


def count(what: str, folder: Path) -> None:
    with in_order(), steps(lambda number, name, over: None) as counts:
        do(what, folder)
    print(counts.total())


def die(what: str, template: Path, folder: Path, total: int) -> None:
    print(killed_at_each_step(template, folder, total, lambda copy: do(what, copy)))


if __name__ == "__main__":
    if sys.argv[1] == "die":
        die(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]))
    else:
        count(sys.argv[2], Path(sys.argv[3]))

"""Run by the tests in a process of its own: freeze a session and die at a step of it.

``freeze_crash.py count FOLDER`` prints how many steps a freeze takes; ``freeze_crash.py die
TEMPLATE FOLDER STEPS`` lets a child be killed before each of them and after the last, each in its
copy of the template.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

from bench import Bench
from vaults import die_at, in_order, steps


def freeze(folder: Path) -> None:
    async def run() -> None:
        bench = Bench(folder)
        await bench.manager.freeze("paper", "talk")
        await bench.reconnect()

    asyncio.run(run())


def count(folder: Path) -> None:
    with in_order(), steps(lambda number, name, over: None) as counts:
        freeze(folder)
    print(counts.total())


def die(template: Path, folder: Path, total: int) -> None:
    killed = 0
    for step in range(total + 1):
        copy = shutil.copytree(template, folder / str(step))
        child = os.fork()
        if child == 0:
            with in_order(), steps(die_at(min(step, total - 1), step == total)):
                freeze(copy)
            os._exit(0)
        killed += os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    print(killed)


if __name__ == "__main__":
    if sys.argv[1] == "die":
        die(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        count(Path(sys.argv[2]))

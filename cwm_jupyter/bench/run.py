"""One run of the bench, from an empty home to rows. Read this first.

`run_bench` is ``cwm bench``: it starts stacks of its own. `measure_stack` and `measure_long` are
its parts for one running stack each; tests call them on theirs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from cwm_jupyter.bench import judged, machine, speed
from cwm_jupyter.bench.coding import Coding, codec_rows, element_bytes
from cwm_jupyter.bench.indexing import index_rows
from cwm_jupyter.bench.machine import Bounds
from cwm_jupyter.bench.many import many_rows, memory_by_process
from cwm_jupyter.bench.plan import Plan
from cwm_jupyter.bench.rows import BenchResult, Row
from cwm_jupyter.bench.speed import Series
from cwm_jupyter.bench.stacks import Stacks, random_model
from cwm_jupyter.bench.storage import storage_row
from cwm_jupyter.bench.subject import ROOM_TOKENS, Context, Subject
from cwm_jupyter.core.job import Job, JobState
from cwm_jupyter.core.models import Fingerprint
from cwm_jupyter.stack.state import current
from cwm_jupyter.vault.store import VaultStore
from cwm_jupyter.workspace import Workspace

__all__ = ["measure_long", "measure_stack", "run_bench"]

#: what a second stack takes, its caches filled
_SECOND_STACK_BYTES = 8 * 10**9
_LARGE_TOKENS = 8_000


def run_bench(
    workspace: Workspace,
    plan: Plan,
    *,
    job_watch: Callable[[JobState], None] | None = None,
) -> BenchResult:
    """Measure everything, on stacks of the bench's own; the user's is best stopped meanwhile.

    Raises
    ------
    StackError
        A stack could not be started; what the bench started is stopped.
    """
    job, settings = Job("bench", job_watch), workspace.settings
    with Stacks(settings, settings.home / "bench", job) as stacks:
        job.stage("the machine")
        bounds = machine.measure_bounds(stacks.folder, plan.bound_bytes)
        described = machine.describe(stacks.folder, bounds)
        subject = Subject(stacks.start("vault"), "vault", "raw")
        described["versions"] |= _versions(subject)
        described["notes"] = notes = list[str]()
        rows = measure_stack(subject, plan, bounds, job, stacks=stacks, notes=notes)
        for name in ("vault", "fs"):
            stacks.stop(name)
        if plan.long_tokens is not None:
            model = random_model(settings, job)
            long = Subject(stacks.start("long", model=str(model)), "vault", "raw")
            rows += measure_long(long, plan, bounds, job)
        described["load_at_end"] = machine.load()
    job.finish()
    return BenchResult(machine=described, rows=rows)


def measure_stack(
    subject: Subject,
    plan: Plan,
    bounds: Bounds,
    job: Job,
    *,
    stacks: Stacks | None = None,
    notes: list[str] | None = None,
) -> list[Row]:
    """Measure a running stack, and beside it what the plan says and `stacks` can start.

    Parameters
    ----------
    subject
        The stack, with the vault.
    plan
        What to measure.
    bounds
        Of the machine.
    job
        Told of the stages; may be cancelled.
    stacks
        Starts the stack with ``fs``; None: there is none.
    notes
        Takes what was left out, and why.
    """
    notes = [] if notes is None else notes
    idle = memory_by_process(subject)
    job.stage("the index")
    with tempfile.TemporaryDirectory(dir=subject.workspace.settings.home) as folder:
        rows = index_rows(Path(folder), plan.index_windows)
    contexts = _contexts(subject, plan.sizes, job, notes)
    subjects = _subjects(subject, contexts, plan, job, stacks, notes)
    for context in contexts:
        series = Series(context, subjects)
        speed.measure(series, plan.repetitions, plan.prefetches, job)
        rows += _rows(series, bounds)
    coding = subject.coding
    if coding is not None and contexts:
        coding.use("raw")
        rows += codec_rows(
            coding, contexts[-1].manifest.refs, _dtype(contexts[-1].manifest.fingerprint)
        )
    if plan.many_tokens is not None:
        rows += many_rows(subject, plan.many_tokens, idle, job)
    return rows


def measure_long(subject: Subject, plan: Plan, bounds: Bounds, job: Job) -> list[Row]:
    """Measure a long context on a running stack with a model that has room for it."""
    nominal = plan.long_tokens or 0
    job.stage(f"{nominal:,} tokens, cold")
    series = Series(subject.make(nominal), [subject])
    speed.measure(series, plan.repetitions, 0, job)
    rows = speed.rows(series, bounds)
    thaw = next(row for row in rows if row.id == "PF-006")
    return [*rows, judged.long_row(thaw)]


def _contexts(subject: Subject, sizes: Sequence[int], job: Job, notes: list[str]) -> list[Context]:
    """Compute and freeze a context of each length that the model has room for."""
    room = subject.workspace.run(_room, subject.workspace)
    contexts = []
    for nominal in sizes:
        if room is not None and nominal + ROOM_TOKENS > room:
            notes.append(f"{nominal:,} tokens do not fit into the model's context of {room:,}.")
            continue
        job.stage(f"{nominal:,} tokens, cold")
        contexts.append(subject.make(nominal))
    return contexts


async def _room(workspace: Workspace) -> int | None:
    return (await (await workspace.connect()).facts()).max_context_tokens


def _subjects(
    subject: Subject,
    contexts: Sequence[Context],
    plan: Plan,
    job: Job,
    stacks: Stacks | None,
    notes: list[str],
) -> list[Subject]:
    """Return what is measured in turn; the vault with raw bytes comes first."""
    subjects = [subject]
    if plan.fs and stacks is not None:
        free = psutil.virtual_memory().available
        if free < _SECOND_STACK_BYTES:
            notes.append(f"fs was left out: {free:,} bytes of memory are free for a second stack.")
        else:
            job.stage("the same windows for fs")
            subjects.append(stacks.copied(subject, contexts, "fs"))
    if plan.planes and contexts:
        job.stage("the same windows, packed")
        store = subject.workspace.run(subject.workspace.connect).store
        if isinstance(store, VaultStore):
            size = element_bytes(_dtype(contexts[0].manifest.fingerprint))
            subject.coding = Coding(store.vault, size)
            for context in contexts:
                subject.coding.add(context.manifest.refs)
            subjects.append(Subject(subject.workspace, "vault", "planes", subject.coding))
    return subjects


def _rows(series: Series, bounds: Bounds) -> list[Row]:
    """Return all rows of a context of the user's own model."""
    rows = speed.rows(series, bounds)
    subject, context = series.subjects[0], series.context
    if context.nominal < _LARGE_TOKENS:
        return rows
    state = current(subject.workspace.settings.home)
    if state is not None and state.model_path is not None:
        stored = context.size_bytes or 0
        if subject.coding is not None:
            stored = subject.coding.stored_bytes(context.manifest.refs, "raw")
        dtype = _dtype(context.manifest.fingerprint)
        rows.append(storage_row(series, stored, Path(state.model_path), dtype))
    return [*rows, *judged.large_rows(series, bounds), *judged.aim_rows(series)]


def _dtype(fingerprint: Fingerprint) -> object:
    return fingerprint.layout["kv_cache_dtype"]


def _versions(subject: Subject) -> dict[str, object]:
    """Return the versions that the engine tells of itself."""

    async def ask() -> Fingerprint:
        return (await (await subject.workspace.connect()).facts()).fingerprint

    numeric = subject.workspace.run(ask).numeric
    return {name: numeric.get(f"{name}_version") for name in ("vllm", "lmcache", "torch")}

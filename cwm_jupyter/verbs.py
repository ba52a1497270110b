"""The verbs of ``cwm VERB`` and ``%cwm VERB``: one table for both.

A verb is its arguments and a function from workspace, arguments and front end to a value. It
imports what it needs when it runs: the table is read when the notebook extension loads.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cwm_jupyter._version import __version__
from cwm_jupyter.errors import StackError, UsageError, ValidationError
from cwm_jupyter.parsing import HelpRequestError, Parser, natural

if TYPE_CHECKING:
    from cwm_jupyter.config import Settings
    from cwm_jupyter.core.job import Job, JobState
    from cwm_jupyter.core.models import (
        FreezeReport,
        Page,
        Reply,
        Session,
        ThawReport,
        Value,
        Window,
    )
    from cwm_jupyter.core.reports import (
        DiskUsage,
        GarbageReport,
        PurgeReport,
        RepairReport,
        VerifyReport,
    )
    from cwm_jupyter.core.rotation import RotationReport
    from cwm_jupyter.stack.doctor import Finding
    from cwm_jupyter.stack.state import StackState, StackStatus
    from cwm_jupyter.workspace import Workspace

__all__ = ["VERBS", "FrontEnd", "Verb", "find", "overview", "parse", "start_stack"]


class FrontEnd(Protocol):
    """What a verb asks of whoever runs it: a terminal or a notebook."""

    @property
    def session(self) -> str:
        """The session that is meant where none is named."""
        ...

    def use(self, session: str) -> bool:
        """Make a session the one that is meant; return whether the user should be told."""
        ...

    def note(self, value: object) -> None:
        """Show something that is not the result, at once."""
        ...

    def progress(self) -> AbstractContextManager[Callable[[JobState], None]]:
        """Show what a job does while the block runs; yields the job's watcher."""
        ...

    def answer(self) -> AbstractContextManager[Callable[[str], None]]:
        """Show an answer while it comes; yields what takes its pieces."""
        ...

    def read(self) -> str:
        """Return the text that the user pipes in."""
        ...


Run = Callable[["Workspace", argparse.Namespace, FrontEnd], Any]


@dataclass(frozen=True)
class Verb:
    """One verb.

    Parameters
    ----------
    name, help
        As the overview shows them.
    run
        Does it and returns a value that `cwm_jupyter.present` can show.
    arguments
        What goes to `argparse.ArgumentParser.add_argument`.
    examples
        Arguments to show as examples.
    configure
        Adds arguments that are declared elsewhere.
    verbs
        Verbs below it: ``cwm admin du`` is ``du`` of ``admin``. It then does nothing itself.
    """

    name: str
    help: str
    run: Run
    arguments: Sequence[tuple[tuple[str, ...], dict[str, Any]]] = ()
    examples: Sequence[str] = ()
    configure: Callable[[Parser], None] | None = None
    verbs: Mapping[str, Verb] = field(default_factory=dict)

    def parser(self, prog: str) -> Parser:
        """Return the verb's parser; `prog` is what was typed, the verb included."""
        parser = Parser(prog, f"{self.help[0].upper()}{self.help[1:]}.", self.examples)
        for names, options in self.arguments:
            parser.add_argument(*names, **options)
        if self.configure is not None:
            self.configure(parser)
        return parser


_ABOUT = "Context windows: freeze a model's KV cache under a name, thaw it another day."
#: an option that all verbs have, by what was typed
_EVERYWHERE = {
    "cwm": "--json, anywhere, prints one JSON document instead.",
    "%cwm": "-o VARIABLE keeps the result.",
}


def parse(arguments: Sequence[str], prog: str) -> tuple[Verb, argparse.Namespace]:
    """Return the verb and its arguments.

    Raises
    ------
    UsageError
        There is no such verb, or the arguments make no sense.
    HelpRequestError
        Help was asked for.
    """
    verb, path, rest = find(arguments, prog)
    return verb, verb.parser(path).parse(rest)


def find(arguments: Sequence[str], prog: str) -> tuple[Verb, str, Sequence[str]]:
    """Return the verb that is named, all that was typed to name it, and its arguments.

    Raises as `parse` does.
    """
    if arguments[:1] == ["--version"]:
        raise HelpRequestError(f"cwm-jupyter {__version__}")
    verbs: Mapping[str, Verb] = VERBS
    about, rest = _ABOUT, arguments
    while True:
        if not rest or rest[0] in ("-h", "--help", "help"):
            raise HelpRequestError(overview(prog, verbs, about))
        if rest[0] not in verbs:
            close = difflib.get_close_matches(rest[0], verbs, n=2)
            meant = f"Did you mean {' or '.join(close)}?" if close else f"See {prog} -h."
            raise UsageError(f"{prog}: there is no verb {rest[0]!r}.", hint=meant)
        verb, prog, rest = verbs[rest[0]], f"{prog} {rest[0]}", rest[1:]
        if not verb.verbs:
            return verb, prog, rest
        verbs, about = verb.verbs, f"{verb.help[0].upper()}{verb.help[1:]}."


def overview(prog: str, verbs: Mapping[str, Verb] | None = None, about: str | None = None) -> str:
    """Return the help on all verbs, or on those below one."""
    verbs = VERBS if verbs is None else verbs
    width = max(map(len, verbs))
    lines = [f"  {verb.name:<{width}}  {verb.help}" for verb in verbs.values()]
    return "\n".join(
        [
            f"usage: {prog} VERB ...",
            "",
            about or _ABOUT,
            "",
            *lines,
            "",
            f"{prog} VERB -h tells more. {_EVERYWHERE.get(prog.split()[0], '')}".rstrip(),
        ]
    )


# --- the stack ------------------------------------------------------------------------------------


def start_stack(
    settings: Settings, job: Job, *, model: str | None = None, engine_args: Sequence[str] = ()
) -> StackState:
    """Start the local stack with some settings changed, see `cwm_jupyter.stack.launcher.up`.

    Raises
    ------
    StackError
        A stack with another model or other arguments is running.
    """
    import msgspec

    from cwm_jupyter.stack import launcher

    stack = settings.stack
    if model is not None:
        stack = msgspec.structs.replace(stack, model=model)
    if engine_args:
        stack = msgspec.structs.replace(stack, engine_args=tuple(engine_args))
    state = launcher.up(msgspec.structs.replace(settings, stack=stack), job)
    runs = state.settings.get("stack", {})
    asked = stack.model, stack.engine_args
    if state.already_running and (runs.get("model"), tuple(runs.get("engine_args", ()))) != asked:
        raise StackError(
            f"The stack is running already, with another model or arguments: {state.served_model}.",
            hint="Stop it first, with cwm down.",
        )
    return state


def _up(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> StackState:
    from cwm_jupyter.core.job import Job

    with front.progress() as watch:
        return start_stack(
            workspace.settings, Job("up", watch), model=args.model, engine_args=args.engine_args
        )


def _down(workspace: Workspace, _args: argparse.Namespace, front: FrontEnd) -> StackStatus:
    from cwm_jupyter.core.job import Job
    from cwm_jupyter.stack import launcher

    with front.progress() as watch:
        launcher.down(workspace.settings, Job("down", watch))
    return launcher.status(workspace.settings)


def _status(workspace: Workspace, _args: argparse.Namespace, _front: FrontEnd) -> StackStatus:
    from cwm_jupyter.stack import launcher

    return launcher.status(workspace.settings)


def _doctor(workspace: Workspace, _args: argparse.Namespace, _front: FrontEnd) -> list[Finding]:
    from cwm_jupyter.stack import doctor

    return doctor.diagnose(workspace.settings)


def _logs(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> Value:
    from cwm_jupyter.present import LogLines
    from cwm_jupyter.stack import launcher

    lines = launcher.logs(workspace.settings, args.part, args.lines)
    return LogLines(part=args.part, lines=lines)


def _connect(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> StackState:
    from cwm_jupyter.config import check_url
    from cwm_jupyter.stack import launcher

    key = None
    if args.api_key_env is not None:
        key = os.environ.get(args.api_key_env)
        if not key:
            raise ValidationError(f"The environment variable {args.api_key_env} is not set.")
    settings = workspace.settings
    engine = check_url(args.url, settings, what="URL")
    cache = check_url(args.lmcache_url, settings, what="LMCACHE_URL") if args.lmcache_url else None
    return launcher.connect(settings, engine, cache, key)


# --- sessions and windows -------------------------------------------------------------------------


def _say(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> Reply:
    text = front.read() if args.text == ["-"] else " ".join(args.text)
    if not text.strip() and not args.files:
        raise ValidationError("There is nothing to say.", hint="Write a question.")
    manager, name = workspace.manager, args.session or front.session
    before = workspace.run(_opened, workspace, name, args.system)
    if front.use(name) and before.turns:
        turns = f"{before.turns} turn{'' if before.turns == 1 else 's'}"
        front.note(f"Going on in session {name}: {turns}, {before.tokens:,} tokens.")
    try:
        with front.answer() as on_text:
            return workspace.run(
                partial(
                    manager.say,
                    name,
                    text,
                    files=args.files,
                    max_tokens=args.max_tokens,
                    temperature=args.temperature,
                    on_text=on_text,
                )
            )
    except KeyboardInterrupt:
        front.note(_kept(before, workspace.run(manager.session, before.id)))
        raise


async def _opened(workspace: Workspace, name: str, system: str | None) -> Session:
    """Return the session of this name, begun here if there is none."""
    found = await workspace.manager.find_session(name)
    if found is None:
        return await workspace.manager.create_session(name, system=system)
    if system is not None:
        raise ValidationError(
            f"The session {name!r} has begun: its system message cannot change.",
            hint="Begin another one with -s NAME.",
        )
    return found


def _kept(before: Session, after: Session) -> str:
    if after.turns > before.turns:
        return f"Interrupted: what had been said is kept, as turn {after.turns} of {after.name}."
    return f"Interrupted: no answer had come yet, the session {after.name} is as it was."


def _freeze(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> FreezeReport:
    from cwm_jupyter.core.job import Job

    with front.progress() as watch:
        return workspace.run(
            partial(
                workspace.manager.freeze,
                args.name,
                args.session or front.session,
                tags=args.tags,
                note=args.note,
                on_plan=front.note,
                job=Job(f"freeze {args.name}", watch),
            )
        )


def _thaw(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> ThawReport:
    from cwm_jupyter.core.job import Job

    with front.progress() as watch:
        report = workspace.run(
            partial(
                workspace.manager.thaw,
                args.window,
                as_session=args.as_session,
                recompute=args.recompute,
                accept_engine=args.accept_engine,
                accept_unknown=args.accept_unknown,
                job=Job(f"thaw {args.window}", watch),
            )
        )
    front.use(report.session)
    return report


def _ls(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> Page:
    manager = workspace.manager
    if args.sessions:
        if args.tags:
            raise ValidationError("--tag chooses windows, and --sessions lists sessions.")
        return workspace.run(partial(manager.sessions, state=args.state, limit=args.limit))
    if args.state is not None:
        raise ValidationError("--state chooses sessions.", hint="Add --sessions.")
    return workspace.run(partial(manager.windows, tags=args.tags, limit=args.limit))


def _show(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> Value:
    return workspace.run(
        partial(workspace.manager.status, window=args.window, session=args.session)
    )


def _rm(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> Window:
    manager = workspace.manager
    return workspace.run(
        manager.restore_window if args.undo else manager.remove_window, args.window
    )


def _verify(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> VerifyReport:
    from cwm_jupyter.core.job import Job

    if args.all == (args.window is not None):
        raise ValidationError(
            "Name one window, or say --all" + (", not both." if args.all else "; nothing was said.")
        )
    with front.progress() as watch:
        job = Job(f"verify {args.window or 'all windows'}", watch)
        return workspace.run(partial(workspace.manager.verify, args.window, job=job))


def _repair(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> RepairReport:
    from cwm_jupyter.core.job import Job

    with front.progress() as watch:
        return workspace.run(
            partial(
                workspace.manager.repair,
                args.window,
                accept_engine=args.accept_engine,
                job=Job(f"repair {args.window}", watch),
            )
        )


# --- upkeep ---------------------------------------------------------------------------------------


def _du(workspace: Workspace, _args: argparse.Namespace, _front: FrontEnd) -> DiskUsage:
    return workspace.run(workspace.manager.disk_usage)


def _gc(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> GarbageReport:
    return workspace.run(partial(workspace.manager.collect_garbage, dry_run=args.dry_run))


def _purge(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> PurgeReport:
    return workspace.run(partial(workspace.manager.purge, args.names, dry_run=args.dry_run))


def _rotate_key(workspace: Workspace, _args: argparse.Namespace, front: FrontEnd) -> RotationReport:
    from cwm_jupyter.core.job import Job

    with front.progress() as watch:
        return workspace.run(partial(workspace.manager.rotate_key, job=Job("rotate-key", watch)))


def _admin(_workspace: Workspace, _args: argparse.Namespace, _front: FrontEnd) -> None:
    """Never runs: it has verbs below it."""


def _demo(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> Value:
    from cwm_jupyter.demo import run_demo

    with front.progress() as watch:
        return run_demo(workspace, args, job_watch=watch)


def _configure_demo(parser: Parser) -> None:
    from cwm_jupyter.demo import add_arguments

    add_arguments(parser)


def _bench(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> Value:
    from cwm_jupyter.bench import show  # noqa: F401  (says what the result looks like)
    from cwm_jupyter.bench.plan import FULL, QUICK
    from cwm_jupyter.bench.run import run_bench

    with front.progress() as watch:
        return run_bench(workspace, QUICK if args.quick else FULL, job_watch=watch)


# --- the table ------------------------------------------------------------------------------------


def _argument(*names: str, **options: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    return names, options


_SESSION = _argument(
    "-s", "--session", metavar="SESSION", help="the session (default: the present one, or main)"
)
_WINDOW = _argument("window", metavar="WINDOW", help="name of a window")
_DRY_RUN = _argument("--dry-run", action="store_true", help="only tell what would be done")
_ADMIN = (
    Verb("du", "show what the windows take on disk, together and each alone", _du),
    Verb(
        "gc",
        "remove from the disk what nothing can use any more",
        _gc,
        [_DRY_RUN],
        ["", "--dry-run"],
    ),
    Verb(
        "purge",
        "delete for good what was removed: it cannot be brought back then",
        _purge,
        [
            _argument(
                "names",
                nargs="*",
                metavar="REMOVED",
                help="name of a window that was removed (default: all that was, sessions too)",
            ),
            _DRY_RUN,
        ],
        ["", "paper", "--dry-run"],
    ),
    Verb(
        "rotate-key",
        "change the key of what is encrypted, and encrypt all that is not",
        _rotate_key,
    ),
)
_VERBS = (
    Verb(
        "up",
        "start the local stack: LMCache and vLLM",
        _up,
        [
            _argument("--model", metavar="MODEL", help="a model's folder (default: SmolLM2-135M)"),
            _argument(
                "--engine-arg",
                dest="engine_args",
                action="append",
                default=[],
                metavar="ARG",
                help="one more argument for vLLM; may be repeated",
            ),
        ],
        ["", "--model ~/models/qwen3-0.6b --engine-arg=--max-model-len=16384"],
    ),
    Verb("down", "stop the stack, once all chunks are stored", _down),
    Verb("status", "show whether the stack runs, server by server", _status),
    Verb("doctor", "look for what would go wrong on this machine", _doctor),
    Verb(
        "logs",
        "show what a server of the local stack wrote last",
        _logs,
        [
            _argument(
                "part",
                nargs="?",
                choices=("vllm", "lmcache"),
                default="vllm",
                metavar="SERVER",
                help="vllm or lmcache (default: vllm)",
            ),
            _argument(
                "-n",
                dest="lines",
                type=natural,
                default=50,
                metavar="N",
                help="how many lines (50)",
            ),
        ],
        ["", "lmcache -n 200"],
    ),
    Verb(
        "connect",
        "use a stack that others run",
        _connect,
        [
            _argument("url", metavar="URL", help="of vLLM's server"),
            _argument(
                "lmcache_url",
                nargs="?",
                metavar="LMCACHE_URL",
                help="of LMCache's HTTP server; without it nothing can be frozen",
            ),
            _argument(
                "--api-key-env",
                metavar="VARIABLE",
                help="environment variable that holds the servers' API key",
            ),
        ],
        ["https://gpu.example:8000 https://gpu.example:8080 --api-key-env VLLM_KEY"],
    ),
    Verb(
        "say",
        "say something in a session; the session is begun if there is none",
        _say,
        [
            _argument(
                "text", nargs="*", metavar="TEXT", help="what to say; - reads standard input"
            ),
            _SESSION,
            _argument("--max-tokens", type=natural, metavar="N", help="longest answer (512)"),
            _argument(
                "--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (0)"
            ),
            _argument("--system", metavar="TEXT", help="system message of a new session"),
            _argument(
                "--file",
                dest="files",
                action="append",
                default=[],
                type=Path,
                metavar="PATH",
                help="text file that goes before the text; may be repeated",
            ),
        ],
        ["What is a monad?", "-s paper --file paper.txt Summarise this in three sentences."],
    ),
    Verb(
        "freeze",
        "make a session's state durable under a name",
        _freeze,
        [
            _argument("name", metavar="NAME", help="of the new window"),
            _SESSION,
            _argument(
                "--tag",
                dest="tags",
                action="append",
                default=[],
                metavar="TAG",
                help="for finding it again; may be repeated",
            ),
            _argument("--note", default="", metavar="TEXT", help="what it is about"),
        ],
        ["paper", 'paper -s main --tag draft --note "before the second chapter"'],
    ),
    Verb(
        "thaw",
        "restore a window into a new session, and measure it",
        _thaw,
        [
            _WINDOW,
            _argument(
                "--as",
                dest="as_session",
                metavar="NAME",
                help="of the new session (default: the window's)",
            ),
            _argument(
                "--recompute",
                action="store_true",
                help="compute the state anew from its tokens, where it does not fit this engine",
            ),
            _argument(
                "--accept-engine",
                action="store_true",
                help="accept an engine whose versions or threads differ; the probe decides",
            ),
            _argument(
                "--accept-unknown",
                action="append",
                default=[],
                metavar="FIELD",
                help="accept that this field of the engine is unknown; may be repeated",
            ),
        ],
        ["paper", "paper --as second-try"],
    ),
    Verb(
        "ls",
        "list windows, or sessions",
        _ls,
        [
            _argument(
                "--tag",
                dest="tags",
                action="append",
                default=[],
                metavar="TAG",
                help="only windows that have it; may be repeated",
            ),
            _argument("--limit", type=natural, metavar="N", help="so many at most"),
            _argument("--sessions", action="store_true", help="list sessions instead"),
            _argument("--state", metavar="STATE", help="only sessions in this state"),
        ],
        ["", "--tag draft --limit 10", "--sessions --state frozen"],
    ),
    Verb(
        "show",
        "show all there is to say about one window or one session",
        _show,
        [
            _argument("window", nargs="?", metavar="WINDOW", help="name of a window"),
            _argument("-s", "--session", metavar="SESSION", help="name of a session, instead"),
        ],
        ["paper", "-s main"],
    ),
    Verb(
        "rm",
        "delete a window; it can be brought back",
        _rm,
        [_WINDOW, _argument("--undo", action="store_true", help="bring it back")],
        ["paper", "paper --undo"],
    ),
    Verb(
        "verify",
        "read every chunk of a window, and say whether it is as frozen",
        _verify,
        [
            _argument("window", nargs="?", metavar="WINDOW", help="name of a window"),
            _argument("--all", action="store_true", help="all windows, instead"),
        ],
        ["paper", "--all"],
    ),
    Verb(
        "repair",
        "compute again what is damaged of a window",
        _repair,
        [
            _WINDOW,
            _argument(
                "--accept-engine",
                action="store_true",
                help="accept an engine whose versions or threads differ",
            ),
        ],
        ["paper"],
    ),
    Verb(
        "admin",
        "look after what lies on disk",
        _admin,
        verbs={verb.name: verb for verb in _ADMIN},
    ),
    Verb(
        "demo",
        "freeze, restart everything, thaw, and compare to the bit",
        _demo,
        configure=_configure_demo,
    ),
    Verb(
        "bench",
        "measure freeze and thaw against limits, on stacks of its own",
        _bench,
        [
            _argument(
                "--quick",
                action="store_true",
                help="two short contexts and few repetitions, the vault alone: to try it",
            )
        ],
        ["", "--quick"],
    ),
)
VERBS = {verb.name: verb for verb in _VERBS}

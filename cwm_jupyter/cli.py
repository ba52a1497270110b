"""``cwm VERB``: everything the magics do, for terminals and scripts.

Results go to stdout, everything else (progress, notes, errors) to stderr. With ``--json``, which
may stand anywhere, the last line of stdout is one JSON object or array, and nothing else is there.

Exit status: 0, done; 1, it failed, a question got no answer, or ``doctor`` found an error; 2, the
command line makes no sense; 3, a window was thawed, but less of it came from cache than was frozen,
``verify`` found one damaged, or the audit log is not as it was written; 130, interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from cwm_jupyter.errors import CancelledJobError, CWMError, UsageError
from cwm_jupyter.parsing import HelpRequestError
from cwm_jupyter.verbs import parse

__all__ = ["main"]

_FAILED, _USAGE, _INCOMPLETE, _INTERRUPTED = 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Parameters
    ----------
    arguments
        Without the program's name; the process's own by default.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # the model may say what the terminal cannot show
            stream.reconfigure(errors="replace")
    arguments, as_json = _without_json(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(arguments, as_json)
    except HelpRequestError as request:
        print(str(request).rstrip())
        return 0
    except UsageError as error:
        return _fail(error, as_json, _USAGE)
    except CWMError as error:
        return _fail(error, as_json, _FAILED)
    except KeyboardInterrupt:
        return _fail(CancelledJobError("Interrupted."), as_json, _INTERRUPTED)
    except BrokenPipeError:
        # Whoever read has enough; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return _fail(CWMError(f"{error.strerror or error}{where}."), as_json, _FAILED)


def _run(arguments: Sequence[str], as_json: bool) -> int:
    verb, parsed = parse(arguments, "cwm")

    from cwm_jupyter.current import CurrentSession
    from cwm_jupyter.terminal import Terminal
    from cwm_jupyter.workspace import Workspace

    current = CurrentSession("main", tells=False)
    terminal = Terminal(sys.stderr if as_json else sys.stdout, sys.stderr, current)
    workspace = Workspace()
    try:
        value = verb.run(workspace, parsed, terminal)
        if as_json:
            print(json.dumps(_document(value)), flush=True)
        else:
            terminal.show(value)
        terminal.finish()
    finally:
        workspace.close()
    return _exit_status(value)


def _without_json(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Take ``--json`` out of the arguments; what follows ``--`` is text."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [argument for argument in arguments[:end] if argument != "--json"]
    return [*kept, *arguments[end:]], len(kept) < end


def _document(value: Any) -> Any:
    return [one.to_dict() for one in value] if isinstance(value, list) else value.to_dict()


def _exit_status(value: Any) -> int:
    from cwm_jupyter.core.answers import AskReport
    from cwm_jupyter.core.audit import AuditReport
    from cwm_jupyter.core.models import Restored
    from cwm_jupyter.core.outcomes import DeletedReport
    from cwm_jupyter.core.reports import VerifyReport

    if isinstance(value, AskReport):
        if any(answer.reply is None for answer in value.answers):
            return _FAILED
        value = value.restored
    if isinstance(value, Restored) and not (value.complete or value.recompute):
        return _INCOMPLETE
    if isinstance(value, VerifyReport) and not value.intact:
        return _INCOMPLETE
    if isinstance(value, DeletedReport) and not value.gone:
        return _INCOMPLETE
    if isinstance(value, AuditReport) and value.intact is not True:
        return _INCOMPLETE
    if isinstance(value, list) and any(finding.level == "error" for finding in value):
        return _FAILED
    return 0


def _fail(error: CWMError, as_json: bool, status: int) -> int:
    from cwm_jupyter.present import text

    if as_json:
        print(json.dumps({"error": error.to_dict()}))
    said = text(error)  # usage errors say already whose they are
    print(said if isinstance(error, UsageError) else f"cwm: {said}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

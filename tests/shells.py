"""Real IPython shells for tests of the magics: a terminal's, and one that is a kernel's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from cwm_jupyter.errors import CWMError


@contextmanager
def shell_with_magics() -> Iterator[InteractiveShell]:
    """A shell in which the extension is loaded."""
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    shell = InteractiveShell.instance(config=config)
    shell.run_line_magic("load_ext", "cwm_jupyter")
    yield shell
    shell.restore_sys_module_state()
    InteractiveShell.clear_instance()


def failure(shell: InteractiveShell, cell: str) -> tuple[CWMError, str]:
    """Run a cell that fails; return its error and what the user sees."""
    with capture_output() as seen:
        result = shell.run_cell(cell)
    assert isinstance(result.error_in_exec, CWMError)
    return result.error_in_exec, seen.stdout


def run(shell: InteractiveShell, cell: str) -> Any:
    """Run a cell that works; return what it put out."""
    with capture_output() as seen:
        result = shell.run_cell(cell)
    result.raise_error()
    return seen


def complete(shell: InteractiveShell, line: str) -> list[str]:
    """Return what the shell offers at the end of a line."""
    shell.Completer.use_jedi = False
    with provisionalcompleter():
        return [completion.text for completion in shell.Completer.completions(line, len(line))]


class Published:
    """What a kernel's shell publishes from now on, on any thread."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.bundles: list[dict[str, Any]] = []
        self.options: list[dict[str, Any]] = []
        shell.display_pub.publish = self._publish

    def _publish(self, data: dict[str, Any], metadata: Any = None, **options: Any) -> None:
        self.bundles.append(data)
        self.options.append(options)

    @property
    def text(self) -> str:
        """The last output as text."""
        return self.bundles[-1]["text/plain"]

    @property
    def ids(self) -> set[str]:
        """The outputs that were written to."""
        return {options["transient"]["display_id"] for options in self.options}

"""Import all that a kernel imports on a system without what POSIX alone has, and use some of it.

``windows_imports.py FOLDER`` prints the names of the modules. What other packages need of POSIX
they have imported before: only ours are imported anew.
"""

from __future__ import annotations

import importlib
import os
import pathlib
import pkgutil
import signal
import socket
import sys
from pathlib import Path
from types import ModuleType

import platformdirs.windows
from windows_disk import WindowsDisk

import cwm_jupyter

#: run in the engine's environment, on Linux
_ELSEWHERE = ("cwm_jupyter.engine", "cwm_jupyter.vault.adapter")
_MODULES = ("fcntl", "grp", "posix", "pwd", "resource", "termios", "tty")
_OS = (
    *("chown", "fchmod", "fchown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getuid"),
    *("getpgid", "getsid", "killpg", "mkfifo", "nice", "posix_fadvise", "posix_fallocate"),
    *("posix_spawn", "pread", "preadv", "pwrite", "pwritev", "sched_getaffinity", "setsid"),
    *("statvfs", "sysconf", "uname", "wait", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW"),
)
_SIGNALS = ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGSTOP", "SIGUSR1", "SIGUSR2", "alarm")


def ours() -> list[str]:
    """The names of all modules that a kernel may import."""
    found = pkgutil.walk_packages(cwm_jupyter.__path__, "cwm_jupyter.")
    return [one.name for one in found if not one.name.startswith(_ELSEWHERE)]


def import_all() -> list[ModuleType]:
    return [importlib.import_module(name) for name in ours()]


def take_away() -> None:
    """Take away what Windows lacks, and say that this is Windows."""
    for name in [name for name in sys.modules if name.split(".")[0] == "cwm_jupyter"]:
        del sys.modules[name]
    for name in _MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for module, names in ((os, _OS), (signal, _SIGNALS), (socket, ("AF_UNIX",))):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    os.name = sys.platform = "nt"
    sys.platform = "win32"
    pathlib.WindowsPath = pathlib.PosixPath  # type: ignore[misc]  # what Path() makes there


def use(folder: Path) -> None:
    """Use what needs no engine and no lock, which filelock takes in POSIX's way here."""
    from cwm_jupyter import cli, config
    from cwm_jupyter.core import files, portable
    from cwm_jupyter.notebook import magics
    from cwm_jupyter.stack import state

    assert portable.WINDOWS
    assert portable.fcntl is None
    platformdirs.windows._RESOLVE_WIN_FOLDER = lambda name: str(folder / name)
    os.environ["APPDATA"] = str(folder / "appdata")
    settings = config.load({"CWM_HOME": str(folder / "home")})
    assert magics.split(r"a\b") == [r"a\b"]
    with WindowsDisk(folder):
        home = files.make_private_dir(settings.home)
        files.write_checked(home / "x.json", "test", 1, {"a": 1})
        assert files.read_checked(home / "x.json", "test", 1) == {"a": 1}
        assert state.current(settings.home) is None
    assert cli.main is not None


if __name__ == "__main__":
    import_all()
    take_away()
    print(*(module.__name__ for module in import_all()))
    use(Path(sys.argv[1]))

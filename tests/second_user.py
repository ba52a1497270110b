"""What a second user of the machine gets when they try things.

As a program, ``python second_user.py UID``, it reads attempts from standard input as JSON, becomes
that user for good, makes them, and writes what came of each. Only root can become another user.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  (else it is looked for when it can no longer be read)
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

#: ``nobody``, who owns nothing and is in no group
UID = 65534
REFUSED = "PermissionError"

Attempt = tuple[Any, ...]


def is_root() -> bool:
    """Return whether this process can become another user."""
    return os.name != "nt" and os.geteuid() == 0


def attempt(attempts: Sequence[Attempt]) -> list[Any]:
    """Make attempts as another user and return what came of each: a result, or an error's name."""
    run = subprocess.run(
        [sys.executable, __file__, str(UID)],
        input=json.dumps(list(attempts)),
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert run.returncode == 0, run.stderr
    results: list[Any] = json.loads(run.stdout)
    return results


def _read(path: str) -> int:
    return len(Path(path).read_bytes())


def _list(path: str) -> int:
    return len(list(Path(path).iterdir()))


def _write(path: str) -> str:
    with Path(path).open("r+b"):
        return "opened"


def _create(path: str) -> str:
    with (Path(path) / "from-another-user").open("xb"):
        return "created"


def _unlink(path: str) -> str:
    Path(path).unlink()
    return "deleted"


def _signal(pid: int) -> str:
    os.kill(pid, 0)
    return "reached"


def _unix(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        return "connected"


def _tcp(port: int) -> str:
    """Connect, say something, and return what the other side says within a second."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n" + bytes(4096))
        try:
            return sock.recv(4096).decode("latin-1")
        except (TimeoutError, ConnectionResetError):
            return ""


def _http(method: str, url: str, body: Any = None, key: str | None = None) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    try:
        connection.request(method, parts.path, json.dumps(body), headers)
        return connection.getresponse().status
    finally:
        connection.close()


_KINDS = {
    "read": _read, "list": _list, "write": _write, "create": _create, "unlink": _unlink,
    "signal": _signal, "unix": _unix, "tcp": _tcp, "http": _http,
}  # fmt: skip


def main() -> None:
    """Become the user and make the attempts."""
    uid = int(sys.argv[1])
    attempts = json.load(sys.stdin)
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    results = []
    for kind, *arguments in attempts:
        try:
            results.append(_KINDS[kind](*arguments))
        except OSError as error:
            results.append(type(error).__name__)
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()

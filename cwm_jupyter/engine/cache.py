"""LMCache's server, closed to other users: ``python -m cwm_jupyter.engine.cache ARGUMENT…``.

The arguments are those of ``lmcache server``. Three things differ from it. Its HTTP side, which has
no authentication, answers only requests that carry the key in ``LMCACHE_HTTP_KEY``: its metrics
have salts as labels, and a salt opens a lineage's cache. And its request side, which unpickles
what an engine sends, listens on a socket in a private folder, ``LMCACHE_REQUEST_SOCKET``, instead
of a TCP port that every user of the machine can reach. Its log shows no salts, see
`cwm_jupyter.engine.hiding`.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from cwm_jupyter.engine.auth import RequireKey
from cwm_jupyter.engine.hiding import hide_salts

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Run the server until it is told to end."""
    from lmcache.cli.main import main as lmcache
    from lmcache.v1.multiprocess import http_server
    from lmcache.v1.multiprocess.transport.zmq_impl import server

    address = f"ipc://{os.environ['LMCACHE_REQUEST_SOCKET']}"
    key = os.environ.pop("LMCACHE_HTTP_KEY")  # the server can be asked for its environment
    queue_server = server.MessageQueueServer

    @functools.wraps(queue_server)
    def on_socket(*, bind_url: str, **options: Any) -> Any:
        return queue_server(bind_url=address, **options)

    hide_salts()
    server.MessageQueueServer = on_socket
    http_server.app.add_middleware(RequireKey, key=key)
    lmcache(["server", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])

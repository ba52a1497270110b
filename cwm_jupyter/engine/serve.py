"""vLLM's API server: ``python -m cwm_jupyter.engine.serve ARGUMENT…``, as its own entry point."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the server until it is told to end."""
    from vllm.entrypoints.launchers.api_server.entry import main as serve

    serve()


if __name__ == "__main__":
    main()

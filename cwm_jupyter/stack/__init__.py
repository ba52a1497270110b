"""The local stack: LMCache and vLLM, started, watched and stopped from here."""

from __future__ import annotations

from cwm_jupyter.stack.launcher import connect, down, logs, status, up
from cwm_jupyter.stack.state import StackState, StackStatus, current

__all__ = ["StackState", "StackStatus", "connect", "current", "down", "logs", "status", "up"]

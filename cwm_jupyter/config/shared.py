"""The settings that all of a process shares."""

from __future__ import annotations

import logging
import threading

from cwm_jupyter.config.layers import load
from cwm_jupyter.config.schema import Settings

__all__ = ["get_settings", "reset_settings", "set_settings"]

_lock = threading.Lock()
_shared: Settings | None = None


def get_settings() -> Settings:
    """Return the settings that all of the process shares, loaded at the first call."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = _adopted(load())
        return _shared


def set_settings(settings: Settings) -> None:
    """Make `settings` those that the process shares."""
    global _shared
    with _lock:
        _shared = _adopted(settings)


def reset_settings() -> None:
    """Forget the shared settings: the next `get_settings` loads them anew."""
    global _shared
    with _lock:
        _shared = None


def _adopted(settings: Settings) -> Settings:
    logging.getLogger("cwm_jupyter").setLevel(settings.log_level.upper())
    return settings

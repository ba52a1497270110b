"""The settings that all of a process shares."""

from __future__ import annotations

import logging
import threading

from cwm_jupyter.config.files import find_files
from cwm_jupyter.config.layers import Layers, load_layers, of_settings
from cwm_jupyter.config.schema import Settings

__all__ = ["get_layers", "get_settings", "reset_settings", "set_layers", "set_settings"]

_lock = threading.Lock()
_shared: Layers | None = None


def get_settings() -> Settings:
    """Return the settings that all of the process shares, loaded at the first call."""
    return get_layers().settings


def get_layers() -> Layers:
    """Return where the settings that the process shares came from."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = _adopted(load_layers(files=find_files()))
        return _shared


def set_settings(settings: Settings) -> None:
    """Make `settings` those that the process shares."""
    set_layers(of_settings(settings))


def set_layers(layers: Layers) -> None:
    """Make the settings of these layers those that the process shares."""
    global _shared
    with _lock:
        _shared = _adopted(layers)


def reset_settings() -> None:
    """Forget the shared settings: the next `get_settings` loads them anew."""
    global _shared
    with _lock:
        _shared = None


def _adopted(layers: Layers) -> Layers:
    logging.getLogger("cwm_jupyter").setLevel(layers.settings.log_level.upper())
    return layers

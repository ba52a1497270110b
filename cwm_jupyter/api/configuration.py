"""Settings of this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cwm_jupyter import changes
from cwm_jupyter.config import Settings, get_settings
from cwm_jupyter.config.checks import ARGUMENT
from cwm_jupyter.config.layers import from_mapping

__all__ = ["configure", "settings"]


def settings() -> Settings:
    """Return the settings that are in force; they cannot be changed in place, see `configure`."""
    return get_settings()


def configure(values: Mapping[str, Any] | None = None, /, **more: Any) -> Settings:
    """Change settings of this process, which take effect at once.

    Parameters
    ----------
    values, more
        Dotted (``{"limits.max_tokens": 256}``), or nested (``limits={"max_tokens": 256}``).

    Returns
    -------
    Settings
        As they are now.

    Raises
    ------
    ConfigError
        A setting is unknown, of the wrong type or out of range, or may not change now; nothing was
        changed. Before anything of this package was used, all may change.
    SecurityError
        A URL would send conversations unencrypted to another machine.
    """
    given = from_mapping({**(values or {}), **more}, ARGUMENT)
    changes.change(given)
    return get_settings()

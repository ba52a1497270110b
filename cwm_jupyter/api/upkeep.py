"""Upkeep of what lies on disk."""

from __future__ import annotations

from functools import partial

from cwm_jupyter.core.reports import DiskUsage, GarbageReport, PurgeReport
from cwm_jupyter.core.rotation import RotationReport
from cwm_jupyter.workspace import get_workspace

__all__ = ["collect_garbage", "disk_usage", "purge", "rotate_key"]


def disk_usage() -> DiskUsage:
    """Return what the windows take on disk, together and each alone."""
    workspace = get_workspace()
    return workspace.run(workspace.manager.disk_usage)


def collect_garbage(*, dry_run: bool = False) -> GarbageReport:
    """Remove from the disk what nothing can use any more, or only tell what there is of it."""
    workspace = get_workspace()
    return workspace.run(partial(workspace.manager.collect_garbage, dry_run=dry_run))


def purge(*names: str, dry_run: bool = False) -> PurgeReport:
    """Delete for good what was removed, or only tell what would go.

    Parameters
    ----------
    names
        Of windows that were removed; none: all windows and sessions that were.
    dry_run
        Delete nothing.

    Raises
    ------
    StateTransitionError
        A window of this name was not removed; nothing was deleted.
    WindowNotFoundError
        There is none of this name.
    """
    workspace = get_workspace()
    return workspace.run(partial(workspace.manager.purge, names, dry_run=dry_run))


def rotate_key() -> RotationReport:
    """Change the key of what is encrypted, and encrypt what is not.

    Raises
    ------
    ValidationError
        Encryption is off.
    """
    workspace = get_workspace()
    return workspace.run(workspace.manager.rotate_key)

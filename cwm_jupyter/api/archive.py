"""Archives: windows in one portable file, and conversations as text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from cwm_jupyter.core.archive.reports import (
    ExportReport,
    ImportReport,
    Signer,
    SignerList,
    TextReport,
)
from cwm_jupyter.core.job import Job
from cwm_jupyter.workspace import get_workspace

__all__ = [
    "aexport_windows",
    "aimport_windows",
    "distrust",
    "export_text",
    "export_windows",
    "import_windows",
    "trust",
    "trusted_signers",
]


def export_windows(
    *names: str,
    file: str | Path,
    passphrase: str | None = None,
    force: bool = False,
    job: Job | None = None,
) -> ExportReport:
    """Write windows into one file, which another home can import.

    Parameters
    ----------
    names
        Of the windows.
    file
        Where to; made whole, or not at all.
    passphrase
        Encrypts it; None: whoever has the file can read it.
    force
        Replace a file that is there.
    job
        Told of the bytes; may be cancelled.

    Raises
    ------
    WindowNotFoundError
        There is no window of a name.
    KVStoreError
        A chunk is missing or damaged, or cannot be read from here.
    ValidationError
        There is a file already.

    Examples
    --------
    >>> cwm.export_windows("paper", file="paper.cwm")  # doctest: +SKIP
    """
    return get_workspace().run(_exporting(names, file, passphrase, force, job))


async def aexport_windows(
    *names: str,
    file: str | Path,
    passphrase: str | None = None,
    force: bool = False,
    job: Job | None = None,
) -> ExportReport:
    """As `export_windows`, awaited."""
    return await get_workspace().arun(_exporting(names, file, passphrase, force, job))


def _exporting(
    names: tuple[str, ...], file: str | Path, passphrase: str | None, force: bool, job: Job | None
) -> Callable[[], Awaitable[ExportReport]]:
    export = get_workspace().manager.archives.export
    return partial(export, names, Path(file), passphrase=passphrase, force=force, job=job)


def export_text(name: str, file: str | Path, *, force: bool = False) -> TextReport:
    """Write a window's conversation: the file ends with ``.md``, ``.json`` or ``.ipynb``.

    Raises
    ------
    ValidationError
        Another ending, or there is a file already and not `force`.
    """
    workspace = get_workspace()
    export = workspace.manager.archives.export_text
    return workspace.run(partial(export, name, Path(file), force=force))


def import_windows(
    file: str | Path,
    *,
    as_name: str | None = None,
    recompute: bool = False,
    trust: bool = False,
    accept_untrusted: bool = False,
    passphrase: str | None = None,
    job: Job | None = None,
) -> ImportReport:
    """Take in the windows of a file, all of them or none.

    Parameters
    ----------
    file
        The archive.
    as_name
        The window's name; of several, what goes before their names, and a dash.
    recompute
        Compute the states anew from the tokens, on the running engine.
    trust
        Trust the signer, now and from now on.
    accept_untrusted
        Keep the archive's KV this once, though its signer is not trusted.
    passphrase
        Opens an encrypted archive.
    job
        Told of the stages; may be cancelled.

    Raises
    ------
    ArchiveError
        The file is damaged, was changed, or says what cannot be.
    DecryptError
        The passphrase does not open it.
    WindowExistsError
        A name is taken.
    StackDownError
        The signer is not trusted, so the states have to be computed, and no stack is running.

    Examples
    --------
    >>> cwm.import_windows("paper.cwm", trust=True).windows  # doctest: +SKIP
    """
    return get_workspace().run(
        _importing(file, as_name, recompute, trust, accept_untrusted, passphrase, job)
    )


async def aimport_windows(
    file: str | Path,
    *,
    as_name: str | None = None,
    recompute: bool = False,
    trust: bool = False,
    accept_untrusted: bool = False,
    passphrase: str | None = None,
    job: Job | None = None,
) -> ImportReport:
    """As `import_windows`, awaited."""
    return await get_workspace().arun(
        _importing(file, as_name, recompute, trust, accept_untrusted, passphrase, job)
    )


def _importing(
    file: str | Path,
    as_name: str | None,
    recompute: bool,
    trust: bool,
    accept_untrusted: bool,
    passphrase: str | None,
    job: Job | None,
) -> Callable[[], Awaitable[ImportReport]]:
    return partial(
        get_workspace().manager.archives.import_file,
        Path(file),
        as_name=as_name,
        recompute=recompute,
        trust=trust,
        accept_untrusted=accept_untrusted,
        passphrase=passphrase,
        job=job,
    )


def trusted_signers() -> SignerList:
    """Return whose archives are imported as they are; the first is this home, if it has a key."""
    workspace = get_workspace()
    return workspace.run(workspace.manager.archives.signers)


def trust(key: str, name: str = "") -> Signer:
    """Trust a signer from now on, by its public key (64 hexadecimal digits)."""
    workspace = get_workspace()
    return workspace.run(workspace.manager.archives.trust, key, name)


def distrust(signer: str) -> Signer:
    """Trust a signer no longer, by its fingerprint, key or name."""
    workspace = get_workspace()
    return workspace.run(workspace.manager.archives.distrust, signer)

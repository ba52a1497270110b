"""Archives: what the manager does with them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread

from cwm_jupyter.core.archive.exporting import Export
from cwm_jupyter.core.archive.importing import Import
from cwm_jupyter.core.archive.reader import Reader
from cwm_jupyter.core.archive.reports import (
    ExportReport,
    ImportReport,
    Signer,
    SignerList,
    TextReport,
)
from cwm_jupyter.core.archive.signing import Signers
from cwm_jupyter.core.archive.texts import write_text
from cwm_jupyter.core.job import Job
from cwm_jupyter.core.parts import Parts
from cwm_jupyter.errors import KVStoreError, ValidationError

__all__ = ["Archives"]


class Archives:
    """Exports and imports of one home.

    Parameters
    ----------
    parts
        Where everything is kept.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._signers = Signers(parts.library.home)

    async def export(
        self,
        names: Sequence[str],
        path: Path,
        *,
        passphrase: str | None = None,
        force: bool = False,
        job: Job | None = None,
    ) -> ExportReport:
        """Write windows into one file, which another home can import.

        Parameters
        ----------
        names
            Of the windows.
        path
            The file; made whole, or not at all.
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
            There is a file already, or no name, or an empty passphrase.
        """
        if not names:
            raise ValidationError("Name a window to export.")
        if passphrase == "":
            raise ValidationError("The passphrase is empty.")
        if self._parts.store is None:
            raise KVStoreError("The chunks of these windows cannot be read from here.")
        index = self._parts.library.index
        windows = [await to_thread.run_sync(index.require_window, name) for name in names]
        chosen = list({window.id: window for window in windows}.values())
        shown = ", ".join(window.name for window in chosen)
        with self._parts.audit.entry(
            "export", window=[w.name for w in chosen], file=path.name
        ) as entry:
            work = Export(
                self._parts.library,
                self._parts.store,
                self._signers,
                chosen,
                job or Job(f"export {', '.join(shown)}"),
            )
            report = await work.run(path, passphrase=passphrase, force=force)
            entry.size_bytes = report.size_bytes
        return report

    async def export_text(self, name: str, path: Path, *, force: bool = False) -> TextReport:
        """Write a window's conversation for people: Markdown, JSON or a notebook.

        Parameters
        ----------
        name
            Of the window.
        path
            The file; its ending says which: ``.md``, ``.json`` or ``.ipynb``.
        force
            Replace a file that is there.

        Raises
        ------
        ValidationError
            Another ending, or there is a file already.
        """
        library = self._parts.library
        window = await to_thread.run_sync(library.index.require_window, name)
        with self._parts.audit.entry(
            "export-text", window=window.known_as, file=path.name
        ) as entry:
            manifest = await to_thread.run_sync(library.manifest, window)
            work = partial(write_text, path, window, manifest.transcript, force=force)
            report = await to_thread.run_sync(work)
            entry.size_bytes = report.size_bytes
        return report

    async def import_file(
        self,
        path: Path,
        *,
        as_name: str | None = None,
        recompute: bool = False,
        trust: bool = False,
        accept_untrusted: bool = False,
        passphrase: str | None = None,
        job: Job | None = None,
    ) -> ImportReport:
        """Take the windows of an archive into this home, in a lineage of their own.

        Everything is checked before anything is kept, and then there are all windows or none.

        Parameters
        ----------
        path
            The archive.
        as_name
            The window's name; of several, what goes before their names, and a dash.
        recompute
            Compute the states anew from the tokens, on the running engine.
        trust
            Trust the signer, now and from now on.
        accept_untrusted
            Keep the archive's KV this once. Of others than trusted signers it is else computed
            anew: nobody sees in KV what it makes the model say.
        passphrase
            Opens an encrypted archive.
        job
            Told of the stages; may be cancelled.

        Raises
        ------
        ArchiveError
            The file is damaged, was changed, or says what cannot be.
        SchemaError
            A newer release wrote it.
        DecryptError
            The passphrase does not open it.
        WindowExistsError
            A name is taken.
        StackDownError
            Something is to be computed, and no stack is running.
        EngineMismatchError
            It cannot be computed by the running engine.
        """
        with self._parts.audit.entry("import", file=path.name) as entry:
            with anyio.CancelScope(shield=True):  # so that it is closed
                reader = await to_thread.run_sync(Reader, path, passphrase)
            with reader:
                work = Import(
                    self._parts, self._signers, reader, path, job or Job(f"import {path.name}")
                )
                report = await work.run(
                    wanted=as_name,
                    recompute=recompute,
                    trust=trust,
                    accept_untrusted=accept_untrusted,
                )
            entry.names["window"] = [one.window.name for one in report.windows]
            entry.names["signer"] = report.signer.fingerprint
            entry.size_bytes = report.size_bytes
        return report

    async def signers(self) -> SignerList:
        """Return whom this home trusts, its own key first."""
        return SignerList(signers=await to_thread.run_sync(self._signers.all))

    async def trust(self, public: str, name: str = "") -> Signer:
        """Trust a signer from now on, by its public key in hex."""
        with self._parts.audit.entry("trust") as entry:
            signer = await to_thread.run_sync(self._signers.add, public, name)
            entry.names["signer"] = signer.fingerprint
        return signer

    async def distrust(self, which: str) -> Signer:
        """Trust a signer no longer: its fingerprint, key or name."""
        with self._parts.audit.entry("distrust", signer=which) as entry:
            signer = await to_thread.run_sync(self._signers.remove, which)
            entry.names["signer"] = signer.fingerprint
        return signer

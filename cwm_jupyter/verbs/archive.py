"""Verbs of archives: export and import; trust under admin."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cwm_jupyter.errors import UsageError, ValidationError
from cwm_jupyter.verbs.base import FrontEnd, Verb, argument

if TYPE_CHECKING:
    from cwm_jupyter.core.archive.reports import (
        ExportReport,
        ImportReport,
        Signer,
        SignerList,
        TextReport,
    )
    from cwm_jupyter.workspace import Workspace

__all__ = ["ADMIN", "VERBS"]


def _export(
    workspace: Workspace, args: argparse.Namespace, front: FrontEnd
) -> ExportReport | TextReport:
    from cwm_jupyter.core.job import Job

    archives = workspace.manager.archives
    if args.text:
        if len(args.windows) > 1 or args.encrypt or args.passphrase_env:
            raise UsageError("--text writes one conversation, as it is: name one window.")
        return workspace.run(
            partial(archives.export_text, args.windows[0], args.file, force=args.force)
        )
    passphrase = None
    if args.encrypt or args.passphrase_env:
        passphrase = _passphrase(args, front, args.file, twice=True)
    with front.progress() as watch:
        return workspace.run(
            partial(
                archives.export,
                args.windows,
                args.file,
                passphrase=passphrase,
                force=args.force,
                job=Job(f"export {', '.join(args.windows)}", watch),
            )
        )


def _import(workspace: Workspace, args: argparse.Namespace, front: FrontEnd) -> ImportReport:
    from cwm_jupyter.core.archive.reader import is_encrypted
    from cwm_jupyter.core.job import Job

    passphrase = None
    if is_encrypted(args.file):
        passphrase = _passphrase(args, front, args.file, twice=False)
    with front.progress() as watch:
        return workspace.run(
            partial(
                workspace.manager.archives.import_file,
                args.file,
                as_name=args.as_name,
                recompute=args.recompute,
                trust=args.trust,
                accept_untrusted=args.accept_untrusted,
                passphrase=passphrase,
                job=Job(f"import {args.file.name}", watch),
            )
        )


def _passphrase(args: argparse.Namespace, front: FrontEnd, file: Path, *, twice: bool) -> str:
    """Return the passphrase: of the environment variable that was named, or asked for."""
    if args.passphrase_env:
        found = os.environ.get(args.passphrase_env, "")
        if not found:
            raise ValidationError(
                f"The environment variable {args.passphrase_env} holds no passphrase."
            )
        return found
    passphrase = front.secret(f"Passphrase of {file.name}: ")
    if twice and front.secret("Once more: ") != passphrase:
        raise ValidationError("These were two passphrases.", hint="Try again; nothing was written.")
    return passphrase


def _trusted(workspace: Workspace, _args: argparse.Namespace, _front: FrontEnd) -> SignerList:
    return workspace.run(workspace.manager.archives.signers)


def _trust(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> Signer:
    return workspace.run(partial(workspace.manager.archives.trust, args.key, args.name))


def _distrust(workspace: Workspace, args: argparse.Namespace, _front: FrontEnd) -> Signer:
    return workspace.run(workspace.manager.archives.distrust, args.signer)


_PASSPHRASE_ENV = argument(
    "--passphrase-env",
    metavar="VARIABLE",
    help="environment variable that holds the passphrase (default: it is asked for)",
)

VERBS = (
    Verb(
        "export",
        "write windows into one file, for another home; or a conversation as text",
        _export,
        [
            argument("windows", nargs="+", metavar="WINDOW", help="name of a window"),
            argument("file", type=Path, metavar="FILE", help="the file to write"),
            argument(
                "--text",
                action="store_true",
                help="only the conversation of one window; FILE ends with .md, .json or .ipynb",
            ),
            argument("--encrypt", action="store_true", help="encrypt it with a passphrase"),
            _PASSPHRASE_ENV,
            argument("--force", action="store_true", help="replace a file that is there"),
        ],
        ["paper paper.cwm", "paper draft all.cwm --encrypt", "--text paper paper.md"],
    ),
    Verb(
        "import",
        "take in the windows of a file that was exported",
        _import,
        [
            argument("file", type=Path, metavar="PATH", help="the file"),
            argument(
                "--as",
                dest="as_name",
                metavar="NAME",
                help="name of the window; of several, what goes before their names",
            ),
            argument("--trust", action="store_true", help="trust the signer, now and from now on"),
            argument(
                "--accept-untrusted",
                action="store_true",
                help="keep the KV of a signer who is not trusted, this once",
            ),
            argument(
                "--recompute",
                action="store_true",
                help="compute the states anew from their tokens, on the running engine",
            ),
            _PASSPHRASE_ENV,
        ],
        ["paper.cwm", "paper.cwm --as theirs --trust"],
    ),
)


def _below_trust(_workspace: Workspace, _args: argparse.Namespace, _front: FrontEnd) -> None:
    """Never runs: it has verbs below it."""


ADMIN = (
    Verb(
        "trust",
        "whose archives are imported as they are",
        _below_trust,
        verbs={
            verb.name: verb
            for verb in (
                Verb("list", "list the trusted signers, this home's own key first", _trusted),
                Verb(
                    "add",
                    "trust a signer from now on",
                    _trust,
                    [
                        argument("key", metavar="KEY", help="public key: 64 hexadecimal digits"),
                        argument("--name", default="", metavar="TEXT", help="whose it is"),
                    ],
                    ["8f1c…e2 --name Ada"],
                ),
                Verb(
                    "remove",
                    "trust a signer no longer",
                    _distrust,
                    [argument("signer", metavar="SIGNER", help="fingerprint, key or name")],
                    ["Ada"],
                ),
            )
        },
    ),
)

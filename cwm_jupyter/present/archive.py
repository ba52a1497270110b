"""How exports, imports and signers look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cwm_jupyter.core.archive.reports import (
    ExportReport,
    ImportedWindow,
    ImportReport,
    Signer,
    SignerList,
    TextReport,
)
from cwm_jupyter.layout import Block, Line, Table
from cwm_jupyter.present.phrases import many
from cwm_jupyter.units import age, count, megabytes, nats, seconds

__all__ = ["FORMS"]


def _export(report: ExportReport) -> list[Block]:
    sealed = "encrypted" if report.encrypted else "not encrypted: who has the file can read it"
    return [
        Line(
            f"Exported {', '.join(report.windows)} to {report.file}: "
            f"{many(report.contents, 'content')}, {megabytes(report.size_bytes)}, {sealed}; "
            f"{seconds(report.export_s)}"
        ),
        Line(f"Signed by {report.signer.fingerprint}: tell it to those who import it.", faint=True),
    ]


def _text(report: TextReport) -> list[Block]:
    return [
        Line(
            f"Wrote {many(report.messages, 'message')} of {report.window} to {report.file} "
            f"({megabytes(report.size_bytes)})"
        )
    ]


def _import(report: ImportReport) -> list[Block]:
    names = ", ".join(one.window.name for one in report.windows)
    tokens = sum(one.window.tokens for one in report.windows)
    size = sum(one.window.size_bytes or 0 for one in report.windows)
    blocks: list[Block] = [
        Line(
            f"Imported {names}: {count(tokens)} tokens, {megabytes(size)} of KV, "
            f"{_source(report)}; {seconds(report.import_s)}"
        ),
        _signed(report.signer),
    ]
    if report.recomputed == "untrusted":
        blocks.append(
            Line(
                "Its KV was not used: nobody sees in it what it makes the model say. "
                "To keep that of this signer, import with --trust."
            )
        )
    if report.recomputed is not None:
        blocks += [Line(_compared(one)) for one in report.windows if one.probe is not None]
        blocks += [_seen(one) for one in report.windows if not one.as_shown]
    elif report.differences:
        blocks.append(
            Line(
                "The running engine is another one, so thaw may refuse: "
                + "; ".join(report.differences)
            )
        )
    return blocks


def _source(report: ImportReport) -> str:
    if report.recomputed is None:
        return "all checked and verified on disk"
    return "computed anew from the tokens"


def _compared(one: ImportedWindow) -> str:
    assert one.probe is not None  # noqa: S101
    difference = nats(one.probe.max_abs_logprob_diff)
    if one.probe.passed:
        return f"{one.window.name}: the next token is as it was in the archive, within {difference}"
    return f"{one.window.name}: the likeliest next tokens are not those of the archive"


def _seen(one: ImportedWindow) -> Line:
    if one.as_shown is None:
        said = "its messages COULD NOT BE COMPARED with what the model sees"
    else:
        said = "THE MODEL SEES OTHER WORDS than the messages show"
    return Line(f"{one.window.name}: {said}", loud=True)


def _signed(signer: Signer) -> Line:
    who = f" ({signer.name})" if signer.name else ""
    if signer.trusted:
        return Line(f"Signed by {signer.fingerprint}{who}, whom you trust.")
    return Line(f"Signed by {signer.fingerprint}, whom you do NOT trust.", loud=True)


def _signer(signer: Signer) -> list[Block]:
    whose = f" ({signer.name})" if signer.name else ""
    trusted = "trusted from now on" if signer.trusted else "trusted no longer"
    return [Line(f"{signer.fingerprint}{whose} is {trusted}.")]


def _signers(listed: SignerList) -> list[Block]:
    if not listed.signers:
        return [Line("No signer is trusted, and nothing was exported from here yet.")]
    rows = [
        (one.fingerprint, one.name, age(one.added_at) if one.added_at else "", one.public)
        for one in listed.signers
    ]
    return [Table(("FINGERPRINT", "NAME", "ADDED", "KEY"), rows)]


#: by type, for `cwm_jupyter.present.blocks`
FORMS: dict[type, Callable[[Any], list[Block]]] = {
    ExportReport: _export,
    TextReport: _text,
    ImportReport: _import,
    Signer: _signer,
    SignerList: _signers,
}

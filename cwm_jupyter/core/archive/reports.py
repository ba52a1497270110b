"""What exports and imports report, and who signed."""

from __future__ import annotations

from typing import Literal

from cwm_jupyter.core.models import ProbeResult, Value, Window

__all__ = ["ExportReport", "ImportReport", "ImportedWindow", "Signer", "SignerList", "TextReport"]


class Signer(Value, frozen=True, kw_only=True):
    """Who signs archives: a public key (hex), its fingerprint, and what the user calls its owner.

    `added_at` is null for the own key and for one that is not in the list of trusted ones.
    """

    fingerprint: str
    public: str
    name: str
    added_at: str | None
    trusted: bool


class SignerList(Value, frozen=True, kw_only=True):
    """Whom a home trusts, its own key first where it has one."""

    signers: list[Signer]


class ExportReport(Value, frozen=True, kw_only=True):
    """What an export wrote.

    `size_bytes` is the file's size; `content_bytes` of it are KV, each content once.
    """

    file: str
    windows: list[str]
    contents: int
    content_bytes: int
    size_bytes: int
    encrypted: bool
    signer: Signer
    export_s: float


class TextReport(Value, frozen=True, kw_only=True):
    """What an export of a conversation as text wrote."""

    file: str
    window: str
    messages: int
    size_bytes: int


class ImportedWindow(Value, frozen=True, kw_only=True):
    """One window that was imported: what it was called in the archive, and when it was frozen.

    Where the state was computed anew, `probe` is held against the archive's, and `as_shown` is
    whether the tokens, which the model sees, say what the messages show; null: they could not be
    compared.
    """

    window: Window
    archived_name: str
    frozen_at: str
    probe: ProbeResult | None
    as_shown: bool | None


class ImportReport(Value, frozen=True, kw_only=True):
    """What an import did.

    `recomputed` says why the states were computed anew from their tokens: ``asked``, or the signer
    is ``untrusted``; null: the archive's contents were kept. `differences` are those between the
    archive's engines and the running one, null where none runs.
    """

    file: str
    windows: list[ImportedWindow]
    sessions: list[str]
    signer: Signer
    encrypted: bool
    recomputed: Literal["asked", "untrusted"] | None
    differences: list[str] | None
    size_bytes: int
    import_s: float
    stages_s: dict[str, float]

"""Compare two windows: where their transcripts part, what they share, how their engines differ."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from cwm_jupyter.core import fingerprint
from cwm_jupyter.core.library import Manifest
from cwm_jupyter.core.models import Message, Value, Window
from cwm_jupyter.units import total

__all__ = ["Comparison", "EngineDifference", "Parting", "compare"]

#: characters of an excerpt, and how many of them are shown before the texts part
_EXCERPT = 160
_BEFORE = 32


class Parting(Value, frozen=True, kw_only=True):
    """The first message that is not the same.

    `message` counts from 1, `character` from 0: where the two texts part. The excerpts begin a
    little before that; they, and the roles, are null where a window has no such message.
    """

    message: int
    character: int
    role_a: str | None
    role_b: str | None
    excerpt_a: str | None
    excerpt_b: str | None


class EngineDifference(Value, frozen=True, kw_only=True):
    """A field of the fingerprint that is not the same, or, of the layout, not known."""

    field: str
    kind: str
    a: str | int | float | bool | None
    b: str | int | float | bool | None


class Comparison(Value, frozen=True, kw_only=True):
    """Two windows, held against each other.

    What is ``common`` is so from the very start. `common_chunks` are whole chunks of tokens, null
    where the two have chunks of other sizes. Bytes are those of the KV, decoded: `shared_bytes` are
    of contents that both have, also across lineages, since equal content is stored once; they are
    null where sizes are unknown. `equal` is whether the tokens are the same to the last.
    """

    a: str
    b: str
    equal: bool
    tokens_a: int
    tokens_b: int
    common_tokens: int
    turns_a: int
    turns_b: int
    common_turns: int
    messages_a: int
    messages_b: int
    common_messages: int
    parting: Parting | None
    common_chunks: int | None
    shared_bytes: int | None
    only_a_bytes: int | None
    only_b_bytes: int | None
    differences: list[EngineDifference]


def compare(one: tuple[Window, Manifest], other: tuple[Window, Manifest]) -> Comparison:
    """Compare two windows by their entries and manifests."""
    (a, manifest_a), (b, manifest_b) = one, other
    said_a, said_b = manifest_a.transcript, manifest_b.transcript
    tokens = _common(said_a.token_ids, said_b.token_ids)
    messages = _common(said_a.messages, said_b.messages)
    ends = zip(said_a.turns, said_b.turns, strict=False)
    contents_a, contents_b = _contents(a, manifest_a), _contents(b, manifest_b)
    shared = contents_a.keys() & contents_b.keys()
    return Comparison(
        a=a.known_as,
        b=b.known_as,
        equal=said_a.token_ids == said_b.token_ids,
        tokens_a=len(said_a.token_ids),
        tokens_b=len(said_b.token_ids),
        common_tokens=tokens,
        turns_a=len(said_a.turns),
        turns_b=len(said_b.turns),
        common_turns=sum(x.end == y.end <= tokens for x, y in ends),
        messages_a=len(said_a.messages),
        messages_b=len(said_b.messages),
        common_messages=messages,
        parting=_parting(said_a.messages, said_b.messages, messages),
        common_chunks=tokens // a.chunk_tokens if a.chunk_tokens == b.chunk_tokens else None,
        shared_bytes=total(contents_a[one] for one in shared),
        only_a_bytes=total(contents_a[one] for one in contents_a.keys() - shared),
        only_b_bytes=total(contents_b[one] for one in contents_b.keys() - shared),
        differences=[
            EngineDifference(field=d.field, kind=d.kind, a=d.frozen, b=d.engine)
            for d in fingerprint.compare(manifest_a.fingerprint, manifest_b.fingerprint)
        ],
    )


def _common(a: Sequence[object], b: Sequence[object]) -> int:
    """Return how long the common beginning of two sequences is."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _parting(a: Sequence[Message], b: Sequence[Message], at: int) -> Parting | None:
    if at == len(a) == len(b):
        return None
    first, second = a[at] if at < len(a) else None, b[at] if at < len(b) else None
    character = _common(first.content, second.content) if first and second else 0
    return Parting(
        message=at + 1,
        character=character,
        role_a=first.role if first else None,
        role_b=second.role if second else None,
        excerpt_a=_excerpt(first.content, character) if first else None,
        excerpt_b=_excerpt(second.content, character) if second else None,
    )


def _excerpt(text: str, character: int) -> str:
    start = character - _BEFORE if character > _BEFORE else 0
    end = start + _EXCERPT
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


def _contents(window: Window, manifest: Manifest) -> dict[Hashable, int | None]:
    """Return the sizes of a window's contents, each once.

    A remote store does not tell the digests: there a chunk is the same if its key is, which is so
    within a lineage and a layout.
    """
    layout = tuple(sorted(manifest.fingerprint.layout.items()))
    return {
        ref.digest or (window.lineage_id, layout, i, ref.chunk_hash): ref.size_bytes
        for i, ref in enumerate(manifest.refs)
    }

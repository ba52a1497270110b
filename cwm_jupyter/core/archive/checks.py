"""What a window in an archive must be like, checked before anything of it is kept.

An archive may come from anybody. Its signature says only who wrote it; so everything that is used
later is checked here: names, numbers, and that tokens, turns, chunks and contents fit each other.
An export checks its own archive too: what could not be imported is not exported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from cwm_jupyter.core.archive.format import DAMAGED, Catalogue, Details, Entry
from cwm_jupyter.core.chunks import chunk_hashes, usable_chunks
from cwm_jupyter.core.fingerprint import LAYOUT_FIELDS, NUMERIC_FIELDS
from cwm_jupyter.core.models import Fingerprint, Message, Probe, Turn
from cwm_jupyter.core.names import check_name, check_tag, name_key
from cwm_jupyter.errors import ArchiveError, ValidationError

__all__ = ["MAX_CONTENT_BYTES", "MAX_DETAILS_BYTES", "check_catalogue", "check_details"]

#: a chunk, and the details of a window, are the largest things that are in memory at once
MAX_CONTENT_BYTES = 1 << 30
MAX_DETAILS_BYTES = 64 << 20

_MAX_TOKEN = (1 << 32) - 1  # chunk hashes take 32 bits of each
#: as in the settings: the smaller the chunks, the more of them
_MIN_CHUNK_TOKENS = 16
_MAX_RANKS = 64
#: what all windows may list together, one a chunk and rank: each takes memory, and a place on disk
_MAX_LISTED = 2_000_000
_MAX_TAGS = 1000
_MAX_PROBE = 1000
_MAX_TEXT = 512
_MAX_ROLE = 64
_MAX_FIGURE = 1 << 62
#: bytes of one number of the KV, by its type; of other types nothing is known
_ELEMENT_BYTES = {"bfloat16": 2, "float16": 2, "half": 2, "float32": 4, "float": 4}
#: what no name of a model has, and some file systems would obey
_REFUSED = frozenset('\\@:*?"<>|')


def check_catalogue(catalogue: Catalogue) -> None:
    """Check all that the catalogue says.

    Raises
    ------
    ArchiveError
        Something in it cannot be.
    """
    seen: set[str] = set()
    lineages: dict[int, int] = {}
    for position, entry in enumerate(catalogue.windows):
        where = f"window {position + 1}"
        _check_names(entry, where)
        key = name_key(entry.name)
        _require(key not in seen, where, f"{entry.name!r} is there twice")
        seen.add(key)
        before = entry.parent is None or entry.parent < position
        _require(before, where, "it comes before its parent")
        _require(
            lineages.setdefault(entry.session, entry.lineage) == entry.lineage,
            where,
            "its session is of two lineages",
        )
        _check_time(entry.created_at, where)
        _require(entry.chunk_tokens >= _MIN_CHUNK_TOKENS, where, "its chunks are too small")
        _require(0 < entry.ranks <= _MAX_RANKS, where, f"its chunks have {entry.ranks} parts")
        usable = usable_chunks(entry.tokens, entry.chunk_tokens)
        _require(entry.tokens > 0, where, "it has no tokens")
        _require(entry.chunks <= usable, where, f"{entry.tokens} tokens have no {entry.chunks}")
        _require(entry.details.size_bytes <= MAX_DETAILS_BYTES, where, "its details are too long")
    listed = sum(entry.chunks * entry.ranks for entry in catalogue.windows)
    _require(listed <= _MAX_LISTED, "catalogue", f"its windows have {listed:,} parts of chunks")
    _check_time(catalogue.created_at, "catalogue")
    for position, part in enumerate(catalogue.contents):
        fits = 0 < part.size_bytes <= MAX_CONTENT_BYTES
        _require(fits, f"content {position + 1}", f"it has {part.size_bytes:,} bytes")


def check_details(entry: Entry, details: Details, sizes: Sequence[int]) -> None:
    """Check all that belongs to one window, and that it fits.

    Parameters
    ----------
    entry
        The window in the catalogue, checked.
    details
        The rest of it.
    sizes
        Of all contents, in bytes.

    Raises
    ------
    ArchiveError
        Something in it cannot be.
    """
    where = f"window {entry.name!r}"
    transcript = details.transcript
    tokens = transcript.token_ids
    _require(len(tokens) == entry.tokens, where, "its tokens are not as many as it says")
    _require(len(transcript.turns) == entry.turns, where, "its turns are not as many as it says")
    _require(all(0 <= t <= _MAX_TOKEN for t in tokens), where, "a token is out of range")
    _check_turns(transcript.turns, len(tokens), where)
    _check_messages(transcript.messages, len(transcript.turns), where)
    _check_fingerprint(details.fingerprint, entry, where)
    _check_probe(details.probe, len(tokens), where)
    covered = tokens[: entry.chunks * entry.chunk_tokens]
    hashes = [one.hex() for one in chunk_hashes(covered, entry.chunk_tokens)]
    _require(hashes == details.chunk_hashes, where, "its chunks are not those of its tokens")
    own = len(details.recomputed) <= len(hashes) and set(details.recomputed) <= set(hashes)
    _require(own, where, "a recomputed chunk is not its own")
    _check_contents(entry, details, sizes, where)


def _check_names(entry: Entry, where: str) -> None:
    try:
        check_name(entry.name)
        for tag in entry.tags:
            check_tag(tag)
    except ValidationError as error:
        raise ArchiveError(f"The archive's {where}: {error.message}", hint=DAMAGED) from None
    _require(len(entry.tags) <= _MAX_TAGS, where, "it has too many tags")
    _require(entry.model.isprintable(), where, "its model's name cannot be shown")


def _check_time(time: str, where: str) -> None:
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        moment = None
    _require(moment is not None and moment.tzinfo is not None, where, "its time is none")


def _check_turns(turns: Sequence[Turn], tokens: int, where: str) -> None:
    """Turns follow each other without gap or overlap, from the first token to the last."""
    _require(bool(turns), where, "it has no turn")
    _require(
        [t.number for t in turns] == list(range(1, len(turns) + 1)), where, "turns are missing"
    )
    ordered = all(0 <= t.start <= t.prompt_end <= t.end for t in turns)
    joined = all(before.end == after.start for before, after in pairwise(turns))
    whole = turns[0].start == 0 and turns[-1].end == tokens
    _require(ordered and joined and whole, where, "its turns do not cover its tokens")
    for turn in turns:
        _check_time(turn.created_at, where)
        figures = (turn.total_s, turn.ttft_s or 0.0, turn.cached_tokens or 0)
        _require(all(0 <= f < _MAX_FIGURE for f in figures), where, "a turn's figures cannot be")


def _check_messages(messages: Sequence[Message], turns: int, where: str) -> None:
    """Each turn is a question and its answer; what was given at the start is before all of them."""
    for message in messages:
        fits = message.role.isidentifier() and len(message.role) <= _MAX_ROLE
        _require(fits, where, "a message's role is none")
    roles = [message.role for message in messages[-2 * turns :]]
    _require(roles == ["user", "assistant"] * turns, where, "its messages do not fit its turns")


def _check_fingerprint(found: Fingerprint, entry: Entry, where: str) -> None:
    layout, numeric = found.layout, found.numeric
    known = layout.keys() <= set(LAYOUT_FIELDS) and numeric.keys() <= set(NUMERIC_FIELDS)
    _require(known, where, "its fingerprint has fields that no engine has")
    for value in (*layout.values(), *numeric.values()):
        short = not isinstance(value, str) or (len(value) <= _MAX_TEXT and value.isprintable())
        finite = not isinstance(value, int | float) or abs(value) < _MAX_FIGURE
        _require(short and finite, where, "its fingerprint has a value that no engine has")
    model = layout.get("kv_model_name")
    fits = isinstance(model, str) and model != "" and not _REFUSED & set(model)
    _require(fits, where, "its fingerprint has no name of a model")
    tokens = layout.get("chunk_tokens")
    _require(tokens in (None, entry.chunk_tokens), where, "its fingerprint has other chunks")
    _require(layout.get("hash_algorithm") in (None, "blake3"), where, "its hashes are not blake3")


def _check_probe(probe: Probe, tokens: int, where: str) -> None:
    # Where the context ends with a chunk it is taken one token before the end.
    at_end = 0 < probe.position_tokens in (tokens, tokens - 1)
    _require(at_end, where, "its probe is of elsewhere")
    ids, logprobs = probe.token_ids, probe.logprobs
    _require(0 < len(ids) == len(logprobs) <= _MAX_PROBE, where, "its probe is not whole")
    _require(len(set(ids)) == len(ids), where, "its probe has a token twice")
    fits = all(0 <= t <= _MAX_TOKEN for t in ids) and all(map(math.isfinite, logprobs))
    _require(fits, where, "its probe has figures that cannot be")


def _check_contents(entry: Entry, details: Details, sizes: Sequence[int], where: str) -> None:
    contents = details.contents
    count = entry.chunks * entry.ranks
    _require(len(contents) == count, where, f"it has {len(contents)} contents, not {count}")
    _require(all(one < len(sizes) for one in contents), where, "a content is not there")
    lengths = {sizes[one] for one in contents}
    _require(len(lengths) <= 1, where, "its chunks are of different sizes")
    layout = details.fingerprint.layout
    kind = layout.get("kv_cache_dtype")
    kind = layout.get("dtype") if kind in (None, "auto") else kind
    element = _ELEMENT_BYTES.get(str(kind), 1)
    whole = all(length % (entry.chunk_tokens * element) == 0 for length in lengths)
    _require(whole, where, "the size of its chunks does not fit its engine")


def _require(fulfilled: bool, where: str, otherwise: str) -> None:
    if not fulfilled:
        raise ArchiveError(f"The archive's {where}: {otherwise}.", hint=DAMAGED)

"""The probe: a one-token request at a window's end, noted at freeze and compared at thaw.

It is the check from end to end: whatever was restored, the engine must see it as it was. Equal to
the bit where the same engine takes the same chunks from cache, since then it computes the same
tail in the same shape; within a tolerance where something was computed again or another engine was
accepted.

Where the context ends with a chunk, the probe is taken one token before its end. The engine would
take that chunk too where a cache has it, all but its last token, and whether one has it changes:
the first request of the whole context stores it.
"""

from __future__ import annotations

from collections.abc import Sequence

from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.models import Probe, ProbeResult

__all__ = ["ask", "compare"]


async def ask(
    stack: ConnectedStack,
    token_ids: Sequence[int],
    salt: str,
    *,
    top: int,
    position_tokens: int | None = None,
) -> tuple[Probe, int | None]:
    """Ask the engine for the likeliest next tokens.

    Parameters
    ----------
    stack
        The running stack.
    token_ids
        The whole context.
    salt
        Of its lineage.
    top
        How many tokens to note.
    position_tokens
        After how many tokens to ask, as was noted; None: at the end, see above.

    Returns
    -------
    tuple
        The probe, and the tokens that the engine reports as taken from cache (None: unavailable).
    """
    if position_tokens is None:
        at_chunk_end = len(token_ids) % stack.chunk_tokens == 0
        position_tokens = len(token_ids) - at_chunk_end
    context = token_ids[:position_tokens]
    completion = await stack.engine.complete(
        context, cache_salt=salt, max_tokens=1, top_logprobs=top
    )
    likeliest = sorted(completion.top[0].items(), key=lambda item: (-item[1], item[0]))
    probe = Probe(
        position_tokens=len(context),
        token_ids=[token for token, _ in likeliest],
        logprobs=[logprob for _, logprob in likeliest],
    )
    return probe, completion.cached_tokens


def compare(noted: Probe, measured: Probe, *, tolerance: float) -> ProbeResult:
    """Hold a probe against the noted one.

    With tolerance 0 the tokens, their order and every log-probability must be equal. Otherwise
    each side's likeliest token must be among the other's, and no token that both name may differ
    by more than the tolerance (nats).
    """
    old = dict(zip(noted.token_ids, noted.logprobs, strict=True))
    new = dict(zip(measured.token_ids, measured.logprobs, strict=True))
    common = old.keys() & new.keys()
    difference = max((abs(old[token] - new[token]) for token in common), default=None)
    if tolerance == 0 or noted.position_tokens != measured.position_tokens:
        passed = noted == measured
    else:
        passed = (
            noted.token_ids[0] in new
            and measured.token_ids[0] in old
            and difference is not None
            and difference <= tolerance
        )
    return ProbeResult(
        passed=passed, max_abs_logprob_diff=difference, tolerance=tolerance, repeated=False
    )

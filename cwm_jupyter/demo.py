"""The demo: one conversation frozen, everything stopped, started again and thawed, measured.

A prompt of real text (Python's own library, which every machine has) and a question; freeze; then
the same fixed request twice, live before the servers are stopped and again after the thaw. Tokens
and log-probabilities must be equal to the bit. Last the window's prompt under a fresh lineage, for
the time that computing it takes.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from typing import Any

from cwm_jupyter._version import __version__
from cwm_jupyter.core.connection import ConnectedStack
from cwm_jupyter.core.job import Job, JobState
from cwm_jupyter.core.models import FreezeReport, ThawReport, Value
from cwm_jupyter.core.transcript import render_turn
from cwm_jupyter.errors import ProbeError, ValidationError
from cwm_jupyter.present import megabytes, seconds, text
from cwm_jupyter.sample import Continuation, continuation, real_text
from cwm_jupyter.stack import launcher
from cwm_jupyter.workspace import Workspace

__all__ = ["DemoResult", "add_arguments", "run_demo"]

_NAME = "demo"
_QUESTION = "Which module is this, and what is it for? Answer in two sentences."
_NEXT_QUESTION = "Name one function that is defined in it and say what it does."
_NEXT_TOKENS = 48
#: room for the question, its answer and the next request
_ROOM_TOKENS = 512


class DemoResult(Value, frozen=True, kw_only=True):
    """What the demo measured; seconds to the first token unless the name says otherwise."""

    prompt_tokens: int
    cold_ttft_s: float
    live_ttft_s: float
    restore_s: float
    next_ttft_s: float
    expected_cached_tokens: int
    thaw_cached_tokens: int | None
    identical_tokens: bool
    max_abs_logprob_diff: float
    probe_passed: bool
    freeze_commit_s: float
    freeze_probe_s: float
    window_bytes: int | None
    model: str
    versions: dict[str, str]

    @property
    def exact(self) -> bool:
        """Whether the thawed conversation went on as the live one, to the bit."""
        return self.identical_tokens and self.max_abs_logprob_diff == 0

    @property
    def speedup(self) -> float:
        """How many times sooner the thaw is than computing the prompt."""
        return self.cold_ttft_s / self.restore_s


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the demo's options."""
    parser.add_argument(
        "--tokens",
        type=int,
        default=6000,
        metavar="N",
        help="length of the text that the question is about, in tokens (default: 6000)",
    )


def run_demo(
    workspace: Workspace,
    args: argparse.Namespace,
    *,
    job_watch: Callable[[JobState], None] | None = None,
) -> DemoResult:
    """Run the demo; it restarts the local stack and leaves the window ``demo``.

    Raises
    ------
    ValidationError
        The text does not fit into the model's context.
    ProbeError
        The thawed conversation did not continue as the live one.
    """
    job = Job("demo", job_watch)
    settings = workspace.settings
    launcher.up(settings, job)
    job.stage("ask and freeze")
    frozen, live = workspace.run(_ask_and_freeze, workspace, args.tokens)
    launcher.down(settings, job)
    launcher.up(settings, job)
    job.stage("thaw and compare")
    result = workspace.run(_thaw_and_compare, workspace, frozen, live)
    job.finish()
    if not (result.exact and result.thaw_cached_tokens == result.expected_cached_tokens):
        raise ProbeError(
            f"The thawed conversation took {result.thaw_cached_tokens} of "
            f"{result.expected_cached_tokens} tokens from cache and went on differently: by up to "
            f"{result.max_abs_logprob_diff:.3g} nats.",
            hint="Run it again with nothing else running; see cwm doctor and cwm logs.",
            result=result.to_dict(),
        )
    return result


async def _ask_and_freeze(workspace: Workspace, tokens: int) -> tuple[FreezeReport, Continuation]:
    manager = workspace.manager
    for leftover in [s for s in (await manager.sessions()).items if s.name.startswith(_NAME)]:
        await manager.remove_session(leftover.id)
    for leftover in [w for w in (await manager.windows()).items if w.name == _NAME]:
        await manager.remove_window(leftover.id)
    stack = await workspace.connect()
    source = await _text(stack, tokens)
    session = await manager.create_session(_NAME)
    await manager.say(session.name, f"{source}\n\n{_QUESTION}", max_tokens=64)
    report = await manager.freeze(_NAME, session.name, note="Made by cwm demo.")
    return report, await _continue(workspace, session.name)


async def _thaw_and_compare(
    workspace: Workspace, frozen: FreezeReport, live: Continuation
) -> DemoResult:
    manager = workspace.manager
    await _drop_beyond(workspace, frozen, live)
    thawed = await manager.thaw(_NAME, as_session=f"{_NAME}-thawed")
    again = await _continue(workspace, thawed.session)
    stack = await workspace.connect()
    facts = (await stack.facts()).fingerprint.numeric
    return DemoResult(
        prompt_tokens=frozen.window.tokens,
        cold_ttft_s=await _cold(workspace, stack, thawed),
        live_ttft_s=live.ttft_s,
        restore_s=thawed.restore_s,
        next_ttft_s=again.ttft_s,
        expected_cached_tokens=thawed.expected_cached_tokens,
        thaw_cached_tokens=thawed.cached_tokens,
        identical_tokens=live.token_ids == again.token_ids,
        max_abs_logprob_diff=max(
            abs(a - b) for a, b in zip(live.logprobs, again.logprobs, strict=True)
        ),
        probe_passed=thawed.probe is not None and thawed.probe.passed,
        freeze_commit_s=frozen.commit_s,
        freeze_probe_s=frozen.probe_s,
        window_bytes=frozen.window.size_bytes,
        model=frozen.window.model,
        versions={
            "cwm-jupyter": __version__,
            "vllm": str(facts.get("vllm_version")),
            "lmcache": str(facts.get("lmcache_version")),
            "torch": str(facts.get("torch_version")),
            "python": platform.python_version(),
        },
    )


async def _drop_beyond(workspace: Workspace, frozen: FreezeReport, live: Continuation) -> None:
    """Delete what the live continuation left in the store beyond the window.

    The same request would find it there, compute less at once, and so round otherwise.
    """
    stack, library = await workspace.connect(), workspace.library
    transcript = library.manifest(frozen.window).transcript
    fingerprint = (await stack.facts()).fingerprint
    salt = library.lineages.salt(frozen.window.lineage_id, fingerprint)
    question = await render_turn(stack.engine, transcript, _NEXT_QUESTION)
    keys = stack.keys([*transcript.token_ids, *question, *live.token_ids], salt)
    beyond = keys[frozen.window.chunks * stack.world_size :]
    if beyond:
        await stack.keeper().drop(beyond, tier="all")


async def _text(stack: ConnectedStack, tokens: int) -> str:
    """Return real text with about `tokens` tokens.

    Raises
    ------
    ValidationError
        The model's context has no room for it, the question and the answers.
    """
    limit = (await stack.facts()).max_context_tokens
    if tokens < 1 or (limit is not None and tokens + _ROOM_TOKENS > limit):
        raise ValidationError(
            f"--tokens must be from 1 to {(limit or 0) - _ROOM_TOKENS:,} for this model, "
            f"not {tokens:,}."
        )
    return await real_text(stack, tokens)


async def _continue(workspace: Workspace, session: str) -> Continuation:
    """Send the fixed request, unrecorded, and note what came and when."""
    stack = await workspace.connect()
    found = await workspace.manager.session(session)
    transcript = workspace.library.transcript(found)
    salt = workspace.library.lineages.salt(found.lineage_id, (await stack.facts()).fingerprint)
    prompt = [*transcript.token_ids, *await render_turn(stack.engine, transcript, _NEXT_QUESTION)]
    return await continuation(stack, prompt, salt, _NEXT_TOKENS)


async def _cold(workspace: Workspace, stack: ConnectedStack, thawed: ThawReport) -> float:
    """Return the time to the first token of the window's prompt in a fresh lineage."""
    session = await workspace.manager.session(thawed.session)
    lineage = workspace.library.lineages.create()
    salt = workspace.library.lineages.salt(lineage, (await stack.facts()).fingerprint)
    prompt = workspace.library.transcript(session).token_ids
    return (await continuation(stack, prompt, salt, 1)).ttft_s


@text.register
def _(result: DemoResult) -> str:
    cached = "unavailable" if result.thaw_cached_tokens is None else result.thaw_cached_tokens
    rows: list[tuple[str, Any]] = [
        ("context", f"{result.prompt_tokens:,} tokens, {megabytes(result.window_bytes)}"),
        ("from cache after the restart", f"{cached:,} of {result.expected_cached_tokens:,} tokens"),
        (
            f"the next {_NEXT_TOKENS} tokens",
            "the same, every log-probability equal to the bit"
            if result.exact
            else f"DIFFERENT: log-probabilities by up to {result.max_abs_logprob_diff:.3g}",
        ),
        ("probe", "passed" if result.probe_passed else "FAILED"),
        (
            "freeze",
            f"{seconds(result.freeze_commit_s)} and {seconds(result.freeze_probe_s)} for the probe",
        ),
    ]
    bars = [
        ("computing it", result.cold_ttft_s),
        ("thaw", result.restore_s),
        ("next answer's first token", result.next_ttft_s),
        ("the same without a restart", result.live_ttft_s),
    ]
    width = max(len(label) for label, _ in [*rows, *bars])
    longest = max(value for _, value in bars)
    lines = [f"{label:<{width}}  {value}" for label, value in rows]
    lines += ["", *(f"{n:<{width}}  {_bar(v / longest)} {seconds(v)}" for n, v in bars)]
    lines += ["", f"The thaw was {result.speedup:.0f} times sooner than computing the context."]
    return "\n".join(lines)


def _bar(share: float, width: int = 40) -> str:
    """Return a bar of block characters, to an eighth of a character."""
    eighths = max(1, round(share * width * 8))
    return "█" * (eighths // 8) + ("" if eighths % 8 == 0 else "▏▎▍▌▋▊▉"[eighths % 8 - 1])

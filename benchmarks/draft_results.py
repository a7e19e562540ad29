"""What a teacher accepts of its draft, what that gains on this machine, and that no reply changes."""

import math

from pydantic import BaseModel, ConfigDict

from benchmarks.draft_speed import DraftComparison, PairedReply
from core.intervals import IntervalEstimate, estimate_small_mean
from flows.terminal.text_format import format_count, format_one_line, format_percent

MOST_DIFFERENCES = 3
FASTER, SLOWER, UNCLEAR = "faster", "slower", "no certain difference"


class DifferentReply(BaseModel):
    """A request that the teacher answered otherwise with the draft."""

    model_config = ConfigDict(frozen=True)

    request: str
    plain: str
    drafted: str


class DraftResult(BaseModel):
    """The student as the draft of its teacher, with greedy replies in a single conversation."""

    model_config = ConfigDict(frozen=True)

    requests: int
    draft_tokens: int
    """Tokens of a proposal."""
    verifications: int
    """Batches in which the teacher judged a proposal."""
    acceptance: float
    """The share of proposed tokens that the teacher accepted."""
    tokens_per_verification: float
    """Accepted tokens, and the one that the teacher adds."""
    plain_seconds: float
    """Of reading and answering all requests without the draft."""
    drafted_seconds: float
    speedup: IntervalEstimate | None
    """Seconds without over seconds with the draft: geometric mean over the requests, with Student's t interval, 95 %."""
    step_seconds: dict[int, float]
    """Seconds of a batch of that number of tokens."""
    verification_cost: float | None
    """Seconds of a verification, drafting included, in those of a token without a draft; None without a verification."""
    break_even: float | None
    """The acceptance at which the draft neither gains nor costs time. Above 1: it cannot gain here."""
    different: int
    """Replies that are not identical with and without the draft: must be 0."""
    differences: list[DifferentReply] = []
    """The first of them."""

    @property
    def conclusion(self) -> str:
        if self.speedup is None or self.speedup.low <= 1 <= self.speedup.high:
            return UNCLEAR
        return FASTER if self.speedup.value > 1 else SLOWER


def build_draft_result(
    comparison: DraftComparison, requests: list[str], draft_tokens: int, steps: dict[int, float]
) -> DraftResult:
    """The result of replies to `requests`."""
    replies, counts = comparison
    different = [(request, pair) for request, pair in zip(requests, replies, strict=True) if not pair.is_identical]
    logs = estimate_small_mean([math.log(pair.plain.seconds / pair.drafted.seconds) for pair in replies])
    cost = _measure_verification_cost(comparison)
    return DraftResult(
        requests=len(replies),
        draft_tokens=draft_tokens,
        verifications=counts.verifications,
        acceptance=counts.acceptance,
        tokens_per_verification=counts.tokens_per_verification,
        plain_seconds=sum(pair.plain.seconds for pair in replies),
        drafted_seconds=sum(pair.drafted.seconds for pair in replies),
        speedup=logs and IntervalEstimate(value=math.exp(logs.value), low=math.exp(logs.low), high=math.exp(logs.high)),
        step_seconds=steps,
        verification_cost=cost,
        break_even=(cost - 1) * counts.verifications / counts.proposed if cost else None,
        different=len(different),
        differences=[_describe_difference(request, pair) for request, pair in different[:MOST_DIFFERENCES]],
    )


def _measure_verification_cost(comparison: DraftComparison) -> float | None:
    """Seconds of a verification over those of a step without a draft.

    A reply of n tokens takes n - 1 steps after its first token. With a draft, some steps verify a proposal, and the others,
    such as that of the last token, are as long as without one.
    """
    replies, counts = comparison
    plain_steps = sum(pair.plain.tokens - 1 for pair in replies)
    if not counts.verifications or not plain_steps:
        return None
    step = sum(pair.plain.decoding for pair in replies) / plain_steps
    single = sum(pair.drafted.tokens - 1 for pair in replies) - counts.verifications - counts.accepted
    verifying = sum(pair.drafted.decoding for pair in replies) - max(0, single) * step
    return verifying / counts.verifications / step


def _describe_difference(request: str, pair: PairedReply) -> DifferentReply:
    plain, drafted = (str(reply.message.get("content") or reply.message) for reply in pair)
    return DifferentReply(request=request, plain=plain, drafted=drafted)


def list_draft_lines(result: DraftResult) -> list[str]:
    """The result in words."""
    lines = [
        f"  as its teacher's draft: {format_percent(result.acceptance)} of proposed tokens accepted, "
        f"{result.tokens_per_verification:.2f} tokens per verification",
        f"    {format_count(result.requests, 'request')}, {format_count(result.draft_tokens, 'token')} at once",
        *(f"    {line}" for line in describe_draft_costs(result)),
    ]
    if result.different:
        lines.append(
            f"    error: {result.different} of {result.requests} greedy replies differ from those without the draft:"
        )
        for one in result.differences:
            lines.append(f"      {format_one_line(one.request, 60)}")
            lines.append(f"        without: {format_one_line(one.plain)}")
            lines.append(f"        with:    {format_one_line(one.drafted)}")
    else:
        lines.append("    greedy replies are identical with and without it")
    return lines


def describe_draft_costs(result: DraftResult) -> list[str]:
    """Seconds with and without the draft, what batches and verifications cost, and the acceptance that pays for them."""
    seconds = f"{result.plain_seconds:.1f} s without the draft, {result.drafted_seconds:.1f} s with it"
    if result.speedup:
        factor = result.speedup.format(lambda value: f"{value:.2f}")
        lines = [f"{seconds}: {factor} times as fast, {result.conclusion}"]
    else:
        lines = [f"{seconds}; too few requests for an interval"]
    if single := result.step_seconds.get(1):
        costs = [f"of {size} {taken / single:.1f}" for size, taken in result.step_seconds.items() if size > 1]
        lines.append(f"in seconds of one token: a batch {', '.join(costs)}")
    if result.verification_cost is None or result.break_even is None:
        return [*lines, "nothing was proposed"]
    reached = f"break-even at {format_percent(result.break_even)} accepted"
    if result.break_even > 1:
        reached = "no acceptance pays for it here"
    return [*lines, f"a verification, drafting included: {result.verification_cost:.1f}; {reached}"]

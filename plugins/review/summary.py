"""What the reviews of a dataset amount to: counts, error rate with an interval, agreement of reviewers and of the machine.

Knows the log's records, not the samples themselves.
"""

from bisect import bisect_left
from collections import Counter
from itertools import combinations

from pydantic import BaseModel, ConfigDict

from core.intervals import TAIL, IntervalEstimate, hypergeometric_lower_tail
from core.runs.verdict_words import format_count
from core.sample import SampleStatus
from plugins.review.agreement import compute_kappa
from plugins.review.log import RandomQueue, ReviewLog, hash_decisions


class ReviewErrorRate(BaseModel):
    """The share of samples that a person drops or corrects, estimated from a simple random sample without replacement."""

    model_config = ConfigDict(frozen=True)

    seed: int
    size: int
    population: int
    """Samples that the machine kept, or rows of a file, when the queue was drawn."""
    reviewed: int
    """Reviewed samples from the queue's first on, without a gap: a sample that is put off for later must not be left out."""
    errors: int
    rate: IntervalEstimate | None
    """Before any correction, with the exact interval of `estimate_finite_share`; None before the first review."""
    remaining: IntervalEstimate | None
    """The same after the corrections in the queue, of the samples that are left. Corrections outside it are not counted: which of
    those samples it was drawn from is not known."""
    queues: int = 1
    """Random queues that were drawn; the estimate is of the last one."""


class ReviewerAgreement(BaseModel):
    """Two reviewers on the samples that both decided. Labels are keep, drop and fix."""

    model_config = ConfigDict(frozen=True)

    first: str
    second: str
    samples: int
    agreed: int
    kappa: IntervalEstimate | None
    """Cohen's kappa (`plugins.review.agreement`); None if it is not defined: both gave all samples one label."""


class MachineAgreement(BaseModel):
    """Agents and filters compared with people. Good is what a person keeps unchanged."""

    model_config = ConfigDict(frozen=True)

    good: int
    good_kept: int
    poor: int
    poor_kept: int


class ReviewSummary(BaseModel):
    """The reviews of a run or a file. The last decision about a sample counts, whoever made it."""

    model_config = ConfigDict(frozen=True)

    reviewed: int
    """Samples with a decision: kept + dropped + corrected."""
    kept: int
    dropped: int
    corrected: int
    rescued: int
    """Kept or corrected samples that the machine had not kept."""
    blind: int
    """Decisions that were made without sight of the machine's verdict."""
    reviewers: dict[str, int]
    """Decided samples by reviewer."""
    digest: str
    """Changes with any decision or edited text (`plugins.review.log.hash_decisions`)."""
    error: ReviewErrorRate | None = None
    """None if no random queue was drawn."""
    agreements: list[ReviewerAgreement] = []
    machine: MachineAgreement | None = None
    """None for a file."""

    @property
    def sentences(self) -> list[str]:
        """For the terminal, the card and the report, one sentence each without a full stop."""
        people = "one person" if len(self.reviewers) == 1 else f"{len(self.reviewers)} people"
        counts = (
            f"{format_count(self.reviewed, 'sample')} reviewed by {people}: "
            f"{self.kept:,} kept, {self.dropped:,} dropped, {self.corrected:,} corrected"
            + (f"; {self.rescued:,} of them the machine had not kept" if self.rescued else "")
        )
        return [counts, *self.findings]

    @property
    def estimate(self) -> list[str]:
        """The sentences about the error rate; none if no random queue was drawn."""
        return _describe_error_rate(self.error) if self.error else []

    @property
    def findings(self) -> list[str]:
        """The sentences without the counts."""
        return [*self.estimate, *(_describe_agreement(one) for one in self.agreements)]

    def without_names(self) -> "ReviewSummary":
        """The same with "reviewer 1" and so on, for files that are published. Who they are is in the log alone."""
        names = {name: f"reviewer {number}" for number, name in enumerate(self.reviewers, start=1)}
        agreements = [
            one.model_copy(update={"first": names[one.first], "second": names[one.second]}) for one in self.agreements
        ]
        return self.model_copy(
            update={
                "reviewers": {names[name]: count for name, count in self.reviewers.items()},
                "agreements": agreements,
            }
        )


def summarize_reviews(log: ReviewLog, queue: RandomQueue | None = None) -> ReviewSummary | None:
    """The summary of a log, with the error rate by `queue`, or the last drawn one. None without decision and queue."""
    decided = dict(log.list_decided())
    queue = queue or (log.queues[-1] if log.queues else None)
    if not decided and queue is None:
        return None
    counts = Counter(entry.decision for entry in decided.values())
    by_reviewer = Counter(name for reviews in log.samples.values() for name in reviews.decisions)
    judged = {
        name: (entry.decision == "keep", first.machine is SampleStatus.kept)
        for name, entry in decided.items()
        if (first := log.samples[name].first) is not None and first.machine is not None
    }
    grid = Counter(judged.values())
    return ReviewSummary(
        reviewed=len(decided),
        kept=counts["keep"],
        dropped=counts["drop"],
        corrected=counts["fix"],
        rescued=sum(decided[name].decision != "drop" and not kept for name, (_, kept) in judged.items()),
        blind=sum(entry.blind for entry in decided.values()),
        reviewers=dict(sorted(by_reviewer.items())),
        digest=hash_decisions(decided),
        error=_estimate_error_rate(log, queue) if queue else None,
        agreements=_measure_agreements(log),
        machine=MachineAgreement(
            good=grid[True, True] + grid[True, False], good_kept=grid[True, True],
            poor=grid[False, True] + grid[False, False], poor_kept=grid[False, True],
        ) if judged else None,
    )  # fmt: skip


def _estimate_error_rate(log: ReviewLog, queue: RandomQueue) -> ReviewErrorRate:
    decided = dict(log.list_decided())
    reviewed = next((i for i, name in enumerate(queue.samples) if name not in decided), len(queue.samples))
    errors = sum(decided[name].decision != "keep" for name in queue.samples[:reviewed])
    rate = estimate_finite_share(errors, reviewed, queue.population)

    in_queue = [decided[name].decision for name in queue.samples if name in decided]
    corrected, dropped = sum(one != "keep" for one in in_queue), in_queue.count("drop")
    left = queue.population - dropped
    remaining = None
    if rate and left > 0:
        low, value, high = (
            min(1.0, max(0.0, (share * queue.population - corrected) / left))
            for share in (rate.low, rate.value, rate.high)
        )
        remaining = IntervalEstimate(value=value, low=low, high=high)
    return ReviewErrorRate(
        seed=queue.seed, size=len(queue.samples), population=queue.population, reviewed=reviewed, errors=errors, rate=rate,
        remaining=remaining, queues=len(log.queues),
    )  # fmt: skip


def _measure_agreements(log: ReviewLog) -> list[ReviewerAgreement]:
    """Each pair of reviewers who decided at least one sample both."""
    decisions = [
        {name: entry.decision for name, entry in reviews.decisions.items()} for reviews in log.samples.values()
    ]
    names = sorted({name for decided in decisions for name in decided})
    found = []
    for first, second in combinations(names, 2):
        pairs = [(one[first], one[second]) for one in decisions if first in one and second in one]
        if pairs:
            found.append(ReviewerAgreement(
                first=first, second=second, samples=len(pairs), agreed=sum(a == b for a, b in pairs),
                kappa=compute_kappa(pairs),
            ))  # fmt: skip
    return found


def _describe_error_rate(error: ReviewErrorRate) -> list[str]:
    """The estimate, or what is missing for one, in sentences without full stops."""
    drawn = f"a random sample of {error.size:,} of {error.population:,} (seed {error.seed})"
    if error.rate is None:
        return [f"error rate not known yet: review {drawn} from its first sample on"]
    part = "all reviewed" if error.reviewed == error.size else f"the first {error.reviewed:,} reviewed"
    part += f", the last of {error.queues:,} that were drawn" if error.queues > 1 else ""
    found = [
        f"error rate {_format_shares(error.rate)} before correction, {error.errors:,} of {error.reviewed:,} in {drawn}, {part}"
    ]
    if error.remaining:
        found.append(f"after the corrections {_format_shares(error.remaining)}")
    return found


def _describe_agreement(agreement: ReviewerAgreement) -> str:
    kappa = agreement.kappa.format(lambda value: f"{value:.2f}") if agreement.kappa else "not defined: one label only"
    return (
        f"{agreement.first} and {agreement.second} agree on {agreement.agreed:,} of {format_count(agreement.samples, 'sample')}, "
        f"Cohen's kappa {kappa}"
    )


def _format_shares(estimate: IntervalEstimate) -> str:
    """Percentages with a digit after the point below 10 %."""
    return estimate.format(lambda share: f"{100 * share:.{1 if 0 < share < 0.1 else 0}f} %")


def estimate_finite_share(hits: int, tries: int, population: int) -> IntervalEstimate | None:
    """A share of a finite population, from a simple random sample of `tries` without replacement, with its exact interval: all
    numbers of hits in the population that neither one-sided hypergeometric test rejects at 2.5 % (Buonaccorsi 1987, A note on
    confidence intervals for proportions in finite populations, The American Statistician 41, 215-218).

    It covers at least 95 %, and is the share itself if the sample is the whole population. None without tries.
    """
    if not tries:
        return None
    counts = range(hits, population - (tries - hits) + 1)
    # Misses are to the rest of the population what hits are to `count`, so that one tail serves both tests.
    below = bisect_left(
        counts,
        True,
        key=lambda count: hypergeometric_lower_tail(tries - hits, population - count, tries, population) > TAIL,
    )
    until = bisect_left(
        counts, True, key=lambda count: hypergeometric_lower_tail(hits, count, tries, population) <= TAIL
    )
    return IntervalEstimate(value=hits / tries, low=counts[below] / population, high=counts[until - 1] / population)

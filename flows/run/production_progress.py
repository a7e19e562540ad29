"""Progress of production: counts finished samples, prints progress, and stops production that cannot reach its goal.

Knows counts and the stop signal; knows no shard and no file.
"""

import math
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from time import monotonic

from agents.calls.budget import RunBudget
from agents.planning.seeds import RunSeeds
from core.config.recipe import Recipe
from core.errors import ChecksBroke, LimitReached, RunFailed
from core.intervals import wilson_bound
from core.sample import Sample, SampleStatus, Seed
from core.stop_signal import StopSignal
from flows.data.curated_run import FailureCounter
from flows.terminal.console import SESSION, WorkProgress
from flows.terminal.text_format import format_duration, format_number
from teachers.rate_limiter import RateLimiter

CERTAIN_STANDARD_ERRORS = 3.0
"""Standard errors by which a share must exceed a limit before a run stops: about 1 in 700 by chance."""
SAMPLED_SEEDS = 2000
"""Seeds used to estimate the share of a group."""
FEWEST_SAMPLES = 20
"""Minimum number of samples before a share is tested."""


class EnoughSamples(Exception):
    """Enough samples passed."""


class YieldTooLow(Exception):
    """The yield is too low to reach the goal. The message has the numbers."""


GroupStateCounts = Counter[tuple[str, str]]
"""Numbers of samples by group of the recipe's goals and by state."""


class ProductionProgress:
    """Counts finished samples, prints progress, and sets the stop signal if the goal cannot be reached."""

    def __init__(
        self,
        recipe: Recipe,
        budget: RunBudget,
        stop: StopSignal,
        *,
        earlier: GroupStateCounts,
        wanted: dict[str, int],
        seeds: RunSeeds,
    ) -> None:
        """`earlier` are the states of existing samples. `wanted` are verified samples per group; empty without a goal."""
        self._recipe = recipe
        self._budget = budget
        self._stop_signal = stop
        self._seeds = seeds
        self._wanted = wanted
        self._sample_slots: RateLimiter | None = None
        self._describe_batches: Callable[[], str] = lambda: ""
        self._all: GroupStateCounts = Counter(earlier)
        self._states: Counter[str] = Counter()
        self._faults = FailureCounter()
        self._progress = WorkProgress(self.format_progress, self.share)
        self._started = monotonic()

    def limit_slots(self, slots: RateLimiter, describe_batches: Callable[[], str]) -> None:
        """Start at most as many samples at once as are still needed at the yield so far; and start to show progress, with that of
        open batches.
        """
        self._sample_slots = slots
        self._describe_batches = describe_batches
        SESSION.progress = self._progress
        self._narrow_slots()

    def wants_sample(self, seed: Seed) -> bool:
        """Whether the goals need another sample of this seed's group."""
        if not self._wanted:
            return True
        if self._recipe.groups_by_pass_rate:  # any sample may be of a group that needs more
            return any(self._count_verified(group) < wanted for group, wanted in self._wanted.items())
        group = self._recipe.find_group(seed.data)
        return self._count_verified(group) < self._wanted.get(group, 0)

    def _count_verified(self, group: str) -> int:
        return self._all[group, SampleStatus.kept]

    def _count_made(self, group: str) -> int:
        """Samples made that could have been of this group."""
        if self._recipe.groups_by_pass_rate:
            return self._all.total()
        return sum(self._all[group, state] for state in SampleStatus)

    def _count_in_state(self, state: SampleStatus) -> int:
        return sum(count for (_, ended), count in self._all.items() if ended == state)

    def _narrow_slots(self) -> None:
        if self._wanted and self._sample_slots:
            needs = []
            for group, wanted in self._wanted.items():
                verified = self._count_verified(group)
                needs.append(max(0, wanted - verified) * (self._count_made(group) + 1) / (verified + 1))
            self._sample_slots.lower_limit(math.ceil(max(needs) if self._recipe.groups_by_pass_rate else sum(needs)))

    def count_sample(self, sample: Sample) -> None:
        self._states[sample.state] += 1
        self._all[self._recipe.find_sample_group(sample.seed.data, sample.attempts), sample.state] += 1
        if sample.state == SampleStatus.failed:
            self._faults.add(sample)
            self._check_failed()
        if self._wanted:
            self._check_wanted()
            self._narrow_slots()
        SESSION.show_progress(self.format_progress)

    @property
    def made_count(self) -> int:
        return self._states.total()

    def _check_failed(self) -> None:
        """Stop if the share of failed samples exceeds `max_failed` with near certainty, or will exceed it in any case."""
        failed, limit = self._states[SampleStatus.failed], self._recipe.max_failed
        certain = (
            self.made_count >= FEWEST_SAMPLES
            and wilson_bound(failed, self.made_count, -CERTAIN_STANDARD_ERRORS) > limit
        )
        if certain or self._count_in_state(SampleStatus.failed) / self._recipe.samples > limit:
            fault = self._faults.most_common()
            error: type[RunFailed] = LimitReached
            advice = "inspect the samples, or resume with a larger max_failed"
            if fault.check_broke:
                error, advice = ChecksBroke, "correct the check, then preview a few samples"
            elif fault.unanswered:
                error, advice = RunFailed, "correct that, then --resume asks again"
            share = f"{failed} of {self.made_count} samples failed, more than max_failed = {limit:g} allows"
            self._stop_signal.stop_calls(error(f"{share}; most often {fault.text}; {advice}"))

    def _check_wanted(self) -> None:
        if all(self._count_verified(group) >= wanted for group, wanted in self._wanted.items()):
            self._stop_signal.stop_samples(EnoughSamples())
            return
        for group, keep in self._recipe.goals.items():
            verified, made = self._count_verified(group), self._count_made(group)
            best = wilson_bound(verified, made, CERTAIN_STANDARD_ERRORS)
            if made >= FEWEST_SAMPLES and (best == 0 or keep / best > self._group_capacity[group]):
                needed = f"some {math.ceil(keep * made / verified):,}" if verified else "far more"
                of = f" of {group!r}" if group else ""
                self._stop_signal.stop_samples(
                    YieldTooLow(
                        f"{verified} of {made} candidates{of} passed; keeping {keep} would take {needed} candidates, but "
                        f"samples = {self._recipe.samples} is the most" + (", of all groups" if group else "")
                    )
                )

    @cached_property
    def _group_capacity(self) -> dict[str, float]:
        """Maximum number of candidates per group, estimated from the first seeds."""
        if not self._recipe.groups_by_seed:
            return dict.fromkeys(self._recipe.goals, float(self._recipe.samples))
        sampled = min(SAMPLED_SEEDS, self._recipe.samples)
        counts = Counter(self._recipe.find_group(seed.data) for seed in self._seeds[:sampled])
        return {group: counts[group] / sampled * self._recipe.samples for group in self._recipe.goals}

    def _measure_done(self) -> tuple[int, int]:
        """Samples done, and samples to make."""
        if self._wanted:
            verified = sum(min(self._count_verified(group), wanted) for group, wanted in self._wanted.items())
            return verified, sum(self._wanted.values())
        return self.made_count, self._recipe.samples - (self._all.total() - self.made_count)

    def share(self) -> float:
        """The share that is done, from 0 to 1."""
        done, total = self._measure_done()
        return done / total

    def format_progress(self) -> str:
        """The progress in a line."""
        done, total = self._measure_done()
        ends = ", ".join(f"{self._states[state]} {state}" for state in SampleStatus)
        of = "samples"
        if self._wanted:
            ends = ", ".join(
                f"{self._count_in_state(state)} {state}" for state in SampleStatus if state != SampleStatus.kept
            )
            of = f"verified of {self._all.total():,} samples"
        parts = [f"produce: {done}/{total:,} {of}: {ends}"]
        if batches := self._describe_batches():
            parts.append(batches)
        share = self.share()
        seconds = monotonic() - self._started
        spent = self._budget.spent_in_session
        parts.append(f"{spent.tokens:,} tokens, {spent.completion_tokens / max(seconds, 1e-3):,.0f} written a second")
        if spent.cost:
            parts.append(
                f"cost {format_number(spent.cost)} of some {format_number(spent.cost / share if share else spent.cost)}"
            )
        if 0 < share < 1 and self.made_count >= FEWEST_SAMPLES:
            parts.append(f"{format_duration(seconds * (1 / share - 1))} left")
        return "; ".join(parts)

"""How far producing is: counted as samples end, told to the user, and held against what makes going on senseless.

Knows counts and the brake; knows no shard and no file.
"""

import math
from collections import Counter
from functools import cached_property
from time import monotonic

from agents.brake import Brake
from agents.budget import Budget
from agents.seeds import Seeds
from agents.teachers.gate import Gate
from core.errors import RunFailed
from core.recipe import Recipe
from core.sample import Sample, Seed, State
from core.shares import wilson
from flows.curated import reason_of
from flows.session import SESSION, Far
from flows.words import duration, number

SURE = 3.0
"""Standard errors by which a share must lie beyond a limit before a run is stopped for it: about 1 in 700 by chance."""
LOOKED_AT = 2000
"""Seeds from which the share of a group is estimated."""
JUDGED_FROM = 20
"""Samples made before a share is judged."""


class Enough(Exception):
    """As many samples have passed as are wanted."""


class TooFew(Exception):
    """At this yield the wanted number cannot be reached. Its text says so."""


States = Counter[tuple[str, str]]
"""How many samples are in which state, by the groups of the recipe's goals."""


class Tally:
    """Counts samples as they end, tells how far the run is, and pulls the brake when going on makes no sense."""

    def __init__(
        self, recipe: Recipe, budget: Budget, brake: Brake, *, earlier: States, wanted: dict[str, int], seeds: Seeds
    ) -> None:
        """`earlier` are the states of samples made before; so many verified ones of each group are `wanted`, if any are."""
        self._recipe = recipe
        self._budget = budget
        self._brake = brake
        self._seeds = seeds
        self._wanted = wanted
        self._floor: Gate | None = None
        self._all: States = Counter(earlier)
        self._states: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._far = Far(self.told, self.share)
        self._began = monotonic()
        self._before = budget.spent

    def watch(self, floor: Gate) -> None:
        """Begin no more samples at once than are wanted still, at the yield so far."""
        self._floor = floor
        self._narrow()

    def wants(self, seed: Seed) -> bool:
        """Whether one more sample of this seed's group can be used."""
        if not self._wanted:
            return True
        group = self._recipe.group_of(seed.data)
        return self._verified(group) < self._wanted.get(group, 0)

    def _verified(self, group: str) -> int:
        return self._all[group, State.kept]

    def _made(self, group: str) -> int:
        return sum(self._all[group, state] for state in State)

    def _ever(self, state: State) -> int:
        return sum(count for (_, ended), count in self._all.items() if ended == state)

    def _narrow(self) -> None:
        if self._wanted and self._floor:
            left = 0.0
            for group, wanted in self._wanted.items():
                verified = self._verified(group)
                left += max(0, wanted - verified) * (self._made(group) + 1) / (verified + 1)
            self._floor.narrow(math.ceil(left))

    def count(self, sample: Sample) -> None:
        self._states[sample.state] += 1
        self._all[self._recipe.group_of(sample.seed.data), sample.state] += 1
        if sample.state == State.failed:
            self._faults[reason_of(sample.reason or "", sample.detail)] += 1
            self._check_failed()
        if self._wanted:
            self._check_wanted()
            self._narrow()
        SESSION.far = self._far
        SESSION.count(self.told)

    @property
    def made(self) -> int:
        return self._states.total()

    def _check_failed(self) -> None:
        """The limit is a share of all samples: stop when it is certainly passed, or all but certainly will be."""
        failed, limit = self._states[State.failed], self._recipe.max_failed
        sure = self.made >= JUDGED_FROM and wilson(failed, self.made, -SURE) > limit
        if sure or self._ever(State.failed) / self._recipe.samples > limit:
            fault, count = self._faults.most_common(1)[0]
            self._brake.pull(
                RunFailed(
                    f"{failed} of {self.made} samples failed, more than max_failed = {limit:g} allows; "
                    f"most often {fault} ({count}); `stillhouse show` tells what was said; a larger max_failed resumes it"
                )
            )

    def _check_wanted(self) -> None:
        if all(self._verified(group) >= wanted for group, wanted in self._wanted.items()):
            self._brake.hold(Enough())
            return
        for group, keep in self._recipe.goals.items():
            verified, made = self._verified(group), self._made(group)
            best = wilson(verified, made, SURE)
            if made >= JUDGED_FROM and (best == 0 or keep / best > self._room[group]):
                needed = f"some {math.ceil(keep * made / verified):,}" if verified else "far more"
                of = f" of {group!r}" if group else ""
                self._brake.hold(
                    TooFew(
                        f"{verified} of {made} candidates{of} passed; to keep {keep} would take {needed} candidates, and "
                        f"samples = {self._recipe.samples} is the most" + (", of all groups" if group else "")
                    )
                )

    @cached_property
    def _room(self) -> dict[str, float]:
        """How many candidates of each group there can be, estimated from the first seeds."""
        if not self._recipe.quotas:
            return {"": self._recipe.samples}
        looked = min(LOOKED_AT, self._recipe.samples)
        found = Counter(self._recipe.group_of(seed.data) for seed in self._seeds[:looked])
        return {group: found[group] / looked * self._recipe.samples for group in self._recipe.goals}

    def _done(self) -> tuple[int, int]:
        """How much of what is to be made is made."""
        if self._wanted:
            verified = sum(min(self._verified(group), wanted) for group, wanted in self._wanted.items())
            return verified, sum(self._wanted.values())
        return self.made, self._recipe.samples - (self._all.total() - self.made)

    def share(self) -> float:
        """From 0 to 1."""
        done, total = self._done()
        return done / total

    def told(self) -> str:
        """How far producing is, in a line."""
        done, total = self._done()
        ends = ", ".join(f"{self._states[state]} {state}" for state in State)
        of = "samples"
        if self._wanted:
            ends = ", ".join(f"{self._ever(state)} {state}" for state in State if state != State.kept)
            of = f"verified of {self._all.total():,} samples"
        parts = [f"produce: {done}/{total:,} {of}: {ends}"]
        share = self.share()
        seconds = monotonic() - self._began
        spent = self._budget.spent - self._before
        parts.append(f"{spent.tokens:,} tokens, {spent.completion_tokens / max(seconds, 1e-3):,.0f} written a second")
        if spent.cost:
            parts.append(f"cost {number(spent.cost)} of some {number(spent.cost / share if share else spent.cost)}")
        if 0 < share < 1 and self.made >= JUDGED_FROM:
            parts.append(f"{duration(seconds * (1 / share - 1))} left")
        return "; ".join(parts)

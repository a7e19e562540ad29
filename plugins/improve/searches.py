"""Searches over the examples of a prompt, their order and the temperature, which need no model that reflects; and what all
searches share: the score of a candidate on the train seeds under the floor of diversity.
"""

from collections.abc import Callable, Sequence
from random import Random

from core.sample import FrozenModel, Seed
from plugins.improve.diversity import DiversityComparison, JudgedText, compare_diversity
from plugins.improve.measurement import DraftMeter, MeasuredDraft, measure_rate
from plugins.improve.prompt_parts import Example, PromptCandidate

TEMPERATURE_STEPS = (-0.3, -0.15, 0.0, 0.15, 0.3)
"""From the recipe's own temperature; within 0 to 1.5."""
MOST_TEMPERATURE = 1.5
HALVINGS = (4, 2, 1)
"""Of a round, all candidates are measured on a quarter of the train seeds, the better half on a half, the better half of these on
all (successive halving: Jamieson and Talwalkar 2016, arXiv 1502.07943)."""
ROUND = 8
"""Candidates of a round."""
MOST_CHANGES = 3
"""Random changes of the best candidate that make the next one."""
MOST_REPEATS = 50
"""Candidates in a row that were measured before, after which a search ends."""


class ScoredCandidate(FrozenModel):
    """A candidate that was measured on all train seeds."""

    candidate: PromptCandidate
    passed: int
    rate: float
    """Verified rows per 1,000 teacher tokens."""
    diversity: DiversityComparison
    refused: str | None
    """Why it is under the floor of diversity; None if it is not, or there is no floor."""


class CallLimit(Exception):
    """The next measurement would need more drafts than the search may use."""


class CandidateScorer:
    """Measures candidates on the train seeds, within a number of drafts."""

    def __init__(
        self, meter: DraftMeter, seeds: Sequence[Seed], labels: Sequence[dict[str, frozenset[str]]], calls: int, *, floor: bool
    ) -> None:  # fmt: skip
        self._meter = meter
        self.seeds = seeds
        self._labels = {seed.digest: label for seed, label in zip(seeds, labels, strict=True)}
        self._calls = calls
        self.floor = floor
        self._used: set[tuple[str, str]] = set()
        self.scored: dict[str, ScoredCandidate] = {}
        """By digest, the start first."""
        self._start: list[MeasuredDraft] = []

    @property
    def used(self) -> int:
        """Drafts that the search used, whether they were stored before or not."""
        return len(self._used)

    @property
    def start(self) -> PromptCandidate:
        return next(iter(self.scored.values())).candidate

    @property
    def left(self) -> int:
        return self._calls - self.used

    async def measure(self, candidate: PromptCandidate, seeds: Sequence[Seed]) -> list[MeasuredDraft]:
        """Raises CallLimit, and what `DraftMeter.measure` does."""
        wanted = {(candidate.digest, seed.digest) for seed in seeds} - self._used
        if len(wanted) > self.left:
            raise CallLimit
        drafts = await self._meter.measure(candidate, seeds)
        self._used |= wanted
        return drafts

    async def score(self, candidate: PromptCandidate) -> ScoredCandidate:
        """On all train seeds; the first candidate is the start. Raises as `measure`."""
        if candidate.digest not in self.scored:
            drafts = await self.measure(candidate, self.seeds)
            self._start = self._start or drafts
            compared = compare_diversity(*(self.judge(side) for side in (self._start, drafts)))
            self.scored[candidate.digest] = ScoredCandidate(
                candidate=candidate, passed=sum(draft.passed for draft in drafts), rate=measure_rate(drafts),
                diversity=compared, refused=compared.fault if self.floor else None,
            )  # fmt: skip
        return self.scored[candidate.digest]

    def judge(self, drafts: Sequence[MeasuredDraft]) -> list[JudgedText]:
        return [JudgedText(draft.answer, draft.passed, self._labels[draft.seed]) for draft in drafts]

    @property
    def best(self) -> ScoredCandidate:
        """The highest rate that is not under the floor; of equal ones, the first."""
        return max((one for one in self.scored.values() if not one.refused), key=lambda one: one.rate)


Pools = dict[str, tuple[Example, ...]]
"""By role: the examples to choose from."""


def list_temperatures(start: PromptCandidate) -> list[float]:
    values = (round(start.temperature + step, 2) for step in TEMPERATURE_STEPS)
    return sorted({min(max(value, 0.0), MOST_TEMPERATURE) for value in values})


def draw_candidate(start: PromptCandidate, pools: Pools, rng: Random) -> PromptCandidate:
    """Any number of examples up to the start's, at least one, in any order; any temperature: independent of all scores."""
    candidate = start
    for role, parts in start.prompts.items():
        most = min(len(pools[role]), max(1, len(parts.examples)))
        chosen = rng.sample(pools[role], rng.randint(1, most)) if most else []
        candidate = candidate.with_parts(role, parts.model_copy(update={"examples": tuple(chosen)}))
    return candidate.model_copy(update={"temperature": rng.choice(list_temperatures(start))})


def change_candidate(best: PromptCandidate, start: PromptCandidate, pools: Pools, rng: Random) -> PromptCandidate:
    """One to `MOST_CHANGES` random changes of the best candidate so far."""
    changed = best
    for _ in range(rng.randint(1, MOST_CHANGES)):
        role = rng.choice(sorted(changed.prompts))
        change = rng.choice((_replace_example, _swap_examples, _remove_example, _add_example, None))
        if change is None:
            changed = changed.model_copy(update={"temperature": rng.choice(list_temperatures(start))})
        else:
            parts = changed.prompts[role]
            examples = list(parts.examples)
            change(examples, [one for one in pools[role] if one not in examples], rng)
            changed = changed.with_parts(role, parts.model_copy(update={"examples": tuple(examples)}))
    return PromptCandidate(prompts=changed.prompts, temperature=changed.temperature)


def _replace_example(examples: list[Example], others: list[Example], rng: Random) -> None:
    if examples and others:
        examples[rng.randrange(len(examples))] = rng.choice(others)


def _swap_examples(examples: list[Example], _others: list[Example], rng: Random) -> None:
    if len(examples) > 1:
        left, right = rng.sample(range(len(examples)), 2)
        examples[left], examples[right] = examples[right], examples[left]


def _remove_example(examples: list[Example], _others: list[Example], rng: Random) -> None:
    if len(examples) > 1:
        del examples[rng.randrange(len(examples))]


def _add_example(examples: list[Example], others: list[Example], rng: Random) -> None:
    if others:
        examples.insert(rng.randint(0, len(examples)), rng.choice(others))


async def search_randomly(scorer: CandidateScorer, pools: Pools, rng: Random) -> None:
    """The control: each candidate is drawn without looking at a score, and measured on all train seeds."""
    tried = set(scorer.scored)
    while scorer.left >= len(scorer.seeds):
        found = _draw_new(lambda: draw_candidate(scorer.start, pools, rng), tried, 1)
        if not found:
            return
        await scorer.score(found[0])


async def search_examples(scorer: CandidateScorer, pools: Pools, rng: Random) -> None:
    """Rounds of changes of the best candidate so far, as many as the drafts allow."""
    tried = set(scorer.scored)
    while number := next(
        (one for one in range(ROUND, 0, -1) if _count_drafts(one, len(scorer.seeds)) <= scorer.left), 0
    ):
        best = scorer.best.candidate
        candidates = _draw_new(lambda best=best: change_candidate(best, scorer.start, pools, rng), tried, number)  # type: ignore[misc]
        if not candidates:
            return
        for share in HALVINGS:
            seeds = scorer.seeds[: len(scorer.seeds) // share]
            rates = {one.digest: measure_rate(await scorer.measure(one, seeds)) for one in candidates}
            if share > 1:
                candidates = sorted(candidates, key=lambda one: -rates[one.digest])[: -(-len(candidates) // 2)]
        for one in candidates:
            await scorer.score(one)


def _count_drafts(candidates: int, seeds: int) -> int:
    """The drafts of a round."""
    total, before = 0, 0
    for share in HALVINGS:
        total += candidates * (seeds // share - before)
        candidates, before = -(-candidates // 2), seeds // share
    return total


def _draw_new(draw: Callable[[], PromptCandidate], tried: set[str], number: int) -> list[PromptCandidate]:
    """That number of candidates that were not tried, or fewer after `MOST_REPEATS` in a row that were."""
    found: list[PromptCandidate] = []
    repeats = 0
    while len(found) < number and repeats < MOST_REPEATS:
        candidate = draw()
        repeats = repeats + 1 if candidate.digest in tried else 0
        if not repeats:
            tried.add(candidate.digest)
            found.append(candidate)
    return found

"""Whether a step of a run narrows its data: what the step keeps, compared with random drops of as many rows. Knows no file, no
check and no student.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from core.intervals import TAIL, IntervalEstimate
from filters.collapse.collapse_metrics import OPENER_WORDS, TAIL_COUNT, number_openers
from filters.collapse.diversity import TokenSample, compute_effective_number
from filters.collapse.repetition import MIN_MEASURED_DOCUMENTS
from filters.ragged_arrays import sort_unique

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

MEASURES = {
    "rare words": "rare words",
    "words": "different words",
    "topics": "variety of topics",
    "openings": "variety of openings",
    "lengths": "spread of lengths",
}
"""What is counted, and its name in a sentence. Rare words are those that one or two of the rows have (`TAIL_COUNT`). A variety is
the effective number (`compute_effective_number`) of topics or of first three words; the spread, the mean absolute deviation of
the logarithm of the number of words: a few very short rows decide a standard deviation."""
DRAWS = 500
FALSE_FINDINGS = 0.002
"""The expected share of chance findings among all. If every step of a run drops at random, one run in 200 has a finding."""
LEAST_LOSS = 0.05
"""A step narrows if it leaves at least this share less than a random drop does. Of many rows, a smaller loss is certain too, and
changes little."""
NO_TOPIC = -1
TOLD_LENGTHS = 1.2
"""The ratio of mean lengths from which a sentence has them: long rows have more words, whatever else is in them."""


class SelectionStep(NamedTuple):
    """A step that keeps some of the rows that reached it."""

    name: str
    kind: Literal["check", "critic", "filter", "all"]
    reached: Bools
    """By row of the run."""
    kept: Bools
    """By row of the run: False where the row did not reach the step."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NarrowingRecord(_Record):
    """How much of a measure a step removes, as shares of what reached it."""

    measure: str
    removed: float
    random: IntervalEstimate
    """What random drops of as many rows remove: their mean, and 95 % of them."""
    p: float
    """Probability that a random drop removes as much."""
    narrows: bool
    """Whether that is certain, of all measures of all steps, and not small."""

    @property
    def loss(self) -> float:
        """The share by which less is left than after a random drop."""
        return 1 - (1 - self.removed) / (1 - self.random.value)


class SelectionStepRecord(_Record):
    name: str
    kind: str
    rows: int
    """That reached the step."""
    kept: int
    words_kept: float
    """Words of a kept row, on average."""
    words_dropped: float
    measures: list[NarrowingRecord]
    """Empty if too few rows were kept or dropped."""

    @property
    def narrowing(self) -> list[NarrowingRecord]:
        return [one for one in self.measures if one.narrows]


class SelectionRecord(_Record):
    """The selection of a run."""

    candidates: int
    """Rows with a word, at most `MAX_SAMPLE_DOCUMENTS` of them."""
    kept: int
    gated: bool
    """Whether a release needs that no step narrows the data."""
    steps: list[SelectionStepRecord]
    """Those that drop a row, in the order of the run; all together last."""

    @property
    def sentences(self) -> list[str]:
        """One for each step that narrows, without a full stop."""
        return [describe_narrowing(step) for step in self.steps if step.narrowing]

    @property
    def refusals(self) -> list[str]:
        """Those for which a gate refuses a release: lengths alone do not count, since recipes limit them on purpose."""
        refused = [step for step in self.steps if any(one.measure != "lengths" for one in step.narrowing)]
        return [describe_narrowing(step) for step in refused] if self.gated else []


class _ReachedRows:
    """The rows that reached a step, and what any part of them has."""

    def __init__(self, rows: TokenSample, topics: Ints, reached: Bools) -> None:
        self.places = np.flatnonzero(reached)
        owner = np.repeat(np.arange(len(rows.lengths)), rows.lengths)
        inside = reached[owner]
        pairs = sort_unique(rows.ids[inside] * len(reached) + owner[inside])
        self._holders = pairs % len(reached)
        self._starts = np.flatnonzero(np.diff(pairs // len(reached), prepend=-1))
        self._rare = np.diff(self._starts, append=len(pairs)) <= TAIL_COUNT
        openings = np.full(len(reached), -1)
        openings[rows.lengths >= OPENER_WORDS] = number_openers(rows)
        self._kinds = topics, openings
        self._lengths = np.log(rows.lengths)

    def measure(self, kept: Bools) -> Floats:
        """The measures of the rows that are `kept`, in the order of `MEASURES`."""
        present = np.logical_or.reduceat(kept[self._holders], self._starts)
        varieties = (
            compute_effective_number(np.bincount(kinds[kept & (kinds >= 0)]).tolist()) for kinds in self._kinds
        )
        spread = np.abs(self._lengths[kept] - self._lengths[kept].mean()).mean()
        return np.array([(present & self._rare).sum(), present.sum(), *varieties, spread])


def compare_steps(
    rows: TokenSample, topics: Ints, steps: Sequence[SelectionStep], seed: int, draws: int = DRAWS
) -> list[SelectionStepRecord]:
    """Compare what each step keeps of `rows` with `draws` random drops of as many of the rows that reached it. `topics`: the
    number of the topic of each row, or `NO_TOPIC`.

    A measure has the one-sided probability of a normal distribution with mean and deviation of the random drops. Over all
    measures of all steps, the share of chance findings is limited as by Benjamini and Hochberg (1995, Controlling the False
    Discovery Rate, Journal of the Royal Statistical Society B 57, 289-300), which also holds for measures that rise and fall
    together (Benjamini and Yekutieli 2001).
    """
    random = np.random.default_rng(seed)
    compared = [_compare_step(rows, topics, step, random, draws) for step in steps]
    found = sorted(measure.p for step in compared for measure in step.measures)
    limits = [FALSE_FINDINGS * rank / len(found) for rank in range(1, len(found) + 1)]
    limit = max((p for p, most in zip(found, limits, strict=True) if p <= most), default=-1.0)
    return [
        step.model_copy(
            update={
                "measures": [
                    one.model_copy(update={"narrows": one.p <= limit and one.loss >= LEAST_LOSS})
                    for one in step.measures
                ]
            }
        )
        for step in compared
    ]


def _compare_step(
    rows: TokenSample, topics: Ints, step: SelectionStep, random: np.random.Generator, draws: int
) -> SelectionStepRecord:
    count, measures = int(step.kept.sum()), list[NarrowingRecord]()
    lengths = rows.lengths[step.kept], rows.lengths[step.reached & ~step.kept]
    if min(map(len, lengths)) >= MIN_MEASURED_DOCUMENTS:
        reached, values = _ReachedRows(rows, topics, step.reached), []
        for _ in range(draws):
            drawn = np.zeros(len(step.reached), dtype=bool)
            drawn[random.permutation(reached.places)[:count]] = True
            values.append(reached.measure(drawn))
        whole, kept = reached.measure(step.reached), reached.measure(step.kept)
        columns = zip(MEASURES, whole.tolist(), kept.tolist(), np.stack(values).T, strict=True)
        measures = [_build_record(*column) for column in columns if np.ptp(column[-1]) > 0]
    words_kept, words_dropped = (float(part.mean()) if len(part) else 0.0 for part in lengths)
    return SelectionStepRecord(
        name=step.name, kind=step.kind, rows=int(step.reached.sum()), kept=count, words_kept=words_kept,
        words_dropped=words_dropped, measures=measures,
    )  # fmt: skip


def _build_record(measure: str, whole: float, kept: float, drawn: Floats) -> NarrowingRecord:
    low, value, high = (
        1 - float(left) / whole for left in (np.quantile(drawn, 1 - TAIL), drawn.mean(), np.quantile(drawn, TAIL))
    )
    return NarrowingRecord(
        measure=measure, removed=1 - kept / whole, random=IntervalEstimate(value=value, low=low, high=high),
        p=NormalDist(float(drawn.mean()), float(drawn.std())).cdf(kept), narrows=False,
    )  # fmt: skip


def describe_narrowing(step: SelectionStepRecord) -> str:
    """What a step that narrows removes, in a sentence without a full stop."""
    named = {"check": f"`{step.name}`", "filter": f"the filter `{step.name}`"}.get(step.kind, step.name)
    (first, *others), lengths = step.narrowing, (step.words_dropped, step.words_kept)
    sentence = (
        f"{named} removes {round(100 * first.removed)} % of the {MEASURES[first.measure]}; a random drop of as many rows "
        f"{format_random_drop(first, ' %')}"
    )
    if others:
        sentence += f"; {', '.join(one.measure for one in others)} narrow too"
    if max(lengths) >= TOLD_LENGTHS * min(lengths):
        sentence += f"; the rows that it drops have {lengths[0]:.0f} words, those that it keeps {lengths[1]:.0f}"
    return sentence


def format_random_drop(measure: NarrowingRecord, unit: str = "") -> str:
    value, low, high = (round(100 * share) for share in (measure.random.value, measure.random.low, measure.random.high))
    return f"{value}{unit} ({low} to {high})"

"""Whether a lineage is still losing rare words: the slope over its generations, each compared with the same real text.

The text of one finite model has a poorer tail than real text at every generation. A continuing loss distinguishes replacing data
from accumulating it. Knows numbers only.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

from core.runs.records import CollapseRecord

MIN_FALLING_Z = 3.0
MIN_GENERATIONS = 3
"""Least number of generations for a trend."""
MAX_FLAT_Z = 1.645
"""Below this z, a rise is not significant: chance exceeds it in one lineage of twenty."""
SMALL_RISE = 0.3
"""A rise is small below this share of the current loss. In the benchmark the share was at least 0.34, and z at least 2.2,
wherever text was replaced, also in part (`docs/collapse.md`).
"""
MIN_STEADY_GENERATIONS = 4
"""With fewer generations, the absence of a rise is not evidence."""
MAX_SIZE_RATIO = 1.25
"""Largest ratio of compared documents between generations for a trend: deviations grow with the number of documents."""


class TailLoss(NamedTuple):
    """The loss of rare words of one generation, and what it was compared with."""

    reference: str
    documents: int
    lost: float
    """In deviations of real text."""

    @classmethod
    def from_record(cls, record: CollapseRecord) -> Self | None:
        """None for a record without a reference."""
        if record.tail is None or record.reference is None:
            return None
        return cls(record.reference, record.documents, record.tail)


class TailTrend(NamedTuple):
    slope: float
    """Growth of the loss of rare words per generation, in deviations of real text."""
    z: float
    generations: int
    level: float
    """The fitted value of the last generation."""

    @property
    def falling(self) -> bool:
        return self.z >= MIN_FALLING_Z

    @property
    def steady(self) -> bool:
        """Whether the loss has stopped growing: the rise is small or not significant."""
        small = self.slope * (self.generations - 1) < SMALL_RISE * self.level
        return self.generations >= MIN_STEADY_GENERATIONS and (self.z < MAX_FLAT_Z or small)

    def __str__(self) -> str:
        words = "still losing rare words" if self.falling else "no significant further loss of rare words"
        return f"{words}: {self.slope:+.1f} deviations of real text per generation, z {self.z:+.1f}"


def fit_tail_trend(lost: Sequence[float]) -> TailTrend | None:
    """The least-squares slope of `TailLoss.lost` over generations of the same size; None for too few.

    Each loss is in deviations of real text, so its own standard deviation is 1. That of the slope is 1 over the root of the sum
    of squares of the generations about their mean.
    """
    if len(lost) < MIN_GENERATIONS:
        return None
    middle = (len(lost) - 1) / 2
    squares = sum((i - middle) ** 2 for i in range(len(lost)))
    slope = sum((i - middle) * loss for i, loss in enumerate(lost)) / squares
    level = sum(lost) / len(lost) + slope * middle
    return TailTrend(slope, slope * math.sqrt(squares), len(lost), level)


def find_lineage_trend(records: Sequence[CollapseRecord]) -> TailTrend | str | None:
    """The trend of the loss of rare words, or a sentence that explains why there is none; None for too few generations."""
    return find_tail_trend([tail for record in records if (tail := TailLoss.from_record(record))])


def find_tail_trend(tails: Sequence[TailLoss]) -> TailTrend | str | None:
    trend = fit_tail_trend([tail.lost for tail in tails])
    if trend is None:
        return None
    if len(references := {tail.reference for tail in tails}) > 1:
        return f"no trend: the generations were compared with different references ({', '.join(sorted(references))})"
    sizes = [tail.documents for tail in tails]
    if max(sizes) > MAX_SIZE_RATIO * min(sizes):
        return (
            f"no trend: {min(sizes):,} to {max(sizes):,} documents were compared, and deviations grow with the number"
        )
    return trend

"""Whether a lineage is still losing rare words: the slope of its generations, each compared with the same real text.

What one finite model wrote has a poorer tail than real text at any generation; what tells replacing from accumulating is
whether it goes on. Knows numbers only.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

from core.run import CollapseRecord

LIMIT = 3.0
FEWEST = 3
"""Generations from which a trend can be told."""
NO_RISE = 1.645
"""z under which a rise is none: chance alone makes a larger one in a lineage of twenty."""
SMALL_RISE = 0.3
"""Share of what is lost by now that may have been lost since the first generation. In the benchmark it was at least 0.34, and z
at least 2.2, wherever text was replaced, also in part (`docs/collapse.md`)."""
FEWEST_STEADY = 4
"""Fewer generations show too little of a rise for its absence to mean anything."""
ALIKE = 1.25
"""Most times that the largest of a lineage's comparisons may have of the smallest's documents, for a trend: deviations grow with
the size.
"""


class Tail(NamedTuple):
    """How many rare words one generation has lost, and what it was compared with."""

    reference: str
    documents: int
    lost: float
    """In deviations of real text."""

    @classmethod
    def of(cls, record: CollapseRecord) -> Self | None:
        """None for a comparison from before this was measured."""
        return None if record.tail is None else cls(record.reference, record.documents, record.tail)


class Trend(NamedTuple):
    slope: float
    """Deviations of real text by which the loss of rare words grows each generation."""
    z: float
    generations: int
    level: float
    """Of the last generation, by the line through all of them."""

    @property
    def falling(self) -> bool:
        return self.z >= LIMIT

    @property
    def steady(self) -> bool:
        """Whether the loss has stopped growing: nothing can be told of a rise, or it is small."""
        small = self.slope * (self.generations - 1) < SMALL_RISE * self.level
        return self.generations >= FEWEST_STEADY and (self.z < NO_RISE or small)

    def __str__(self) -> str:
        words = "still losing rare words" if self.falling else "no further loss of rare words that can be told"
        return f"{words}: {self.slope:+.1f} deviations of real text a generation, z {self.z:+.1f}"


def trend(lost: Sequence[float]) -> Trend | None:
    """The least-squares slope of `Tail.lost` over generations at one size; None for too few.

    Each is in deviations of real text, so its own deviation is one, and the slope's is one over the root of the sum of
    squares of the generations about their mean.
    """
    if len(lost) < FEWEST:
        return None
    middle = (len(lost) - 1) / 2
    squares = sum((i - middle) ** 2 for i in range(len(lost)))
    slope = sum((i - middle) * one for i, one in enumerate(lost)) / squares
    level = sum(lost) / len(lost) + slope * middle
    return Trend(slope, slope * math.sqrt(squares), len(lost), level)


def trend_of(records: Sequence[CollapseRecord]) -> Trend | str | None:
    """Whether rare words are still being lost from generation to generation, or in words why that cannot be told; None where
    there are too few generations to ask.
    """
    return trend_over([tail for record in records if (tail := Tail.of(record))])


def trend_over(tails: Sequence[Tail]) -> Trend | str | None:
    found = trend([tail.lost for tail in tails])
    if found is None:
        return None
    if len(references := {tail.reference for tail in tails}) > 1:
        return f"not told: the generations were compared with different references ({', '.join(sorted(references))})"
    sizes = [tail.documents for tail in tails]
    if max(sizes) > ALIKE * min(sizes):
        return f"not told: {min(sizes):,} to {max(sizes):,} documents were compared, and deviations grow with the size"
    return found

"""Whether a lineage is still losing rare words: the slope of its generations, each compared with the same real text.

What one finite model wrote has a poorer tail than real text at any generation; what tells replacing from accumulating is
whether it goes on. Knows numbers only.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

LIMIT = 3.0
FEWEST = 3
"""Generations from which a trend can be told."""


class Trend(NamedTuple):
    slope: float
    """Deviations of real text by which the loss of rare words grows each generation."""
    z: float

    @property
    def falling(self) -> bool:
        return self.z >= LIMIT

    def __str__(self) -> str:
        words = "still losing rare words" if self.falling else "no further loss of rare words that can be told"
        return f"{words}: {self.slope:+.1f} deviations of real text a generation, z {self.z:+.1f}"


def trend(tails: Sequence[float]) -> Trend | None:
    """The least-squares slope of `CollapseRecord.tail` over generations at one size; None for too few.

    Each tail is in deviations of real text, so its own deviation is one, and the slope's is one over the root of the sum
    of squares of the generations about their mean.
    """
    if len(tails) < FEWEST:
        return None
    middle = (len(tails) - 1) / 2
    squares = sum((i - middle) ** 2 for i in range(len(tails)))
    slope = sum((i - middle) * tail for i, tail in enumerate(tails)) / squares
    return Trend(slope, slope * math.sqrt(squares))

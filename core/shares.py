"""Numbers with their intervals, and the intervals of shares. Knows nothing else."""

import math
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict


class Measure(BaseModel):
    """A number with its 95 % interval."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float

    def told(self, form: Callable[[float], str]) -> str:
        return f"{form(self.value)} ({form(self.low)} to {form(self.high)})"


def wilson(hits: int, tries: int, z: float) -> float:
    """The end of Wilson's score interval (1927) for the share of `hits` in `tries`, `z` standard errors up or (negative) down;
    0 and 1 where nothing was tried.
    """
    if not tries:
        return 0.0 if z < 0 else 1.0
    share, square = hits / tries, z * z
    middle = share + square / (2 * tries)
    reach = z * math.sqrt(share * (1 - share) / tries + square / (4 * tries * tries))
    return min(1.0, max(0.0, round((middle + reach) / (1 + square / tries), 12)))  # exactly 1 where all hit

"""Numbers with their intervals, and the intervals of shares. Knows nothing else."""

import math
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

Z = 1.959964
"""Standard errors of a 95 % interval."""


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
    rate, square = hits / tries, z * z
    middle = rate + square / (2 * tries)
    reach = z * math.sqrt(rate * (1 - rate) / tries + square / (4 * tries * tries))
    return min(1.0, max(0.0, round((middle + reach) / (1 + square / tries), 12)))  # exactly 1 where all hit


def share(hits: int, tries: int) -> Measure | None:
    """A share with Wilson's score interval (1927)."""
    if not tries:
        return None
    return Measure(value=hits / tries, low=wilson(hits, tries, -Z), high=wilson(hits, tries, Z))


def ratio(hits: int, tries: int, base_hits: int, base_tries: int) -> Measure | None:
    """A ratio of two shares with the log interval of Katz et al. (1978): log r ± z √(1/a - 1/n + 1/b - 1/m).

    Without a hit above, the upper end is that of a half more hit and try on both sides (Walter 1975), and the lower is 0.
    None without a hit below. It takes the two for independent; samples of the same seeds go wrong together more often
    than that, so it is rather too wide.
    """
    if not tries or not base_hits:
        return None
    value = (hits / tries) / (base_hits / base_tries)
    more = 0.0 if hits else 0.5
    a, n, b, m = hits + more, tries + more, base_hits + more, base_tries + more
    error = math.sqrt(max(0.0, 1 / a - 1 / n + 1 / b - 1 / m))
    middle = math.log(a / n) - math.log(b / m)
    low = math.exp(middle - Z * error) if hits else 0.0
    return Measure(value=value, low=low, high=math.exp(middle + Z * error))

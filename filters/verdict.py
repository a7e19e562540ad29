"""The gate: which changes count, how large they must be, and what they mean together. Calibrated once, on four corpora.

Knows metrics as numbers, no text. The limits below hold for every dataset alike; `docs/collapse.md` has the false alarms
and the power that were measured with them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.run import CollapseVerdict
from filters.families import METRICS, NAMES, Comparison
from filters.null import Null

Floats = npt.NDArray[np.float64]

LIMIT = 4.0
"""Standard deviations of real text against real text. Sixty comparisons give the deviation within a fifth, so that four
are at least Student's 3.2, one in a thousand, for each of fourteen numbers that lean on one another."""
POWERED_DOCUMENTS = 1_000
"""Below this, losing rare words need not show (and can look like a gain): nothing found is then no pass."""
FLOORS = {
    "hapax_mass": 0.03,
    "heaps_slope": 0.01,
    "tail_coverage": 0.01,
    "distinct_4": 0.01,
    "duplicate_8grams": 0.01,
    "exact_duplicates": 0.01,
    "openers": 0.002,
    "templates": 0.01,
    "new_words": 1.0,
    "strange_words": 1.0,
    "surprise": 0.2,
    "typical": 0.02,
    "unlikely": 0.02,
    "reverse_surprise": 0.02,
}
"""Changes smaller than these are nothing to act on, however many documents show them. In the metric's unit."""
LEAST_DOCUMENTS = {"exact_duplicates": 2, "duplicate_8grams": 1, "typical": 1, "unlikely": 1}
"""These rates have a deviation of so many documents at least: real draws often have none at all."""
LEAST_PAIRS = {"openers": 2.5, "templates": 2.5}
"""Chances of two documents being alike have one of so many pairs: five documents with one opening are ten pairs."""


class Finding(NamedTuple):
    """A metric that moved for the worse, or, with a negative z, for the better."""

    name: str
    z: float
    difference: float


class Judgement(NamedTuple):
    verdict: CollapseVerdict
    reasons: dict[str, tuple[str, ...]]
    """What was found, by `tail`, `repetition`, `likely`, `strange`, `topics`, `unlike`, each with its metrics."""


def deviations(null: Null, tokens: int, documents: int) -> Floats:
    """What a metric moves by between real draws, at least by rounding."""
    found = null.deviations(tokens)
    pairs = documents * (documents - 1) / 2
    floor = np.array([LEAST_DOCUMENTS.get(name, 0) / documents + LEAST_PAIRS.get(name, 0) / pairs for name in NAMES])
    least: Floats = np.maximum(np.maximum(found, floor), 1e-9)
    return least


def scores(comparison: Comparison, null: Null, tokens: int, documents: int) -> dict[str, float]:
    """Each metric's change for the worse, in deviations of real text."""
    bad = np.array([metric.bad for metric in METRICS])
    z = bad * (comparison.difference - null.differences.mean(axis=0)) / deviations(null, tokens, documents)
    return dict(zip(NAMES, map(float, z), strict=True))


def judge(z: Mapping[str, float], change: Mapping[str, float], topics: float, documents: int) -> Judgement:
    """The verdict. `change` is for the worse, in each metric's unit; `topics` the deviations by which topics differ."""

    def worse(name: str) -> bool:
        return z[name] >= LIMIT and change[name] >= FLOORS[name]

    def better(name: str) -> bool:
        return z[name] <= -LIMIT and -change[name] >= FLOORS[name]

    reasons: dict[str, tuple[str, ...]] = {}

    def note(kind: str, *names: str) -> None:
        if found := tuple(name for name in names if worse(name)):
            reasons[kind] = found

    note("topics", "new_words")
    if topics >= LIMIT:
        reasons["topics"] = ("topics", *reasons.get("topics", ()))
    strange = worse("strange_words") and worse("tail_coverage") and change["strange_words"] >= change["new_words"] / 2
    if strange:
        reasons["strange"] = ("strange_words", "tail_coverage")
    if not worse("new_words"):
        note("tail", "hapax_mass", "heaps_slope")
    note("repetition", "exact_duplicates", "duplicate_8grams", "openers", "templates", "distinct_4")
    if better("surprise") and z["typical"] >= LIMIT / 2:
        reasons["likely"] = ("surprise", "typical")
    note("unlike", "surprise", "unlikely", "reverse_surprise", "tail_coverage")
    return Judgement(_verdict(reasons, documents), reasons)


COLLAPSE = ("tail", "repetition", "likely", "strange")


def _verdict(reasons: Mapping[str, object], documents: int) -> CollapseVerdict:
    if any(kind in reasons for kind in COLLAPSE):
        return CollapseVerdict.collapse
    if documents < POWERED_DOCUMENTS:
        return CollapseVerdict.under_powered
    return CollapseVerdict.shift if reasons else CollapseVerdict.passed

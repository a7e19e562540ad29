"""The gate: which changes count, how large they must be, and what they mean together. Calibrated once, on four corpora.

Knows metrics as numbers, no text. The limits below hold for every dataset alike; `docs/collapse.md` has the false alarms
and the power that were measured with them.
"""

import math
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
TAIL_SPREAD = 1.6
"""The deviation of the sum of two z with the correlation of hapax_mass and tail_coverage in real text, 0.2 to 0.3."""
LEAST_LOSS = 0.05
"""Of the mass of words that one document has: a smaller loss is nothing to act on, however many documents show it."""
BOUNDED_LOSS = 1 / 3
"""Of that mass: what one finite model's text lacks at the sizes that were measured. A loss that has stopped growing is no
collapse up to here."""
FLOORS = {
    "distinct_4": 0.01,
    "duplicate_8grams": 0.01,
    "exact_duplicates": 0.01,
    "openers": 0.002,
    "templates": 0.002,
    "new_words": 1.0,
    "strange_words": 1.0,
    "surprise": 0.2,
    "unlikely": 0.02,
    "tail_coverage": 0.01,
    "reverse_surprise": 0.02,
}
"""Changes smaller than these are nothing to act on either. In the metric's unit."""
GROSS = {"exact_duplicates": 0.05, "duplicate_8grams": 0.05, "openers": 0.02, "templates": 0.02}
"""Repetition that is collapse even in text of another kind, which has set phrases of its own: between the four corpora
openers differ by up to 0.008, templates by 0.004, duplicate_8grams by 0.006. One opening in a seventh of all documents
is 0.02."""
STRANGE = 0.85
"""Words of no language are most of what is new; between the four corpora it was 0.07 to 0.76, word lists had the rest."""
TAIL_NAMES = ("hapax_mass", "heaps_slope", "tail_coverage")
LEAST_DOCUMENTS = {"exact_duplicates": 2, "duplicate_8grams": 1, "typical": 1, "unlikely": 1}
"""These rates have a deviation of so many documents at least: real draws often have none at all."""
LEAST_PAIRS = {"openers": 2.5, "templates": 2.5}
"""Chances of two documents being alike have one of so many pairs: five documents with one opening are ten pairs."""


class Evidence(NamedTuple):
    """A candidate in numbers, by metric."""

    z: Mapping[str, float]
    """Deviations of real text, positive for the worse."""
    change: Mapping[str, float]
    """For the worse, in the metric's unit."""
    real: Mapping[str, float]
    topics: float
    """Deviations by which the topics differ, before they were matched."""
    documents: int

    @property
    def tail(self) -> float:
        """Words of its own and words of the reference's tail, together, in deviations.

        The one alone is low in whatever a finite model wrote, the other in whatever has other topics; and words of no
        language raise the first.
        """
        return (self.z["hapax_mass"] + self.z["tail_coverage"]) / TAIL_SPREAD

    def worse(self, name: str) -> bool:
        return self.z[name] >= LIMIT and self.change[name] >= FLOORS[name]


class Judgement(NamedTuple):
    verdict: CollapseVerdict
    reasons: dict[str, tuple[str, ...]]
    """What was found, by `tail`, `repetition`, `likely`, `strange`, `steady`, `topics`, `unlike`, each with its metrics."""


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


COLLAPSE = ("tail", "repetition", "likely", "strange")
REPETITION = ("exact_duplicates", "duplicate_8grams", "openers", "templates", "distinct_4")
UNLIKE = ("surprise", "unlikely", "reverse_surprise", "tail_coverage")


def judge(evidence: Evidence, *, steady: bool = False) -> Judgement:
    """Collapse, if it is poorer in a way that other topics do not explain; else shift, if anything differs.

    `steady` says that the loss of rare words has stopped growing over the generations before (`filters.trend`).
    """
    poorer = _loses_words(evidence)
    bounded = steady and evidence.change["hapax_mass"] <= BOUNDED_LOSS * evidence.real["hapax_mass"]
    found = {
        "tail": TAIL_NAMES if poorer and not bounded else (),
        "repetition": tuple(name for name in REPETITION if _repeats(evidence, name)),
        "likely": ("surprise", "typical") if _likely_only(evidence) else (),
        "strange": ("strange_words", "tail_coverage") if _strange(evidence) else (),
        "steady": TAIL_NAMES if poorer and bounded else (),
        "topics": ("topics",) * (evidence.topics >= LIMIT) + ("new_words",) * evidence.worse("new_words"),
        "unlike": tuple(filter(evidence.worse, UNLIKE)),
    }
    reasons = {kind: names for kind, names in found.items() if names}
    return Judgement(_verdict(reasons, evidence.documents), reasons)


def _loses_words(evidence: Evidence) -> bool:
    """New words are what no collapse brings: with them, a poorer tail may be that of another kind of text.

    Cautious decoding cuts words of its own and new ones alike, before it can be seen which rare words are missing.
    """
    lost = evidence.change["hapax_mass"] >= LEAST_LOSS * evidence.real["hapax_mass"]
    cut = evidence.z["hapax_mass"] >= LIMIT and evidence.z["new_words"] <= -LIMIT
    return lost and (cut or evidence.tail >= LIMIT) and not evidence.worse("new_words")


def _repeats(evidence: Evidence, name: str) -> bool:
    if evidence.worse("new_words") and evidence.change[name] < GROSS.get(name, math.inf):
        return False
    return evidence.worse(name)


def _likely_only(evidence: Evidence) -> bool:
    return evidence.z["surprise"] <= -LIMIT and evidence.change["surprise"] <= -FLOORS["surprise"]


def _strange(evidence: Evidence) -> bool:
    mostly = evidence.change["strange_words"] >= STRANGE * evidence.change["new_words"]
    return mostly and evidence.worse("strange_words") and evidence.worse("tail_coverage")


def _verdict(reasons: Mapping[str, object], documents: int) -> CollapseVerdict:
    if any(kind in reasons for kind in COLLAPSE):
        return CollapseVerdict.collapse
    if documents < POWERED_DOCUMENTS:
        return CollapseVerdict.under_powered
    return CollapseVerdict.shift if reasons else CollapseVerdict.passed

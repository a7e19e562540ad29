"""Decides on a collapse verdict: which changes count, how large they must be, and what they mean together.

Knows metrics as numbers, no text. The limits were calibrated once, on four corpora, those of rare words on eight, and
apply to every dataset; `docs/collapse.md` has the measured false-alarm rate and power.
"""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.runs.collapse_facts import MIN_CONCLUSIVE_DOCUMENTS, Z_LIMIT, CollapseVerdict
from core.runs.verdict_words import has_collapse
from filters.collapse.collapse_metrics import COLLAPSE_METRICS, METRIC_NAMES, MetricComparison
from filters.collapse.null_distribution import NullDistribution

Floats = npt.NDArray[np.float64]

TAIL_LIMIT = 3.2
"""Of hapax_mass, in standard deviations: Student's one in a thousand, one-sided, with sixty comparisons. A loss of rare words is
shown by this one number, not by any of fourteen; `Z_LIMIT` applies to its sum with tail_coverage, which words that give way to
frequent ones lower more."""
MIN_LOSS = 0.14
"""The shares that hapax_mass and tail_coverage lost, added. At 1,500 documents, text of a model of 10,000 real ones lacks 0.07 to
0.15, and text of a model of its text 0.18 to 0.22, in all of eight corpora. At 2,000, text lacks 0.07 to 0.13 if everything is
kept and the most real-looking half is added. Deviations do not separate these: the same share is two to three times as many of
them in one corpus as in another."""
MIN_CUT = 0.05
"""Share of the hapax mass that low-temperature decoding removes at least: a smaller loss needs no action."""
REPLACED_LOSS = 0.11
"""The same sum per thousand documents, of text of a model of 10,000 documents that a model of as many real ones wrote: 0.10,
0.14, 0.16 and 0.27 at 1,000, 1,250, 1,500 and 2,000 documents, the least means of four corpora."""
UNCERTAIN_DEVIATIONS = NormalDist().inv_cdf(0.975)
"""Of a loss that may be that of replaced text. Two conditions have to hold, and each misses it one time in 40."""
TAIL_SPREAD = 1.6
"""The deviation of the sum of two z with the correlation of hapax_mass and tail_coverage in real text, 0.2 to 0.4."""
BOUNDED_LOSS = 1 / 3
"""Share of the hapax mass that the text of one finite model lacks at the measured sizes. A loss up to this size that has stopped
growing is not a collapse."""
MIN_CHANGES = {
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
"""Smaller changes need no action either. In the metric's unit."""
GROSS_CHANGES = {"exact_duplicates": 0.05, "duplicate_8grams": 0.05, "openers": 0.02, "templates": 0.02}
"""Repetition that is a collapse even in another kind of text, which has its own set phrases: between the four corpora, openers
differ by up to 0.008, templates by 0.004, duplicate_8grams by 0.006. The same opening in a seventh of all documents is 0.02."""
OTHER_KIND_SURPRISE = 0.75
"""Nats per word by which real text is less likely under a model of another kind of text: between eight corpora, 3,000
documents of one and 2,000 of another, 0.77 to 3.4 (of glosses and a dictionary 0.57). Of replaced text that is not likelier than
real text at most 0.58 in four generations, and 0.81 in ten."""
OTHER_KIND_TOPICS = 12.0
"""Deviations of the topics: between these corpora at least 13.7. Of replaced text at most 10.4 in ten generations at 2,000
documents, and 12.9 in four at 4,000."""
MIN_STRANGE_SHARE = 0.85
"""Least share of new words that no word list has, for words of no language. Between the four corpora it was 0.07 to 0.76."""
TAIL_METRICS = ("hapax_mass", "heaps_slope", "tail_coverage")
LEAST_DOCUMENTS = {"exact_duplicates": 2, "duplicate_8grams": 1, "typical": 1, "unlikely": 1}
"""Least deviation of these rates, in documents: samples of real text often have no such document."""
LEAST_PAIRS = {"openers": 2.5, "templates": 2.5}
"""Least deviation of collision probabilities, in pairs: five documents with the same opening are ten pairs."""


class MetricEvidence(NamedTuple):
    """The metrics of a candidate compared with real text, by metric name."""

    z: Mapping[str, float]
    """Change in deviations of real text, positive for the worse."""
    change: Mapping[str, float]
    """Change in the metric's unit, positive for the worse."""
    real: Mapping[str, float]
    topics: float
    """Difference of the topics before matching, in deviations."""
    documents: int
    loss_deviation: float = 0.0
    """Standard deviation of `loss` between samples of real text; 0 where a loss of rare words is not measured."""

    @property
    def tail(self) -> float:
        """hapax_mass and tail_coverage combined, in deviations: the loss of rare words that a lineage's trend is fitted to.

        hapax_mass alone is low in all text of a finite model, and words of no language raise it. tail_coverage alone is low in
        text on other topics.
        """
        return (self.z["hapax_mass"] + self.z["tail_coverage"]) / TAIL_SPREAD

    @property
    def loss(self) -> float:
        """The share of hapax_mass that is lost, plus that of tail_coverage.

        Shares, since they differ little between corpora: the deviations that a loss has depend on the corpus, its size does not.
        """
        return sum(self.change[name] / max(self.real[name], 1e-9) for name in ("hapax_mass", "tail_coverage"))

    @property
    def may_be_replaced(self) -> bool:
        """Whether the loss of rare words may be that of replaced text, although it is too small or too uncertain for a collapse.

        An equivalence test (Schuirmann 1987): no such loss is there only if the upper end of its interval is below it. With more
        documents, `REPLACED_LOSS` less the interval exceeds `MIN_LOSS`, and nothing is left between the two. Real text is kept
        out by the sum of hapax_mass and reverse_surprise, which are uncorrelated in real text (-0.03 in 195 comparisons), so its
        deviation is the root of two (Stouffer et al. 1949): replaced text raises both, each alone too little at this size.
        """
        both = (self.z["hapax_mass"] + self.z["reverse_surprise"]) / math.sqrt(2)
        if self.documents < MIN_CONCLUSIVE_DOCUMENTS or both < UNCERTAIN_DEVIATIONS:
            return False
        return self.loss + UNCERTAIN_DEVIATIONS * self.loss_deviation >= REPLACED_LOSS * self.documents / 1000

    @property
    def is_other_kind(self) -> bool:
        """Whether the candidate is another kind of text than the reference: other topics, in other words. Text that a model chose
        for its likelihood, however poor, is likelier than real text.
        """
        other_words = self.change["reverse_surprise"] >= OTHER_KIND_SURPRISE and self.topics >= OTHER_KIND_TOPICS
        return other_words and self.change["surprise"] > -MIN_CHANGES["surprise"]

    def is_worse(self, name: str) -> bool:
        return self.z[name] >= Z_LIMIT and self.change[name] >= MIN_CHANGES[name]


class CollapseDecision(NamedTuple):
    verdict: CollapseVerdict
    reasons: dict[str, tuple[str, ...]]
    """The metrics of each finding, by its name in `core.runs.verdict_words`."""


def compute_deviations(null: NullDistribution, tokens: int, documents: int) -> Floats:
    """Standard deviation of each metric between samples of real text, with a lower bound."""
    deviations = null.compute_deviations(tokens)
    pairs = documents * (documents - 1) / 2
    floor = np.array(
        [LEAST_DOCUMENTS.get(name, 0) / documents + LEAST_PAIRS.get(name, 0) / pairs for name in METRIC_NAMES]
    )
    least: Floats = np.maximum(np.maximum(deviations, floor), 1e-9)
    return least


def compute_z_scores(
    comparison: MetricComparison, null: NullDistribution, tokens: int, documents: int
) -> dict[str, float]:
    """Each metric's change for the worse, in deviations of real text."""
    bad = np.array([metric.worse_sign for metric in COLLAPSE_METRICS])
    z = bad * (comparison.difference - null.differences.mean(axis=0)) / compute_deviations(null, tokens, documents)
    return dict(zip(METRIC_NAMES, map(float, z), strict=True))


REPETITION_METRICS = ("exact_duplicates", "duplicate_8grams", "openers", "templates", "distinct_4")
UNLIKE_METRICS = ("surprise", "unlikely", "reverse_surprise", "tail_coverage")


def decide_collapse(evidence: MetricEvidence, *, steady: bool = False) -> CollapseDecision:
    """Collapse if the candidate is poorer in a way that other topics do not explain; else shift if anything differs.

    `steady`: the loss of rare words has stopped growing over the earlier generations (`filters.collapse.tail_trend`).
    """
    z, change, is_worse = evidence.z, evidence.change, evidence.is_worse
    new_words, other_kind = is_worse("new_words"), evidence.is_other_kind
    foreign = new_words or other_kind
    # A collapse does not bring new words: with new words, a poorer tail may be that of another kind of text. Low-temperature
    # decoding reduces hapaxes and new words together, before it shows which rare words are missing.
    missing = (z["hapax_mass"] >= TAIL_LIMIT or evidence.tail >= Z_LIMIT) and evidence.loss >= MIN_LOSS
    cut = z["hapax_mass"] >= Z_LIMIT and z["new_words"] <= -Z_LIMIT
    cut = cut and change["hapax_mass"] >= MIN_CUT * evidence.real["hapax_mass"]
    poorer = (missing or cut) and not foreign
    uncertain = evidence.may_be_replaced and not (poorer or foreign or steady)
    bounded = steady and change["hapax_mass"] <= BOUNDED_LOSS * evidence.real["hapax_mass"]
    repeated = [
        name
        for name in REPETITION_METRICS
        if is_worse(name) and not (foreign and change[name] < GROSS_CHANGES.get(name, math.inf))
    ]
    likely = z["surprise"] <= -Z_LIMIT and change["surprise"] <= -MIN_CHANGES["surprise"]
    mostly_strange = change["strange_words"] >= MIN_STRANGE_SHARE * change["new_words"]
    strange = mostly_strange and is_worse("strange_words") and is_worse("tail_coverage")
    findings = {
        "tail": TAIL_METRICS if poorer and not bounded else (),
        "repetition": tuple(repeated),
        "likely": ("surprise", "typical") if likely else (),
        "strange": ("strange_words", "tail_coverage") if strange else (),
        "steady": TAIL_METRICS if poorer and bounded else (),
        "uncertain": ("hapax_mass", "tail_coverage") if uncertain else (),
        "other_kind": ("reverse_surprise",) * other_kind,
        "topics": ("topics",) * (evidence.topics >= Z_LIMIT) + ("new_words",) * new_words,
        "unlike": tuple(filter(is_worse, UNLIKE_METRICS)),
    }
    reasons = {kind: names for kind, names in findings.items() if names}
    if has_collapse(reasons):
        verdict = CollapseVerdict.collapse
    elif evidence.documents < MIN_CONCLUSIVE_DOCUMENTS or uncertain:
        verdict = CollapseVerdict.inconclusive
    else:
        verdict = CollapseVerdict.shift if reasons else CollapseVerdict.passed
    return CollapseDecision(verdict, reasons)

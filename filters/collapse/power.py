"""The power of the collapse verdict: the smallest loss of rare words that a comparison of given sizes finds.

A loss is a share of the hapax mass (`filters.collapse.collapse_metrics`). The formulas are for text that is real except that some
of its rare words are missing. Knows no candidate.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from filters.collapse.collapse_metrics import METRIC_NAMES, measure_sample, tail_coverage
from filters.collapse.collapse_verdict import MIN_LOSS, REPLACED_LOSS, TAIL_LIMIT
from filters.collapse.matched_samples import equalize_lengths
from filters.collapse.null_distribution import (
    MAX_SAMPLE_DOCUMENTS,
    SAMPLES_PER_COMPARISON,
    NullDistribution,
    choose_null_size,
    load_null_distribution,
)
from filters.collapse.reference_corpus import ReferenceCorpus

POWER = 0.95
LOSS = 0.2
"""The loss that a number of documents is stated for: a fifth of the rare words. Text of a 4-gram model trained on the text of
another lacks 0.15 to 0.17 (`docs/collapse.md`)."""
COVERED_RARE = 0.7
"""Of the rare words of one sample that another of the same size has, the least share that is rare there too: 0.74 to 0.86 in five
corpora, at 300 to 5,000 documents. A loss lowers `tail_coverage` by this share of itself."""
REPLACED_HAPAXES = 0.7
"""Of the loss of replaced text, at least the part that is of hapax_mass."""
MIN_POWER_DOCUMENTS = 500
"""The promised power was measured from this number of documents on: no smaller number is recommended or gets a promise."""


class LossPower(NamedTuple):
    documents: int
    """Of the candidate and of each of the two samples of the reference."""
    smallest_loss: float
    """Share of the hapax mass that is found with the power; over 1 if none is."""
    documents_needed: int
    """Documents of the candidate, compared on the same topics, at which a loss of `LOSS` is found."""
    reference_needed: int
    """Documents of the reference for that."""
    replaced_needed: int
    """Documents of the candidate, more than are compared, at which replaced text is called a collapse."""


def compute_loss_power(null: NullDistribution, real: Mapping[str, float], tokens: int, documents: int) -> LossPower:
    """The power of a comparison of `documents` documents and `tokens` words a side, where real text has the values `real`."""
    needed = estimate_documents(null, real, tokens, documents)
    smallest = find_smallest_loss(null, real, tokens)
    replaced = estimate_replaced_documents(null, real, tokens, documents)
    return LossPower(documents, smallest, needed, SAMPLES_PER_COMPARISON * needed, replaced)


class FoundLosses(NamedTuple):
    """Losses that each condition of the tail rule finds with a probability of `POWER`, for deviations of a given size."""

    significant: float
    """That with enough deviations of hapax_mass; proportional to the deviations."""
    large: float
    """That of which the shares lost are large enough, without any deviation."""
    spread: float
    """What is added to that; proportional to the deviations."""


def find_smallest_loss(null: NullDistribution, real: Mapping[str, float], tokens: int) -> float:
    """The smallest share of the hapax mass whose loss is called a collapse with a probability of `POWER`."""
    found = _compute_found_losses(null, real, tokens)
    return max(found.significant, found.large + found.spread)


def _compute_found_losses(null: NullDistribution, real: Mapping[str, float], tokens: int) -> FoundLosses:
    """`decide_collapse` asks for `TAIL_LIMIT` deviations of hapax_mass, and for `MIN_LOSS` as the sum of the shares lost of
    hapax_mass and tail_coverage. With a normal deviate u, a loss of (limit + u) deviations is over the limit with probability
    Phi(u). Each condition gets half of the allowed misses (Bonferroni), so u is 1.96 for a power of 0.95.
    """
    deviate = NormalDist().inv_cdf(1 - (1 - POWER) / 2)
    mass, both = _find_relative_deviations(null, real, tokens)
    return FoundLosses(
        (TAIL_LIMIT + deviate) * mass, MIN_LOSS / (1 + COVERED_RARE), deviate * both / (1 + COVERED_RARE)
    )


def estimate_documents(
    null: NullDistribution, real: Mapping[str, float], tokens: int, documents: int, loss: float = LOSS
) -> int:
    """The number of compared documents at which a loss of `loss` is found, in two digits, rounded up, and at least
    `MIN_POWER_DOCUMENTS`.

    Relative deviations of numbers of rare words change with documents n as n ** (-beta / 2), where beta is the slope of Heaps'
    law (`null_distribution.SIZE_EXPONENTS`).
    """
    found = _compute_found_losses(null, real, tokens)
    if loss <= found.large:
        raise ValueError(f"a loss of {loss} is under the limit of {MIN_LOSS} for any number of documents")
    # The factor by which deviations may change until both conditions are met.
    factor = min(loss / max(found.significant, 1e-12), (loss - found.large) / max(found.spread, 1e-12))
    slope = min(max(real["heaps_slope"], 0.1), 1.0)
    needed = documents * math.pow(max(factor, 1e-3), -2 / slope)
    return max(_round_up(needed), MIN_POWER_DOCUMENTS)


def estimate_replaced_documents(null: NullDistribution, real: Mapping[str, float], tokens: int, documents: int) -> int:
    """The number of compared documents, above `documents`, at which text of the second generation of replacement is called a
    collapse with a probability of `POWER`, in two digits, rounded up.

    That text loses `REPLACED_LOSS` per thousand documents. It has to exceed `MIN_LOSS`, and the part of it that is lost of
    hapax_mass `TAIL_LIMIT` deviations, by the deviate of `_compute_found_losses`; deviations change as in `estimate_documents`.
    """
    found = _compute_found_losses(null, real, tokens)
    spread = found.spread * (1 + COVERED_RARE)
    slope = min(max(real["heaps_slope"], 0.1), 1.0)
    needed = float(documents)
    while True:
        needed *= 1.02
        loss, factor = REPLACED_LOSS * needed / 1000, math.pow(needed / documents, -slope / 2)
        if loss >= MIN_LOSS + spread * factor and REPLACED_HAPAXES * loss >= found.significant * factor:
            return _round_up(needed)


def _round_up(documents: float) -> int:
    """In two digits."""
    step = math.pow(10, max(math.floor(math.log10(documents)) - 1, 0)) if documents else 1.0
    return int(math.ceil(documents / step) * step)


def find_loss_deviation(null: NullDistribution, real: Mapping[str, float], tokens: int) -> float:
    """The standard deviation of `MetricEvidence.loss` between samples of real text of `tokens` tokens."""
    return _find_relative_deviations(null, real, tokens)[1]


def _find_relative_deviations(null: NullDistribution, real: Mapping[str, float], tokens: int) -> tuple[float, float]:
    """Deviation of the share lost of hapax_mass, and of its sum with that of tail_coverage."""
    deviations = null.compute_deviations(tokens)
    columns, shares = [], []
    for name in ("hapax_mass", "tail_coverage"):
        i = METRIC_NAMES.index(name)
        column = null.differences[:, i] - null.differences[:, i].mean()
        share = float(deviations[i]) / max(real[name], 1e-9)
        columns.append(share * column / max(float(column.std(ddof=1)), 1e-12))
        shares.append(share)
    return shares[0], float(np.std(columns[0] + columns[1], ddof=1))


def measure_reference_power(
    reference: ReferenceCorpus, candidates: int, *, cache: Path | None = None, seed: int = 0
) -> LossPower:
    """The power that a reference gives to a candidate of `candidates` documents on the same topics and of the same lengths."""
    corpus = reference.corpus
    documents = min(candidates, len(corpus) // 2, MAX_SAMPLE_DOCUMENTS)
    order = np.random.default_rng(seed).permutation(len(corpus))
    places = [order[:documents], order[documents : 2 * documents]]
    lengths = equalize_lengths([corpus.lengths[place] for place in places])
    draws = [corpus.take_sample(*pair) for pair in zip(places, lengths, strict=True)]
    background = reference.build_background()
    one, other = (measure_sample(draw, background, np.zeros_like(background.counts)) for draw in draws)
    pairs = min(one.pairs, other.pairs)
    real = {name: (one.own[name] + other.own[name]) / 2 for name in ("hapax_mass", "heaps_slope")}
    real["tail_coverage"] = (tail_coverage(one, other, pairs) + tail_coverage(other, one, pairs)) / 2
    null = load_null_distribution(reference, choose_null_size(documents, len(corpus)), cache)
    return compute_loss_power(null, real, draws[0].tokens, documents)

"""What a reference can show: the smallest loss of rare words that a comparison with it finds. Knows no candidate."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from filters.collapse.collapse_metrics import METRIC_NAMES, compare_samples, measure_sample
from filters.collapse.collapse_verdict import MIN_LOSS, TAIL_SPREAD, Z_LIMIT, compute_deviations
from filters.collapse.matched_samples import equalize_lengths
from filters.collapse.null_distribution import SAMPLES_PER_COMPARISON, choose_null_size, load_null_distribution
from filters.collapse.reference_corpus import ReferenceCorpus

POWER_DEVIATIONS = 1.645
"""One-sided 95 % of a normal deviate: a loss that is over the limit by this many deviations is found in 19 of 20 datasets."""


class ReferencePower(NamedTuple):
    documents: int
    """Documents of a dataset."""
    compared: int
    """Those that the reference has two samples for, if it has their topics."""
    loss: float | None
    """The share of rare words whose loss is found with 95 % power; None if not even the loss of all is."""


def measure_power(reference: ReferenceCorpus, documents: int, cache: Path | None) -> ReferencePower:
    """The smallest loss of rare words found with 95 % power in a dataset of `documents` documents of this kind. Computes the null
    distribution that `assess` then finds in `cache`.

    A loss of the share L of the rare words lowers `hapax_mass` and `tail_coverage` by L of their values. Their z are added and
    divided by `TAIL_SPREAD`, which gives a deviation of 1, and count from `Z_LIMIT` on (`filters.collapse.collapse_verdict`).
    """
    compared = min(documents, len(reference.corpus) // SAMPLES_PER_COMPARISON)
    null = load_null_distribution(reference, choose_null_size(compared, len(reference.corpus)), cache)
    order = np.random.default_rng(0).permutation(len(reference.corpus))
    places = [order[k * compared : (k + 1) * compared] for k in range(SAMPLES_PER_COMPARISON)]
    lengths = equalize_lengths([reference.corpus.lengths[part] for part in places])
    draws = [reference.corpus.take_sample(*pair) for pair in zip(places, lengths, strict=True)]
    background = reference.build_background()
    excluded = [reference.corpus.count_words(part, len(background.counts)) for part in places]
    real = compare_samples(*map(measure_sample, draws, [background] * len(draws), excluded)).real
    deviations = compute_deviations(null, draws[0].tokens, compared)
    tail = [METRIC_NAMES.index("hapax_mass"), METRIC_NAMES.index("tail_coverage")]
    loss = (Z_LIMIT + POWER_DEVIATIONS) * TAIL_SPREAD / float((real[tail] / deviations[tail]).sum())
    return ReferencePower(documents, compared, max(loss, MIN_LOSS) if loss <= 1 else None)

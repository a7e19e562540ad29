"""Histograms of the similarities of the pairs that a filter compared. Knows no text and no page."""

from collections.abc import Sequence

import numpy as np

from core.config.filters import FilterConfig
from core.runs.records import ComparedSimilarities, SimilarityBin
from filters.chain.filter_chain import DuplicateDecisions
from filters.ragged_arrays import SIMILARITY_BINS


def name_filter_step(place: int, filter: str) -> str:
    """The name of a histogram: the position of its filter among all, from 1, and the filter's type."""
    return f"{place} {filter}"


def count_similarities(
    decisions: DuplicateDecisions, configs: Sequence[FilterConfig]
) -> dict[str, ComparedSimilarities]:
    """The histogram of each filter with a threshold, by `name_filter_step`."""
    histograms = {}
    for step, under in decisions.under.items():
        if (threshold := getattr(configs[step], "threshold", None)) is None:
            continue
        dropped_similarities = [repeat.similarity for repeat in decisions.repeats.values() if repeat.step == step]
        bin_numbers = np.minimum(
            (np.array(dropped_similarities) * SIMILARITY_BINS + 1e-9).astype(np.int64), SIMILARITY_BINS - 1
        )
        dropped = np.bincount(bin_numbers, minlength=SIMILARITY_BINS)
        bins = [
            SimilarityBin(
                low=i / SIMILARITY_BINS, high=(i + 1) / SIMILARITY_BINS, dropped=int(dropped[i]), stayed=int(under[i])
            )
            for i in range(SIMILARITY_BINS)
            if dropped[i] or under[i]
        ]
        histograms[name_filter_step(step + 1, configs[step].type)] = ComparedSimilarities(
            threshold=threshold, bins=tuple(bins)
        )
    return histograms

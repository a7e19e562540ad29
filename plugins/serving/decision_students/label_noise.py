"""How often a teacher's labels are wrong, estimated from its votes or probabilities alone. Knows no text.

Votes of one teacher share its systematic errors, which no estimate from them can see: the estimates are of random errors, a lower
bound of all. A second teacher, or labels by people, show the rest.
"""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np


class VoteSummary(NamedTuple):
    """The votes on one question about one text."""

    majority: Hashable
    """The most frequent vote; of equally frequent ones, the earliest."""
    shares: Mapping[Hashable, float]
    """Of each vote, the most frequent first."""
    disagreement: float
    """The probability that two different votes differ (the unbiased Gini index); 0 with one vote."""


def summarize_votes(votes: Sequence[Hashable]) -> VoteSummary:
    """Raises ValueError without votes."""
    if not votes:
        raise ValueError("there are no votes")
    counts = Counter(votes).most_common()
    pairs = len(votes) * (len(votes) - 1)
    equal = sum(count * (count - 1) for _, count in counts)
    shares = {vote: count / len(votes) for vote, count in counts}
    return VoteSummary(counts[0][0], shares, 1 - equal / pairs if pairs else 0.0)


def estimate_accuracy_from_agreement(agreement: float, classes: int) -> float:
    """The accuracy `a` of one vote if votes err independently and each wrong label is equally likely: agreement =
    a² + (1 - a)² / (classes - 1), solved for the larger root; 1 / classes where the agreement is chance or less.
    """
    k = classes
    square = max(0.0, (k - 1) * (k * agreement - 1))
    return (1 + math.sqrt(square)) / k


def pairwise_agreement(votes: Sequence[Sequence[Hashable]]) -> float | None:
    """The share of equal pairs among the votes on each text, texts weighted equally; None if no text has two votes."""
    rates = [
        sum(left == right for left, right in combinations(row, 2)) / (len(row) * (len(row) - 1) / 2)
        for row in votes
        if len(row) > 1
    ]
    return float(np.mean(rates)) if rates else None


def expected_agreement(probabilities: Sequence[Mapping[str, float]]) -> float:
    """The probability that two votes on a text are equal, if they are drawn by its probabilities; the mean over texts."""
    return float(np.mean([sum(share**2 for share in one.values()) for one in probabilities]))

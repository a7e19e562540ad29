"""Which documents of a recipe are held back: a random draw among all splits with balanced numbers of passages. Knows no row.

The draw is what makes the test exact: the rule could have drawn every other split as well (Morgan and Rubin 2012, Rerandomization
to improve covariate balance in experiments, Annals of Statistics 40).
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import comb
from random import Random
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agents.planning.run_plan import RunPlan
from agents.planning.seed_rows import load_documents
from core.errors import UsageError
from plugins.disclosure.config import DisclosureConfig

Bools = npt.NDArray[np.bool_]

LEAST_SPLITS = 1000
"""With fewer, chance alone gives a small p too often for a verdict at 0.01: 13 documents at `hold_back = 0.5`."""
MOST_UNBALANCED = 0.1
"""The held-back share of passages differs from that of documents by at most this: were it larger, all 32 draws of a seed might be
held back."""
MOST_TRIES = 10_000


class HeldBack(NamedTuple):
    """A choice of seeds (`core.hooks.SeedChoice`): those of documents that are not held back."""

    documents: frozenset[str]
    requests: Collection[str] = ()

    def accepts(self, data: Mapping[str, Any], rng: Random) -> bool:
        return data.get("source") not in self.documents


def find_held_back(plan: RunPlan) -> HeldBack | None:
    """None without the table or without documents. Raises UsageError if no split is possible."""
    config = plan.recipe.section(DisclosureConfig)
    if config is None or plan.recipe.seeds.documents is None:
        return None
    sizes = Counter(chunk.source for chunk in load_documents(plan.recipe.seeds, plan.folder).chunks)
    return HeldBack(draw_held_back(sizes, config.hold_back, plan.recipe.seed))


def draw_held_back(sizes: Mapping[str, int], share: float, seed: int) -> frozenset[str]:
    """The documents to hold back. `sizes`: passages of each document."""
    names = sorted(sizes)
    number = _count_held_back(len(names), share)
    rng, total = Random(f"{seed}/disclosure"), sum(sizes.values())
    for _ in range(MOST_TRIES):
        drawn = rng.sample(names, number)
        if abs(sum(sizes[name] for name in drawn) / total - share) <= MOST_UNBALANCED:
            return frozenset(drawn)
    largest = max(names, key=lambda name: sizes[name])
    raise UsageError(
        f"{largest} has {sizes[largest]:,} of {total:,} passages, so no split of the documents is even; split this one"
    )


def draw_splits(sizes: Sequence[int], share: float, number: int, seed: int) -> Bools:
    """`number` splits by the rule of `draw_held_back`, with equal probabilities: by document, whether it is held back."""
    rng, weights = np.random.default_rng(seed), np.array(sizes) / sum(sizes)
    held, kept, found = _count_held_back(len(sizes), share), list[Bools](), 0
    while found < number:
        drawn = rng.random((number, len(sizes))).argsort(axis=1) < held
        balanced = drawn[np.abs(drawn @ weights - share) <= MOST_UNBALANCED]
        kept.append(balanced)
        found += len(balanced)
    return np.concatenate(kept)[:number]


def _count_held_back(documents: int, share: float) -> int:
    number = round(documents * share)
    if (splits := comb(documents, number)) < LEAST_SPLITS:
        raise UsageError(
            f"{documents} documents can be split in {splits:,} ways, and a test needs {LEAST_SPLITS:,}: 13 documents at "
            "hold_back = 0.5; split large files into documents, or leave [disclosure] out"
        )
    return number

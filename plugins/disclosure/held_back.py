"""Which documents of a recipe are held back: a random draw among all splits with balanced numbers of passages. Knows no row of a
dataset. Of a seeds file, each row is a document of one passage.

The draw is what makes the test exact: the rule could have drawn every other split as well (Morgan and Rubin 2012, Rerandomization
to improve covariate balance in experiments, Annals of Statistics 40).
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import comb
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agents.checks import Options
from agents.families import find_recipe_family
from agents.families.base import RecipeFamily
from agents.planning.run_plan import RunPlan
from agents.planning.seed_rows import load_documents, load_seed_rows
from core.config.recipe import Recipe
from core.errors import UsageError
from plugins.disclosure.config import DisclosureConfig

Bools = npt.NDArray[np.bool_]

LEAST_SPLITS = 1000
"""With fewer, chance alone gives a small p too often for a verdict at 0.01: 13 documents at `hold_back = 0.5`."""
MOST_UNBALANCED = 0.1
"""The held-back share of passages differs from that of documents by at most this: were it larger, all 32 draws of a seed might be
held back."""
MOST_TRIES = 10_000


class Documents(NamedTuple):
    """What rows are compared with, and how a seed says which it is made of."""

    passages: Mapping[str, Sequence[str]]
    """By name: that of a file, or `line 12` of a seeds file."""
    column: str
    """Of a seed's data."""
    names: Mapping[Any, str]
    """By the values of that column. Rows with equal values are one document."""

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: len(passages) for name, passages in self.passages.items()}

    def find_name(self, data: Mapping[str, Any]) -> str | None:
        """Of the document that a seed is made of; None if the family overwrote the column."""
        return self.names.get(_read_text(data, self.column))


class HeldBack(NamedTuple):
    """A choice of seeds (`core.hooks.SeedChoice`): those of documents that are not held back."""

    documents: frozenset[str]
    source: Documents
    requests: Collection[str] = ()

    def accepts(self, data: Mapping[str, Any], rng: Random) -> bool:
        if name := self.source.find_name(data):
            return name not in self.documents
        raise UsageError(
            f"disclosure: the family makes the column {self.source.column!r} of a seed itself, so no row can be held back; "
            "rename the column, or leave [disclosure] out"
        )


def find_held_back(plan: RunPlan) -> HeldBack | None:
    """None without the table, documents and a seeds file. Raises UsageError if no split is possible."""
    config = plan.recipe.section(DisclosureConfig)
    if config is None or (source := read_sources(plan.recipe, plan.folder)) is None:
        return None
    return HeldBack(draw_held_back(source.sizes, config.hold_back, plan.recipe.seed), source)


def read_sources(recipe: Recipe, folder: Path) -> Documents | None:
    """The documents of a recipe, or the rows of its seeds file. None if it has neither.

    Raises:
        UsageError: if they cannot be read, no column of the file has text, or the family shows rows in prompts of others.
    """
    if recipe.seeds.documents is not None:
        documents: dict[str, list[str]] = {}
        for chunk in load_documents(recipe.seeds, folder).chunks:
            documents.setdefault(chunk.source, []).append(chunk.text)
        return Documents(documents, "source", dict(zip(documents, documents, strict=True)))
    if recipe.seeds.path is None:
        return None
    family = find_recipe_family(recipe)
    if type(family).gather_rows is not RecipeFamily.gather_rows:
        raise UsageError(
            f"{family.name} shows rows of the seeds file in the prompts of others, so none can be held back"
        )
    where, rows, lines = load_seed_rows(recipe.seeds, folder, None, family, Options(), recipe.seed)
    values = {(name, value) for row in rows for name, value in row.items() if isinstance(value, str)}
    lengths = Counter[str]()
    for name, value in values:  # a system prompt that all rows have counts once
        lengths[name] += len(value)
    if not lengths:
        raise UsageError(f"{where}: has no column of text to compare with; leave [disclosure] out")
    column = lengths.most_common(1)[0][0]
    found: dict[Any, tuple[str, list[str]]] = {}
    for line, row in zip(lines, rows, strict=True):
        text = "\n".join(value for value in row.values() if isinstance(value, str))
        _, passages = found.setdefault(_read_text(row, column), (f"line {line}", []))
        passages += [] if text in passages else [text]
    return Documents(dict(found.values()), column, {value: name for value, (name, _) in found.items()})


def _read_text(row: Mapping[str, Any], column: str) -> str | None:
    value = row.get(column)
    return value if isinstance(value, str) else None


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

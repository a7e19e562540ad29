"""Gaps that are planted, and whether each arm finds them; halves of the same text, in which it must find none."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.features.measured_texts import LEARNED, RANDOM, Bench, BoolArray, Corpus, Ints, read_words
from filters.collapse.matched_samples import match_lengths
from plugins.features.coverage_gaps import LackingItems
from plugins.features.feature_gaps import cut_texts, truncate_texts
from plugins.features.lacking_features import (
    PooledFeatures,
    compute_matched_thresholds,
    compute_thresholds,
    find_feature_gaps,
)

MIN_SHARE = 0.09
"""A property in fewer documents is not planted."""
FOUND_PHI = 0.5
"""Correlation with the property from which a lacking item is the property (Pearson's phi on the documents of the full half)."""
PROPERTIES: dict[str, Callable[[str], bool]] = {
    "brackets": lambda text: "(" in text,
    "digits": lambda text: bool(re.search(r"\d", text)),
    "semicolons": lambda text: ";" in text,
    "quotations": lambda text: bool(re.search(r"[\"“”]", text)),
    "questions": lambda text: "?" in text,
    "exclamations": lambda text: "!" in text,
    "colons": lambda text: ":" in text,
    "code in backticks": lambda text: "`" in text,
    "capitals within a sentence": lambda text: bool(re.search(r"[a-z,] [A-Z][a-z]", text)),
    "hyphenated words": lambda text: bool(re.search(r"\w-\w", text)),
    "no final stop": lambda text: not text.rstrip().endswith((".", "!", "?", '"', "”", ")")),
    "dashes": lambda text: bool(re.search(r"--|—|–", text)),
    "words in capitals": lambda text: bool(re.search(r"\b[A-Z]{2,}\b", text)),
    "sentences over 30 words": lambda text: any(len(part.split()) > 30 for part in re.split(r"[.!?]", text)),
}


class FoundGap(NamedTuple):
    """What an arm finds of one planted gap."""

    gaps: int
    phi: float
    """Of its largest gap with the property; 0 without a gap."""


def plant_gap(bench: Bench, has: BoolArray) -> dict[str, Any]:
    """Take the documents with the property out of one half, truncate both to equal lengths, and compare them by all arms."""
    half = np.random.default_rng(0).random(len(has)) < 0.5
    places = (np.flatnonzero(half & ~has), np.flatnonzero(~half))
    own, real = truncate_to_equal_lengths(bench, places)
    found = {}
    for arm in bench.corpus.arms:
        lacking, present = find_lacking(own.get(arm), real.get(arm), find_thresholds(arm, real))
        phi = correlate(present, int(lacking.places[0]), has[places[1]]) if lacking.places.size else 0.0
        found[arm] = FoundGap(int(lacking.places.size), phi)._asdict()
    return found


def truncate_to_equal_lengths(bench: Bench, sides: tuple[Ints, Ints]) -> list[Corpus]:
    """The documents at these places, of which only the first tokens are read; clusters are those of whole documents."""
    whole = bench.corpus
    cuts = match_lengths(*(whole.tokens[places] for places in sides))
    compared = []
    for places, cut in zip(sides, cuts, strict=True):
        encoded = truncate_texts([bench.encoded[place] for place in places], cut)
        texts = cut_texts([whole.texts[place] for place in places], encoded)
        clusters = None if whole.clusters is None else whole.clusters.take(places)
        words = read_words(texts, bench.vocabulary)
        compared.append(Corpus(texts, cut, bench.pool_prefixes(places, cut), words, clusters))
    return compared


def find_thresholds(arm: str, reference: Corpus) -> npt.NDArray[np.float64]:
    """From which activation on an item is present. Random features get as many documents as the learned ones."""
    if arm not in (LEARNED, RANDOM):
        return np.full(reference.get(arm).size, 0.5)
    learned, random = reference.features
    thresholds = compute_thresholds(learned)
    return thresholds if arm == LEARNED else compute_matched_thresholds(random, learned.keep_present(thresholds))


def find_lacking(
    own: PooledFeatures, reference: PooledFeatures, thresholds: npt.NDArray[np.float64]
) -> tuple[LackingItems, PooledFeatures]:
    present = reference.keep_present(thresholds)
    return find_feature_gaps(own.keep_present(thresholds), present, thresholds).lacking, present


def correlate(present: PooledFeatures, latent: int, has: BoolArray) -> float:
    """Pearson's phi of a feature and a property over documents."""
    shown = np.zeros(len(present), dtype=bool)
    shown[present.owners[present.latents == latent]] = True
    if shown.all() or not shown.any() or has.all() or not has.any():
        return 0.0
    return float(np.corrcoef(shown, has)[0, 1])


def measure_planted(bench: Bench) -> dict[str, Any]:
    corpus = bench.corpus
    rows: dict[str, Any] = {}
    for name, test in PROPERTIES.items():
        has = np.array([test(text) for text in corpus.texts])
        if MIN_SHARE <= has.mean() <= 0.6 and len(rows) < 10:
            found = bench.measure(f"planted {name}", lambda has=has: plant_gap(bench, has))  # type: ignore[misc]
            rows[name] = {"share": float(has.mean())} | found
    return rows


def count_found(rows: Mapping[str, Any], arm: str) -> int:
    return sum(row[arm]["phi"] >= FOUND_PHI for row in rows.values() if arm in row)


def check_control(rows: Mapping[str, Any]) -> None:
    """Raises RuntimeError if the random dictionary finds as many planted gaps as the autoencoder."""
    found = {arm: count_found(rows, arm) for arm in (LEARNED, RANDOM)}
    if rows and found[RANDOM] >= found[LEARNED]:
        raise RuntimeError(
            f"the random dictionary finds {found[RANDOM]} planted gaps, the autoencoder {found[LEARNED]}"
        )


def measure_alarms(bench: Bench) -> dict[str, int]:
    """Random splits of the same documents into halves in which an arm finds any gap."""
    corpus, generator = bench.corpus, np.random.default_rng(1)
    alarms = dict.fromkeys(corpus.arms, 0)
    for _ in range(bench.size.random_splits):
        order = generator.permutation(len(corpus.texts))
        middle = len(order) // 2
        own, real = corpus.take(order[:middle]), corpus.take(order[middle:])
        for arm in corpus.arms:
            lacking, _ = find_lacking(own.get(arm), real.get(arm), find_thresholds(arm, real))
            alarms[arm] += bool(lacking.places.size)
    return alarms

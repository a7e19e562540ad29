"""The null distribution: how much the collapse metrics vary between disjoint samples of the reference.

Computed once per reference and size, and kept on disk. Samples are drawn without replacement: repeated documents alone move the
Heaps slope by 51 standard errors. Knows no candidate.
"""

import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.storage.atomic_files import read_json, write_json
from filters.collapse.collapse_metrics import (
    METRIC_NAMES,
    WordLikelihoods,
    compare_metrics,
    measure_sample,
    negative_log_likelihood,
)
from filters.collapse.diversity import DiversityMetrics
from filters.collapse.matched_samples import equalize_lengths
from filters.collapse.reference_corpus import ReferenceCorpus

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CACHE_VERSION = 6
COMPARISONS = 60
"""Comparisons of real text with real text. Their standard deviation is then within 18 %, 19 times in 20."""
MOST_PARTS = 12
MIN_DIVERSITY_SAMPLES = 6
SAMPLES_PER_COMPARISON = 3
"""One sample in the role of the candidate, two of the reference."""
MAX_SAMPLE_DOCUMENTS = 10_000
SIZE_EXPONENT = 0.5
"""A mean of independent documents varies by the inverse square root of their number."""
SIZE_EXPONENTS = {"hapax_mass": 0.7, "heaps_slope": 0.3}
"""Of n documents, the number of words in only one is a sum of rare events: it grows as n ** beta (Heaps 1978) and varies by its
root. Over the (word, document) pairs, the deviation of hapax_mass is then n ** (beta / 2 - 1), and that of the logarithm of the
vocabulary n ** (-beta / 2). The slope beta was 0.46 to 0.83 on five corpora; 0.6 is used."""
SIZE_STEP = math.sqrt(2)
"""Sizes are `MAX_SAMPLE_DOCUMENTS` over powers of this, so that one null distribution serves candidates of similar size."""


class NullDistribution(NamedTuple):
    documents: int
    tokens: int
    differences: Floats
    """A row for each comparison, a column for each metric."""
    shown: dict[str, float]
    """Standard deviations of the diversity metrics, which do not affect the verdict."""

    def compute_deviations(self, tokens: int) -> Floats:
        """Standard deviation of each metric for samples of `tokens` tokens, scaled by a power of the ratio of sizes."""
        exponents = np.array([SIZE_EXPONENTS.get(name, SIZE_EXPONENT) for name in METRIC_NAMES])
        deviations: Floats = self.differences.std(axis=0, ddof=1) * (self.tokens / tokens) ** exponents
        return deviations


def choose_null_size(documents: int, reference: int) -> int:
    """The nearest size step for a candidate of `documents` of which the reference contains three samples."""
    wanted = min(documents, MAX_SAMPLE_DOCUMENTS)
    step = round(math.log(MAX_SAMPLE_DOCUMENTS / wanted, SIZE_STEP))
    while (size := round(MAX_SAMPLE_DOCUMENTS / SIZE_STEP**step)) * SAMPLES_PER_COMPARISON > reference:
        step += 1
    return size


def load_null_distribution(reference: ReferenceCorpus, size: int, cache: Path | None) -> NullDistribution:
    """Compute the null distribution, or read it from `cache`."""
    path = None
    if cache:
        # Words are numbered in order of occurrence, so equal texts have equal numbers.
        digest = hashlib.sha256(f"{CACHE_VERSION} {COMPARISONS}".encode())
        digest.update(reference.corpus.ids.tobytes())
        digest.update(reference.corpus.lengths.tobytes())
        for numbers in (reference.corpus.outlines, reference.corpus.texts, reference.groups):
            if numbers is not None:
                digest.update(numbers.tobytes())
        path = cache / f"{size}-{digest.hexdigest()[:16]}.json"
    if path and path.exists():
        fields = read_json(path)
        return NullDistribution(fields["documents"], fields["tokens"], np.array(fields["differences"]), fields["shown"])
    null = _compute_null_distribution(reference, size)
    if path:
        write_json(path, {"metrics": METRIC_NAMES, **null._asdict(), "differences": null.differences.tolist()})
    return null


def _compute_null_distribution(
    reference: ReferenceCorpus, size: int, comparisons: int = COMPARISONS, seed: int = 0
) -> NullDistribution:
    """Split the reference into disjoint samples repeatedly; in each split, every sample is the candidate once. Documents of one
    text stay together, since a dataset has none of the reference's texts.
    """
    random = np.random.default_rng(seed)
    corpus, background = reference.corpus, reference.build_background()
    parts = min(len(corpus) // size, MOST_PARTS)
    rows: list[Floats] = []
    tokens, singles = [], list[DiversityMetrics]()
    while len(rows) < comparisons:
        order = reference.shuffle_documents(random)
        places = [order[k * size : (k + 1) * size] for k in range(parts)]
        lengths = equalize_lengths([corpus.lengths[part] for part in places])
        draws = [corpus.take_sample(*pair) for pair in zip(places, lengths, strict=True)]
        excluded = [corpus.count_words(part, len(background.counts)) for part in places]
        samples = [measure_sample(draw, background, out) for draw, out in zip(draws, excluded, strict=True)]
        # Each sample is compared with the two after it. Every language model is evaluated on its neighbours only.
        after = [negative_log_likelihood(samples[(k + 1) % parts], samples[k]) for k in range(parts)]
        before = [negative_log_likelihood(samples[k - 1], samples[k]) for k in range(parts)]
        for k in range(parts):
            first, second = (k + 1) % parts, (k + 2) % parts
            nats = WordLikelihoods(after[k], before[second], float(before[first].mean()), float(after[first].mean()))
            rows.append(compare_metrics(samples[k], samples[first], samples[second], nats).difference)
        tokens.append(draws[0].tokens)
        if len(singles) < MIN_DIVERSITY_SAMPLES:
            singles += [reference.measure_diversity(draw) for draw in draws]
    columns = {name: [getattr(metrics, name) for metrics in singles] for name in DiversityMetrics._fields}
    shown = {name: float(np.std(values, ddof=1)) for name, values in columns.items() if None not in values}
    return NullDistribution(size, int(np.mean(tokens)), np.stack(rows[:comparisons]), shown)

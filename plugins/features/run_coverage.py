"""Features of a run's kept samples: coverage next to real text, the random dictionary and earlier generations; gaps and seeds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from core.plugins import locate_data
from core.runs.run_dir import RunDir
from core.storage.atomic_files import read_record, write_text
from filters.collapse.matched_samples import match_lengths
from plugins.features.coverage_gaps import MIN_GAP_DOCUMENTS
from plugins.features.dictionary_opening import open_feature_reader
from plugins.features.feature_gaps import (
    DEFAULT_DOCUMENTS,
    Comparison,
    DocumentSide,
    compare_sides,
    truncate_texts,
    write_seeds,
)
from plugins.features.feature_gaps_report import FeatureGapsReport
from plugins.features.lacking_features import compute_matched_thresholds, compute_thresholds
from plugins.features.pooled_features import PooledFeatures

if TYPE_CHECKING:
    from plugins.features.dictionaries.document_features import BothFeatures, FeatureReader

NAME = "features"
GAPS_FILE, SEEDS_FILE = "gaps.json", "seeds.jsonl"
"""The report and the seeds, in the plugin's folder of the run."""
MIN_FEATURE_DOCUMENTS = 3
"""A feature in fewer documents of the reference is no feature of that text."""
MOST_SEEDS = 400
SPLIT_SEED = 0
"""Of the halves of the reference: the same in all generations."""


class FeatureCoverageRecord(BaseModel):
    """How many features of real text the kept samples show, at equal numbers and lengths of documents. It gates nothing."""

    dictionary: str
    """The digest of the dictionary: only coverages by one dictionary can be compared."""
    documents: int
    """Of each side."""
    features: int
    """That half of the reference shows in at least three documents."""
    coverage: float
    """Share of these features that the samples show."""
    reference: float
    """The share that as many documents of the other half of the reference show."""
    random: float
    """`coverage` by the random dictionary: what length and number alone cover."""
    random_reference: float
    gaps: int
    """Features that the samples lack."""
    random_gaps: int


def read_run_gaps(run: RunDir) -> FeatureGapsReport | None:
    """The features that the kept samples lack. None if there is no such file."""
    file = locate_data(run.path, NAME) / GAPS_FILE
    return read_record(file, FeatureGapsReport) if file.is_file() else None


def measure_run_features(
    run: RunDir,
    answers: Sequence[str],
    reference: Sequence[str],
    name: str,
    dictionary: Path,
    progress: Callable[[str], None],
) -> FeatureCoverageRecord | None:
    """Compare the samples with one half of the reference, and their coverage with that of as many documents of the other half, at
    equal lengths. Writes the gaps and seeds for them to the plugin's folder of the run. None if there are too few documents.

    Raises:
        UsageError: if the dictionary cannot be opened.
        StoreError: if a file cannot be written.
    """
    ours = DocumentSide.space_out(answers, DEFAULT_DOCUMENTS)
    # Random halves: rows that take turns, as questions and answers do, would differ by parity.
    order = np.random.default_rng(SPLIT_SEED).permutation(len(reference))
    halves = (np.sort(order[: len(order) // 2]).tolist(), np.sort(order[len(order) // 2 :]).tolist())
    theirs, drawn = (DocumentSide.space_out([reference[row] for row in half], DEFAULT_DOCUMENTS) for half in halves)
    theirs = theirs._replace(numbers=[halves[0][number - 1] + 1 for number in theirs.numbers])  # rows of the whole
    count = min(len(ours.texts), len(drawn.texts))
    if min(count, len(theirs.texts)) < MIN_GAP_DOCUMENTS:
        for file in (GAPS_FILE, SEEDS_FILE):  # of an earlier dataset of this run
            (locate_data(run.path, NAME) / file).unlink(missing_ok=True)
        return None
    reader = open_feature_reader(dictionary)
    compared = compare_sides(ours, theirs, reader, dictionary, (run.name, name), MOST_SEEDS, progress)
    covered = pool_equal_lengths(reader, ours.texts, drawn.texts)
    write_text(locate_data(run.path, NAME) / GAPS_FILE, compared.report.model_dump_json(indent=2) + "\n")
    write_seeds(locate_data(run.path, NAME) / SEEDS_FILE, compared.seeds)
    return _build_record(compared, covered, reader.dictionary.digest)


def pool_equal_lengths(
    reader: "FeatureReader", own: Sequence[str], real: Sequence[str]
) -> tuple["BothFeatures", "BothFeatures"]:
    """The features of as many documents of both sides, evenly spaced and truncated to equal lengths."""
    count = min(len(own), len(real))
    encoded = [
        reader.encode([texts[place] for place in np.linspace(0, len(texts) - 1, count).astype(np.int64)])
        for texts in (own, real)
    ]
    cuts = match_lengths(*(np.array([len(text.ids) for text in side], dtype=np.int64) for side in encoded))
    ours, theirs = (reader.pool(truncate_texts(side, cut)) for side, cut in zip(encoded, cuts, strict=True))
    return ours, theirs


def _build_record(
    compared: Comparison, covered: tuple["BothFeatures", "BothFeatures"], digest: str
) -> FeatureCoverageRecord:
    own, real = covered
    thresholds = compute_thresholds(compared.reference.learned)
    matched = compute_matched_thresholds(compared.reference.random, compared.reference.learned.keep_present(thresholds))
    features, shares = _measure_coverage(thresholds, compared.reference.learned, own.learned, real.learned)
    _, random_shares = _measure_coverage(matched, compared.reference.random, own.random, real.random)
    return FeatureCoverageRecord(
        dictionary=digest, documents=len(own.learned), features=features, coverage=shares[0], reference=shares[1],
        random=random_shares[0], random_reference=random_shares[1], gaps=len(compared.report.gaps),
        random_gaps=compared.report.random.gaps,
    )  # fmt: skip


def _measure_coverage(
    thresholds: npt.NDArray[np.float64], reference: PooledFeatures, *sides: PooledFeatures
) -> tuple[int, list[float]]:
    """The number of features of the reference, and the share of them that each side shows."""
    known = reference.keep_present(thresholds).count_documents() >= MIN_FEATURE_DOCUMENTS
    shown = [side.keep_present(thresholds).count_documents()[known] > 0 for side in sides]
    return int(known.sum()), [float(part.mean()) if part.size else 0.0 for part in shown]

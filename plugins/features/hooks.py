"""What features do in a run: seeds that are checked, and their coverage by the kept samples, next to real text, a random
dictionary and earlier generations, in the manifest and in the report.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from core.config.recipe import Recipe
from core.errors import RecipeProblem
from core.hooks import PageSection, RunHooks
from core.installation import format_install_command
from core.plugins import locate_data
from core.project_files import find_referenced_file
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.sample import Sample
from core.storage.atomic_files import read_record, write_text
from filters.collapse.matched_samples import match_lengths
from flows.data.curated_run import join_assistant_turns, read_kept_rows
from flows.data.reference_files import load_reference
from flows.release.lineage_view import read_earlier_releases
from flows.report.pages import create_page_environment
from flows.terminal.console import SESSION
from plugins.features.config import FeaturesConfig
from plugins.features.coverage_gaps import MIN_GAP_DOCUMENTS
from plugins.features.feature_dictionary import open_feature_reader
from plugins.features.feature_gaps import (
    DEFAULT_DOCUMENTS,
    Comparison,
    DocumentSide,
    compare_sides,
    truncate_texts,
    write_seeds,
)
from plugins.features.feature_gaps_report import MOST_SHOWN_FEATURES, SHOWN_PASSAGES, TEMPLATES, FeatureGapsReport
from plugins.features.lacking_features import PooledFeatures, compute_matched_thresholds, compute_thresholds
from plugins.features.requested_features import FeaturesFilter, list_seed_faults

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
    covered = _pool_equal_lengths(reader, ours.texts, drawn.texts)
    write_text(locate_data(run.path, NAME) / GAPS_FILE, compared.report.model_dump_json(indent=2) + "\n")
    write_seeds(locate_data(run.path, NAME) / SEEDS_FILE, compared.seeds)
    return _build_record(compared, covered, reader.dictionary.digest)


def _pool_equal_lengths(
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
    features, shares = _compare_coverage(thresholds, compared.reference.learned, own.learned, real.learned)
    _, random_shares = _compare_coverage(matched, compared.reference.random, own.random, real.random)
    return FeatureCoverageRecord(
        dictionary=digest, documents=len(own.learned), features=features, coverage=shares[0], reference=shares[1],
        random=random_shares[0], random_reference=random_shares[1], gaps=len(compared.report.gaps),
        random_gaps=compared.report.random.gaps,
    )  # fmt: skip


def _compare_coverage(
    thresholds: npt.NDArray[np.float64], reference: PooledFeatures, *sides: PooledFeatures
) -> tuple[int, list[float]]:
    """The number of features of the reference, and the share of them that each side shows."""
    known = reference.keep_present(thresholds).count_documents() >= MIN_FEATURE_DOCUMENTS
    shown = [side.keep_present(thresholds).count_documents()[known] > 0 for side in sides]
    return int(known.sum()), [float(part.mean()) if part.size else 0.0 for part in shown]


class FeatureHooks(RunHooks):
    def list_plan_problems(self, plan: RunPlan) -> Sequence[RecipeProblem]:
        recipe, problems = plan.recipe, []
        if recipe.section(FeaturesConfig) is None:
            return []
        if not (recipe.collapse and recipe.collapse.reference):
            what = "compares the samples with real text; name it by `collapse.reference`, or leave the table out"
            problems.append(RecipeProblem("features", what))
        if missing := [module for module in FeaturesFilter.modules if find_spec(module) is None]:
            what = f"needs the extra `train` ({', '.join(missing)} is missing): run {format_install_command('train')}"
            problems.append(RecipeProblem("features", what))
        return problems

    def list_seed_problems(self, plan: RunPlan, seeds: RunSeeds) -> Sequence[str]:
        dictionaries = [config.dictionary for config in plan.recipe.filters if isinstance(config, FeaturesFilter)]
        return [
            fault
            for dictionary in dict.fromkeys(dictionaries)
            for fault in list_seed_faults(seeds, find_referenced_file(dictionary, plan.folder))
        ]

    def finish_assessment(self, run: RunDir, manifest: RunManifest) -> None:
        recipe = run.read_recipe()
        manifest.put(NAME, _measure_coverage(run, recipe, run.read_recipe_folder()))

    def render_report(self, run: RunDir, manifest: RunManifest, shown: Sequence[Sample]) -> Sequence[PageSection]:
        record = manifest.get(NAME, FeatureCoverageRecord)
        if record is None:
            return []
        template = create_page_environment(TEMPLATES).get_template("report_section.html")
        body = template.render(
            record=record, earlier=_read_earlier_coverage(run, record.dictionary), gaps=read_run_gaps(run),
            most=MOST_SHOWN_FEATURES, passages=SHOWN_PASSAGES,
        )  # fmt: skip
        return [PageSection("features", "Features", body)]


HOOKS = FeatureHooks()


def _measure_coverage(run: RunDir, recipe: Recipe, folder: Path) -> FeatureCoverageRecord | None:
    """Compare the features of the kept samples with those of the reference, if the recipe names a dictionary."""
    config, name = recipe.section(FeaturesConfig), recipe.collapse and recipe.collapse.reference
    if config is None or not name:
        return None
    answers = [join_assistant_turns(messages) for messages in read_kept_rows(run)["messages"].to_list()]
    texts = load_reference(name, folder, run.cache).texts
    record = measure_run_features(
        run, answers, texts, name, find_referenced_file(config.dictionary, folder),
        lambda message: SESSION.show_progress(lambda: message),
    )  # fmt: skip
    if record is None:
        SESSION.print_message(
            f"features: not measured with {len(answers)} kept samples and {len(texts)} texts of {name}: {MIN_GAP_DOCUMENTS} "
            "samples and twice as many texts are needed"
        )
    return record


def _read_earlier_coverage(run: RunDir, dictionary: str) -> dict[str, FeatureCoverageRecord]:
    """The coverages of the releases that a run builds on by the same dictionary, by generation, oldest first."""
    records = {
        str(release.generation): release.manifest.run.get(NAME, FeatureCoverageRecord)
        for release in read_earlier_releases(run, run.read_recipe())
    }
    return {generation: record for generation, record in records.items() if record and record.dictionary == dictionary}

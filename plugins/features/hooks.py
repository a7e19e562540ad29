"""What features do in a run: seeds that are checked, coverage in the manifest, and a section of the report."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from core.config.recipe import Recipe
from core.errors import RecipeProblem
from core.hooks import PageSection, RunHooks
from core.installation import format_install_command
from core.project_files import find_referenced_file
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.sample import Sample
from flows.data.curated_run import join_assistant_turns, read_kept_rows
from flows.data.reference_files import load_reference
from flows.release.lineage_view import read_earlier_releases
from flows.report.pages import create_page_environment
from flows.terminal.console import SESSION
from plugins.features.config import FeaturesConfig
from plugins.features.coverage_gaps import MIN_GAP_DOCUMENTS
from plugins.features.feature_filter import FeaturesFilter
from plugins.features.feature_gaps_page import TEMPLATES
from plugins.features.feature_gaps_report import MOST_SHOWN_FEATURES, SHOWN_PASSAGES
from plugins.features.requested_features import list_seed_faults
from plugins.features.run_coverage import NAME, FeatureCoverageRecord, measure_run_features, read_run_gaps


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
            record=record, earlier=read_earlier_coverage(run, record.dictionary), gaps=read_run_gaps(run),
            most=MOST_SHOWN_FEATURES, passages=SHOWN_PASSAGES,
        )  # fmt: skip
        return [PageSection("features", "Features", body)]


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


def read_earlier_coverage(run: RunDir, dictionary: str) -> dict[str, FeatureCoverageRecord]:
    """The coverages of the releases that a run builds on by the same dictionary, by generation, oldest first."""
    records = {
        str(release.generation): release.manifest.run.get(NAME, FeatureCoverageRecord)
        for release in read_earlier_releases(run, run.read_recipe())
    }
    return {generation: record for generation, record in records.items() if record and record.dictionary == dictionary}

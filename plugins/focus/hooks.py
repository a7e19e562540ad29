"""Draws a run's seeds by the weights that its recipe names, and shows on its page how often each value was drawn and kept."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from agents.planning.run_plan import RunPlan
from core.errors import RecipeProblem, UsageError
from core.hooks import PageSection, RunHooks, SeedChoice
from core.project_files import find_referenced_file
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.sample import FrozenModel, Sample, SampleStatus, Seed, iterate_labels
from flows.data.curated_run import read_finished_samples
from flows.report.pages import create_page_environment
from plugins.focus.config import NAME, FocusConfig
from plugins.focus.measurement import find_run_weights
from plugins.focus.summary import describe_focus, format_earlier, format_measured
from plugins.focus.weights import FocusWeights, read_focus_weights


class DrawnValue(FrozenModel):
    attribute: str
    value: str
    drawn: int
    """Samples whose seed has the value."""
    kept: int


class FocusRecord(FrozenModel):
    """The weights of a run, and what was drawn by them."""

    weights: FocusWeights
    drawn: tuple[DrawnValue, ...]
    """Of each value whose weight is not 1, in the order of `weights.steered`."""
    samples: int
    before: FocusWeights | None = None
    """By which the seeds of the run were drawn that the weights are from; None for uniform seeds."""


class FocusHooks(RunHooks):
    def list_plan_problems(self, plan: RunPlan) -> Sequence[RecipeProblem]:
        config = plan.recipe.section(FocusConfig)
        if config and config.by and plan.recipe.student is None:
            return [
                RecipeProblem("focus.by", "is measured on a student, so add the table [student], or leave focus out")
            ]
        try:
            _read_weights(config, plan.folder, None)
        except UsageError as error:
            return [RecipeProblem("focus.weights", str(error))]
        return []

    def list_seed_problems(self, plan: RunPlan, seeds: Sequence[Seed]) -> Sequence[str]:
        config = plan.recipe.section(FocusConfig)
        if not config or config.by in (None, "loss") or plan.family.questions(seeds[0]) is not None:
            return []
        return [f'focus.by: in {plan.family.name} seeds alone ask no question; use by = "loss", or leave focus out']

    def choose_seeds(self, plan: RunPlan) -> SeedChoice | None:
        run = RunDir(plan.run) if plan.run else None
        return _read_weights(plan.recipe.section(FocusConfig), plan.folder, run, in_work=plan.in_work)

    def finish_assessment(self, run: RunDir, manifest: RunManifest) -> None:
        manifest.put(NAME, _count_drawn(run))

    def list_summary_lines(self, manifest: RunManifest) -> Sequence[tuple[str, str]]:
        record = manifest.get(NAME, FocusRecord)
        return [("focus", describe_focus(record.weights))] if record else []

    def render_report(self, run: RunDir, manifest: RunManifest, shown: Sequence[Sample]) -> Sequence[PageSection]:
        record = manifest.get(NAME, FocusRecord)
        if record is None:
            return []
        rows = [
            (one, format_measured(record.weights, one), format_earlier(record.before, one), drawn)
            for one, drawn in zip(record.weights.steered, record.drawn, strict=True)
        ]
        template = create_page_environment(Path(__file__).parent / "templates").get_template("report_section.html")
        body = template.render(record=record, sentence=describe_focus(record.weights), rows=rows)
        return [PageSection(NAME, "Seeds from failures", body)]


HOOKS = FocusHooks()


def _read_weights(
    config: FocusConfig | None, folder: Path, run: RunDir | None, *, in_work: bool = False
) -> FocusWeights | None:
    """None in a first generation by `config.by`, and before there is a run."""
    if config and config.weights:
        return read_focus_weights(find_referenced_file(config.weights, folder))
    return find_run_weights(run, config, in_work=in_work) if config and run else None


def _count_drawn(run: RunDir) -> FocusRecord | None:
    weights = _read_weights(run.read_recipe().section(FocusConfig), run.read_recipe_folder(), run)
    if weights is None:
        return None
    drawn: Counter[tuple[str, str]] = Counter()
    kept: Counter[tuple[str, str]] = Counter()
    samples = 0
    for sample in read_finished_samples(run):
        samples += 1
        values = [(name, label) for name, labels in iterate_labels(sample.seed.data) for label in labels]
        drawn.update(values)
        kept.update(values if sample.state == SampleStatus.kept else ())
    keys = [(one.attribute, one.value) for one in weights.steered]
    counts = tuple(DrawnValue(attribute=key[0], value=key[1], drawn=drawn[key], kept=kept[key]) for key in keys)
    return FocusRecord(weights=weights, drawn=counts, samples=samples, before=_read_earlier_weights(run, weights))


def _read_earlier_weights(run: RunDir, weights: FocusWeights) -> FocusWeights | None:
    """Of the run that `weights` were measured on: those by which its own seeds were drawn, if it is still there."""
    earlier = RunDir(run.path.parent / weights.run)
    record = earlier.read_manifest().get(NAME, FocusRecord) if earlier.path.is_dir() else None
    return record.weights if record and record.weights.by == weights.by else None

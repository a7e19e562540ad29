"""The report page of a run, and the same numbers as JSON.

Knows neither how samples are made nor how students are trained. Text from teachers is untrusted: the page escapes it and allows
no script but its own.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from core.config.recipe import Recipe, list_recipe_plugins
from core.plugins import load_hooks
from core.runs.records import RunManifest, RunState
from core.runs.run_dir import RunDir
from core.sample import Sample, SampleStatus, TokenUsage
from core.storage.atomic_files import count_values, read_record, write_json, write_text
from flows.data.dataset_card import list_active_teachers
from flows.data.student_files import STUDENT_EVALUATION_FILE
from flows.release.lineage_view import read_earlier_comparisons
from flows.release.release_gate import describe_release_gate
from flows.report.collapse_page import build_comparison_view
from flows.report.page_templates import TEMPLATE_FOLDER, create_page_environment
from flows.report.panel_plot import build_panel_view
from flows.report.plots import PLOT_HEIGHT, PLOT_WIDTH
from flows.report.similarity_plot import HISTOGRAM_HEIGHT, build_histogram_plots
from flows.report.training_plots import build_loss_curves
from flows.terminal.cost_text import list_bill_rows
from flows.terminal.panel_text import describe_general_loss
from flows.terminal.run_summary import format_run_costs
from flows.terminal.text_format import advise_on_truncation, format_count

if TYPE_CHECKING:
    from flows.evaluate.student_results import StudentEvaluation

MOST_EMBEDDED_SAMPLES = 500
"""Samples in the page. At about 8 kB each, the page stays under 5 MB, which a phone can open."""


class CheckPassRate(NamedTuple):
    """The pass rate of one check, over the verdicts of all samples and revisions."""

    check: str
    passed: int
    verdicts: int

    @property
    def share(self) -> float:
        return self.passed / self.verdicts


class DropReasonGroup(NamedTuple):
    """The samples not kept for one reason, by detail, most frequent first."""

    reason: str
    samples: int
    details: list[tuple[str, int]]


class SamplesOverview(NamedTuple):
    """Counts over all samples, computed in one pass, and the first samples for the page."""

    shown: list[Sample]
    total: int
    checks: list[CheckPassRate]
    agents: dict[str, TokenUsage]
    kept_by_revisions: dict[str, int]


def summarize_samples(kept: Iterable[Sample], dropped: Iterable[Sample]) -> SamplesOverview:
    shown: list[Sample] = []
    total = 0
    passed: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    agents: dict[str, TokenUsage] = {}
    revisions: Counter[int] = Counter()
    for sample in chain(kept, dropped):
        total += 1
        if len(shown) < MOST_EMBEDDED_SAMPLES:
            shown.append(sample)
        for verdict in sample.verdicts:
            verdicts[verdict.check] += 1
            passed[verdict.check] += verdict.passed
        for turn in sample.turns:
            agents[turn.agent] = agents.get(turn.agent, TokenUsage()) + turn.usage
        if sample.state == SampleStatus.kept:
            revisions[sample.revisions] += 1
    rates = [CheckPassRate(check, passed[check], count) for check, count in verdicts.items()]
    hardest_first = sorted(rates, key=lambda rate: (rate.share, rate.check))
    by_revisions = {str(count): revisions[count] for count in sorted(revisions)}
    return SamplesOverview(shown, total, hardest_first, agents, by_revisions)


def write_run_report(
    run: RunDir, manifest: RunManifest, recipe: Recipe, kept: Iterable[Sample], dropped: Iterable[Sample]
) -> None:
    """Write `report.html`, which needs no network, and `report.json` with the same numbers.

    `dropped` includes the failed samples, as `dropped/` does.
    """
    overview = summarize_samples(kept, dropped)
    evaluation = read_student_evaluation(run.student)
    numbers = {
        **build_report_record(manifest, overview),
        "evaluation": evaluation and evaluation.model_dump(mode="json", exclude=EXAMPLE_FIELDS),
    }
    write_json(run.report_file.with_suffix(".json"), {**numbers, "recipe": recipe.model_dump(mode="json")})
    write_text(run.report_file, _render_run_page(run, manifest, recipe, numbers, overview, evaluation))


def read_student_evaluation(student: Path) -> "StudentEvaluation | None":
    """The results of the run's evaluation or of `stillhouse evaluate`. None if there are none."""
    file = student / STUDENT_EVALUATION_FILE
    if not file.is_file():
        return None
    from flows.evaluate.student_results import StudentEvaluation

    return read_record(file, StudentEvaluation)


EXAMPLE_FIELDS = {"examples", "panel_examples"}


def build_report_record(manifest: RunManifest, overview: SamplesOverview) -> dict[str, Any]:
    """The manifest, with counts over the samples."""
    return {
        **manifest.model_dump(mode="json", exclude={"files"}),
        "conclusion": summarize_run(manifest),
        "checks": [{**rate._asdict(), "share": rate.share} for rate in overview.checks],
        "agents": [{"agent": agent, **usage.model_dump()} for agent, usage in overview.agents.items()],
        "kept_by_revisions": overview.kept_by_revisions,
    }


def summarize_run(manifest: RunManifest) -> str:
    """The run in a sentence: kept samples, the student's evaluation, the collapse headline, and without an evaluation the
    student's loss.
    """
    counts = manifest.counts
    kept = f"{counts.kept:,} of {format_count(counts.candidates, 'candidate')} kept"
    if manifest.state is RunState.done:
        parts = [kept if counts.candidates else "No candidate was made"]
    else:
        parts = [f"{STATE_DESCRIPTIONS[manifest.state]}: {kept if counts.candidates else 'no candidate made'} so far"]
    if evaluation := manifest.evaluation:
        passed = {model.role: model.passed for model in evaluation.models}
        parts.append(
            f"the student passes {passed['student']} of {evaluation.requests} held-out requests, its teacher {passed['teacher']}"
        )
        if evaluation.panel and evaluation.panel.comparison:
            parts.append(f"on tasks that it did not train: {describe_general_loss(evaluation.panel.comparison)}")
    if manifest.collapse:
        parts.append(manifest.collapse.line)
    if (student := manifest.student) and not manifest.evaluation:
        change = "fell" if student.loss_after < student.loss_before else "did not fall"
        parts.append(f"the student’s held-out loss {change}, {student.loss_before:.2f} to {student.loss_after:.2f}")
    return "; ".join(parts) + "."


STATE_DESCRIPTIONS = {
    RunState.running: "Still running",
    RunState.interrupted: "Interrupted",
    RunState.partial: "Less than was asked for",
    RunState.failed: "The run failed",
}


def group_drop_reasons(reasons: Mapping[str, int], most: int = 8) -> list[DropReasonGroup]:
    """Counts of `reason:detail` by reason, each with at most `most` details, of which the last sums the rest."""
    by_reason: dict[str, list[tuple[str, int]]] = {}
    for name, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
        reason, _, detail = name.partition(":")
        by_reason.setdefault(reason, []).append((detail, count))
    groups = []
    for reason, details in by_reason.items():
        shown = details
        if len(details) > most:
            rest = details[most - 1 :]
            shown = [*details[: most - 1], (f"{len(rest)} more", sum(count for _, count in rest))]
        groups.append(DropReasonGroup(reason, sum(count for _, count in details), shown))
    return sorted(groups, key=lambda group: -group.samples)


def _render_run_page(
    run: RunDir,
    manifest: RunManifest,
    recipe: Recipe,
    numbers: Mapping[str, Any],
    overview: SamplesOverview,
    evaluation: "StudentEvaluation | None",
) -> str:
    script = (TEMPLATE_FOLDER / "report.js").read_text(encoding="utf-8")
    sections = [
        section
        for hooks in load_hooks([*list_recipe_plugins(recipe), *manifest.plugins], run.path)
        for section in hooks.render_report(run, manifest, overview.shown)
    ]
    return (
        create_page_environment()
        .get_template("report.html")
        .render(
            m=manifest,
            numbers=numbers,
            groups=group_drop_reasons(manifest.reasons),
            collapse=build_comparison_view(manifest.collapse, read_earlier_comparisons(run, recipe))
            if manifest.collapse
            else None,
            parent=build_comparison_view(manifest.collapse_parent) if manifest.collapse_parent else None,
            gate=describe_release_gate(
                manifest.gated, has_reference=manifest.has_reference, judges_structures=manifest.judges_structures
            ),
            plots=build_histogram_plots(manifest.similarities),
            curves=build_loss_curves(run.student, manifest.student.loss_before) if manifest.student else [],
            truncation=manifest.student and advise_on_truncation(manifest.student.truncation, "student.max_tokens"),
            examples=evaluation.examples if evaluation else [],
            panel=build_panel_view(evaluation) if evaluation else None,
            panel_examples=evaluation.panel_examples if evaluation else [],
            sections=[section._replace(body=Markup(section.body)) for section in sections],
            plot_width=PLOT_WIDTH,
            plot_height=PLOT_HEIGHT,
            bars_height=HISTOGRAM_HEIGHT,
            checks=overview.checks,
            agents=overview.agents,
            paid=format_run_costs(manifest),
            bill=list_bill_rows(manifest),
            samples=overview.shown,
            total=overview.total,
            states=count_values([s.state for s in overview.shown]),
            reasons=count_values([s.reason for s in overview.shown if s.reason]),
            recipe=recipe,
            asks_teachers=bool(list_active_teachers(manifest, recipe)),
            recipe_text=json.dumps(recipe.model_dump(mode="json"), indent=2, ensure_ascii=False),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )

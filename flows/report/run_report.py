"""The report page of a run, and the same numbers as JSON.

Knows neither how samples are made nor how students are trained. Text from teachers is untrusted: the page escapes it and allows
no script but its own.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from markupsafe import Markup

from core.config.recipe import Recipe, list_recipe_plugins
from core.plugins import load_hooks
from core.runs.records import RunManifest, flatten_manifest
from core.runs.run_dir import RunDir
from core.sample import RejectionReason, Sample, SampleStatus, TokenUsage, Verdict
from core.storage.atomic_files import count_values, read_record, write_json, write_text
from flows.data.student_files import STUDENT_EVALUATION_FILE
from flows.release.lineage_view import read_earlier_comparisons
from flows.release.release_gate import describe_release_gate
from flows.report.pages import (
    TEMPLATE_FOLDER,
    build_comparison_view,
    build_histogram_plots,
    build_loss_curves,
    build_panel_plot,
    create_page_environment,
)
from flows.terminal.run_summary import RunSummary, summarize_run

if TYPE_CHECKING:
    from flows.evaluate.student_results import StudentEvaluation

MOST_EMBEDDED_SAMPLES = 500
"""Samples in the page. At about 8 kB each, the page stays under 5 MB, which a phone can open."""


class CheckResults(NamedTuple):
    """What one check, or the critic, decided over all samples and revisions."""

    check: str
    passed: int = 0
    verdicts: int = 0
    sent_back: int = 0
    """First drafts that it did not accept."""
    kept_later: int = 0
    """Of these, those of samples that were kept after a revision."""
    example: tuple[str, str] | None = None
    """The first of these: the sample's id, and what was found."""

    @property
    def share(self) -> float:
        return self.passed / self.verdicts

    def add(self, verdict: Verdict, sample: Sample) -> Self:
        refused = not verdict.passed and not verdict.revision
        return self._replace(
            passed=self.passed + verdict.passed,
            verdicts=self.verdicts + 1,
            sent_back=self.sent_back + refused,
            kept_later=self.kept_later + (refused and sample.state == SampleStatus.kept),
            example=self.example or ((sample.id, verdict.evidence) if refused else None),
        )


class SamplesOverview(NamedTuple):
    """Counts over all samples, computed in one pass, and the first samples for the page."""

    shown: list[Sample]
    total: int
    first_drafts: CheckResults
    """What the critic and all checks together decided on first drafts."""
    checks: list[CheckResults]
    agents: dict[str, TokenUsage]
    kept_by_revisions: dict[str, int]

    @property
    def states(self) -> dict[str, int]:
        return count_values([sample.state for sample in self.shown])

    @property
    def reasons(self) -> dict[str, int]:
        return count_values([sample.reason for sample in self.shown if sample.reason])


def _list_verdicts(sample: Sample) -> list[Verdict]:
    """Those of the checks, and one of the critic for each critique: it sends back a draft that no check refused and that was then
    revised, or dropped for the critic.
    """
    refused = {verdict.revision for verdict in sample.verdicts if not verdict.passed}
    verdicts = list(sample.verdicts)
    for critique in sample.critiques:
        accepted = critique.revision == sample.revisions and sample.reason != RejectionReason.critic
        finding = next(iter([*critique.quoted_faults, *critique.faults]), critique.advice)
        passed = accepted or critique.revision in refused
        verdicts.append(Verdict(revision=critique.revision, check="critic", passed=passed, evidence=finding))
    return verdicts


def _summarize_samples(kept: Iterable[Sample], dropped: Iterable[Sample]) -> SamplesOverview:
    shown: list[Sample] = []
    total, first_drafts = 0, CheckResults("first drafts")
    checks: dict[str, CheckResults] = {}
    agents: dict[str, TokenUsage] = {}
    revisions: Counter[int] = Counter()
    for sample in chain(kept, dropped):
        total += 1
        if len(shown) < MOST_EMBEDDED_SAMPLES:
            shown.append(sample)
        verdicts = _list_verdicts(sample)
        for verdict in verdicts:
            checks[verdict.check] = checks.get(verdict.check, CheckResults(verdict.check)).add(verdict, sample)
        if firsts := sorted(
            (verdict for verdict in verdicts if not verdict.revision), key=lambda verdict: verdict.passed
        ):
            first_drafts = first_drafts.add(firsts[0], sample)
        for turn in sample.turns:
            agents[turn.agent] = agents.get(turn.agent, TokenUsage()) + turn.usage
        if sample.state == SampleStatus.kept:
            revisions[sample.revisions] += 1
    hardest_first = sorted(checks.values(), key=lambda results: (results.share, results.check))
    by_revisions = {str(count): revisions[count] for count in sorted(revisions)}
    return SamplesOverview(shown, total, first_drafts, hardest_first, agents, by_revisions)


def write_run_report(
    run: RunDir, manifest: RunManifest, recipe: Recipe, kept: Iterable[Sample], dropped: Iterable[Sample]
) -> None:
    """Write `report.html`, which needs no network, and `report.json` with the same numbers.

    `dropped` includes the failed samples, as `dropped/` does.
    """
    summary, overview = summarize_run(manifest, recipe), _summarize_samples(kept, dropped)
    evaluation = _read_student_evaluation(run.student)
    record = {
        **{key: value for key, value in flatten_manifest(manifest).items() if key != "files"},
        "conclusion": summary.conclusion,
        "checks": [{**results._asdict(), "share": results.share} for results in overview.checks],
        "agents": [{"agent": agent, **usage.model_dump()} for agent, usage in overview.agents.items()],
        "kept_by_revisions": overview.kept_by_revisions,
        "evaluation": evaluation and evaluation.model_dump(mode="json", exclude={"examples", "panel_examples"}),
        "recipe": recipe.model_dump(mode="json"),
    }
    write_json(run.report_file.with_suffix(".json"), record)
    write_text(run.report_file, _render_run_page(run, manifest, recipe, summary, overview, evaluation))


def _read_student_evaluation(student: Path) -> "StudentEvaluation | None":
    """The results of the run's evaluation or of `stillhouse evaluate`. None if there are none."""
    file = student / STUDENT_EVALUATION_FILE
    if not file.is_file():
        return None
    from flows.evaluate.student_results import StudentEvaluation

    return read_record(file, StudentEvaluation)


def _render_run_page(
    run: RunDir,
    manifest: RunManifest,
    recipe: Recipe,
    summary: RunSummary,
    overview: SamplesOverview,
    evaluation: "StudentEvaluation | None",
) -> str:
    script = (TEMPLATE_FOLDER / "report.js").read_text(encoding="utf-8")
    plugins = load_hooks([*list_recipe_plugins(recipe), *manifest.plugins], run.path)
    sections = [section for hooks in plugins for section in hooks.render_report(run, manifest, overview.shown)]
    collapse, parent = manifest.collapse, manifest.collapse_parent
    return create_page_environment().get_template("report.html").render(
        s=summary,
        m=manifest,
        recipe=recipe,
        overview=overview,
        evaluation=evaluation,
        panel=evaluation and build_panel_plot(evaluation),
        curves=build_loss_curves(run.student, manifest.student.loss_before) if manifest.student else [],
        collapse=build_comparison_view(collapse, read_earlier_comparisons(run, recipe)) if collapse else None,
        parent=build_comparison_view(parent) if parent else None,
        gate=describe_release_gate(recipe, manifest.gate),
        histograms=build_histogram_plots(manifest.similarities),
        sections=[section._replace(body=Markup(section.body)) for section in sections],
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip

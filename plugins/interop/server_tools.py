"""The tools of the MCP server as plain functions: each checks what the client may do, does what the command of the same name
does, and returns a record. Knows no protocol.
"""

import asyncio
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.calls.budget import read_journal
from core.config.recipe import BudgetConfig
from core.config.toml_text import format_toml_value
from core.errors import RecipeError, RunExists, RunFailed, UsageError
from core.runs.records import RunManifest, RunState
from core.runs.run_dir import RunDir
from core.sample import Sample, SampleStatus, Spending
from core.shared_options import DEFAULT_ASSESS_SEED, DataKind
from core.stop_signal import RunStopped
from flows.data.curated_run import FinishedLine, find_sample, format_drop_reason, read_finished_lines
from flows.data.run_storage import RunStorage, find_cache_folder
from flows.terminal.console import SESSION
from flows.terminal.text_format import format_count, format_one_line, format_percent
from plugins.interop.access_policy import AccessPolicy
from plugins.interop.run_process import RunProcess, ServerBudget, list_budget_overrides
from plugins.interop.tool_results import (
    AssessmentReport,
    BudgetLine,
    FilteringReport,
    PreviewReport,
    ProblemLine,
    ReleaseReport,
    RunLine,
    RunReport,
    SampleLine,
    SamplesReport,
    ShownSample,
    SpendingLine,
    StartedRun,
    StatusReport,
    ValidationReport,
)

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan
    from agents.studies.preview import PreviewedSamples
    from core.config.filters import FilterConfig

CLOSE_SECONDS = 60.0
"""How long a server that ends waits for its run to store what is in flight. The run ends by itself too."""
MOST_LISTED_RUNS = 50
MOST_LISTED_SAMPLES = 200
SHOWN_REASONS = 5


class ServerTools:
    """The tools, with the run in progress. The working directory is the root of the policy. `preview`, `filter_rows` and `assess`
    take long; the first two stop when `SESSION.stop` is set.
    """

    def __init__(self, policy: AccessPolicy, budget: ServerBudget) -> None:
        self._policy = policy
        self._budget = budget
        self._storage = RunStorage(policy.runs)
        self._process: RunProcess | None = None
        self._earlier: Spending = Spending()
        """What the run of `_process` had spent before it was started."""
        self._spending = threading.Lock()
        """Held by a preview, and while a run is started."""
        self._work_number = 0
        """Previews and runs so far; each has its own account in the budget."""
        self._run_number = 0
        """The number of the run of `_process`."""

    def validate(self, recipe: str, settings: Mapping[str, Any]) -> ValidationReport:
        """The problems of a recipe, or its keys and what it does."""
        from flows.recipes.recipe_catalog import (
            format_findings,
            format_invalid_recipe,
            format_recipe_summary,
            inspect_recipe,
            validate_recipe,
        )

        overrides = _format_overrides(settings)
        try:
            self._policy.check_recipe(recipe, overrides)
            validated = validate_recipe(recipe, overrides)
        except RecipeError as error:
            return ValidationReport(
                valid=False,
                problems=[ProblemLine(where=problem.where, what=problem.what) for problem in error.problems],
                text=format_invalid_recipe(error),
                next="correct these keys and call validate again; the resource stillhouse://recipe-reference has every key",
            )
        plan = validated.plan
        findings = asyncio.run(inspect_recipe(plan, live=False))
        notes = [*format_findings(findings, plan.recipe), *validated.seeds.notes]
        return ValidationReport(
            valid=True,
            notes=notes,
            recipe=plan.recipe.model_dump(mode="json", exclude_none=True),
            text="\n".join([validated.describe(), *format_recipe_summary(plan.recipe), *notes]),
            next="call preview to see a few samples and what a run takes",
        )

    def preview(self, recipe: str, settings: Mapping[str, Any], number: int) -> PreviewReport:
        """A few samples with their verdicts, and an estimate of the run. Keeps no sample."""
        from agents.studies.preview import estimate_run
        from core.config.recipe import recipe_digest
        from flows.data.run_storage import store_estimate
        from flows.run.run_preparation import plan_next_run
        from flows.terminal.run_summary import format_estimate
        from flows.terminal.suggested_commands import build_recipe_arguments, build_unjudged_error

        overrides = _format_overrides(settings)
        with self._spend_alone("preview"):
            self._policy.check_recipe(recipe, overrides)
            limits = self._budget.limit(BudgetConfig())
            written = self._load_plan(recipe, [*overrides, *list_budget_overrides(limits)])
            plan = plan_next_run(written, str(self._policy.runs))
            made = self._make_samples(plan, number, limits)
        if all(sample.state is SampleStatus.failed for sample in made.samples):
            raise build_unjudged_error(made.samples, build_recipe_arguments(recipe, []), number)
        estimate = estimate_run(plan, made)
        store_estimate(recipe_digest(written.recipe, written.sources), estimate)
        kept = sum(sample.state is SampleStatus.kept for sample in made.samples)
        lines = [line for sample in made.samples for line in _format_sample(sample)]
        return PreviewReport(
            samples=[_show_sample(sample) for sample in made.samples],
            kept=kept,
            estimate=estimate,
            text="\n".join([*lines, *format_estimate(estimate, plan.recipe.name)]),
            next="call run with the same recipe and settings"
            if kept
            else "none is kept: read the verdicts, change prompts, checks or the teacher, and preview more samples",
        )

    def _make_samples(self, plan: "RunPlan", number: int, limits: BudgetConfig) -> "PreviewedSamples":
        """Raises RunFailed if the client cancels the call, or the budget ends it."""
        from agents.studies.preview import preview_samples

        with tempfile.TemporaryDirectory() as folder:
            journal = Path(folder) / "spend.jsonl"
            try:
                return asyncio.run(preview_samples(plan, number, SESSION.stop, budget=limits, journal=journal))
            except RunStopped as stopped:
                raise RunFailed(f"the preview ended early: {stopped}" if str(stopped) else "cancelled") from None
            finally:
                self._work_number += 1
                self._budget.record(self._work_number, read_journal(journal).spent)

    def run(self, recipe: str, settings: Mapping[str, Any], *, resume: bool, student: bool) -> StartedRun:
        """Make or find the run's folder, and start its work in another process."""
        overrides = _format_overrides(settings)
        with self._spend_alone("run"):
            wanted = self._policy.check_recipe(recipe, overrides).budget
            run = self._prepare_run(recipe, overrides, wanted, resume=resume, student=student)
            self._earlier = _measure_spending(run)
            limits = self._budget.limit(wanted, self._earlier)
            changes = [word for text in (*overrides, *list_budget_overrides(limits)) for word in ("--set", text)]
            words = [
                "run" if student else "generate",
                recipe,
                *changes,
                "--runs-dir",
                str(self._policy.runs),
                "--resume",
            ]
            self._work_number += 1
            self._run_number = self._work_number
            if self._process:
                self._process.close()
            self._process = RunProcess(run.name, words, self._policy)
        return StartedRun(
            run=run.name,
            folder=str(run.path),
            max_requests=limits.calls,
            max_cost=limits.cost,
            text=f"run {run.name} is started",
            next=f"call status with run = {run.name!r} until its state is not running",
        )

    def _prepare_run(
        self, recipe: str, overrides: Sequence[str], wanted: BudgetConfig, *, resume: bool, student: bool
    ) -> RunDir:
        """Find every mistake in the recipe and make or find the run's folder, as the command does before it works."""
        from flows.run.run_preparation import prepare_run

        with_limits = [*overrides, *list_budget_overrides(self._budget.limit(wanted))]
        self._load_plan(recipe, with_limits)  # before the folder is made
        try:
            run = prepare_run(recipe, with_limits, str(self._policy.runs), resume=resume, distill=student).run
        except RunExists as error:
            raise UsageError(f"{error}; or call run with resume = true") from None
        if run.is_held():
            raise UsageError(f"{run.name}: another process is working on this run; call status with its name")
        return run

    def cancel(self, run: str) -> StatusReport:
        """Stop the run that this server started, as Ctrl-C does."""
        process = self._process
        if process is None or process.name != run or process.exit_code is not None:
            raise UsageError(f"{run}: this server has no run of this name in progress; call status for all runs")
        process.interrupt()
        process.wait(CLOSE_SECONDS)
        return self.status(run)

    def status(self, run: str | None) -> StatusReport:
        """How a run is doing; or all runs."""
        self._collect_spending()
        budget = self._describe_budget() if self._policy.allow_run else None
        if run is None:
            runs = self._list_runs()
            text = "\n".join(f"{line.run}  {line.state}  {line.kept:,} kept" for line in runs) or "no runs"
            return StatusReport(runs=runs, budget=budget, text=text, next="call status with a run's name")
        found = self._find_run(run)
        manifest = self._read_manifest(found)
        report = self._describe_run(found, manifest)
        return StatusReport(run=report, budget=budget, text=_format_report(report), next=_suggest_after(manifest))

    def show(self, run: str, sample: str | None) -> SamplesReport:
        """A sample with its verdicts, or the list of a run's samples."""
        found = self._find_run(run)
        if sample is not None:
            from flows.terminal.sample_history import format_sample_history

            named = find_sample(found, sample)
            return SamplesReport(sample=_show_sample(named), text=format_sample_history(named))
        samples, total = [], 0
        for line in read_finished_lines(found):
            total += 1
            if total <= MOST_LISTED_SAMPLES:
                samples.append(_list_sample(line))
        shown = f"; the first {len(samples):,} are listed" if total > len(samples) else ""
        lines = [f"{listed.id}  {listed.state}  {listed.reason}".rstrip() for listed in samples]
        return SamplesReport(
            samples=samples,
            text="\n".join([f"{format_count(total, 'finished sample')}{shown}", *lines]),
            next="call show with the id of a sample for its messages and verdicts",
        )

    def filter_rows(
        self, source: str, out: str, filters: Sequence[str | Mapping[str, Any]] | None, recipe: str | None
    ) -> FilteringReport:
        """Write the rows of a dataset that the filters keep to a new folder."""
        from flows.clean.dataset_filter import filter_dataset, parse_filter_settings
        from flows.recipes.recipe_catalog import load_recipe_plan
        from flows.terminal.text_format import say

        self._policy.require_run("filter")
        if recipe and filters:
            raise UsageError("recipe: brings its own filters; leave out `filters`")
        rows, folder = self._policy.locate_dataset(source, "source"), self._policy.locate_file(out, "out")
        configs: Sequence[FilterConfig]
        if recipe:
            self._policy.check_recipe(recipe, [])
            plan = load_recipe_plan(recipe, [])
            configs, base = plan.recipe.filters, plan.folder
        else:
            tables = [{"type": one} if isinstance(one, str) else dict(one) for one in filters or ()]
            settings = _format_overrides({"filters": tables} if filters else {})
            self._policy.check_recipe("smoke", settings)  # their files too must be in the folder
            configs, base = parse_filter_settings(settings), self._policy.root
        report = filter_dataset(rows, folder, configs, base)
        return FilteringReport(
            rows=report.counts.candidates,
            kept=report.counts.kept,
            dropped=report.counts.dropped,
            unreadable=report.counts.failed,
            reasons={str(reason): count for reason, count in report.reasons.items()},
            kept_file=report.kept,
            folder=report.out,
            text=say("filter_conclusion", report),
            next=f"call assess with source = {report.kept!r}",
        )

    def assess(self, source: str, reference: str | None, parent: str | None, kind: DataKind | None) -> AssessmentReport:
        """Measure repetition in a dataset, or compare it with real text and with the dataset that it extends."""
        from flows.evaluate.dataset_assessment import assess_dataset, format_assessment

        policy = self._policy
        assessment = assess_dataset(
            policy.locate_dataset(source, "source"),
            policy.locate_reference(reference),
            DEFAULT_ASSESS_SEED,
            parent=policy.locate_dataset(parent, "parent") if parent else None,
            cache=find_cache_folder(str(policy.runs)) if policy.allow_run else None,
            kind=kind,
        )
        records = [record for record in (assessment.collapse, assessment.parent) if record]
        return AssessmentReport(
            verdict=str(assessment.verdict),
            headline=assessment.worse.headline,
            paragraph=assessment.worse.paragraph,
            advice=[advice.text for advice in assessment.advice],
            gates=assessment.collapse_reasons,
            metrics=[metric for record in records for metric in record.metrics],
            text="\n".join(format_assessment(assessment)),
        )

    def release(self, run: str) -> ReleaseReport:
        """Make an immutable release of a finished run."""
        from flows.release.release_creation import describe_created_release, release_run

        self._policy.require_run("release")
        created = release_run(self._find_run(run), self._storage)
        release = created.release
        return ReleaseReport(
            release=release.name,
            folder=str(release.path),
            digest=release.manifest.digest,
            verdict=str(release.manifest.verdict or ""),
            rows=release.lineage.mix.rows,
            already_released=created.already_released,
            text=describe_created_release(created),
        )

    def close(self) -> None:
        """Stop the run in progress, and wait until what is in flight is stored."""
        if self._process and self._process.exit_code is None:
            self._process.interrupt()
            self._process.wait(CLOSE_SECONDS)

    def _load_plan(self, recipe: str, overrides: list[str]) -> "RunPlan":
        """Raises UsageError if its prices are in another currency than the budget."""
        from flows.recipes.recipe_catalog import load_recipe_plan

        plan = load_recipe_plan(recipe, overrides)
        self._budget.check_currencies({record.currency for record in plan.prices.values()})
        return plan

    @contextmanager
    def _spend_alone(self, tool: str) -> Iterator[None]:
        """Around what spends: one budget is for all, so only one run or preview spends at a time.

        Raises:
            UsageError: if the server is read-only, or another run or preview is in progress.
        """
        self._policy.require_run(tool)
        if not self._spending.acquire(blocking=False):
            raise UsageError(f"{tool}: a preview is in progress; wait until it ends")
        try:
            self._collect_spending()
            if self._process and self._process.exit_code is None:
                raise UsageError(
                    f"{tool}: the run {self._process.name} is in progress; wait until it ends, or cancel it"
                )
            yield
        finally:
            self._spending.release()

    def _collect_spending(self) -> None:
        if self._process:
            run = RunDir(self._policy.runs / self._process.name)
            self._budget.record(self._run_number, _measure_spending(run) - self._earlier)

    def _find_run(self, name: str) -> RunDir:
        if Path(name).name != name:
            raise UsageError(f"{name}: is not the name of a run; call status for the names of all runs")
        return self._storage.find_run(str(self._policy.runs / name) if (self._policy.runs / name).is_dir() else name)

    def _read_manifest(self, run: RunDir) -> RunManifest:
        """The manifest; a run whose process has just been started is running, although it holds no lock yet."""
        manifest = self._storage.read_manifest(run)
        process = self._process
        if process and process.name == run.name:
            if process.exit_code is None:
                manifest.state, manifest.error = RunState.running, None
            elif manifest.state is RunState.interrupted and (last := _find_error(process)):
                manifest.error = last
        return manifest

    def _list_runs(self) -> list[RunLine]:
        manifests = [
            self._read_manifest(RunDir(file.parent))
            for file in self._policy.runs.glob("*/manifest.json")
            if file.is_file()
        ]
        manifests.sort(key=lambda manifest: manifest.started, reverse=True)
        return [
            RunLine(run=one.run, state=str(one.state), kept=one.counts.kept, started=one.started)
            for one in manifests[:MOST_LISTED_RUNS]
        ]

    def _describe_run(self, run: RunDir, manifest: RunManifest) -> RunReport:
        counts = manifest.counts
        log = self._process.read_log_tail() if self._process and self._process.name == run.name else []
        return RunReport(
            run=run.name,
            state=str(manifest.state),
            kept=counts.kept,
            started=manifest.started,
            progress=log[-1] if log and manifest.state is RunState.running else "",
            error=manifest.error or "",
            counts=counts,
            acceptance=counts.kept / counts.candidates if counts.candidates else None,
            reasons=dict(sorted(manifest.reasons.items(), key=lambda item: -item[1])),
            shortfalls=manifest.shortfalls,
            verdict=manifest.collapse.headline if manifest.collapse else "",
            spent=_describe_spending(_measure_spending(run)),
            dataset=str(run.dataset) if run.dataset.exists() else "",
            student=str(run.student) if manifest.student else "",
            page=str(run.report_file) if run.report_file.exists() else "",
        )

    def _describe_budget(self) -> BudgetLine:
        budget = self._budget
        return BudgetLine(
            max_requests=budget.max_requests, max_usd=budget.max_usd, spent=_describe_spending(budget.spent)
        )


def _format_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Settings by dotted key in the form of `--set`. Raises UsageError for a value that TOML cannot express."""
    try:
        return [f"{key}={format_toml_value(value)}" for key, value in settings.items()]
    except TypeError as error:
        raise UsageError(f"settings: {error}") from None


def _measure_spending(run: RunDir) -> Spending:
    """What a run has spent on samples and on its evaluation, in all its sessions; calls in flight count in full."""
    return read_journal(run.spend_file).spent + read_journal(run.evaluation_spend_file).spent


def _show_sample(sample: Sample) -> ShownSample:
    return ShownSample(
        **_list_sample(sample).model_dump(),
        messages=sample.candidate.messages,
        verdicts=sample.verdicts,
        faults=[fault for critique in sample.critiques for fault in critique.faults],
    )


def _list_sample(sample: Sample | FinishedLine) -> SampleLine:
    reason = format_drop_reason(sample.reason, sample.detail) if sample.reason else ""
    return SampleLine(id=sample.id, state=str(sample.state), reason=reason)


def _format_sample(sample: Sample) -> list[str]:
    """A sample in a few lines: what was asked and answered, and which checks did not pass."""
    line = _list_sample(sample)
    lines = [f"sample {line.id}  {line.state}  {line.reason}".rstrip()]
    lines += [f"  {message.role}: {format_one_line(message.text, 400)}" for message in sample.candidate.messages]
    last = max((verdict.revision for verdict in sample.verdicts), default=0)
    failed = [verdict for verdict in sample.verdicts if not verdict.passed and verdict.revision == last]
    return [*lines, *(f"  FAIL {verdict.check}: {format_one_line(verdict.evidence)}" for verdict in failed)]


def _describe_spending(spent: Spending) -> SpendingLine:
    return SpendingLine(requests=spent.calls, tokens=spent.tokens, cost=spent.cost)


def _find_error(process: RunProcess) -> str:
    """The error that a command printed last, or an empty text."""
    return next((line for line in reversed(process.read_log_tail()) if line.startswith("error: ")), "").removeprefix(
        "error: "
    )


def _format_report(report: RunReport) -> str:
    lines = [f"run {report.run}  {report.state}", report.progress, f"error: {report.error}" if report.error else ""]
    if report.acceptance is not None:
        lines.append(
            f"{report.kept:,} of {report.counts.candidates:,} samples kept ({format_percent(report.acceptance)})"
        )
    most = list(report.reasons.items())[:SHOWN_REASONS]
    lines += [f"not kept: {', '.join(f'{reason} {count:,}' for reason, count in most)}"] if most else []
    lines += report.shortfalls
    lines += [f"verdict: {report.verdict}"] if report.verdict else []
    return "\n".join(filter(None, lines))


def _suggest_after(manifest: RunManifest) -> str:
    match manifest.state:
        case RunState.running:
            return "call status again in a while, or cancel"
        case RunState.done | RunState.partial if manifest.counts.kept:
            return "call show to read samples, then release"
        case RunState.done | RunState.partial:
            return "nothing is kept: call show to read why, change the recipe, and call preview"
        case _ if manifest.remedy == "preview":
            return "a check of the recipe raised: call preview to see its error"
        case _ if manifest.remedy == "resume":
            return "call run with the same recipe and settings, and resume = true; finished samples are not made again"
        case _:
            return "call show to read why samples failed, and change the recipe"

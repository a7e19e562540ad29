"""The results of a topology study: rates, error amplification and costs of each topology, with intervals, as a table.

Knows no agent: it counts outcomes.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from math import ceil, log

import numpy as np
from pydantic import BaseModel, ConfigDict

from core.intervals import Z_95, IntervalEstimate, estimate_ratio, estimate_share
from core.sample import SampleStatus
from flows.terminal.console import CommandSession
from plugins.study.topology_study import BASELINE_TOPOLOGY, StudyOutcome, TopologyStudy, TopologyTrial, run_trial

RESAMPLES = 1000
Z_80 = 0.8416
"""The normal quantile of a power of 80 %."""


class TopologyResult(BaseModel):
    """The result of one topology. A measure is None where nothing was kept, or the baseline kept nothing wrong."""

    model_config = ConfigDict(frozen=True)

    topology: str
    samples: int
    """Finished within the budget."""
    kept: int
    failed: int
    wrong: int
    """Kept samples that fail the study's ground truth."""
    wrong_by: dict[str, int]
    tokens_spent: int
    """Including samples that the end of the budget interrupted."""
    calls_spent: int
    cached_tokens: int = 0
    """Of the tokens: those that teachers read from their prompt caches."""
    reasoning_tokens: int = 0
    """Of the tokens: thinking."""
    kept_share: IntervalEstimate | None
    """The yield."""
    error_rate: IntervalEstimate | None
    """The share of wrong samples among those kept."""
    calls_per_kept: IntervalEstimate | None
    tokens_per_kept: IntervalEstimate | None
    amplification: IntervalEstimate | None
    """Its error rate over that of `single`."""
    amplification_by: dict[str, IntervalEstimate]
    """The same by fault class."""


class TopologyStudyReport(BaseModel):
    """The saved result of a study."""

    model_config = ConfigDict(frozen=True)

    recipe: str
    seed: int
    samples: int
    tokens: int | None
    """The budget of each topology; None for no limit."""
    used: list[str]
    """The criteria that the agents use."""
    truth: list[str]
    """The ground-truth criteria, which no agent uses."""
    rows: list[TopologyResult]

    def find_row(self, topology: str) -> TopologyResult | None:
        return next((row for row in self.rows if row.topology == topology), None)


def cost_per_kept(costs: Sequence[int], kept: Sequence[bool], seed: int) -> IntervalEstimate | None:
    """The cost of all samples per kept sample, with the percentile interval of a bootstrap over samples (Efron 1979)."""
    if not any(kept):
        return None
    pairs = np.column_stack([costs, kept]).astype(float)
    rng = np.random.default_rng(seed)
    sums = np.array([pairs[rng.integers(0, len(pairs), len(pairs))].sum(axis=0) for _ in range(RESAMPLES)])
    drawn = sums[sums[:, 1] > 0]
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    return IntervalEstimate(value=pairs[:, 0].sum() / pairs[:, 1].sum(), low=float(low), high=float(high))


async def run_topology_study(
    study: TopologyStudy, kinds: Sequence[str], session: CommandSession
) -> TopologyStudyReport:
    """Run the study under these topologies, with progress.

    Raises:
        RunStopped: on the stop signal.
    """
    trials = []
    for kind in kinds:

        def show_progress(ended: int, kind: str = kind) -> None:
            session.show_progress(lambda: f"{kind}: {ended:,} of {study.samples:,} samples")

        trials.append(trial := await run_trial(study, kind, session.stop, show_progress))
        session.print_message(f"{kind}: {len(trial.outcomes):,} samples, {trial.spent.tokens:,} tokens")
    return build_study_report(study, trials)


def build_study_report(study: TopologyStudy, trials: Sequence[TopologyTrial]) -> TopologyStudyReport:
    recipe = study.plan.recipe
    base = next((trial for trial in trials if trial.kind == BASELINE_TOPOLOGY), None)
    base_kept, base_faults = _count_faults(base.outcomes) if base else (0, Counter())
    rows = []
    for trial in trials:
        outcomes = trial.outcomes
        kept, faults = _count_faults(outcomes)
        passed = [outcome.state == SampleStatus.kept for outcome in outcomes]
        amplified = {
            name: estimate_ratio(faults[name], kept, base_faults[name], base_kept) for name in sorted(base_faults)
        }
        whole = estimate_ratio(faults.total(), kept, base_faults.total(), base_kept)
        if whole and trial is base:  # by definition, not by measurement
            whole = IntervalEstimate(value=1.0, low=1.0, high=1.0)
            amplified = dict.fromkeys(amplified, whole)
        result = TopologyResult(
            topology=trial.kind,
            samples=len(outcomes),
            kept=kept,
            failed=sum(outcome.state == SampleStatus.failed for outcome in outcomes),
            wrong=faults.total(),
            wrong_by=dict(sorted(faults.items())),
            tokens_spent=trial.spent.tokens,
            calls_spent=trial.spent.calls,
            cached_tokens=trial.spent.cached_tokens,
            reasoning_tokens=trial.spent.reasoning_tokens,
            kept_share=estimate_share(kept, len(outcomes)),
            error_rate=estimate_share(faults.total(), kept),
            calls_per_kept=cost_per_kept([outcome.calls for outcome in outcomes], passed, recipe.seed),
            tokens_per_kept=cost_per_kept([outcome.tokens for outcome in outcomes], passed, recipe.seed),
            amplification=whole,
            amplification_by={name: estimate for name, estimate in amplified.items() if estimate},
        )
        rows.append(result)
    return TopologyStudyReport(
        recipe=recipe.name,
        seed=recipe.seed,
        samples=study.samples,
        tokens=study.tokens,
        used=study.agent_criteria,
        truth=study.truth_criteria,
        rows=rows,
    )


def count_samples_needed(result: TopologyResult) -> int | None:
    """With how many samples the interval of amplification would exclude 1 in 80 % of studies, if the rates are as measured. None
    if it excludes 1, or if nothing can be said.

    The standard error of log amplification falls with the square root of the number of samples, and must be a
    (1.96 + 0.84)th of its distance from 0 (Cohen 1988, Statistical Power Analysis, section 2).
    """
    ratio = result.amplification
    if ratio is None or not ratio.low < 1 < ratio.high or ratio.low == 0 or ratio.value == 1:
        return None
    error = (log(ratio.high) - log(ratio.low)) / (2 * Z_95)
    return ceil(result.samples * ((Z_95 + Z_80) * error / log(ratio.value)) ** 2)


def _count_faults(outcomes: Sequence[StudyOutcome]) -> tuple[int, Counter[str]]:
    """The number of kept samples, and their faults."""
    kept = [outcome for outcome in outcomes if outcome.state == SampleStatus.kept]
    return len(kept), Counter(outcome.fault for outcome in kept if outcome.fault)


def format_study_report(report: TopologyStudyReport) -> str:
    """The report as Markdown: the compared setups, a row for each topology, and amplification by fault class, where there is
    more than one class.
    """
    budget = f"at most {report.tokens:,} tokens each" if report.tokens else "no budget: each made all samples"
    head = (
        f"{report.recipe}, seed {report.seed}: the same {report.samples:,} seeds under each topology, {budget}. "
        f"Criteria of the agents: {', '.join(report.used) or 'none'}. "
        f"Ground truth, which they do not use: {', '.join(report.truth)}. "
        "In parentheses, 95 % intervals."
    )
    table = [
        "| topology | made | kept | yield | wrong of the kept | amplification | calls a kept sample | tokens a kept sample "
        "| right, kept, for a million tokens |\n|" + "---|" * 9
    ]
    for row in report.rows:
        right = f"{(row.kept - row.wrong) / row.tokens_spent * 1e6:,.0f}" if row.tokens_spent else "-"
        cells = [
            row.topology,
            f"{row.samples:,}",
            f"{row.kept:,}",
            _format_measure(row.kept_share, _format_percent),
            _format_measure(row.error_rate, _format_percent),
            "1" if row.topology == BASELINE_TOPOLOGY else _format_measure(row.amplification, _format_times),
            _format_measure(row.calls_per_kept, _format_times),
            _format_measure(row.tokens_per_kept, lambda tokens: f"{tokens:,.0f}"),
            right,
        ]
        table.append(f"| {' | '.join(cells)} |")
    parts = [head, "\n".join(table)]
    for row in report.rows:
        kinds = {"cached": row.cached_tokens, "thinking": row.reasoning_tokens}
        if listed := ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count):
            parts.append(f"{row.topology}: {row.tokens_spent:,} tokens, of them {listed}.")

    for row in report.rows:
        if needed := count_samples_needed(row):
            parts.append(
                f"{row.topology}: its amplification includes 1, so nothing is certain. About {needed:,} samples would "
                "tell in 80 % of studies, if the rates stay."
            )
    classes = sorted({name for row in report.rows for name in row.wrong_by})
    if len(classes) > 1:
        table = [
            f"| kept with | {' | '.join(row.topology for row in report.rows)} |\n|{'---|' * (len(report.rows) + 1)}"
        ]
        for name in classes:
            cells = []
            for row in report.rows:
                cell, amplification = f"{row.wrong_by.get(name, 0):,}", row.amplification_by.get(name)
                if amplification and row.topology != BASELINE_TOPOLOGY:
                    cell += f", × {amplification.format(_format_times)}"
                cells.append(cell)
            table.append(f"| {name} | {' | '.join(cells)} |")
        parts += ["Wrong kept samples by fault class, and their amplification:", "\n".join(table)]
    return "\n\n".join(parts)


def _format_measure(measure: IntervalEstimate | None, form: Callable[[float], str]) -> str:
    return measure.format(form) if measure else "-"


def _format_percent(value: float) -> str:
    return f"{value:.1%}".replace("%", " %")


def _format_times(value: float) -> str:
    return f"{value:.2f}"

"""The numbers of a topology study: rates, amplification and costs of each topology, with intervals, and their table.

Knows no agent: it counts outcomes.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from agents.study import BASELINE, Outcome, Study, Trial, trial_of
from core.sample import State
from core.shares import Measure, ratio, share
from flows.session import Session

RESAMPLES = 1000


class TopologyRow(BaseModel):
    """What one topology did. A measure is None where nothing was kept, or nothing wrong was kept to compare with."""

    model_config = ConfigDict(frozen=True)

    topology: str
    samples: int
    """Finished within the budget."""
    kept: int
    failed: int
    wrong: int
    """Kept samples that the study's truth finds wrong."""
    wrong_by: dict[str, int]
    tokens_spent: int
    """With those of samples that the end of the budget cut off."""
    calls_spent: int
    kept_share: Measure | None
    """The yield."""
    error_rate: Measure | None
    """Wrong samples among those kept."""
    calls_per_kept: Measure | None
    tokens_per_kept: Measure | None
    amplification: Measure | None
    """Its error rate over that of `single`."""
    amplification_by: dict[str, Measure]
    """The same by class of fault."""


class StudyReport(BaseModel):
    """A study's result, as it is saved."""

    model_config = ConfigDict(frozen=True)

    recipe: str
    seed: int
    samples: int
    tokens: int | None
    """The budget of each topology; None is no limit."""
    used: list[str]
    """What the agents judge by."""
    truth: list[str]
    """What tells right from wrong, and no agent uses."""
    rows: list[TopologyRow]

    def row(self, topology: str) -> TopologyRow | None:
        return next((row for row in self.rows if row.topology == topology), None)


def cost_per_kept(costs: Sequence[int], kept: Sequence[bool], seed: int) -> Measure | None:
    """What all samples cost for each that was kept, with the percentile interval of a bootstrap over samples (Efron 1979)."""
    if not any(kept):
        return None
    pairs = np.column_stack([costs, kept]).astype(float)
    rng = np.random.default_rng(seed)
    sums = np.array([pairs[rng.integers(0, len(pairs), len(pairs))].sum(axis=0) for _ in range(RESAMPLES)])
    drawn = sums[sums[:, 1] > 0]
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    return Measure(value=pairs[:, 0].sum() / pairs[:, 1].sum(), low=float(low), high=float(high))


async def study_report(study: Study, kinds: Sequence[str], session: Session) -> StudyReport:
    """Run the study under these topologies, telling how far it is.

    Raises:
        Stopped: if the user wishes to stop.
    """
    trials = []
    for kind in kinds:

        def told(ended: int, kind: str = kind) -> None:
            session.count(lambda: f"{kind}: {ended:,} of {study.samples:,} samples")

        trials.append(trial := await trial_of(study, kind, session.stop, told))
        session.tell(f"{kind}: {len(trial.outcomes):,} samples, {trial.spent.tokens:,} tokens")
    return report_of(study, trials)


def report_of(study: Study, trials: Sequence[Trial]) -> StudyReport:
    base = next((trial for trial in trials if trial.kind == BASELINE), None)
    recipe = study.plan.recipe
    return StudyReport(
        recipe=recipe.name,
        seed=recipe.seed,
        samples=study.samples,
        tokens=study.tokens,
        used=study.used,
        truth=study.truth,
        rows=[_row(trial, base, recipe.seed) for trial in trials],
    )


def _row(trial: Trial, base: Trial | None, seed: int) -> TopologyRow:
    made = trial.outcomes
    kept, faults = _counted(made)
    base_kept, base_faults = _counted(base.outcomes) if base else (0, Counter())
    passed = [one.state == State.kept for one in made]
    amplified = {name: ratio(faults[name], kept, base_faults[name], base_kept) for name in sorted(base_faults)}
    whole = ratio(faults.total(), kept, base_faults.total(), base_kept)
    if whole and trial is base:  # by definition, not by measurement
        whole = Measure(value=1.0, low=1.0, high=1.0)
        amplified = dict.fromkeys(amplified, whole)
    return TopologyRow(
        topology=trial.kind,
        samples=len(made),
        kept=kept,
        failed=sum(one.state == State.failed for one in made),
        wrong=faults.total(),
        wrong_by=dict(sorted(faults.items())),
        tokens_spent=trial.spent.tokens,
        calls_spent=trial.spent.calls,
        kept_share=share(kept, len(made)),
        error_rate=share(faults.total(), kept),
        calls_per_kept=cost_per_kept([one.calls for one in made], passed, seed),
        tokens_per_kept=cost_per_kept([one.tokens for one in made], passed, seed),
        amplification=whole,
        amplification_by={name: found for name, found in amplified.items() if found},
    )


def _counted(made: Sequence[Outcome]) -> tuple[int, Counter[str]]:
    """How many were kept, and what is wrong with them."""
    kept = [one for one in made if one.state == State.kept]
    return len(kept), Counter(one.fault for one in kept if one.fault)


# In words


def study_text(report: StudyReport) -> str:
    """The report as Markdown: what was compared, and a line for each topology."""
    budget = f"at most {report.tokens:,} tokens each" if report.tokens else "no budget: each made all samples"
    head = (
        f"{report.recipe}, seed {report.seed}: the same {report.samples:,} seeds under each topology, {budget}. "
        f"The agents judge by: {', '.join(report.used) or 'nothing'}. "
        f"Wrong is what this says, which they do not use: {', '.join(report.truth)}. "
        "In parentheses, 95 % intervals."
    )
    return "\n\n".join([head, _costs(report), *_faults(report)])


def _costs(report: StudyReport) -> str:
    head = (
        "| topology | made | kept | yield | wrong of the kept | amplification | calls a kept sample | tokens a kept sample "
        "| right, kept, for a million tokens |\n|" + "---|" * 9
    )
    return "\n".join([head, *(_line(row) for row in report.rows)])


def _line(row: TopologyRow) -> str:
    right = f"{(row.kept - row.wrong) / row.tokens_spent * 1e6:,.0f}" if row.tokens_spent else "-"
    cells = [
        row.topology,
        f"{row.samples:,}",
        f"{row.kept:,}",
        _cell(row.kept_share, _percent),
        _cell(row.error_rate, _percent),
        "1" if row.topology == BASELINE else _cell(row.amplification, _times),
        _cell(row.calls_per_kept, _times),
        _cell(row.tokens_per_kept, _whole),
        right,
    ]
    return f"| {' | '.join(cells)} |"


def _faults(report: StudyReport) -> list[str]:
    """Amplification by class of fault, where more than one was seen."""
    classes = sorted({name for row in report.rows for name in row.wrong_by})
    if len(classes) < 2:
        return []
    head = f"| kept with | {' | '.join(row.topology for row in report.rows)} |\n|{'---|' * (len(report.rows) + 1)}"
    lines = [f"| {name} | {' | '.join(_by_class(row, name) for row in report.rows)} |" for name in classes]
    return ["Wrong kept samples by class of fault, and their amplification:", "\n".join([head, *lines])]


def _by_class(row: TopologyRow, name: str) -> str:
    count, found = row.wrong_by.get(name, 0), row.amplification_by.get(name)
    return f"{count:,}" if row.topology == BASELINE or not found else f"{count:,}, × {found.told(_times)}"


def _cell(measure: Measure | None, form: Callable[[float], str]) -> str:
    return measure.told(form) if measure else "-"


def _percent(value: float) -> str:
    return f"{value:.1%}".replace("%", " %")


def _times(value: float) -> str:
    return f"{value:.2f}"


def _whole(value: float) -> str:
    return f"{value:,.0f}"

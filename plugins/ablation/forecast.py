"""The forecast of a run: students of nested parts of its dataset, the curve through them, and what its next rows will bring."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Literal

from pydantic import BaseModel, ConfigDict

from core.errors import UsageError
from core.plugins import locate_data
from core.runs.records import RunState
from core.runs.run_dir import RunDir
from core.storage.atomic_files import write_text
from core.storage.file_locks import hold_lock
from flows.terminal.console import CommandSession
from flows.terminal.text_format import format_count, format_duration, format_money, format_percent, format_table
from plugins.ablation.answers import Answers
from plugins.ablation.config import NAME
from plugins.ablation.learning_curve import LearningCurve, MeasuredSize, PredictedValue
from plugins.ablation.results import AnsweredRequests
from plugins.ablation.task import AblationOptions, AblationTask, prepare_ablation

PARTS = (8, 4, 2, 1)
"""Students learn from an eighth, a quarter, a half and all of the rows."""
FEWEST_ROWS = 32
"""An eighth has 4 then."""
NEXT_ROWS = (500, 1_000, 5_000)
DECISIVE_ROWS = 1_000
"""The next rows that the sentence is about."""
WORTH_GAIN = 0.01
"""The least gain of `DECISIVE_ROWS` that is worth them."""
POSSIBLE_GAIN = 0.05
"""Before the advice is to stop, the interval must exclude a gain of this size: our choice."""
CURVE_POINTS = 40


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MeasuredStudents(_Record):
    """The students of one number of rows, by training seed."""

    rows: int
    passed: list[float]
    """The shares of requests."""
    losses: list[float]
    """Held-out; empty if the answers are older than their record."""


class PredictedRate(_Record):
    rows: int
    passed: PredictedValue


class NextRows(_Record):
    """What further rows will bring."""

    rows: int
    gain: PredictedValue
    """In shares of requests: of a student of all rows then, compared with the mean of students of all rows now."""
    loss: PredictedValue | None
    """Held-out, then."""
    cost: float | None
    """Of the teachers, as of the run's rows; None where a price is unknown, or nothing was paid."""
    tokens: int
    """Of the teachers: prompts and replies."""
    seconds: float
    """Of training a student of all rows then, on this machine."""


class Forecast(_Record):
    """The result of `stillhouse forecast`."""

    run: str
    rows: int
    """The student's now."""
    requests: int
    measured: list[MeasuredStudents]
    curve: list[PredictedRate]
    """From the fewest rows to the most."""
    next: list[NextRows]
    currency: str | None
    decision: Literal["stop", "continue", "unclear"]

    @property
    def sentence(self) -> str:
        """The decision and its reason, without a full stop."""
        most = next(one for one in self.next if one.rows == DECISIVE_ROWS)
        price = (
            f"{most.tokens:,} tokens of the teacher" if most.cost is None else format_money(most.cost, self.currency)
        )
        worth = f"{self.decision}: the next {most.rows:,} rows are worth {format_gain(most.gain)} and cost {price}"
        return worth + ("; more training seeds or requests narrow this" if self.decision == "unclear" else "")


def locate_forecast(run: RunDir) -> Path:
    return locate_data(run.path, NAME) / "forecast.json"


def prepare_forecast(
    run: RunDir, seeds: int, requests: int, settings: Sequence[str], runs: Path, session: CommandSession
) -> AblationTask:
    """The trainings of a forecast: those of an ablation's arm d with other numbers of rows. Both share answers only where
    requests and panel are equal, as with `ablate -n 200 --panel 0`.

    Raises:
        UsageError: as `prepare_ablation`, and if the run is not finished or its rows are too few.
    """
    state = run.read_manifest().state
    if state not in (RunState.done, RunState.partial):
        raise UsageError(f"{run.name}: the run is {state}; finish it first, with --resume")
    options = AblationOptions(arms="d", sizes="all", seeds=seeds, requests=requests, panel=0, settings=settings)
    task = prepare_ablation(run, options, None, runs, session)
    rows = task.pool.count("d")
    if rows < FEWEST_ROWS:
        raise UsageError(
            f"{run.name}: has {format_count(rows, 'row')} to train on, and a forecast needs {FEWEST_ROWS}; make a run with more "
            "samples"
        )
    if not task.validation:
        raise UsageError(f"{run.name}: no row of its dataset is held out; make a new run, which holds out `held_out`")
    sizes = [str(rows // part) for part in PARTS]
    return replace(task, declared=task.declared.model_copy(update={"sizes": sizes}))


def describe_forecast(task: AblationTask, session: CommandSession) -> str:
    """What `--dry-run` prints."""
    answers = Answers(task, session, "forecast")
    found = [(one, answers.find(task.digest_training(one))) for one in task.list_trainings()]
    left = sum(len(one.drawn.rows) for one, answered in found if not answered)
    known = [(answered.seconds, len(one.drawn.rows)) for one, answered in found if answered]
    if task.manifest.student:
        known.append((task.manifest.student.seconds, task.manifest.student.train_samples))
    time = "unknown until the first student is trained"
    if known:
        seconds = sum(seconds for seconds, _ in known) / sum(rows for _, rows in known)
        time = f"about {format_duration(seconds * left)} of training, and the answers"
    trained = sum(answered is not None for _, answered in found)
    lines = [
        f"forecast of {task.run.name}",
        f"  students  {len(found)}, of {', '.join(task.declared.sizes)} rows, nested; {trained} are trained already",
        f"  seeds     {format_count(task.declared.seeds, 'training seed')}",
        f"  requests  {task.declared.requests}, held out, the same for every student",
        f"  time      {time}",
    ]
    return "\n".join(lines)


def run_forecast(task: AblationTask, session: CommandSession) -> Forecast:
    """Train and ask what is not measured yet, and write `forecast.json`.

    Raises:
        RunInUse: if another process trains on this run.
        RunStopped, UserInterrupt, BudgetExhausted, StillhouseError: with everything measured so far stored.
    """
    with hold_lock(task.folder / "lock", f"{task.run.name}: another process trains students of it"):
        session.print_unless_stopped(describe_forecast(task, session))
        answers = Answers(task, session, "forecast")
        trainings = list(task.list_trainings())
        by_rows: dict[int, list[AnsweredRequests]] = {}
        for number, training in enumerate(trainings, 1):
            session.print_unless_stopped(f"forecast: {number} of {len(trainings)}: {training.label}")
            answers.measure_training(training)
            answered = answers.find(task.digest_training(training))
            assert answered is not None, "it was stored now or before"
            by_rows.setdefault(len(training.drawn.rows), []).append(answered)
        answers.remove_students()  # of a call that was killed between an answer and the end
        forecast = build_forecast(task, by_rows)
        write_text(locate_forecast(task.run), forecast.model_dump_json(indent=2) + "\n")
        return forecast


def build_forecast(task: AblationTask, by_rows: dict[int, list[AnsweredRequests]]) -> Forecast:
    """The forecast from the answers of each number of rows."""
    measured = [
        MeasuredStudents(
            rows=rows,
            passed=[fmean(one.passed) for one in students],
            losses=[one.held_out_loss for one in students if one.held_out_loss is not None],
        )
        for rows, students in sorted(by_rows.items())
    ]
    asked, (fewest, rows) = task.declared.requests, (measured[0].rows, measured[-1].rows)
    rates = LearningCurve([MeasuredSize(one.rows, tuple(one.passed)) for one in measured], asked)
    losses = None
    if all(one.losses for one in measured):
        losses = LearningCurve([MeasuredSize(one.rows, tuple(one.losses)) for one in measured], None)
    used, paid = task.manifest.usage, task.manifest.costs.spent
    tokens = max(paid.tokens, used.prompt_tokens + used.completion_tokens)  # replies from the cache were paid for once
    plan = task.plan
    priced = paid.cost > 0 and all(plan.recipe.teachers[name].prices() for name in plan.teachers)
    seconds = fmean(one.seconds for one in by_rows[rows]) / rows
    coming = [
        NextRows(
            rows=more,
            gain=rates.predict_change(rows, more),
            loss=losses and losses.predict(rows + more),
            cost=paid.cost * tokens / paid.tokens * more / rows if priced and paid.tokens else None,
            tokens=round(tokens * more / rows),
            seconds=seconds * (rows + more),
        )
        for more in NEXT_ROWS
    ]
    growth = ((rows + NEXT_ROWS[-1]) / fewest) ** (1 / (CURVE_POINTS - 1))
    shown = sorted({*(round(fewest * growth**i) for i in range(CURVE_POINTS)), *by_rows})
    return Forecast(
        run=task.run.name,
        rows=rows,
        requests=asked,
        measured=measured,
        curve=[PredictedRate(rows=one, passed=rates.predict(one)) for one in shown],
        next=coming,
        currency=task.manifest.costs.currency,
        decision=decide(next(one.gain for one in coming if one.rows == DECISIVE_ROWS)),
    )


def decide(gain: PredictedValue) -> Literal["stop", "continue", "unclear"]:
    """Stop if the expected gain is small and the interval excludes a large one; continue if all of the interval is a gain."""
    if gain.value < WORTH_GAIN:
        return "stop" if gain.high < POSSIBLE_GAIN else "unclear"
    return "continue" if gain.low > 0 else "unclear"


def format_gain(gain: PredictedValue) -> str:
    value, low, high = (100 * share for share in (gain.value, gain.low, gain.high))
    return f"{value:+.1f} points ({low:+.0f} to {high:+.0f})"


def format_forecast(forecast: Forecast) -> str:
    """The output of `stillhouse forecast`."""
    table = [("rows", "passed, by training seed", "held-out loss")]
    for one in forecast.measured:
        rates, losses = map(format_percent, one.passed), (f"{loss:.2f}" for loss in one.losses)
        table.append((f"{one.rows:,}", ", ".join(rates), ", ".join(losses)))
    coming = [("next rows", "gain (90 % interval)", "held-out loss", "teacher tokens", "cost", "training")]
    for more in forecast.next:
        coming.append((
            f"{more.rows:,}", format_gain(more.gain), format_loss(more.loss), f"{more.tokens:,}",
            "" if more.cost is None else format_money(more.cost, forecast.currency), format_duration(more.seconds),
        ))  # fmt: skip
    heading = f"forecast of {forecast.run}, {forecast.requests} held-out requests"
    return "\n".join([heading, *format_table(table), *format_table(coming), forecast.sentence])


def format_loss(loss: PredictedValue | None) -> str:
    return f"{loss.value:.2f} ({loss.low:.2f} to {loss.high:.2f})" if loss else ""

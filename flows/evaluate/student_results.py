"""The result of `stillhouse evaluate` by a recipe: as it is saved next to the student, and as it is printed. Measures nothing."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from core.config.recipe import Recipe
from core.config.students import StudentConfig
from core.config.teachers import TeacherConfig
from core.intervals import IntervalEstimate, estimate_paired_difference
from core.runs.student_records import GeneralPanelRecord, PairedComparison
from core.sample import Spending, TokenUsage
from flows.data.student_files import STUDENT_EVALUATION_FILE
from flows.terminal.run_summary import list_panel_lines
from flows.terminal.text_format import format_number, format_one_line, format_percent, format_table

if TYPE_CHECKING:
    from agents.studies.held_out_evaluation import HeldOutResult, ServedReplies


class EvaluatedAnswer(BaseModel):
    """An answer, and the check that failed."""

    model_config = ConfigDict(frozen=True)

    text: str
    fault: str | None


class EvaluationExample(BaseModel):
    """A seed, and each model's answer by role."""

    model_config = ConfigDict(frozen=True)

    question: str
    answers: dict[str, EvaluatedAnswer]


class ModelResult(BaseModel):
    """The result of one model. A missing measurement is None."""

    model_config = ConfigDict(frozen=True)

    role: str
    """`teacher`, `prompted teacher` (with the run's prompt and examples), `student`, or `start`: the student before training."""
    model: str
    passed: int | None
    """Seeds whose answer passed all checks at the first attempt."""
    pass_rate: IntervalEstimate | None
    """With Wilson's score interval (1927), 95 %."""
    faults: dict[str, int]
    """The other seeds by their first failed check; `cut off`, `no answer` and `contract` where no check could run."""
    nats_per_token: float | None
    """Held-out loss on the assistant's tokens, of the weights in torch. Comparable between equal tokenizers."""
    bits_per_byte: float | None
    """The same, always comparable."""
    bytes: int | None
    """Size of the GGUF file."""


class HarnessTaskResult(BaseModel):
    """One metric of one task of lm-evaluation-harness with each model's score: float32 weights, no chat template."""

    model_config = ConfigDict(frozen=True)

    task: str
    metric: str
    rows: int
    """Evaluated rows of the task."""
    scores: dict[str, IntervalEstimate]
    """By role; ± 1.96 standard errors, where the harness reports one."""


class AnswerCost(BaseModel):
    """What a student's answers cost on this machine, and its teacher's answers to the same requests."""

    model_config = ConfigDict(frozen=True)

    core_seconds: float
    """Of processors, for one request. Loading the student is not counted."""
    streams: int
    """Requests that it answers at once."""
    core_hour_price: float
    teacher: str | None = None
    teacher_price: float | None = None
    """Of 1,000 requests, by the price of tokens; None if it is zero or unknown."""

    @property
    def price(self) -> float:
        """Of 1,000 requests."""
        return 1000 * self.core_seconds * self.core_hour_price / 3600

    def describe(self) -> str:
        """Both prices in a line."""
        each = f"{format_number(self.core_seconds)} core-seconds each, {self.streams} at once"
        own = f"student {format_number(self.price)} on this machine ({each}, {self.core_hour_price:g} per core-hour)"
        if self.teacher and self.teacher_price:
            share = f"the student costs {100 * self.price / self.teacher_price:.2g} % of it"
            own += (
                f"; teacher {format_one_line(self.teacher, 60)} {format_number(self.teacher_price)} by tokens: {share}"
            )
        elif self.teacher:
            own += f"; teacher {format_one_line(self.teacher, 60)}: its tokens have no price, or 0"
        return f"cost of 1,000 requests: {own}"


class StudentEvaluation(BaseModel):
    """The result of `stillhouse evaluate`, as saved next to the student."""

    model_config = ConfigDict(frozen=True)

    student: str
    recipe: str
    seed: int
    type: str
    """How the student's weights are stored."""
    seeds: int
    first_seed: int | None
    """The number of the first seed in the recipe's order. The run and the releases that it builds on use only seeds before it."""
    held_out: int
    """Conversations of the run that the student did not train on."""
    rows: list[ModelResult]
    retention: IntervalEstimate | None
    """The student's pass rate over the teacher's, with the interval of Katz et al. (1978), 95 %."""
    comparisons: list[PairedComparison] = []
    """The student's pass rate minus the teacher's and the start's, on the same seeds."""
    tasks: list[HarnessTaskResult] = []
    """Results of `--tasks`."""
    cost: AnswerCost | None = None
    """None if no answer of the student was measured: each was in the cache."""
    panel: GeneralPanelRecord | None = None
    """Tasks that the recipe does not train; None with `--panel 0`."""
    notes: list[str]
    """Missing measurements, a sentence each."""
    examples: list[EvaluationExample]
    panel_examples: list[EvaluationExample] = []
    """Open questions of the panel, with each model's answer as far as it was asked."""
    spent: Spending = Spending()
    """Cost of the teachers' replies, those from the cache excluded."""

    def find_row(self, role: str) -> ModelResult | None:
        return next((row for row in self.rows if row.role == role), None)


def estimate_answer_cost(
    recipe: Recipe, served: "ServedReplies", student: TeacherConfig, answers: "Sequence[HeldOutResult]",
    teacher: TeacherConfig, teacher_answers: "Sequence[HeldOutResult]",
) -> AnswerCost | None:  # fmt: skip
    """None if no reply of the student was measured."""
    if not served.number or not served.seconds:
        return None
    prices = price_answers(teacher, teacher_answers)
    return AnswerCost(
        core_seconds=served.seconds / served.number * sum(len(one.replies) for one in answers) / len(answers),
        streams=student.max_concurrent,
        core_hour_price=(recipe.student or StudentConfig()).core_hour_price,
        teacher=teacher.model,
        teacher_price=1000 * sum(prices) / len(prices) if prices else None,
    )


def price_answers(teacher: TeacherConfig, answers: "Sequence[HeldOutResult]") -> list[float] | None:
    """Of the replies to each request, in direct calls as in serving; None if the teacher's price is zero or unknown."""
    prices = teacher.model_copy(update={"batch": False}).prices()
    if not prices or not any(prices):
        return None
    return [prices.cost(sum((reply.usage for reply in one.replies), TokenUsage())) for one in answers]


def compare_paired_results(
    role: str, student: "Sequence[HeldOutResult]", other: "Sequence[HeldOutResult]"
) -> PairedComparison:
    """The student and another model on the same seeds, in the same order."""
    return compare_outcomes(role, [one.fault is None for one in student], [one.fault is None for one in other])


def compare_outcomes(role: str, student: Sequence[bool], other: Sequence[bool]) -> PairedComparison:
    """Which tasks the student passes and another model or arm, in the same order."""
    pairs = Counter(zip(student, other, strict=True))
    return build_paired_comparison(role, pairs[True, True], pairs[True, False], pairs[False, True], pairs[False, False])


def build_paired_comparison(role: str, both: int, student_only: int, other_only: int, neither: int) -> PairedComparison:
    """The comparison from its four counts, which add up to at least one."""
    difference = estimate_paired_difference(both, student_only, other_only, neither)
    assert difference is not None, "there is a task"
    return PairedComparison(
        role=role, both=both, student_only=student_only, other_only=other_only, neither=neither, difference=difference
    )


def format_student_evaluation(evaluation: StudentEvaluation) -> str:
    """The output of `stillhouse evaluate`."""
    lines = [f"student {evaluation.student}  {evaluation.type}"]
    if evaluation.seeds:
        seeds = f"{evaluation.seeds} held-out seeds, from number {evaluation.first_seed}"
        lines.append(f"  {evaluation.recipe}: {seeds}; one attempt each; prompted: with the run's prompt")
    heads = ("", "passed", "95 %", "nats/token", "bits/byte", "MB")
    table = [heads]
    for row in evaluation.rows:
        rate = row.pass_rate
        table.append(
            (
                row.role,
                f"{row.passed} of {evaluation.seeds}, {format_percent(rate.value)}" if rate else "-",
                f"{format_percent(rate.low)} to {format_percent(rate.high)}" if rate else "-",
                _format_optional(row.nats_per_token, ".3f"),
                _format_optional(row.bits_per_byte, ".3f"),
                _format_optional(row.bytes and row.bytes / 1e6, ",.1f"),
            )
        )
    lines += format_table(table)
    if evaluation.retention:
        lines.append(
            f"  retention {evaluation.retention.format(lambda value: f'{value:.2f}')} of the teacher's pass rate"
        )
    for comparison in evaluation.comparisons:
        lines.append(f"  {_format_paired_comparison(comparison)}")
    if evaluation.cost:
        lines.append(f"  {evaluation.cost.describe()}")
    if evaluation.panel:
        first, *rest = list_panel_lines(evaluation.panel)
        lines += [f"  general panel: {first}", *(f"    {line}" for line in rest)]
    for task in evaluation.tasks:
        scores = "   ".join(
            f"{role} {score.value:.3f} ({score.low:.3f} to {score.high:.3f})" for role, score in task.scores.items()
        )
        lines.append(f"  {task.task}, {task.metric}, {task.rows} rows: {scores}")
    for row in evaluation.rows:
        if row.faults:
            faults = "   ".join(f"{format_one_line(name, 40)} {count}" for name, count in list(row.faults.items())[:6])
            lines.append(f"  {row.role} not passed: {faults}")
    lines += [f"  {note}" for note in evaluation.notes]
    return "\n".join([*lines, f"  {Path(evaluation.student) / STUDENT_EVALUATION_FILE}"])


def _format_paired_comparison(comparison: PairedComparison) -> str:
    """The difference of two pass rates on the same requests, in percentage points, in a line."""
    value, low, high = (
        f"{100 * x:+.0f}" for x in (comparison.difference.value, comparison.difference.low, comparison.difference.high)
    )
    return f"student minus {comparison.role}: {value} points ({low} to {high}), {comparison.conclusion}"


def _format_optional(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"

"""The result of `stillhouse evaluate` by a recipe, as it is saved next to the student. Measures nothing."""

from pydantic import BaseModel, ConfigDict

from core.intervals import IntervalEstimate
from core.runs.student_records import GeneralPanelRecord, PairedComparison
from core.sample import Spending


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
    """`teacher`, `student`, or `start`: the student before training."""
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

"""What a run records of its student: the training, and the evaluation against teacher and start. Knows no path and no file."""

from pydantic import BaseModel, ConfigDict

from core.intervals import IntervalEstimate
from core.sample import Spending

TRAINING_LOG = "training_log.jsonl"
"""In a student's folder: the measurements of each training step."""


class StepRecord(BaseModel):
    """What a step of the training reports of the finished student. Shown without the plugin that made it."""

    model_config = ConfigDict(frozen=True)

    type: str
    rows: dict[str, str] = {}
    """Lines of the model card and of the report: label and text."""
    note: str = ""
    """For the line about the finished training; "" for nothing."""
    values: dict[str, float] = {}
    """The numbers in them."""


class TruncationRecord(BaseModel):
    """Training conversations longer than `max_tokens`."""

    truncated: int
    """Conversations that lost their end, or were left out because no assistant turn came before it."""
    conversations: int
    """All given conversations."""
    longest: int
    """Tokens of the longest conversation: with this as `max_tokens`, none is truncated."""
    max_tokens: int

    @property
    def summary(self) -> str:
        """One sentence without a full stop."""
        return (
            f"{self.truncated:,} of {self.conversations:,} conversations are longer than max_tokens = {self.max_tokens} and were "
            f"truncated; the longest has {self.longest:,} tokens"
        )


class ReplayRecord(BaseModel):
    """The conversations that a student's start, or the whole teacher of which it is a part, wrote by itself, and what the student
    forgot of them.
    """

    learned: int
    held_out: int
    divergence_before: float
    """KL divergence of the untrained student from their writer on the held-out ones, in nats per token: about 0, unless the start
    is a part of the writer."""
    divergence: float
    """The same of the finished student."""

    @property
    def change(self) -> str:
        return f"{self.divergence_before:.3f} -> {self.divergence:.3f}"


VALIDATION_REQUESTS = "validation_requests.json"
"""In a student's folder: the requests on which its weights were chosen, which no later evaluation may ask."""


class StudentRecord(BaseModel):
    """The result of a training. Losses are mean cross-entropy in nats per assistant token on held-out samples."""

    start: str
    parameters: int
    train_samples: int
    held_out_samples: int
    truncation: TruncationRecord | None = None
    left_out: dict[str, int] = {}
    """Conversations that could not be trained on, by reason."""
    steps: int
    best_step: int | None = None
    """The step whose weights were kept, if training may stop early; None for the last step."""
    loss_before: float
    loss_after: float
    kl_before: float | None = None
    """KL divergence from the teacher, in nats per assistant token on held-out samples; None without a teacher."""
    kl_after: float | None = None
    average: float | None = None
    """The share of the training in the weights: start + share * (trained - start); None for the trained weights."""
    replay: ReplayRecord | None = None
    step_records: list[StepRecord] = []
    seconds: float

    @property
    def start_notes(self) -> list[str]:
        """How far it is from its start, as far as that was set or measured, and what its steps report."""
        notes = [] if self.average is None else [f"{self.average:g} of the way from the start to the trained weights"]
        notes += [f"KL on replay {self.replay.change}"] if self.replay else []
        return [*notes, *(step.note for step in self.step_records if step.note)]


class ModelPassRecord(BaseModel):
    """How many held-out requests one model answered so that all checks of the recipe passed."""

    model_config = ConfigDict(frozen=True)

    role: str
    """`teacher`, `student`, or `start`: the student before training."""
    model: str
    passed: int
    pass_rate: IntervalEstimate
    """With Wilson's score interval (1927), 95 %."""


class PairedComparison(BaseModel):
    """The student compared with another model on the same requests. The four counts add up to the requests."""

    model_config = ConfigDict(frozen=True)

    role: str
    """The other model: `teacher` or `start`."""
    both: int
    """Requests that both passed."""
    student_only: int
    other_only: int
    neither: int
    difference: IntervalEstimate
    """The student's pass rate minus the other's, with Newcombe's interval for paired proportions (1998, method 10), 95 %."""

    @property
    def conclusion(self) -> str:
        """`better` or `worse` if the interval excludes 0, otherwise `no certain difference`."""
        if self.difference.low > 0:
            return "better"
        return "worse" if self.difference.high < 0 else "no certain difference"


class PanelModelRecord(BaseModel):
    """One model on the general panel."""

    model_config = ConfigDict(frozen=True)

    role: str
    """`teacher`, `student`, or `start`."""
    passed: int
    pass_rate: IntervalEstimate
    """With Wilson's score interval (1927), 95 %."""
    passed_by_group: dict[str, int]
    words: float
    """Median words of its answers to the open questions."""
    shipped: bool = False
    """Whether its answers are those in `data/panel`, since they never change, rather than asked."""


class GeneralPanelRecord(BaseModel):
    """Teacher, start and student on tasks that the recipe does not train: what the student forgot."""

    model_config = ConfigDict(frozen=True)

    tasks: int
    """Tasks that a program judges."""
    groups: dict[str, int]
    """Those tasks by group."""
    questions: int
    """Open questions, in addition."""
    models: list[PanelModelRecord]
    comparison: PairedComparison | None
    """The student minus its start, on the judged tasks; None without a start."""
    divergence: IntervalEstimate | None
    """KL divergence of the student from its start on the start's own answers to the open questions, in nats per token, with a
    95 % interval over questions; None without a start."""

    def find_model(self, role: str) -> PanelModelRecord | None:
        return next((model for model in self.models if model.role == role), None)


class EvaluationRecord(BaseModel):
    """Teacher, start and student on the same held-out requests, as asked at the end of the run."""

    model_config = ConfigDict(frozen=True)

    student_digest: str
    """The digest of the student's training."""
    requests: int
    first_seed: int
    """The number of the first request in the recipe's order. The run and the releases before it use only numbers below it."""
    type: str
    """How the weights of student and start were stored."""
    weights: str | None = None
    """SHA-256 of the student's file that was asked."""
    models: list[ModelPassRecord]
    comparisons: list[PairedComparison]
    example: str | None = None
    """The first of the requests."""
    panel: GeneralPanelRecord | None = None
    """None if the recipe asks for no panel."""
    spent: Spending = Spending()
    """Cost of the replies, those from the cache excluded."""

    @property
    def panel_tasks(self) -> int:
        return self.panel.tasks if self.panel else 0

    def find_model(self, role: str) -> ModelPassRecord | None:
        return next((model for model in self.models if model.role == role), None)

    def find_comparison(self, role: str) -> PairedComparison | None:
        """The student compared with the model of this role."""
        return next((comparison for comparison in self.comparisons if comparison.role == role), None)

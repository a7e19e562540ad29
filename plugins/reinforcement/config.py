"""The table of the step. Knows no torch."""

import math
from typing import Any, ClassVar, Literal

from pydantic import Field

from core.config.student_steps import StudentStep
from core.config.students import StudentConfig

REQUESTS_PER_STEP = 8
"""Requests that are answered with the same weights."""


class GrpoStep(StudentStep):
    """After the training of a run's student: it answers new requests 8 times each, and learns which answers keep most rules
    (GRPO, arXiv 2402.03300). Needs `evaluation` with a panel.
    """

    type: Literal["grpo"]
    chooses_weights: ClassVar[bool] = True
    requests: int = Field(128, ge=REQUESTS_PER_STEP, le=100_000, multiple_of=REQUESTS_PER_STEP)
    """New ones, each asked in one step of 8 requests."""
    learning_rate: float = Field(1e-5, gt=0, lt=math.inf)
    """Constant. 1e-5 suits the embedded teacher's layers, new weights need more."""

    def find_problem(self, student: StudentConfig) -> str | None:
        if student.lora:
            return "its updates are of whole matrices; leave lora out"
        if student.image_limits:
            return "it answers requests of text alone; leave the step sight out"
        for step in student.steps:
            if step.type != self.type and (step.changes_start or step.makes_start or step.chooses_weights):
                return f"{step.type}: its weights would not keep their form; leave one of them out"
        if student.evaluation and student.evaluation.panel:
            return None
        return (
            "what it costs is measured on the general panel, in a run; add an evaluation with a panel to a run's recipe, as in "
            "evaluation = { requests = 40, panel = 64 }"
        )

    def load(self) -> Any:
        from students.training.steps import StepCode

        return StepCode()

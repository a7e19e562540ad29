"""A decision student: an encoder, a linear head for each question, and the thresholds above which it answers alone.

Its folder has `decisions.json`, and of an exported encoder of Transformers its files; it is used without torch and scikit-learn,
except with an encoder of Transformers that could not be exported. Knows no teacher.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.errors import UsageError
from core.storage.atomic_files import write_text
from plugins.serving.decision_students.agreement_bound import AgreementTarget, Floats
from plugins.serving.decision_students.int8_encoder import read_exported_encoder
from plugins.serving.decision_students.linear_head import LinearHead
from plugins.serving.decision_students.text_encoders import (
    ENCODERS,
    GENERATIVE_FILE,
    StoredEncoder,
    encode_texts,
    find_stored_encoder,
)
from plugins.serving.decisions.questions import Answer, DecisionQuestion

DECISIONS_FILE = "decisions.json"
SCORE_QUANTILES = 200
"""Calibration scores that a student keeps, for watching drift."""
SCORE_DIGITS = 6
"""Decimal places of these scores, and of those that are compared with them: near 1, more would tell equal ones apart."""


CalibrationMethod = Literal["held-out", "cross"]
"""`held-out`: thresholds are tested on texts that the heads have not seen, so that the bound is exact. `cross`: on out-of-fold
predictions of the heads' own texts, which is no proof but needs far fewer texts."""


@runtime_checkable
class TextEncoder(Protocol):
    """What a student has in its folder to encode texts with."""

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """A row for each text."""
        ...


class Guarantee(BaseModel):
    """What was certified of one question."""

    model_config = ConfigDict(frozen=True)

    target: AgreementTarget
    calibration: CalibrationMethod = "held-out"
    threshold: float | None = Field(ge=0, le=1)
    """The student answers alone where its score is at least this; None if nothing could be certified."""
    cases: int
    """Calibration cases."""
    answered: int
    """Calibration cases at or above the threshold."""
    disagreements: int
    """Of these, cases in which the student and the teacher differ."""
    scores: list[float]
    """Quantiles of the calibration scores, ascending."""


class QuestionHead(BaseModel):
    model_config = ConfigDict(frozen=True)

    question: DecisionQuestion
    heads: list[LinearHead]
    """One over the question's classes; of `several_of`, one of (no, yes) for each label."""
    guarantee: Guarantee

    @model_validator(mode="after")
    def _check_shapes(self) -> Self:
        several, count = self.question.type == "several_of", len(self.question.classes)
        rows = 2 if several else count
        if (
            not count
            or len(self.heads) != (count if several else 1)
            or any(not len(head.weights) == len(head.intercepts) == rows for head in self.heads)
        ):
            raise ValueError(f"the heads do not fit the {count} answers of {self.question.name}")
        return self

    def predict_probabilities(self, rows: Any) -> Floats:
        """Of each class; of `several_of`, of each label independently."""
        return stack_probabilities(self.question, [head.predict_probabilities(rows) for head in self.heads])


class Decision(NamedTuple):
    """The answer to one question about one text."""

    answer: Answer
    probabilities: dict[str, float]
    """Of each class; of `several_of`, of each label independently."""
    score: float
    """The probability of the answer, which the threshold is compared with."""
    certain: bool
    """Whether the guarantee covers it."""


class DecisionStudent(BaseModel):
    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    version: Literal[1] = 1
    encoder: str
    exported: bool = False
    """Whether the texts are encoded by the exported form of `encoder` in the student's folder, with which its thresholds were
    found."""
    own_encoder: TextEncoder | None = Field(None, exclude=True)
    """That form, set by `read_decision_student`; or a generative student while it is served."""
    questions: list[DecisionQuestion]
    """All questions; those without a head (spans) always go to the teacher."""
    heads: list[QuestionHead]
    teacher: str | None = None
    """The teacher that it agrees with, for the record."""

    @model_validator(mode="after")
    def _check_questions(self) -> Self:
        if any(head.question not in self.questions for head in self.heads):
            raise ValueError("a head answers a question that the student does not have")
        return self

    def decide(self, texts: Sequence[str]) -> list[dict[str, Decision]]:
        """The decisions about each text, by question."""
        if not texts:
            return []
        if self.own_encoder:
            rows: Any = self.own_encoder.encode_texts(texts)
        else:
            rows = encode_texts(self.encoder, texts)
        decided: list[dict[str, Decision]] = [{} for _ in texts]
        for head in self.heads:
            probabilities = head.predict_probabilities(rows)
            scores = compute_scores(head.question, probabilities)
            threshold = head.guarantee.threshold
            answers = choose_answers(head.question, probabilities)
            for i, score in enumerate(scores.tolist()):
                by_class = dict(zip(head.question.classes, probabilities[i].tolist(), strict=True))
                certain = threshold is not None and score >= threshold
                decided[i][head.question.name] = Decision(answers[i], by_class, score, certain)
        return decided


def stack_probabilities(question: DecisionQuestion, predicted: Sequence[Floats]) -> Floats:
    """The probabilities of a question's classes from those of its heads."""
    return np.stack([one[:, 1] for one in predicted], axis=1) if question.type == "several_of" else predicted[0]


def compute_scores(question: DecisionQuestion, probabilities: Floats) -> Floats:
    """The probability of the chosen answer; of `several_of`, that all labels are right, as if they were independent."""
    if question.type == "several_of":
        product: Floats = np.maximum(probabilities, 1 - probabilities).prod(axis=1)
        return product
    highest: Floats = probabilities.max(axis=1)
    return highest


def choose_answers(question: DecisionQuestion, probabilities: Floats) -> list[Answer]:
    """The most probable answer of each row."""
    if question.type == "several_of":
        return [
            [label for label, value in zip(question.labels, row, strict=True) if value >= 0.5]
            for row in probabilities.tolist()
        ]
    return [question.from_class(question.classes[i]) for i in probabilities.argmax(axis=1)]


def find_decision_student(folder: Path) -> Path | None:
    """The student's file in `folder`, or None."""
    file = folder / DECISIONS_FILE
    return file if file.is_file() else None


def read_decision_student(folder: Path) -> DecisionStudent:
    """With an exported encoder, but no generative one.

    Raises:
        UsageError: if there is no decision student, or one that cannot be read, or whose encoder is not on this machine.
    """
    file = folder / DECISIONS_FILE
    try:
        student = DecisionStudent.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}; make it with `stillhouse decisions`") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{file}: is not a decision student of this version: {where}: {first['msg'].lower()}"
        ) from None
    if student.exported:
        return student.model_copy(update={"own_encoder": read_exported_encoder(folder)})
    if student.encoder in (*ENCODERS, GENERATIVE_FILE) or Path(student.encoder).is_dir():
        return student
    return student.model_copy(update={"own_encoder": StoredEncoder(find_stored_encoder(student.encoder, file))})


def write_decision_student(folder: Path, student: DecisionStudent) -> None:
    write_text(folder / DECISIONS_FILE, student.model_dump_json(indent=1) + "\n")

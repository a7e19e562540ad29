"""The question-only router: predicts from a question how both models do, before either is asked. Calls no model.

A query that goes to the teacher then costs no call of the student, and one that goes to the student can be streamed.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from core.errors import UsageError
from core.weights.embeddings import EMBEDDING_WIDTH, find_embeddings_problem
from plugins.serving.cascade.routing_curves import Floats, Places, RoutingOutcomes
from plugins.serving.decision_students.linear_head import LinearHead, fit_linear_head
from plugins.serving.decision_students.text_encoders import encode_texts

QUESTION_SIGNAL = "question"
QUESTION_MEANING = "the student's probability to pass minus the teacher's, from the question's embedding alone"
PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Of `linear_head`: up to 30, at which a few hundred questions hardly move a prediction from the mean."""
LONGEST_QUESTION = 8_000
"""Characters that are read: a text is embedded in pieces, which takes seconds for each 100,000 characters."""


class QuestionRouter(BaseModel):
    """A classifier of questions for each of the two models, on the vectors of the packaged MiniLM."""

    model_config = ConfigDict(frozen=True)

    encoder: Literal["minilm"] = "minilm"
    student: LinearHead
    """Of the classes fails and passes."""
    teacher: LinearHead

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        for head in (self.student, self.teacher):
            if len(head.intercepts) != 2 or [len(row) for row in head.weights] != [EMBEDDING_WIDTH] * 2:
                raise ValueError(f"a classifier of questions needs two classes and {EMBEDDING_WIDTH} weights for each")
        return self

    def score(self, questions: Sequence[str]) -> Floats:
        """For each question, the probability that the student passes minus the probability that the teacher does. Reads the
        first `LONGEST_QUESTION` characters, and half a surrogate pair as `?`.

        Raises:
            UsageError: without the extra `embeddings`.
        """
        rows = _encode_questions(questions)
        passes = [head.predict_probabilities(rows)[:, 1] for head in (self.student, self.teacher)]
        difference: Floats = passes[0] - passes[1]
        return difference


class FittedRouter(NamedTuple):
    router: QuestionRouter
    scores: Floats
    """Of all questions; those that the router is fitted to have out-of-fold scores."""


def find_question_problem() -> str | None:
    """What the question-only router lacks on this machine, in a sentence, or None. Loads nothing."""
    return find_embeddings_problem("onnx")


def fit_question_router(
    questions: Sequence[str], outcomes: RoutingOutcomes, calibration: Places, seed: int
) -> FittedRouter | None:
    """Fit to the questions in `calibration`; `seed` draws the folds. None where one model gains the same everywhere, so that
    there is nothing to learn.
    """
    if not np.ptp(outcomes.gain[calibration]):
        return None
    rows = _encode_questions(questions)
    classes = np.eye(2)
    student, teacher = (
        fit_linear_head(rows[calibration], classes[passed[calibration].astype(int)], seed, PENALTIES)
        for passed in (outcomes.student, outcomes.teacher)
    )
    router = QuestionRouter(student=student.head, teacher=teacher.head)
    scores = router.score(questions)
    held_out = student.out_of_fold[:, 1] - teacher.out_of_fold[:, 1]
    # Each fold's classifiers have other means than the router, which a threshold must not mistake for other questions.
    mean = scores[calibration].mean()
    for fold in np.unique(student.fold):
        held_out[student.fold == fold] += mean - held_out[student.fold == fold].mean()
    scores[calibration] = held_out
    return FittedRouter(router, scores)


def _encode_questions(questions: Sequence[str]) -> Any:
    read = [text[:LONGEST_QUESTION].encode("utf-8", "replace").decode() for text in questions]
    return encode_texts("minilm", read)


def check_question_router(router: QuestionRouter | None) -> None:
    """Loads the encoder.

    Raises:
        UsageError: without the extra `embeddings`, or if the router gives no number.
    """
    if router is None:
        raise UsageError(f"--signal {QUESTION_SIGNAL}: the calibration has no router of questions; calibrate again")
    if problem := find_question_problem():
        raise UsageError(f"the signal {QUESTION_SIGNAL} {problem}, or name another signal (--signal)")
    if not np.isfinite(router.score(["."])).all():
        raise UsageError(f"--signal {QUESTION_SIGNAL}: its classifier gives no number; calibrate again")

"""The signals by which a cascade chooses between student and teacher: confidence signals of the student's answer (a higher value
means more trust), their combination by logistic regression, and a router that reads the question alone, before either is asked.

Calls no model and needs no torch. What is fitted is plain numbers, so that a cascade is served without scikit-learn.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator

from core.errors import UsageError
from core.weights.embeddings import EMBEDDING_WIDTH, find_embeddings_problem
from plugins.serving.cascade.routing_curves import Floats, Places, RoutingOutcomes
from plugins.serving.decision_students.linear_head import LinearHead, fit_linear_head
from plugins.serving.decision_students.text_encoders import encode_texts

QUESTION_SIGNAL = "question"
QUESTION_MEANING = "the student's probability to pass minus the teacher's, from the question's embedding alone"
ROUTER_PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
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
        fit_linear_head(rows[calibration], classes[passed[calibration].astype(int)], seed, ROUTER_PENALTIES)
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


class AnswerWithLogprobs(NamedTuple):
    """A student's answer with the probabilities of its tokens."""

    question: str
    answer: str
    logprobs: Sequence[float]
    """Of the answer's tokens; not empty."""
    entropies: Sequence[float]
    """In nats, of each token's distribution."""
    draws: Sequence[str]
    """Further answers of the same student to the same question."""


def _mean_log_probability(answer: AnswerWithLogprobs) -> float:
    return float(np.mean(answer.logprobs))


def sequence_log_probability(answer: AnswerWithLogprobs) -> float:
    return float(np.sum(answer.logprobs))


def negative_entropy(answer: AnswerWithLogprobs) -> float:
    return -float(np.mean(answer.entropies))


def _answer_agreement(answer: AnswerWithLogprobs) -> float:
    """The mean similarity of the answer and each draw; 0 without draws."""
    return float(np.mean([answer_similarity(answer.answer, draw) for draw in answer.draws])) if answer.draws else 0.0


class ConfidenceSignal(NamedTuple):
    compute: Callable[[AnswerWithLogprobs], float]
    meaning: str
    draws: bool = False
    """Whether the signal needs further answers."""


CONFIDENCE_SIGNALS: Mapping[str, ConfidenceSignal] = {
    "log_probability": ConfidenceSignal(_mean_log_probability, "mean log-probability of the answer's tokens"),
    "sequence_log_probability": ConfidenceSignal(sequence_log_probability, "log-probability of the whole answer"),
    "negative_entropy": ConfidenceSignal(negative_entropy, "mean negative entropy of the next token"),
    "agreement": ConfidenceSignal(_answer_agreement, "similarity to further answers of the student", draws=True),
}

FINAL_ANSWER = re.compile(r"^.*\banswer:\s*(.+)\s*\Z", re.IGNORECASE | re.MULTILINE)
"""The end of an answer with reasoning, as the family `reasoning` teaches it."""


def answer_similarity(first: str, second: str) -> float:
    """From 0 to 1: equality of the final answers if both texts have one, else the Jaccard index of the words."""
    ends = [FINAL_ANSWER.search(text) for text in (first, second)]
    if ends[0] and ends[1]:
        return float(_normalize_final_answer(ends[0].group(1)) == _normalize_final_answer(ends[1].group(1)))
    words, others = set(_split_into_words(first)), set(_split_into_words(second))
    return len(words & others) / len(words | others) if words | others else 1.0


def _normalize_final_answer(final: str) -> str:
    """Without case, white space and surrounding marks; signs are part of an answer."""
    return "".join(final.casefold().split()).rstrip(".!").strip("*_`$")


def _split_into_words(text: str) -> list[str]:
    return re.findall(r"\w+(?:[.,]\d+)*", text.casefold())


FEATURES = ("words of the question", "numbers in it", "lines of it", "words of the answer")
"""Cheap features besides the signals, as log(1 + count), since lengths span orders of magnitude."""


def compute_features(answer: AnswerWithLogprobs) -> list[float]:
    """The values of `FEATURES`, in their order."""
    question = _split_into_words(answer.question)
    counts = (
        len(question),
        sum(word[0].isdigit() for word in question),
        answer.question.count("\n"),
        len(_split_into_words(answer.answer)),
    )
    return [float(value) for value in np.log1p(counts)]


def build_feature_row(answer: AnswerWithLogprobs, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """The input of a classifier: the signals of these names, then the features."""
    return np.array([*(CONFIDENCE_SIGNALS[name].compute(answer) for name in names), *compute_features(answer)])


Array = npt.NDArray[np.float64]

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""In rows: a penalty of 10 restrains a weight as strongly as ten rows of data pull on it; scikit-learn's C is 1 / penalty."""
FOLDS = 10
TOLERANCE = 1e-10
"""Of the gradient of the mean loss."""


class LogisticModel(BaseModel):
    """A binary classifier of rows."""

    model_config = ConfigDict(frozen=True)

    means: list[float]
    scales: list[float]
    weights: list[float]
    """For standardized columns: shifted by `means`, then divided by `scales`."""
    intercept: float
    penalty: float

    def predict_probability(self, rows: Array) -> Array:
        """The probability of class 1 for each row."""
        standard = (rows - np.array(self.means)) / np.array(self.scales)
        logits = standard @ np.array(self.weights) + self.intercept
        probabilities: Array = 0.5 * (1.0 + np.tanh(logits / 2))
        return probabilities


def fit_logistic(rows: Array, classes: npt.NDArray[np.bool_], penalty: float) -> LogisticModel:
    """Minimize the summed log loss + penalty / 2 · |weights|² over standardized columns. A constant column gets weight 0.

    Rows of a single class get Laplace's rule of succession, (n + 1) / (n + 2): scikit-learn rejects them.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(rows)
    if classes.min() == classes.max():
        weights, intercept = np.zeros(rows.shape[1]), np.log(len(rows) + 1) * (1 if classes[0] else -1)
    else:
        solver = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=TOLERANCE)
        solver.fit(scaler.transform(rows), classes)
        weights, intercept = solver.coef_[0], solver.intercept_[0]
    return LogisticModel(
        means=scaler.mean_.tolist(), scales=scaler.scale_.tolist(), weights=weights.tolist(), intercept=float(intercept),
        penalty=penalty,
    )  # fmt: skip


class CrossValidatedFit(NamedTuple):
    model: LogisticModel
    """Fitted to all rows."""
    probabilities: Array
    """Out-of-fold predictions: of each row, by a model that was fitted without it."""


def fit_cross_validated(rows: Array, classes: npt.NDArray[np.bool_], seed: int) -> CrossValidatedFit:
    """Fit with the penalty of the least out-of-fold log loss. `seed` draws the folds."""
    from sklearn.model_selection import KFold

    out_of_fold: dict[float, Array] = {penalty: np.empty(len(rows)) for penalty in PENALTIES}
    folds = KFold(min(FOLDS, len(rows)), shuffle=True, random_state=seed)
    for train, test in folds.split(rows):
        for penalty, probabilities in out_of_fold.items():
            model = fit_logistic(rows[train], classes[train], penalty)
            probabilities[test] = model.predict_probability(rows[test])
    best = min(PENALTIES, key=lambda penalty: log_loss(out_of_fold[penalty], classes))
    return CrossValidatedFit(model=fit_logistic(rows, classes, best), probabilities=out_of_fold[best])


def log_loss(probabilities: Array, classes: npt.NDArray[np.bool_]) -> float:
    right = np.clip(np.where(classes, probabilities, 1 - probabilities), 1e-12, 1.0)
    return float(-np.log(right).mean())

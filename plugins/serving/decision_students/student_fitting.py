"""Fits a decision student to labeled texts: heads on one part, thresholds on another, evaluation on the rest.

Plain functions of vectors and labels; knows no file and no teacher.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from plugins.serving.decision_students.agreement_bound import (
    AgreementTarget,
    Bools,
    Floats,
    ScoredCases,
    SelectiveCurve,
    build_selective_curve,
    certify_threshold,
    check_threshold,
    choose_cross_threshold,
    coverage_and_risk,
    oracle_coverage,
    uncalibrated_threshold,
    upper_risk_bound,
)
from plugins.serving.decision_students.classification_metrics import ClassificationQuality, measure_classification
from plugins.serving.decision_students.decision_student import (
    SCORE_DIGITS,
    SCORE_QUANTILES,
    CalibrationMethod,
    Guarantee,
    QuestionHead,
    choose_answers,
    compute_scores,
    stack_probabilities,
)
from plugins.serving.decision_students.linear_head import PENALTIES, fit_linear_head
from plugins.serving.decisions.questions import Answer, DecisionQuestion

Indices = npt.NDArray[np.intp]

SHARES: Mapping[CalibrationMethod, tuple[float, float]] = {"held-out": (0.5, 0.3), "cross": (0.8, 0.0)}
"""Of the labeled texts: for the heads, and for the thresholds alone. The rest evaluates."""
FEWEST_TEXTS = 20


class LabeledAnswers(NamedTuple):
    """The teacher's answers to one question."""

    answers: list[Answer]
    """Of each text: the majority of its votes."""
    shares: list[dict[str, float]]
    """Of each text: the share of votes for each class (`DecisionQuestion.to_class`)."""

    def select(self, places: Indices) -> "LabeledAnswers":
        return LabeledAnswers([self.answers[i] for i in places], [self.shares[i] for i in places])


class TextParts(NamedTuple):
    """Indices of the texts for each purpose."""

    heads: Indices
    thresholds: Indices
    evaluation: Indices


class CoverageAtThreshold(BaseModel):
    """One way to choose the answered cases, on the evaluation texts."""

    model_config = ConfigDict(frozen=True)

    coverage: float
    risk: float | None
    """The share of answered cases that disagree with the teacher; None where none is answered."""


class QuestionEvaluation(BaseModel):
    """A question on the evaluation texts."""

    model_config = ConfigDict(frozen=True)

    agreement: float
    """With the teacher, over all texts."""
    quality: ClassificationQuality | None
    """None for `several_of`, whose answers are no classes."""
    certified: CoverageAtThreshold
    uncalibrated: CoverageAtThreshold
    """Answer where the probability is at least the target."""
    oracle: float
    """The largest coverage at the allowed risk."""
    bound: float
    """The upper bound of the risk at the certified threshold, on these texts; 1 where none is answered."""
    curve: SelectiveCurve


def split_texts(number: int, seed: int, calibration: CalibrationMethod = "held-out") -> TextParts:
    """A random split; with `cross`, none is for the thresholds alone."""
    shares = SHARES[calibration]
    order = np.random.default_rng(seed).permutation(number)
    first, second = round(shares[0] * number), round((shares[0] + shares[1]) * number)
    return TextParts(order[:first], order[first:second], order[second:])


def fit_question(
    question: DecisionQuestion, rows: Any, labels: LabeledAnswers, parts: TextParts, target: AgreementTarget, seed: int,
    penalties: Sequence[float] = PENALTIES,
) -> QuestionHead:  # fmt: skip
    """The head of a question of any type but `span`, with its threshold. `rows` has the vector of each
    text, dense or sparse.
    """
    train = parts.heads
    fits = [
        fit_linear_head(rows[train], targets[train], seed, penalties) for targets in _build_targets(question, labels)
    ]
    heads = [fit.head for fit in fits]

    def compare(predicted: Sequence[Floats], places: Indices) -> ScoredCases:
        return _compare_with_teacher(question, stack_probabilities(question, predicted), labels.select(places))

    tuning = compare([fit.out_of_fold for fit in fits], train)
    held_out = None
    if len(parts.thresholds):
        held_out = compare([head.predict_probabilities(rows[parts.thresholds]) for head in heads], parts.thresholds)
    return QuestionHead(question=question, heads=heads, guarantee=certify(held_out, tuning, target))


def certify(held_out: ScoredCases | None, tuning: ScoredCases, target: AgreementTarget) -> Guarantee:
    """The threshold by held-out cases, or by the out-of-fold ones in `tuning` where there are none."""
    if held_out is None:
        calibration, threshold = tuning, choose_cross_threshold(tuning, target).threshold
    else:
        calibration, threshold = held_out, certify_threshold(held_out, tuning, target).threshold
    if threshold is not None and np.isinf(threshold):
        threshold = 0.0  # below every score; JSON has no infinity
    test = check_threshold(calibration, np.inf if threshold is None else threshold, target.risk)
    quantiles = np.quantile(calibration.scores, np.linspace(0, 1, min(SCORE_QUANTILES, len(calibration.scores))))
    return Guarantee(
        target=target, calibration="cross" if held_out is None else "held-out", threshold=threshold,
        cases=len(calibration.scores), answered=test.answered,
        disagreements=test.disagreements, scores=[round(score, SCORE_DIGITS) for score in quantiles.tolist()],
    )  # fmt: skip


def _build_targets(question: DecisionQuestion, labels: LabeledAnswers) -> list[Floats]:
    """The targets of each head: shares of votes over the classes; of `several_of`, over (no, yes) for each label."""
    if question.type != "several_of":
        return [np.array([[shares.get(name, 0.0) for name in question.classes] for shares in labels.shares])]
    targets = []
    for label in question.labels:
        yes = np.array([
            sum((share for name, share in shares.items() if label in question.from_class(name)), 0.0)  # type: ignore[operator]
            for shares in labels.shares
        ])  # fmt: skip
        targets.append(np.stack([1 - yes, yes], axis=1))
    return targets


def _compare_with_teacher(question: DecisionQuestion, probabilities: Floats, labels: LabeledAnswers) -> ScoredCases:
    """The student's scores, and its agreement with the teacher."""
    chosen = choose_answers(question, probabilities)
    agrees: Bools = np.array([mine == given for mine, given in zip(chosen, labels.answers, strict=True)], dtype=bool)
    return ScoredCases(compute_scores(question, probabilities), agrees)


def evaluate_question(head: QuestionHead, rows: Any, labels: LabeledAnswers) -> QuestionEvaluation:
    """On texts that neither the head nor its threshold has seen; at least one."""
    question, guarantee = head.question, head.guarantee
    probabilities = head.predict_probabilities(rows)
    cases = _compare_with_teacher(question, probabilities, labels)
    quality = None
    if question.type != "several_of":
        truth = np.array([question.classes.index(question.to_class(answer)) for answer in labels.answers])
        quality = measure_classification(truth, probabilities)
    target = guarantee.target
    at = check_threshold(cases, np.inf if guarantee.threshold is None else guarantee.threshold, target.risk)
    return QuestionEvaluation(
        agreement=float(cases.agrees.mean()),
        quality=quality,
        certified=_measure_coverage(cases, guarantee.threshold),
        uncalibrated=_measure_coverage(cases, uncalibrated_threshold(target)),
        oracle=oracle_coverage(cases, target.risk),
        bound=upper_risk_bound(at.disagreements, at.answered, target.delta),
        curve=build_selective_curve(cases, target),
    )


def _measure_coverage(cases: ScoredCases, threshold: float | None) -> CoverageAtThreshold:
    coverage, risk = coverage_and_risk(cases, threshold)
    return CoverageAtThreshold(coverage=coverage, risk=risk)

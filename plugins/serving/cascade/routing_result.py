"""The value of a student-first cascade, computed from answers to the same seeds; saved next to the student as `routing.json`.

Calls no model. Signals and statistics are in `plugins.serving.cascade`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from core.config.teachers import TeacherConfig
from core.errors import RunFailed, UsageError
from core.intervals import IntervalEstimate, estimate_share
from core.storage.atomic_files import read_json
from flows.evaluate.student_results import AnswerCost, price_answers
from flows.terminal.suggested_commands import format_command
from flows.terminal.text_format import format_percent
from plugins.serving.cascade.routing_curves import (
    QUALITY,
    TARGET_SHARES,
    Bools,
    EvaluationHalf,
    Floats,
    Places,
    RoutingCurve,
    RoutingOutcomes,
    build_baselines,
    build_routing_curve,
    compute_random_share,
    draw_resamples,
    estimate_mean,
    split_halves,
)
from plugins.serving.cascade.routing_signals import (
    CONFIDENCE_SIGNALS,
    QUESTION_MEANING,
    QUESTION_SIGNAL,
    AnswerWithLogprobs,
    FittedRouter,
    LogisticModel,
    QuestionRouter,
    build_feature_row,
    find_question_problem,
    fit_cross_validated,
    fit_question_router,
)

if TYPE_CHECKING:
    from agents.studies.held_out_evaluation import HeldOutResult

ROUTING_FILE = "routing.json"
"""In a student's folder: the results of `stillhouse route`."""
CLASSIFIER_SIGNAL = "classifier"
CLASSIFIER_MEANING = "the student's probability to pass minus the teacher's, from the other signals and the lengths"
UNTRUSTED_FAULTS = ("cut off", "no answer")
"""Faults visible without any check: such an answer always goes to the teacher."""

CascadeVerdict = Literal["route", "student", "chance", "nothing"]


class CalibrationSampling(BaseModel):
    """The sampling parameters of the calibration's answers."""

    model_config = ConfigDict(frozen=True)

    temperature: float
    top_p: float
    max_tokens: int


class RoutingClassifier(BaseModel):
    """The student's answer compared with the teacher's: a logistic regression of passing for each of the two."""

    model_config = ConfigDict(frozen=True)

    student: LogisticModel
    teacher: LogisticModel
    signals: list[str]
    """The first columns of both; the others are the `FEATURES` of `plugins.serving.cascade.routing_signals`."""

    def score(self, answer: AnswerWithLogprobs) -> float:
        """The probability that the student passes minus the probability that the teacher does."""
        row = build_feature_row(answer, self.signals)[None]
        return float((self.student.predict_probability(row) - self.teacher.predict_probability(row))[0])


class CascadeValue(BaseModel):
    """The value of a cascade of student and teacher."""

    model_config = ConfigDict(frozen=True)

    seeds: int
    chosen_on: int
    """Seeds on which thresholds, the classifier and the best signal are chosen."""
    told_on: int
    """The other seeds: all qualities, shares, costs and areas are measured on these."""
    student_rate: IntervalEstimate
    """Pass rates over all seeds, with Wilson's interval."""
    teacher_rate: IntervalEstimate
    gap: IntervalEstimate
    """Teacher less student, over all seeds, by a paired bootstrap."""
    cost_unit: Literal["tokens", "price"]
    """The unit of all costs: the teacher's tokens for one query, or its price for 1,000 queries."""
    teacher_cost: float
    """The cost of the teacher alone, over all seeds."""
    student_tokens: float
    """Tokens of the student's prompt and answer for one query."""
    draw_tokens: float
    """The same for its further answers, which `agreement` and the classifier need."""
    curves: list[RoutingCurve]
    aims: list[float]
    random: list[IntervalEstimate]
    """Quality of a router that asks at random, at each of `aims`."""
    oracle: list[IntervalEstimate]
    """Quality of a router that knows who passes and asks the teacher only where that helps, at each of `aims`."""
    random_share_at_quality: float
    """The share of teacher calls at which a random router reaches 95 % of the teacher's pass rate."""
    best: str
    """The signal with the largest area on the seeds where thresholds are chosen."""
    classifier: RoutingClassifier | None
    """None where there is nothing to learn: the teacher gains the same on every seed."""
    question: QuestionRouter | None = None
    """Of the signal `question`; None where there is nothing to learn, or without the extra `embeddings`."""
    verdict: CascadeVerdict
    answer: str
    """The verdict in a sentence."""
    notes: list[str]

    def find_curve(self, signal: str) -> RoutingCurve:
        return next(curve for curve in self.curves if curve.signal == signal)


class RoutingResult(CascadeValue):
    """The result of `stillhouse route`."""

    student: str
    weights: str
    """SHA-256 of the GGUF file that answered: the calibration is valid for this file only."""
    type: str | None
    """How its weights are stored; None for a named GGUF file."""
    teacher: TeacherConfig
    teacher_weights: str | None = None
    """The same of a larger student in the teacher's place; None for the recipe's teacher."""
    recipe: str
    seed: int
    first_seed: int
    """The number of the first seed in the recipe's order. The run and the releases that it builds on use only seeds before it."""
    sampling: CalibrationSampling
    draws: int
    """Further answers of the student to each query."""
    cost: AnswerCost | None = None
    """Of the student's first answers; each further answer costs about the same. None if all were in the cache."""

    def needs_draws(self, signal: str) -> bool:
        if signal == QUESTION_SIGNAL:
            return False
        used = self.classifier.signals if signal == CLASSIFIER_SIGNAL and self.classifier else [signal]
        return any(CONFIDENCE_SIGNALS[name].draws for name in used)


def compute_signal_score(signal: str, answer: AnswerWithLogprobs, classifier: RoutingClassifier | None) -> float:
    """The confidence in the answer by this signal."""
    if signal != CLASSIFIER_SIGNAL:
        return CONFIDENCE_SIGNALS[signal].compute(answer)
    assert classifier is not None, "the signal exists only with a fitted classifier"
    return classifier.score(answer)


def read_routing_result(file: Path) -> RoutingResult:
    """Raises StoreError where the file cannot be read, UsageError where it is not a routing result."""
    try:
        return RoutingResult.model_validate(read_json(file))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise UsageError(
            f"{file}: is not what this version writes ({where}); calibrate again: {format_command('route', str(file.parent))}"
        ) from None


class PairedAnswers(NamedTuple):
    """Both models' answers to the same seeds."""

    student: "Sequence[HeldOutResult]"
    teacher: "Sequence[HeldOutResult]"
    draws: "Sequence[Sequence[HeldOutResult]]"
    """Further answers of the student, by draw."""

    def student_answer(self, place: int) -> AnswerWithLogprobs | None:
        """None where the answer cannot be trusted at all: it has no end, or no token probabilities."""
        result = self.student[place]
        certainties = [reply.certainty for reply in result.replies if reply.certainty]
        if result.fault in UNTRUSTED_FAULTS or not certainties:
            return None
        return AnswerWithLogprobs(
            result.question,
            result.answer,
            [value for certainty in certainties for value in certainty.logprobs],
            [value for certainty in certainties for value in certainty.entropies],
            [draw[place].answer for draw in self.draws],
        )


def estimate_cascade_value(answers: PairedAnswers, teacher: TeacherConfig, seed: int) -> CascadeValue:
    """Evaluate every signal on the answers; `seed` draws the halves, the folds and the resamples.

    Raises:
        RunFailed: if the student returns no probabilities.
    """
    rows = [answers.student_answer(place) for place in range(len(answers.student))]
    if not any(rows):
        raise RunFailed(
            f"not one of the student's {len(rows)} answers has both an end and token probabilities; train it longer, or on more"
        )
    unit, cost = _compute_teacher_costs(teacher, answers.teacher)
    outcomes = RoutingOutcomes(_collect_passes(answers.student), _collect_passes(answers.teacher), cost)
    calibration, evaluation = split_halves(len(rows), seed)
    evaluated = outcomes.select(evaluation)
    resamples = draw_resamples(len(evaluation), seed)
    names = [name for name, signal in CONFIDENCE_SIGNALS.items() if answers.draws or not signal.draws]
    classifier, predicted_gain = _fit_classifier(rows, outcomes, calibration, names, seed)
    asked = None
    if find_question_problem() is None:
        asked = fit_question_router([result.question for result in answers.student], outcomes, calibration, seed)
    curves = [
        build_routing_curve(
            name,
            meaning,
            (outcomes.select(calibration), scores[calibration]),
            EvaluationHalf(evaluated, scores[evaluation], resamples),
        )
        for name, meaning, scores in _score_by_signals(rows, names, classifier, predicted_gain, asked)
    ]
    best = max(curves, key=lambda curve: curve.chosen_area)
    random, oracle = build_baselines(evaluated, resamples)
    gap = estimate_mean(outcomes.gain, draw_resamples(len(rows), seed))
    rates = [_estimate_pass_rate(outcomes.student), _estimate_pass_rate(outcomes.teacher)]
    verdict = _decide_cascade_verdict(outcomes, gap, best)
    random_share = compute_random_share(evaluated)
    return CascadeValue(
        seeds=len(rows), chosen_on=len(calibration), told_on=len(evaluation), student_rate=rates[0], teacher_rate=rates[1],
        gap=gap, cost_unit=unit, teacher_cost=float(cost.mean()), student_tokens=_mean_tokens(answers.student),
        draw_tokens=sum(map(_mean_tokens, answers.draws)), curves=curves, aims=list(TARGET_SHARES), random=random,
        oracle=oracle, random_share_at_quality=random_share, best=best.signal, classifier=classifier,
        question=asked.router if asked else None, verdict=verdict,
        answer=VERDICT_EXPLANATIONS[verdict](rates, gap, best, random_share),
        notes=list(_collect_cascade_notes(answers, rows, classifier, best)),
    )  # fmt: skip


def _collect_passes(results: "Sequence[HeldOutResult]") -> Bools:
    return np.array([result.fault is None for result in results])


def _estimate_pass_rate(passed: Bools) -> IntervalEstimate:
    rate = estimate_share(int(passed.sum()), len(passed))
    assert rate is not None, "there are seeds"
    return rate


def _mean_tokens(results: "Sequence[HeldOutResult]") -> float:
    """Tokens of prompt and answer per query."""
    usages = [reply.usage for result in results for reply in result.replies]
    return sum(usage.prompt_tokens + usage.completion_tokens for usage in usages) / len(results)


def _compute_teacher_costs(
    teacher: TeacherConfig, results: "Sequence[HeldOutResult]"
) -> tuple[Literal["tokens", "price"], Floats]:
    """In the teacher's price; in tokens where that is zero or unknown."""
    if prices := price_answers(teacher, results):
        return "price", 1000 * np.array(prices)
    return "tokens", np.array([_mean_tokens([result]) for result in results])


def _fit_classifier(
    rows: Sequence[AnswerWithLogprobs | None],
    outcomes: RoutingOutcomes,
    calibration: Places,
    names: Sequence[str],
    seed: int,
) -> tuple[RoutingClassifier | None, Mapping[int, float]]:
    """A classifier fitted to the calibration half, and its out-of-fold predictions there, by place."""
    used = {place: row for place in calibration.tolist() if (row := rows[place])}
    places = list(used)
    if not places or not np.ptp(outcomes.gain[places]):
        return None, {}
    table = np.array([build_feature_row(row, names) for row in used.values()])
    student, teacher = (
        fit_cross_validated(table, passed[places], seed) for passed in (outcomes.student, outcomes.teacher)
    )
    predictions = dict(zip(places, (student.probabilities - teacher.probabilities).tolist(), strict=True))
    return RoutingClassifier(student=student.model, teacher=teacher.model, signals=list(names)), predictions


def _score_by_signals(
    rows: Sequence[AnswerWithLogprobs | None],
    names: Sequence[str],
    classifier: RoutingClassifier | None,
    predictions: Mapping[int, float],
    asked: FittedRouter | None,
) -> Iterator[tuple[str, str, Floats]]:
    """Each signal, its meaning, and its score of every answer; an answer that cannot be trusted scores below all others, but
    not by the question alone.
    """

    def fill_missing(scores: Sequence[float | None]) -> Floats:
        least = min(score for score in scores if score is not None) - 1
        return np.array([least if score is None else score for score in scores])

    for name in names:
        yield (
            name,
            CONFIDENCE_SIGNALS[name].meaning,
            fill_missing([row and CONFIDENCE_SIGNALS[name].compute(row) for row in rows]),
        )
    if asked:
        yield QUESTION_SIGNAL, QUESTION_MEANING, asked.scores
    if classifier:
        scores = [
            row and predictions.get(i, compute_signal_score(CLASSIFIER_SIGNAL, row, classifier))
            for i, row in enumerate(rows)
        ]
        yield CLASSIFIER_SIGNAL, CLASSIFIER_MEANING, fill_missing(scores)


def _decide_cascade_verdict(outcomes: RoutingOutcomes, gap: IntervalEstimate, best: RoutingCurve) -> CascadeVerdict:
    if not outcomes.student.any() and not outcomes.teacher.any():
        return "nothing"
    if gap.value <= 0:
        return "student"
    return "route" if best.area.low > 0 else "chance"


def _explain_route(
    rates: Sequence[IntervalEstimate], gap: IntervalEstimate, best: RoutingCurve, random_share: float
) -> str:
    at = best.at_quality
    taken = IntervalEstimate(value=1 - at.share.value, low=1 - at.share.high, high=1 - at.share.low)
    kept = at.retention.format(format_percent) if at.retention else "an unknown share"
    return (
        f"The student can take {taken.format(format_percent)} of the queries at {kept} of the teacher's pass rate, by "
        f"{best.signal}; the target was {format_percent(QUALITY)}, for which a random router could leave it "
        f"{format_percent(1 - random_share)}."
    )


def _explain_student(
    rates: Sequence[IntervalEstimate], gap: IntervalEstimate, best: RoutingCurve, random_share: float
) -> str:
    student, teacher = rates
    comparison = "significantly more" if gap.high < 0 else "with no significant difference on these seeds"
    return (
        f"No routing needed: the student passes {format_percent(student.value)} and its teacher "
        f"{format_percent(teacher.value)}, {comparison} (teacher minus student {gap.format(format_percentage_points)})."
    )


def _explain_chance(
    rates: Sequence[IntervalEstimate], gap: IntervalEstimate, best: RoutingCurve, random_share: float
) -> str:
    return (
        f"No signal is significantly better than chance on these seeds (the best, {best.signal}, has an area of "
        f"{best.area.format(format_area)}): route by it only if more seeds confirm it. "
        + _explain_route(rates, gap, best, random_share)
    )


def _explain_nothing(*_: object) -> str:
    return "Neither model passes anything, so there is nothing to route: fix the recipe or use a better teacher."


VERDICT_EXPLANATIONS: Mapping[
    CascadeVerdict, Callable[[Sequence[IntervalEstimate], IntervalEstimate, RoutingCurve, float], str]
] = {"route": _explain_route, "student": _explain_student, "chance": _explain_chance, "nothing": _explain_nothing}


def format_percentage_points(difference: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * difference:+.0f} points"


def format_area(value: float) -> str:
    return f"{value:+.3f}"


def _collect_cascade_notes(
    answers: PairedAnswers,
    rows: Sequence[AnswerWithLogprobs | None],
    classifier: RoutingClassifier | None,
    best: RoutingCurve,
) -> Iterator[str]:
    if missing := sum(row is None for row in rows):
        yield (
            f"{missing} of {len(rows)} answers of the student had no end or no tokens; they always go to the teacher, except by "
            "the question alone."
        )
    if classifier is None:
        yield "No classifier: on the calibration seeds, the teacher gained the same everywhere."
    if best.at_share.recovered is None:
        yield "No share of the gap: on the evaluation seeds there may be no gap."
    if problem := find_question_problem():
        yield f"No router by the question alone: it {problem}."
    if not answers.draws:
        yield "No agreement: no further answers were drawn."

"""What answers to the same seeds say of a student-first cascade, as it is saved beside the student and served from there.

Asks nobody. The signals and the statistics are `students.trust` and `students.routing`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import RunFailed, UsageError
from core.recipe import TeacherConfig
from core.shares import Measure, share
from core.store import read_json
from flows.words import percent
from students.logistic import Logistic, cross_validated
from students.routing import (
    AIMS,
    QUALITY,
    Bools,
    Curve,
    Floats,
    Outcomes,
    Places,
    Told,
    curve_of,
    halves,
    lines_of,
    mean_of,
    random_share_at,
    resamples,
)
from students.trust import SIGNALS, Answered, row_of

if TYPE_CHECKING:
    from agents.exam import Result

CLASSIFIER = "classifier"
CLASSIFIED_BY = "the student's chance to pass less the teacher's, from the other signals and the lengths"
UNTRUSTED = ("cut off", "no answer")
"""Faults that are seen without any check: such an answer always goes to the teacher."""

Verdict = Literal["route", "student", "chance", "nothing"]


class Sampling(BaseModel):
    """How answers were drawn when the cascade was calibrated."""

    model_config = ConfigDict(frozen=True)

    temperature: float
    top_p: float
    max_tokens: int


class Classifier(BaseModel):
    """What the student's answer is worth beside the teacher's, by a logistic regression of each one's passing."""

    model_config = ConfigDict(frozen=True)

    student: Logistic
    teacher: Logistic
    signals: list[str]
    """The first columns of both; then come the features of `students.trust`."""

    def score(self, one: Answered) -> float:
        """The chance that the student passes, less the chance that the teacher does."""
        row = row_of(one, self.signals)[None]
        return float((self.student.chance(row) - self.teacher.chance(row))[0])


class Worth(BaseModel):
    """What a cascade of the two is worth."""

    model_config = ConfigDict(frozen=True)

    seeds: int
    chosen_on: int
    """Seeds on which thresholds, the classifier and the best signal are chosen."""
    told_on: int
    """The others: all quality, shares, costs and areas are of these."""
    student_rate: Measure
    """Pass rates over all seeds, with Wilson's interval."""
    teacher_rate: Measure
    gap: Measure
    """Teacher less student, over all seeds, by a paired bootstrap."""
    cost_unit: Literal["tokens", "price"]
    """Of all costs here: the teacher's tokens for one query, or its price for 1,000 queries."""
    teacher_cost: float
    """Of asking the teacher only, over all seeds."""
    student_tokens: float
    """Of the student's answer to one query, prompt and all."""
    draw_tokens: float
    """Of its further answers, which `agreement` and the classifier need."""
    curves: list[Curve]
    aims: list[float]
    random: list[Measure]
    """Quality of a router that asks at random, at each of `aims`."""
    oracle: list[Measure]
    """Of one that knows who passes, and asks the teacher only where that gains something."""
    random_share_at_quality: float
    """Of teacher calls, with which a random router has 95 % of the teacher's pass rate."""
    best: str
    """The signal with the largest area on the seeds where thresholds are chosen."""
    classifier: Classifier | None
    """None where nothing could be learned: asking the teacher gains the same everywhere."""
    verdict: Verdict
    answer: str
    """What to make of it, in a sentence."""
    notes: list[str]

    def curve(self, signal: str) -> Curve:
        return next(curve for curve in self.curves if curve.signal == signal)


class Routing(Worth):
    """What `stillhouse route` found."""

    student: str
    weights: str
    """SHA-256 of the GGUF file that answered: the calibration holds for no other."""
    type: str | None
    """How its weights are stored; None where a GGUF file was named."""
    teacher: TeacherConfig
    recipe: str
    seed: int
    first_seed: int
    """The place of the first one in the recipe's order; no run of the recipe gets so far."""
    sampling: Sampling
    draws: int
    """Further answers of the student to each query."""

    def needs_draws(self, signal: str) -> bool:
        used = self.classifier.signals if signal == CLASSIFIER and self.classifier else [signal]
        return any(SIGNALS[name].draws for name in used)

    def score(self, signal: str, one: Answered) -> float:
        """How far the answer can be trusted by this signal."""
        return score_of(signal, one, self.classifier)


def score_of(signal: str, one: Answered, classifier: Classifier | None) -> float:
    if signal != CLASSIFIER:
        return SIGNALS[signal].of(one)
    assert classifier is not None, "it is offered only where it was fitted"
    return classifier.score(one)


def read_routing(file: Path) -> Routing:
    """Raises StoreError where it cannot be read, UsageError where it is none."""
    try:
        return Routing.model_validate(read_json(file))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise UsageError(
            f"{file}: is not what this version writes ({where}); calibrate again: stillhouse route"
        ) from None


class Answers(NamedTuple):
    """The same seeds, answered by both."""

    student: "Sequence[Result]"
    teacher: "Sequence[Result]"
    draws: "Sequence[Sequence[Result]]"
    """Further answers of the student, by draw."""

    def student_answer(self, place: int) -> Answered | None:
        """None where it cannot be trusted, whatever its tokens."""
        result = self.student[place]
        told = [reply.certainty for reply in result.replies if reply.certainty]
        if result.fault in UNTRUSTED or not told:
            return None
        return Answered(
            result.question,
            result.answer,
            [value for one in told for value in one.logprobs],
            [value for one in told for value in one.entropies],
            [draw[place].answer for draw in self.draws],
        )


def worth_of(answers: Answers, teacher: TeacherConfig, seed: int) -> Worth:
    """All that can be said of the answers; `seed` is of the halves, the folds and the resamples.

    Raises:
        RunFailed: if the student tells no probabilities.
    """
    rows = [answers.student_answer(place) for place in range(len(answers.student))]
    if not any(rows):
        raise RunFailed(
            f"not one of the student's {len(rows)} answers has both an end and token probabilities; train it longer, or on more"
        )
    unit, cost = _costs(teacher, answers.teacher)
    outcomes = Outcomes(_passed(answers.student), _passed(answers.teacher), cost)
    chosen, told = halves(len(rows), seed)
    places = resamples(len(told), seed)
    names = [name for name, signal in SIGNALS.items() if answers.draws or not signal.draws]
    classifier, foretold = _classified(rows, outcomes, chosen, names, seed)
    curves = [
        curve_of(name, meaning, (outcomes.of(chosen), scores[chosen]), Told(outcomes.of(told), scores[told], places))
        for name, meaning, scores in _scored(rows, names, classifier, foretold)
    ]
    best = max(curves, key=lambda curve: curve.chosen_area)
    random, oracle = lines_of(outcomes.of(told), places)
    gap = mean_of(outcomes.gain, resamples(len(rows), seed))
    rates = [_rate(outcomes.student), _rate(outcomes.teacher)]
    verdict = _verdict(outcomes, gap, best)
    random_share = random_share_at(outcomes.of(told))
    return Worth(
        seeds=len(rows), chosen_on=len(chosen), told_on=len(told), student_rate=rates[0], teacher_rate=rates[1], gap=gap,
        cost_unit=unit, teacher_cost=float(cost.mean()), student_tokens=_tokens(answers.student),
        draw_tokens=sum(map(_tokens, answers.draws)), curves=curves, aims=list(AIMS), random=random, oracle=oracle,
        random_share_at_quality=random_share, best=best.signal, classifier=classifier, verdict=verdict,
        answer=ANSWERS[verdict](rates, gap, best, random_share), notes=list(_notes(answers, rows, classifier, best)),
    )  # fmt: skip


def _passed(results: "Sequence[Result]") -> Bools:
    return np.array([result.fault is None for result in results])


def _rate(passed: Bools) -> Measure:
    found = share(int(passed.sum()), len(passed))
    assert found is not None, "there are seeds"
    return found


def _tokens(results: "Sequence[Result]") -> float:
    """For one query."""
    usage = [reply.usage for result in results for reply in result.replies]
    return sum(one.prompt_tokens + one.completion_tokens for one in usage) / len(results)


def _costs(teacher: TeacherConfig, results: "Sequence[Result]") -> tuple[Literal["tokens", "price"], Floats]:
    """By price where it has one; what costs nothing, or nobody knows what, is told in tokens."""
    asked, said = (
        np.array([sum(getattr(reply.usage, part) for reply in result.replies) for result in results], float)
        for part in ("prompt_tokens", "completion_tokens")
    )
    prices = teacher.prices()
    if not prices or not any(prices):
        return "tokens", asked + said
    return "price", (asked * prices[0] + said * prices[1]) / 1000


def _classified(
    rows: Sequence[Answered | None], outcomes: Outcomes, chosen: Places, names: Sequence[str], seed: int
) -> tuple[Classifier | None, Mapping[int, float]]:
    """A classifier of the chosen half, and what models that did not see a row foretell of it there, by place."""
    used = {place: row for place in chosen.tolist() if (row := rows[place])}
    places = list(used)
    if not places or not np.ptp(outcomes.gain[places]):
        return None, {}
    table = np.array([row_of(row, names) for row in used.values()])
    student, teacher = (cross_validated(table, passed[places], seed) for passed in (outcomes.student, outcomes.teacher))
    foretold = dict(zip(places, (student.chances - teacher.chances).tolist(), strict=True))
    return Classifier(student=student.model, teacher=teacher.model, signals=list(names)), foretold


def _scored(
    rows: Sequence[Answered | None],
    names: Sequence[str],
    classifier: Classifier | None,
    foretold: Mapping[int, float],
) -> Iterator[tuple[str, str, Floats]]:
    """Each signal, its meaning, and its score of every answer; an answer that cannot be trusted is under all others."""

    def filled(scores: Sequence[float | None]) -> Floats:
        least = min(score for score in scores if score is not None) - 1
        return np.array([least if score is None else score for score in scores])

    for name in names:
        yield name, SIGNALS[name].meaning, filled([row and SIGNALS[name].of(row) for row in rows])
    if classifier:
        own = [row and foretold.get(i, score_of(CLASSIFIER, row, classifier)) for i, row in enumerate(rows)]
        yield CLASSIFIER, CLASSIFIED_BY, filled(own)


def _verdict(outcomes: Outcomes, gap: Measure, best: Curve) -> Verdict:
    if not outcomes.student.any() and not outcomes.teacher.any():
        return "nothing"
    if gap.value <= 0:
        return "student"
    return "route" if best.area.low > 0 else "chance"


# In words


def _routed(rates: Sequence[Measure], gap: Measure, best: Curve, random_share: float) -> str:
    at = best.at_quality
    taken = Measure(value=1 - at.share.value, low=1 - at.share.high, high=1 - at.share.low)
    kept = at.retention.told(percent) if at.retention else "an unknown share"
    return (
        f"The student can take {taken.told(percent)} of the queries at {kept} of the teacher's pass rate, by {best.signal}; "
        f"the aim was {percent(QUALITY)}, for which a random router could leave it {percent(1 - random_share)}."
    )


def _student(rates: Sequence[Measure], gap: Measure, best: Curve, random_share: float) -> str:
    student, teacher = rates
    surely = "surely more" if gap.high < 0 else "no less, as far as these seeds can tell"
    return (
        f"No routing needed: the student passes {percent(student.value)} where its teacher passes {percent(teacher.value)}, "
        f"{surely} (teacher less student {gap.told(points)})."
    )


def _chance(rates: Sequence[Measure], gap: Measure, best: Curve, random_share: float) -> str:
    return (
        f"No signal is surely better than chance on these seeds (the best, {best.signal}, has an area of "
        f"{best.area.told(area_words)}): route by it only if more seeds say otherwise. "
        + _routed(rates, gap, best, random_share)
    )


def _nothing(*_: object) -> str:
    return "Neither passes anything, so there is nothing to route: mend the recipe or take a better teacher."


ANSWERS: Mapping[Verdict, Callable[[Sequence[Measure], Measure, Curve, float], str]] = {
    "route": _routed,
    "student": _student,
    "chance": _chance,
    "nothing": _nothing,
}


def points(difference: float) -> str:
    """Of a difference of shares."""
    return f"{100 * difference:+.0f} points"


def area_words(value: float) -> str:
    return f"{value:+.3f}"


def _notes(
    answers: Answers, rows: Sequence[Answered | None], classifier: Classifier | None, best: Curve
) -> Iterator[str]:
    if missing := sum(row is None for row in rows):
        yield f"{missing} of {len(rows)} answers of the student had no end or no tokens; they always go to the teacher."
    if classifier is None:
        yield "No classifier: on the seeds to learn from, asking the teacher gained the same everywhere."
    if best.at_share.recovered is None:
        yield "No share of the gap is told: on the seeds where curves are told there may be none."
    if not answers.draws:
        yield "No agreement: no further answers were drawn."

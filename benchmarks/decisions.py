"""Decision students on labeled text that no model wrote, with a simulated teacher of 90 % accuracy and 500 of its labels.

Each repetition draws 500 texts, labels them with the simulated teacher, fits the student and its threshold, and evaluates both on
all other texts. `STILLHOUSE_DECISIONS` names the folder in which vectors are kept.

`--curve` asks how far more labels take it. Declared before its first run: 500, 1,000, 2,000, 4,000 labels, ten repetitions; the
default student and TF-IDF on each dataset, with two fifths of the labels for the threshold; control: the default student with
shuffled labels. Goal: at a certified agreement of 95 %, the default student answers 80 % on one dataset and 65 % on all three
with at most 4,000 labels.

The simulated teacher errs where naive Bayes on the words of all other texts errs first (its out-of-fold margins, with noise),
with the label that it prefers: the same errors each time, as a model's at temperature 0. A second teacher errs at random, in 10 %
of all cases: nobody can agree with it in 95 % of cases, so the guarantee must leave everything to it.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from benchmarks.decision_texts import SOURCES, LabeledText, draw_labeled_texts
from benchmarks.machine import describe_measurement
from core.project_files import PROJECT
from core.storage.atomic_files import write_atomically
from flows.terminal.text_format import format_percent
from plugins.serving.decision_students.agreement_bound import (
    AgreementTarget,
    ScoredCases,
    coverage_and_risk,
    uncalibrated_threshold,
)
from plugins.serving.decision_students.classification_metrics import expected_calibration_error
from plugins.serving.decision_students.decision_student import CalibrationMethod
from plugins.serving.decision_students.student_fitting import Indices, LabeledAnswers, TextParts, fit_question
from plugins.serving.decision_students.text_encoders import (
    MINILM,
    create_tfidf,
    encode_by_ngrams,
    encode_texts,
    join_vectors,
)
from plugins.serving.decisions.questions import parse_questions

FOLDER_VARIABLE = "STILLHOUSE_DECISIONS"
LABELS, CALIBRATION = 500, 0.4
"""Texts that the teacher labels in a repetition, and which share of them only sets the threshold."""
CURVE, CURVE_REPETITIONS = (500, 1000, 2000, 4000), 10
TEACHER_ACCURACY = 0.9
REPETITIONS, CONTROL_PART = 100, 4
"""Teachers that a student must not trust have a quarter of the repetitions."""
TARGET = AgreementTarget(agreement=0.95, confidence=0.95)
MARGIN_NOISE = 0.1
"""Standard deviation of the noise on the margins by which the systematic teacher's errors are chosen."""
PENALTIES = (0.1, 0.3, 1.0)
DEFAULT_STUDENT = "MiniLM + n-grams"
"""That of the teachers that a student must not trust."""


class Dataset(NamedTuple):
    name: str
    texts: list[str]
    truth: Indices
    classes: list[str]
    vectors: Mapping[str, Any]
    """By the name of each student but TF-IDF."""


class Arm(NamedTuple):
    """One row of the table."""

    teacher: Literal["systematic", "random", "shuffled"]
    """How the simulated teacher errs; `shuffled`: its labels are permuted among the labeled texts, which is the control."""
    student: Literal["MiniLM + n-grams", "MiniLM", "n-grams", "TF-IDF"]
    calibration: CalibrationMethod


class Trial(NamedTuple):
    """One repetition, on the texts that the teacher did not label for it. Each risk is None where nothing is answered."""

    accuracy: float
    """Against the true labels."""
    agreement: float
    """With the teacher."""
    ece: float
    """Of agreement with the teacher."""
    coverage: float
    risk: float | None
    trusted_coverage: float
    """Where the calibrated probability is at least the target."""
    trusted_risk: float | None
    raw_coverage: float
    """Where the probability before temperature scaling is at least the target: the uncalibrated threshold."""
    raw_risk: float | None
    best_coverage: float
    """The largest at the allowed risk, by a threshold chosen on these very texts."""
    seconds: float
    """Of fitting, on a CPU."""


def load_dataset(name: str, folder: Path) -> Dataset:
    """The texts and their vectors, which are computed once."""
    file = folder / f"{name}.json"
    if not file.is_file():
        with write_atomically(file) as partial:
            partial.write_text(json.dumps(draw_labeled_texts(name)), encoding="utf-8")
    rows = [LabeledText(*row) for row in json.loads(file.read_text(encoding="utf-8"))]
    vectors = folder / f"{name}.npy"
    if not vectors.is_file():
        made = encode_texts(MINILM, [row.text for row in rows])
        with write_atomically(vectors) as partial, partial.open("wb") as out:
            np.save(out, made)
    classes = sorted({row.label for row in rows})
    truth = np.array([classes.index(row.label) for row in rows])
    texts = [row.text for row in rows]
    minilm, ngrams = np.load(vectors).astype(np.float64), encode_by_ngrams(texts)
    by_student = {"MiniLM + n-grams": join_vectors(minilm, ngrams), "MiniLM": minilm, "n-grams": ngrams}
    return Dataset(name, texts, truth, classes, by_student)


def simulate_teacher(data: Dataset, seed: int, *, systematic: bool) -> Indices:
    """Labels that are right in `TEACHER_ACCURACY` of the texts."""
    rng = np.random.default_rng(seed)
    number, classes = len(data.truth), len(data.classes)
    errors = round((1 - TEACHER_ACCURACY) * number)
    labels = data.truth.copy()
    if not systematic:
        wrong = rng.choice(number, errors, replace=False)
        labels[wrong] = (labels[wrong] + rng.integers(1, classes, errors)) % classes
        return labels
    from sklearn.model_selection import cross_val_predict
    from sklearn.naive_bayes import MultinomialNB

    words = create_tfidf(data.texts).transform(data.texts)
    probabilities = cross_val_predict(MultinomialNB(alpha=0.1), words, data.truth, method="predict_proba")
    at = np.arange(number)
    others = probabilities.copy()
    others[at, data.truth] = -1
    margin = probabilities[at, data.truth] - others.max(axis=1) + rng.normal(0, MARGIN_NOISE, number)
    wrong = np.argsort(margin)[:errors]
    labels[wrong] = others[wrong].argmax(axis=1)
    return labels


def build_rows(data: Dataset, student: str, train: Indices) -> Any:
    """The vectors of all texts; the words of TF-IDF are those of the texts `train`."""
    if student == "TF-IDF":
        return create_tfidf([data.texts[i] for i in train]).transform(data.texts)
    return data.vectors[student]


def run_trial(data: Dataset, teacher: Indices, seed: int, arm: Arm, number: int = LABELS) -> Trial:
    """`number`: of labels."""
    rng = np.random.default_rng(seed)
    labeled, fresh = np.split(rng.permutation(len(teacher)), [number])
    own = number - round(CALIBRATION * number) if arm.calibration == "held-out" else number
    parts = TextParts(labeled[:own], labeled[own:], fresh)
    given = teacher.copy()
    if arm.teacher == "shuffled":
        given[labeled] = rng.permutation(given[labeled])
    labels = LabeledAnswers([data.classes[i] for i in given], [{data.classes[i]: 1.0} for i in given])
    (question,) = parse_questions([{"name": "label", "ask": "Which?", "labels": data.classes}])
    started = time.process_time()
    rows = build_rows(data, arm.student, parts.heads)
    student = fit_question(question, rows, labels, parts, TARGET, seed, PENALTIES)
    seconds = time.process_time() - started

    probabilities = student.predict_probabilities(rows[fresh])
    predicted = probabilities.argmax(axis=1)
    cases = ScoredCases(probabilities.max(axis=1), predicted == teacher[fresh])
    raw = student.heads[0].model_copy(update={"temperature": 1.0}).predict_probabilities(rows[fresh])
    return Trial(
        float((predicted == data.truth[fresh]).mean()),
        float(cases.agrees.mean()),
        expected_calibration_error(cases.scores, cases.agrees),
        *coverage_and_risk(cases, student.guarantee.threshold),
        *coverage_and_risk(cases, uncalibrated_threshold(TARGET)),
        *coverage_and_risk(ScoredCases(raw.max(axis=1), cases.agrees), uncalibrated_threshold(TARGET)),
        find_best_coverage(cases),
        seconds,
    )


def find_best_coverage(cases: ScoredCases) -> float:
    wrong = np.cumsum(~cases.agrees[np.argsort(-cases.scores, kind="stable")])
    (allowed,) = np.nonzero(wrong <= TARGET.risk * np.arange(1, len(wrong) + 1))
    return float(allowed[-1] + 1) / len(wrong) if len(allowed) else 0.0


def measure_ceiling(data: Dataset, student: str) -> float:
    """The accuracy on 500 texts of a classifier of this kind with the true labels of all others."""
    from sklearn.linear_model import LogisticRegression

    test, train = np.split(np.random.default_rng(0).permutation(len(data.truth)), [LABELS])
    rows = build_rows(data, student, train)
    solver = LogisticRegression(C=10, max_iter=300, tol=1e-3).fit(rows[train], data.truth[train])
    return float(solver.score(rows[test], data.truth[test]))


def list_arms(name: str) -> Iterator[Arm]:
    """All students and ways of calibration; teachers that a student must not trust on one dataset only."""
    for student in get_args(Arm.__annotations__["student"]):
        for calibration in get_args(CalibrationMethod):
            yield Arm("systematic", student, calibration)
    if name == "sections":
        for teacher in ("random", "shuffled"):
            for calibration in get_args(CalibrationMethod):
                yield Arm(teacher, DEFAULT_STUDENT, calibration)  # type: ignore[arg-type]


def table(repetitions: int = REPETITIONS, names: Sequence[str] = tuple(SOURCES)) -> str:
    folder = Path(os.environ.get(FOLDER_VARIABLE) or PROJECT / "runs" / "decisions-benchmark")
    lines = [
        f"{describe_measurement()}. `python -m benchmarks decisions`",
        "",
        "5,000 texts of 10 classes each: synopses of Debian packages (`sections`) or their long descriptions (`descriptions`) "
        "and their archive sections, and three lines of source files and their languages (`snippets`). "
        f"{LABELS} labels of a simulated teacher of {TEACHER_ACCURACY:.0%} accuracy; {repetitions} repetitions "
        f"({-(-repetitions // CONTROL_PART)} with teachers that a student must not trust), each evaluated on the other "
        f"{5000 - LABELS:,} texts. Held-out calibration: {CALIBRATION:.0%} of the labels only set the threshold. Target: "
        f"{TARGET.agreement:.0%} agreement with {TARGET.confidence:.0%} confidence. Means over repetitions; in parentheses, the "
        "5th and the 95th percentile.",
        "",
        "`with all true labels`: the accuracy of a classifier of this kind with 4,500 true labels. `before calibration`: the "
        "probability before temperature scaling is at least 0.95. `best threshold`: the coverage of a threshold that is chosen "
        "on the evaluation texts themselves.",
        "",
        "| texts | teacher's errors | student | calibration | accuracy | with all true labels | agrees with teacher | ECE | "
        "coverage | target held | probability ≥ 0.95 | target held | before calibration | target held | best threshold | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name in names:
        data = load_dataset(name, folder)
        teachers = {
            kind: simulate_teacher(data, 7, systematic=kind != "random")
            for kind in get_args(Arm.__annotations__["teacher"])
        }
        ceilings = {kind: measure_ceiling(data, kind) for kind in get_args(Arm.__annotations__["student"])}
        for arm in list_arms(name):
            number = repetitions if arm.teacher == "systematic" else -(-repetitions // CONTROL_PART)
            trials = [run_trial(data, teachers[arm.teacher], seed, arm) for seed in range(number)]
            cells = _format_cells(trials, ceilings[arm.student])
            lines.append(f"| {' | '.join([name, *arm, *cells])} |")
            sys.stderr.write(f"{lines[-1]}\n")
    return "\n".join(lines)


def curve(names: Sequence[str] = tuple(SOURCES)) -> str:
    """Coverage by the number of labels."""
    folder = Path(os.environ.get(FOLDER_VARIABLE) or PROJECT / "runs" / "decisions-benchmark")
    lines = [
        f"{describe_measurement()}. `python -m benchmarks.decisions --curve`, {CURVE_REPETITIONS} repetitions",
        "",
        "| texts | teacher's errors | student | calibration | labels | agrees with teacher | coverage | target held "
        "| best threshold | CPU s |",
        "|---" * 10 + "|",
    ]
    students: tuple[Literal["MiniLM + n-grams", "TF-IDF"], ...] = ("MiniLM + n-grams", "TF-IDF")
    for name in names:
        data = load_dataset(name, folder)
        teacher = simulate_teacher(data, 7, systematic=True)
        arms = [Arm("systematic", student, "held-out") for student in students]
        for arm in (*arms, Arm("shuffled", "MiniLM + n-grams", "held-out")):
            for number in CURVE:
                trials = [run_trial(data, teacher, seed, arm, number) for seed in range(CURVE_REPETITIONS)]
                cells = [name, *arm, f"{number:,}", f"{np.mean([trial.agreement for trial in trials]):.1%}"]
                cells += [
                    _format_spread([trial.coverage for trial in trials]),
                    _format_kept([trial.risk for trial in trials]),
                ]
                cells += [f"{np.mean([trial.best_coverage for trial in trials]):.1%}"]
                cells += [f"{np.mean([trial.seconds for trial in trials]):.2f}"]
                lines.append(f"| {' | '.join(cells)} |")
                sys.stderr.write(f"{lines[-1]}\n")
    return "\n".join(lines)


def _format_cells(trials: Sequence[Trial], ceiling: float) -> Iterator[str]:
    yield _format_spread([trial.accuracy for trial in trials])
    yield format_percent(ceiling)
    yield _format_spread([trial.agreement for trial in trials])
    yield f"{np.mean([trial.ece for trial in trials]):.3f}"
    yield _format_spread([trial.coverage for trial in trials])
    yield _format_kept([trial.risk for trial in trials])
    yield f"{np.mean([trial.trusted_coverage for trial in trials]):.1%}"
    yield _format_kept([trial.trusted_risk for trial in trials])
    yield f"{np.mean([trial.raw_coverage for trial in trials]):.1%}"
    yield _format_kept([trial.raw_risk for trial in trials])
    yield f"{np.mean([trial.best_coverage for trial in trials]):.1%}"
    yield f"{np.mean([trial.seconds for trial in trials]):.2f}"


def _format_spread(values: Sequence[float]) -> str:
    low, high = np.percentile(values, [5, 95])
    return f"{np.mean(values):.1%} ({low:.1%} to {high:.1%})"


def _format_kept(risks: Sequence[float | None]) -> str:
    """In how many repetitions the risk on fresh texts was within the target; no coverage counts as kept."""
    return f"{sum(risk is None or risk <= TARGET.risk for risk in risks)} of {len(risks)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--datasets", nargs="*", choices=list(SOURCES), default=list(SOURCES))
    parser.add_argument("--curve", action="store_true", help="coverage by the number of labels")
    given = parser.parse_args()
    made = curve(given.datasets) if given.curve else table(given.repetitions, given.datasets)
    sys.stdout.write(f"{made}\n")


if __name__ == "__main__":
    main()

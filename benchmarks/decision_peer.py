"""Heartcut's TF-IDF student on the repetitions of `benchmarks.decisions`: 500 labels, and a threshold of 0.95 on its scores.

`pip install --no-deps --target PEERS/heartcut heartcut==0.2.1`, then with that folder in PYTHONPATH `python -m
benchmarks.decision_peer`. Heartcut has no calibration and no bound; its router takes any threshold.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.decisions import FOLDER_VARIABLE, LABELS, TARGET, Dataset, load_dataset, simulate_teacher
from benchmarks.machine import describe_measurement
from core.project_files import PROJECT
from plugins.serving.decision_students.agreement_bound import ScoredCases, coverage_and_risk, uncalibrated_threshold
from plugins.serving.decision_students.classification_metrics import expected_calibration_error
from plugins.serving.decision_students.student_fitting import Indices

REPETITIONS = 20
DATASETS = ("sections", "snippets")


def run_peer(data: Dataset, teacher: Indices, seed: int) -> list[float]:
    """Accuracy, agreement, ECE, coverage and risk at the target's probability, on the texts without labels."""
    from heartcut.config import TfidfStudentConfig
    from heartcut.students.base import TrainingData
    from heartcut.students.tfidf import TfidfStudent

    labeled, fresh = np.split(np.random.default_rng(seed).permutation(len(teacher)), [LABELS])

    def take(places: Indices) -> list[str]:
        return [data.texts[i] for i in places]

    student: Any = TfidfStudent(TfidfStudentConfig(name="tfidf", kind="tfidf"), data.classes)
    student.fit(TrainingData(take(labeled), teacher[labeled], [], np.array([], int)), seed)
    probabilities = student.predict_proba(take(fresh))
    predicted = probabilities.argmax(axis=1)
    cases = ScoredCases(probabilities.max(axis=1), predicted == teacher[fresh])
    coverage, risk = coverage_and_risk(cases, uncalibrated_threshold(TARGET))
    ece = expected_calibration_error(cases.scores, cases.agrees)
    right = float((predicted == data.truth[fresh]).mean())
    return [right, float(cases.agrees.mean()), ece, coverage, risk or 0.0]


def table(repetitions: int = REPETITIONS) -> str:
    folder = Path(os.environ.get(FOLDER_VARIABLE) or PROJECT / "runs" / "decisions-benchmark")
    lines = [
        f"{describe_measurement()}. `python -m benchmarks.decision_peer`, {repetitions} repetitions",
        "",
        "| texts | student | accuracy | agrees with teacher | ECE | probability ≥ 0.95 | disagrees there |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in DATASETS:
        data = load_dataset(name, folder)
        teacher = simulate_teacher(data, 7, systematic=True)
        means = np.mean([run_peer(data, teacher, seed) for seed in range(repetitions)], axis=0)
        right, agrees, ece, coverage, risk = means
        lines.append(
            f"| {name} | Heartcut 0.2.1, TF-IDF | {right:.1%} | {agrees:.1%} | {ece:.3f} | {coverage:.1%} | {risk:.1%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    sys.stdout.write(f"{table(parser.parse_args().repetitions)}\n")


if __name__ == "__main__":
    main()

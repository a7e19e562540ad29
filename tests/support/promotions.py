"""The records of a student and its evaluation that a promotion reads."""

import shutil
from pathlib import Path

from core.intervals import estimate_share
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.runs.student_records import (
    EvaluationRecord,
    GeneralPanelRecord,
    ModelPassRecord,
    PanelModelRecord,
    StudentRecord,
)
from core.storage.atomic_files import hash_file, write_json
from flows.evaluate.student_results import build_paired_comparison
from flows.release.release_gate import STUDENT_WEIGHTS


def add_panel(manifest: RunManifest, lost: int = 1, tasks: int = 64) -> None:
    """A general panel of which the student lost this number of tasks, if the run asked none."""
    if manifest.evaluation is None or manifest.evaluation.panel is not None:
        return
    passed = {"start": 20, "student": 20 - lost}
    models = [
        PanelModelRecord(
            role=role, passed=count, pass_rate=estimate_share(count, tasks), passed_by_group={"all": count}, words=40
        )
        for role, count in passed.items()
    ]
    panel = GeneralPanelRecord(
        tasks=tasks, groups={"all": tasks}, questions=0, models=models, divergence=None,
        comparison=build_paired_comparison("start", 20 - lost, 0, lost, tasks - 20),
    )  # fmt: skip
    manifest.evaluation = manifest.evaluation.model_copy(update={"panel": panel})


def add_student(
    run: RunDir, weights: Path, *, lost: int = 1, cells: tuple[int, int, int, int] = (1, 14, 1, 24), digest: str = "1"
) -> None:
    """A finished run with `weights` as its evaluated student, as its training and evaluation would have left it. `cells` are the
    requests that both passed, the student only, the teacher only, and neither.
    """
    run.student.mkdir(exist_ok=True)
    shutil.copyfile(weights, run.path / STUDENT_WEIGHTS)
    write_json(run.student / "student.json", {"digest": digest})
    write_json(run.student / "config.json", {})
    manifest = run.read_manifest()
    both, student_only, teacher_only, _ = cells
    passed = {"teacher": both + teacher_only, "student": both + student_only, "start": 0}
    models = [
        ModelPassRecord(role=role, model="m", passed=count, pass_rate=estimate_share(count, sum(cells)))
        for role, count in passed.items()
    ]
    manifest.student = StudentRecord(
        start="layers",
        parameters=1,
        train_samples=9,
        held_out_samples=1,
        steps=1,
        loss_before=2,
        loss_after=1,
        seconds=1,
    )
    manifest.evaluation = EvaluationRecord(
        student_digest=digest, requests=sum(cells), first_seed=24, type="q8_0", weights=hash_file(weights), models=models,
        comparisons=[build_paired_comparison("teacher", *cells)],
    )  # fmt: skip
    add_panel(manifest, lost)
    manifest.files = run.hash_files()
    run.write_manifest(manifest)

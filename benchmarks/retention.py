"""What students of the default recipe keep of their teacher, the embedded one: of its size, of half its layers, of 6.8M
parameters; from three seeds each.

One run of constrained-instructions makes the data; its critic passes everything, so that all that is verified is learned.
All are asked the same held-out seeds in plain words, once, and judged by the recipe's own checks. `STILLHOUSE_STUDENTS` names
a folder for the run and its students, where what is there already is not made again. With the sizes below some two hours of
one core.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agents.planning.plan_building import build_plan
from agents.planning.run_plan import RunPlan
from agents.studies.held_out_evaluation import HeldOutResult, evaluate_held_out, held_out_seeds
from benchmarks.decoding_speed import DecodingSpeed, measure_decoding_speed
from benchmarks.machine import describe_measurement
from core.config.students import StudentConfig
from core.intervals import IntervalEstimate, estimate_share
from core.project_files import PROJECT
from core.runs.run_dir import RunDir
from core.runs.student_records import StudentRecord
from core.sample import Seed
from core.weights.packaged_weights import find_embedded_teacher
from flows.data.student_files import configure_student_as_teacher, export_student
from flows.run.dataset_distillation import distill_dataset
from flows.terminal.console import SESSION
from flows.terminal.text_format import format_percent

RECIPE = "constrained-instructions"
KEEP, QUESTIONS, SEEDS = 500, 400, (7, 8, 9)
HALF, SMALL = "half of its layers", "6.8M parameters"
MIXED = {"objective": {"sft": 0.5, "forward_kl": 0.5}, "distillation": {"signals": "top_k"}}
TINY = {"start": "random", "layers": 6, "hidden_size": 256, "vocabulary": 8192, "epochs": 12, "learning_rate": 1e-3}
ARMS: dict[str, dict[str, Any]] = {
    "the teacher's size": {"start": "layers", "layers": 30, "epochs": 2},
    HALF: {"start": "layers", "layers": 15, "epochs": 3},
    SMALL: TINY,
    f"{SMALL}, and the teacher's probabilities": {**TINY, **MIXED},
}
OTHER_TYPE = "f16"
RESAMPLES = 2000


class StudentArm(NamedTuple):
    """Students of one kind, a training seed each."""

    records: list[StudentRecord]
    passed: np.ndarray
    """Of shape (training seeds, questions): 1 where the answer passed."""
    speed: DecodingSpeed
    """Of the first."""
    bytes: int


def table(keep: int = KEEP, questions: int = QUESTIONS) -> str:
    with open_folder() as folder:
        run = generate_run(folder, keep)
        plan = build_plan(run.read_recipe(), PROJECT)
        seeds = held_out_seeds(plan, questions)
        teacher = mark_passed(asyncio.run(_ask_model(plan, plan.recipe.generator_teacher, seeds, run.cache)))
        arms = {name: _measure_arm(name, run, plan, seeds, folder) for name in ARMS}
        other = export_student(folder / build_student_name(HALF, SEEDS[0]), OTHER_TYPE).path
        stored = mark_passed(
            asyncio.run(
                _ask_model(plan, configure_student_as_teacher(other, plan.recipe.generator_teacher), seeds, run.cache)
            )
        )
        weights = find_embedded_teacher()
        assert weights, "the run needed it"
        return format_page(
            run, teacher, asyncio.run(measure_decoding_speed(weights)), weights.stat().st_size, arms, stored
        )


@contextmanager
def open_folder(variable: str = "STILLHOUSE_STUDENTS") -> Iterator[Path]:
    """The folder that an environment variable names, or a temporary one."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(os.environ.get(variable, name)).resolve()


def generate_run(folder: Path, keep: int) -> RunDir:
    """The run that everything is learned from, by the command that a user gives."""
    settings = (f"keep={keep}", f"samples={8 * keep}", "agents.critic.min_score=1")
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "stillhouse", "generate", RECIPE, *words, "--runs-dir", str(folder), "--resume"]
    subprocess.run(command, cwd=PROJECT, check=True, stdout=sys.stderr)
    return RunDir(next(folder.glob(f"{RECIPE}-*")))


def build_student_name(arm: str, seed: int) -> str:
    return f"student-{list(ARMS).index(arm)}-{seed}"


def train_arm(arm: str, seed: int, run: RunDir, folder: Path) -> tuple[Path, StudentRecord]:
    """The student of this arm and seed, made unless it is there."""
    student = folder / build_student_name(arm, seed)
    return student, distill_dataset(
        run.path, student, StudentConfig.model_validate(ARMS[arm]), seed, SESSION.print_unless_stopped
    )


def _measure_arm(name: str, run: RunDir, plan: RunPlan, seeds: Sequence[Seed], folder: Path) -> StudentArm:
    records, passed, files = [], [], []
    for seed in SEEDS:
        student, record = train_arm(name, seed, run, folder)
        files.append(export_student(student, "q8_0").path)
        model = configure_student_as_teacher(files[-1], plan.recipe.generator_teacher)
        passed.append(mark_passed(asyncio.run(_ask_model(plan, model, seeds, run.cache))))
        records.append(record)
        SESSION.print_unless_stopped(f"{name}, seed {seed}: {passed[-1].sum()} of {len(seeds)} pass")
    return StudentArm(records, np.stack(passed), asyncio.run(measure_decoding_speed(files[0])), files[0].stat().st_size)


async def _ask_model(plan: RunPlan, model: Any, seeds: Sequence[Seed], cache: Path) -> list[HeldOutResult]:
    return await evaluate_held_out(plan, model, seeds, SESSION.stop, lambda _done: None, cache=cache)


def mark_passed(results: Sequence[HeldOutResult]) -> np.ndarray:
    return np.array([result.fault is None for result in results], dtype=float)


def compare_pass_rates(passed: np.ndarray, teacher: np.ndarray) -> tuple[IntervalEstimate, IntervalEstimate]:
    """How many points more than the teacher's pass rate the mean over training seeds is, and its share of that rate; with
    percentile bootstraps over questions, each with all its answers.
    """
    own = passed.mean(0)
    drawn = np.random.default_rng(SEEDS[0]).integers(len(own), size=(RESAMPLES, len(own)))
    more, less = own[drawn].mean(1), teacher[drawn].mean(1)
    points = np.percentile(more - less, (2.5, 97.5))
    shares = np.percentile(more / np.maximum(less, 1 / len(own)), (2.5, 97.5))
    return (
        IntervalEstimate(value=own.mean() - teacher.mean(), low=points[0], high=points[1]),
        IntervalEstimate(value=own.mean() / teacher.mean(), low=shares[0], high=shares[1]),
    )


def format_page(
    run: RunDir,
    teacher: np.ndarray,
    speed: DecodingSpeed,
    size: int,
    arms: Mapping[str, StudentArm],
    stored: np.ndarray,
) -> str:
    counts = run.read_manifest().counts
    rate = estimate_share(int(teacher.sum()), len(teacher))
    assert rate, "questions were asked"
    lines = [
        f"{describe_measurement()}. `python -m benchmarks retention`",
        "",
        f"Recipe `{RECIPE}`, {counts.kept} samples kept of {counts.candidates} candidates, with a critic that passes everything; "
        f"{len(teacher)} held-out seeds, asked in plain words, one try, stored as Q8_0 (the teacher: 4 bit). Three training "
        "seeds each; pass rates of each, then their mean compared with the teacher's, with 95 % intervals of a bootstrap over "
        "questions. Speed: a single conversation in llama.cpp.",
        "",
        "| | parameters | held-out loss, before and after | pass rates | points above the teacher | of the teacher's rate | MB "
        "| tokens/s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        f"| teacher | | | {rate.format(format_percent)} | | | {size / 1e6:.1f} | {speed.decoded:,.0f} |",
    ]
    lines += [_format_row(name, arm, teacher) for name, arm in arms.items()]
    half = arms[HALF].passed[0]
    lines += [
        "",
        f"Student of {HALF}, seed {SEEDS[0]}: {format_percent(half.mean())} pass as Q8_0 and "
        f"{format_percent(stored.mean())} as F16; {int((half != stored).sum())} of {len(half)} questions have another result.",
    ]
    return "\n".join(lines)


def _format_row(name: str, arm: StudentArm, teacher: np.ndarray) -> str:
    more, of = compare_pass_rates(arm.passed, teacher)
    losses = (np.mean([getattr(one, key) for one in arm.records]) for key in ("loss_before", "loss_after"))
    cells = (
        name,
        f"{arm.records[0].parameters / 1e6:.1f}M",
        " → ".join(f"{loss:.2f}" for loss in losses),
        ", ".join(format_percent(rate) for rate in arm.passed.mean(1)),
        more.format(lambda value: f"{100 * value:+.0f}"),
        of.format(format_percent),
        f"{arm.bytes / 1e6:.1f}",
        f"{arm.speed.decoded:,.0f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=int, default=KEEP)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    told = parser.parse_args()
    sys.stdout.write(f"{table(told.keep, told.questions)}\n")


if __name__ == "__main__":
    main()

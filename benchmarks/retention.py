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

from agents.exam import Result, examine, held_out_seeds
from agents.plan import Plan, plan_of
from agents.teachers.speed import Speed, speed_of
from benchmarks.machine import measured_on
from core.embedded import embedded_weights
from core.recipe import PROJECT
from core.run import RunDir, StudentRecord
from core.sample import Seed
from core.shares import Measure, share
from core.student_config import StudentConfig
from flows.curation import distill_dataset
from flows.session import SESSION
from flows.student_files import as_teacher, export_student
from flows.words import percent

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


class Arm(NamedTuple):
    """Students of one kind, a training seed each."""

    records: list[StudentRecord]
    passed: np.ndarray
    """Of shape (training seeds, questions): 1 where the answer passed."""
    speed: Speed
    """Of the first."""
    bytes: int


def table(keep: int = KEEP, questions: int = QUESTIONS) -> str:
    with students_folder() as folder:
        run = generated(folder, keep)
        plan = plan_of(run.read_recipe(), PROJECT)
        seeds = held_out_seeds(plan, questions)
        teacher = passes(asyncio.run(_asked(plan, plan.recipe.writer, seeds, run.cache)))
        arms = {name: _arm(name, run, plan, seeds, folder) for name in ARMS}
        other = export_student(folder / student_name(HALF, SEEDS[0]), OTHER_TYPE).path
        stored = passes(asyncio.run(_asked(plan, as_teacher(other, plan.recipe.writer), seeds, run.cache)))
        weights = embedded_weights()
        assert weights, "the run needed it"
        return page(run, teacher, speed_of(weights), weights.stat().st_size, arms, stored)


@contextmanager
def students_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(os.environ.get("STILLHOUSE_STUDENTS", name)).resolve()


def generated(folder: Path, keep: int) -> RunDir:
    """The run that everything is learned from, by the command that a user gives."""
    settings = (f"keep={keep}", f"samples={8 * keep}", "agents.critic.min_score=1")
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "flows", "generate", RECIPE, *words, "--runs-dir", str(folder), "--resume"]
    subprocess.run(command, cwd=PROJECT, check=True, stdout=sys.stderr)
    return RunDir(next(folder.glob(f"{RECIPE}-*")))


def student_name(arm: str, seed: int) -> str:
    return f"student-{list(ARMS).index(arm)}-{seed}"


def trained(arm: str, seed: int, run: RunDir, folder: Path) -> tuple[Path, StudentRecord]:
    """The student of this arm and seed, made unless it is there."""
    student = folder / student_name(arm, seed)
    return student, distill_dataset(run.path, student, StudentConfig.model_validate(ARMS[arm]), seed, SESSION.note)


def _arm(name: str, run: RunDir, plan: Plan, seeds: Sequence[Seed], folder: Path) -> Arm:
    records, passed, files = [], [], []
    for seed in SEEDS:
        student, record = trained(name, seed, run, folder)
        files.append(export_student(student, "q8_0").path)
        model = as_teacher(files[-1], plan.recipe.writer)
        passed.append(passes(asyncio.run(_asked(plan, model, seeds, run.cache))))
        records.append(record)
        SESSION.note(f"{name}, seed {seed}: {passed[-1].sum()} of {len(seeds)} pass")
    return Arm(records, np.stack(passed), speed_of(files[0]), files[0].stat().st_size)


async def _asked(plan: Plan, model: Any, seeds: Sequence[Seed], cache: Path) -> list[Result]:
    return await examine(plan, model, seeds, SESSION.stop, lambda _done: None, cache=cache)


def passes(results: Sequence[Result]) -> np.ndarray:
    return np.array([result.fault is None for result in results], dtype=float)


def beside(passed: np.ndarray, teacher: np.ndarray) -> tuple[Measure, Measure]:
    """How many points more than the teacher's pass rate the mean over training seeds is, and its share of that rate; with
    percentile bootstraps over questions, each with all its answers.
    """
    own = passed.mean(0)
    drawn = np.random.default_rng(SEEDS[0]).integers(len(own), size=(RESAMPLES, len(own)))
    more, less = own[drawn].mean(1), teacher[drawn].mean(1)
    points = np.percentile(more - less, (2.5, 97.5))
    shares = np.percentile(more / np.maximum(less, 1 / len(own)), (2.5, 97.5))
    return (
        Measure(value=own.mean() - teacher.mean(), low=points[0], high=points[1]),
        Measure(value=own.mean() / teacher.mean(), low=shares[0], high=shares[1]),
    )


def page(run: RunDir, teacher: np.ndarray, speed: Speed, size: int, arms: Mapping[str, Arm], stored: np.ndarray) -> str:
    counts = run.read_manifest().counts
    rate = share(int(teacher.sum()), len(teacher))
    assert rate, "questions were asked"
    lines = [
        f"{measured_on()}. `python -m benchmarks retention`",
        "",
        f"Recipe `{RECIPE}`, {counts.kept} samples kept of {counts.candidates} candidates, with a critic that passes everything; "
        f"{len(teacher)} held-out seeds, asked in plain words, one try, stored as Q8_0 (the teacher: 4 bit). Three training "
        "seeds each; pass rates one by one, then their mean beside the teacher's with 95 % intervals of a bootstrap over "
        "questions. Speed is that of one conversation alone in llama.cpp.",
        "",
        "| | parameters | held-out loss, before and after | pass rates | points above the teacher | of the teacher's rate | MB "
        "| tokens/s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        f"| teacher | | | {rate.told(percent)} | | | {size / 1e6:.1f} | {speed.decoded:,.0f} |",
    ]
    lines += [_row(name, arm, teacher) for name, arm in arms.items()]
    half = arms[HALF].passed[0]
    lines += [
        "",
        f"Of {HALF}, seed {SEEDS[0]}: {percent(half.mean())} pass as Q8_0 and {percent(stored.mean())} as F16; "
        f"{int((half != stored).sum())} of {len(half)} questions came out differently.",
    ]
    return "\n".join(lines)


def _row(name: str, arm: Arm, teacher: np.ndarray) -> str:
    more, of = beside(arm.passed, teacher)
    losses = (np.mean([getattr(one, key) for one in arm.records]) for key in ("loss_before", "loss_after"))
    cells = (
        name,
        f"{arm.records[0].parameters / 1e6:.1f}M",
        " → ".join(f"{loss:.2f}" for loss in losses),
        ", ".join(percent(rate) for rate in arm.passed.mean(1)),
        more.told(lambda value: f"{100 * value:+.0f}"),
        of.told(percent),
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

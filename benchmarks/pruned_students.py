"""Whether a student whose start is half zeros passes as many requests of its recipe as a dense one, after equal training.

Declared before the run:

- Recipe `constrained-instructions`, a run of 700 candidates (seed 11). Every arm learns all of its training rows: 3 epochs, rate
  2e-4, the recipe's replay (KL divergence from the dense start), which all arms get alike. The rate is that of the half-depth
  students in `forgetting`; at 2e-4 dense students passed no fewer than at the recipe's 5e-5 (benchmarks/students.md).
- Arms: `dense`; `pruned`: half of the weights of each matrix are zero, rows ranked by Wanda, the others fitted on up to 400
  conversations, the training rows and then replay; `random` (control): the same fit, with a random half zero. No allocation by
  layer: every row of a matrix loses half. Zeros are frozen in the training, and the table counts them in the finished weights.
- Seeds 7 and 8: `dense`, `pruned` and `random` of seed 7 first, then `dense` and `pruned` of seed 8. A stopped benchmark prints
  what is there.
- 400 held-out requests, one try, as Q8_0, judged by the recipe's checks. Goal: the 95 % interval of `pruned` minus `dense`,
  paired by request and averaged over seeds, has its lower end above -5 points. If the control reaches the goal too, choosing
  weights is not what counts.
- Also measured: loss on the teacher's own conversations, which says what else was lost. No goal.

    STILLHOUSE_STUDENTS=FOLDER python -m benchmarks.pruned_students [--arms dense7,pruned7,...] [--requests N] [--rows N]
"""

import argparse
import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agents.planning.plan_building import build_plan
from agents.planning.run_plan import RunPlan
from agents.studies.held_out_evaluation import evaluate_held_out, held_out_seeds
from benchmarks.forgetting import read_rows
from benchmarks.machine import describe_measurement
from benchmarks.retention import RECIPE, open_folder
from core.config.students import StudentConfig
from core.intervals import IntervalEstimate, estimate_share, estimate_small_mean
from core.project_files import PROJECT
from core.runs.run_dir import RunDir
from core.storage.atomic_files import read_record, write_text
from flows.data.student_files import configure_student_as_teacher, export_student
from flows.terminal.console import SESSION
from plugins.forms.config import SparsityStep
from plugins.forms.pruned_start import SparsityCode
from plugins.forms.sparsity import Pruning, compute_zero_share
from students.chat_encoding import find_pad_id
from students.gguf_export import read_student
from students.predictions import compute_held_out_loss
from students.replay import PACKAGED_REPLAY, read_held_out_replay
from students.start_model import StartModel
from students.training.steps import Training
from students.training.student_training import train_student
from students.training.training_setup import prepare_replay

CANDIDATES, RUN_SEED, REQUESTS, CONVERSATIONS, OWN = 700, 11, 400, 400, 32
MARGIN = 0.05
"""The share of all requests that a pruned student may pass less."""
TRAINING: dict[str, Any] = {
    "start": "layers", "layers": 30, "epochs": 3, "learning_rate": 2e-4, "replay": {"share": 0.5},
}  # fmt: skip
DENSE, PRUNED, RANDOM = "dense", "pruned", "random"
ORDER = ("dense7", "pruned7", "random7", "dense8", "pruned8")
SHOWN = {DENSE: "dense", PRUNED: "half zero, by Wanda, fitted", RANDOM: "half zero, at random, fitted (control)"}


class PrunedStudent(BaseModel):
    """What was measured of a student."""

    rows: int
    seconds: float
    """Of the processor, with the fit."""
    loss_before: float
    """Held-out nats per token of an answer, as pruned."""
    loss_after: float
    zeros: float
    """In the finished weights of the layers."""
    own: float
    """Nats per token on the teacher's own conversations."""
    passed: list[bool]


class MixedSparsityCode(SparsityCode):
    """Fits on replay conversations too, where the training rows are fewer than `CONVERSATIONS`."""

    def prepare(self, start: StartModel, training: Training) -> StartModel:
        rows, replay = training.data.train, prepare_replay(training).learned
        more = random.Random(training.seed).sample(replay, min(len(replay), max(0, CONVERSATIONS - len(rows))))
        return super().prepare(start, replace(training, data=training.data._replace(train=[*rows, *more])))


class MixedSparsityStep(SparsityStep):
    shuffled: bool = False
    """Whether random weights are set to zero."""

    def load(self) -> MixedSparsityCode:
        return MixedSparsityCode(
            Pruning("random" if self.shuffled else self.method, self.share), CONVERSATIONS, reconstruct=True
        )


def configure_arm(arm: str) -> StudentConfig:
    config = StudentConfig.model_validate(TRAINING)
    if arm == DENSE:
        return config
    step = MixedSparsityStep(type="sparsity", share=0.5, reconstruct=True, shuffled=arm == RANDOM)
    return config.model_copy(update={"steps": (step,)})


def find_run(folder: Path) -> RunDir:
    if not list(folder.glob(f"{RECIPE}-*/manifest.json")):
        settings = (f"samples={CANDIDATES}", f"seed={RUN_SEED}", "keep=0")
        words = [word for one in settings for word in ("--set", one)]
        command = [sys.executable, "-m", "stillhouse", "generate", RECIPE, *words, "--runs-dir", str(folder)]
        subprocess.run(command, cwd=PROJECT, stdout=sys.stderr)  # exits with 1: fewer kept than candidates
    return RunDir(next(folder.glob(f"{RECIPE}-*")))


def measure_pruned_student(name: str, run: RunDir, folder: Path, requests: int, most: int | None) -> PrunedStudent:
    file, student = folder / f"{name}.json", folder / name
    if file.is_file():
        return read_record(file, PrunedStudent)
    plan = build_plan(run.read_recipe(), PROJECT)
    train, held_out = (read_rows(run.dataset / f"{side}.parquet") for side in ("train", "validation"))
    began = time.process_time()
    record = train_student(
        train[:most], configure_arm(name[:-1]), student, seed=int(name[-1]), progress=SESSION.print_unless_stopped,
        held_out=held_out, synthetic=True,
    )  # fmt: skip
    seconds = time.process_time() - began
    model, tokenizer = read_student(student)
    own = read_held_out_replay(PACKAGED_REPLAY, 10_000)[-OWN:]  # the first ones are learned
    measured = PrunedStudent(
        rows=record.train_samples,
        seconds=seconds,
        loss_before=record.loss_before,
        loss_after=record.loss_after,
        zeros=compute_zero_share(model),
        own=compute_held_out_loss(model, own, find_pad_id(tokenizer)),
        passed=asyncio.run(ask_student(plan, student, run, requests)),
    )
    write_text(file, measured.model_dump_json() + "\n")
    SESSION.print_unless_stopped(f"{name}: {sum(measured.passed)} of {len(measured.passed)} pass, {seconds:.0f} s")
    return measured


async def ask_student(plan: RunPlan, student: Path, run: RunDir, requests: int) -> list[bool]:
    asked = configure_student_as_teacher(export_student(student, "q8_0").path, plan.recipe.generator_teacher)
    seeds = held_out_seeds(plan, requests)
    results = await evaluate_held_out(plan, asked, seeds, SESSION.stop, lambda _done: None, cache=run.cache)
    return [one.fault is None for one in results]


def estimate_paired_gap(found: Mapping[str, PrunedStudent], arm: str) -> tuple[int, IntervalEstimate] | None:
    """The seeds in which both were trained, and `arm` minus `dense`, each request with the mean of its seeds."""
    seeds = [name[-1] for name in found if name[:-1] == arm and f"{DENSE}{name[-1]}" in found]
    pairs = [zip(found[arm + seed].passed, found[DENSE + seed].passed, strict=True) for seed in seeds]
    by_request = [sum(a - b for a, b in one) / len(one) for one in zip(*pairs, strict=True)]
    gap = estimate_small_mean(by_request)
    return (len(seeds), gap) if gap else None


def format_pruned_students(found: Mapping[str, PrunedStudent]) -> str:
    one = next(iter(found.values()))
    lines = [
        f"{describe_measurement()}. `python -m benchmarks.pruned_students`",
        "",
        f"{one.rows} rows, {TRAINING['epochs']} epochs, rate {TRAINING['learning_rate']:g}, {len(one.passed)} held-out requests "
        "as Q8_0. Minus dense: paired by request, 95 % of the requests, not of trainings. Own: loss on the dense start's own "
        "conversations.",
        "",
        "| start | seed | zeros after | loss before | after | own | pass | CPU s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, student in found.items():
        rate = estimate_share(sum(student.passed), len(student.passed))
        assert rate, "requests were asked"
        cells = (
            SHOWN[name[:-1]], name[-1], f"{student.zeros:.1%}", f"{student.loss_before:.2f}", f"{student.loss_after:.2f}",
            f"{student.own:.2f}", rate.format(lambda value: f"{100 * value:.0f} %"), f"{student.seconds:.0f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for arm in (PRUNED, RANDOM):
        if gap := estimate_paired_gap(found, arm):
            reached = "within" if gap[1].low > -MARGIN else "not shown to be within"
            points = gap[1].format(lambda value: f"{100 * value:+.1f}")
            lines.append(f"- {arm} minus dense, {gap[0]} seeds: {points} points: {reached} {100 * MARGIN:.0f} points")
    return "\n".join(lines)


def table(names: Sequence[str] = ORDER, requests: int = REQUESTS, rows: int | None = None) -> str:
    with open_folder() as folder:
        run = find_run(folder)
        return format_pruned_students(
            {name: measure_pruned_student(name, run, folder, requests, rows) for name in names}
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default=",".join(ORDER))
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--rows", type=int)
    asked = parser.parse_args()
    sys.stdout.write(f"{table(asked.arms.split(','), asked.requests, asked.rows)}\n")


if __name__ == "__main__":
    main()

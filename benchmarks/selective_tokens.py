"""Whether a student that learns only some of the reply tokens forgets less and passes as many requests: selective loss, as in
Rho-1 (Lin et al. 2024, arXiv:2404.07965).

Declared before the run:

- Recipe `constrained-instructions`, the run of `pruned_students` (700 candidates, seed 11). Arms learn its first 45 training
  rows: 3 epochs, rate 2e-4, no replay, which would hide what the selection spares.
- A token's excess is the start's loss minus the reference's. The reference is a student that saw the next 90 rows once, with
  seed 0; none of its rows is an arm's.
- Arms: `all` reply tokens; `top`: the 60 % with the largest excess over all rows; `random` (control): 60 % by chance. Every
  token is read, and the loss is the mean over the chosen ones. Chosen once, before the training.
- Seeds 1, 2, 3, all arms of a seed in turn. A stopped benchmark keeps what is there and prints it.
- 100 held-out requests, one try, as Q8_0, judged by the recipe's checks; loss on 32 of the teacher's own conversations.
- Goal, with all three seeds: own loss of `top` is below those of `all` and of `random` in each seed; and the 95 % interval of
  `top` minus `all` in pass rate, paired by request and averaged over seeds, has its lower end above -10 points. If `random`
  does as well as `top`, the choice of tokens is not what counts. 450 rows are a second run, only if this one reaches the goal.

    STILLHOUSE_STUDENTS=FOLDER python -m benchmarks.selective_tokens [--arms all1,top1,...] [--requests N] [--rows N]
"""

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel
from transformers import PreTrainedModel

from agents.planning.plan_building import build_plan
from benchmarks.forgetting import read_rows
from benchmarks.machine import describe_measurement
from benchmarks.pruned_students import OWN, ask_student, find_run
from benchmarks.retention import open_folder
from core.config.student_steps import STEP_EXTENSIONS, StudentStep
from core.config.students import StudentConfig
from core.intervals import IntervalEstimate, estimate_share, estimate_small_mean
from core.project_files import PROJECT
from core.runs.run_dir import RunDir
from core.runs.student_records import TRAINING_LOG
from core.storage.atomic_files import read_record, write_text
from flows.terminal.console import SESSION
from flows.terminal.text_format import format_percent
from students.chat_encoding import EncodedConversation, find_pad_id
from students.gguf_export import read_student
from students.predictions import EVALUATION_BATCH, build_batch, compute_held_out_loss, predict_tokens
from students.replay import PACKAGED_REPLAY, read_held_out_replay
from students.start_model import StartModel
from students.training.loss_functions import cross_entropy
from students.training.steps import StepCode, Training
from students.training.student_training import train_student

ROWS, REFERENCE_ROWS, REQUESTS, SHARE = 45, 90, 100, 0.6
MARGIN = 0.1
"""The share of all requests that a student of chosen tokens may pass less."""
SETTINGS: dict[str, Any] = {"start": "layers", "layers": 30, "epochs": 3, "learning_rate": 2e-4}
ALL, TOP, CHANCE = "all", "top", "random"
ARM_NAMES = tuple(f"{arm}{seed}" for seed in (1, 2, 3) for arm in (ALL, TOP, CHANCE))


class SelectiveStudent(BaseModel):
    learned: int
    """Tokens that the loss counts, of all rows."""
    loss: float
    """Nats per token of held-out answers of the recipe."""
    own: float
    """Nats per token on the teacher's own conversations."""
    passed: list[bool]


def choose_tokens(rows: Sequence[EncodedConversation], excess: Sequence[float]) -> list[EncodedConversation]:
    """The rows with the `SHARE` of their learned tokens that have the largest `excess`, given in the order of the tokens."""
    kept = set(sorted(range(len(excess)), key=lambda place: -excess[place])[: round(SHARE * len(excess))])
    numbers = iter(range(len(excess)))
    return [row._replace(learned=tuple(mark and next(numbers) in kept for mark in row.learned)) for row in rows]


@torch.no_grad()
def measure_token_losses(model: PreTrainedModel, rows: Sequence[EncodedConversation], pad: int) -> torch.Tensor:
    """Nats of each learned token, in the order of the rows."""
    losses = []
    for first in range(0, len(rows), EVALUATION_BATCH):
        found = predict_tokens(model, build_batch(rows[first : first + EVALUATION_BATCH], pad))
        losses.append(cross_entropy(found.raw, found.targets))
    return torch.cat(losses)


class SelectiveCode(StepCode):
    def __init__(self, reference: str | None) -> None:
        self._reference = reference

    def prepare(self, start: StartModel, training: Training) -> StartModel:
        rows = training.data.train
        if self._reference is None:
            rng = random.Random(f"tokens {training.seed}")
            excess = [rng.random() for row in rows for mark in row.learned if mark]
        else:
            known = (start.model.train(False), read_student(Path(self._reference))[0].train(False))
            before, after = (measure_token_losses(model, rows, training.pad) for model in known)
            excess = (before - after).tolist()
        training.data = training.data._replace(train=choose_tokens(rows, excess))
        return start


@STEP_EXTENSIONS.register
class SelectiveStep(StudentStep):
    type: Literal["selective_tokens"] = "selective_tokens"
    reference: str | None
    """A student's folder; None chooses by chance."""

    def load(self) -> SelectiveCode:
        return SelectiveCode(self.reference)


def train_reference(run: RunDir, folder: Path, rows: int) -> Path:
    known = read_rows(run.dataset / "train.parquet")
    config = StudentConfig.model_validate({**SETTINGS, "epochs": 1})
    train_student(
        known[rows : rows + REFERENCE_ROWS], config, folder / "reference", seed=0, synthetic=True,
        progress=SESSION.print_unless_stopped, held_out=read_rows(run.dataset / "validation.parquet"),
    )  # fmt: skip
    return folder / "reference"


def configure_selective_arm(arm: str, reference: Path | None) -> StudentConfig:
    config = StudentConfig.model_validate(SETTINGS)
    step = SelectiveStep(reference=str(reference) if reference else None)
    return config if arm == ALL else config.model_copy(update={"steps": (step,)})


def measure_selective_student(name: str, run: RunDir, folder: Path, requests: int, rows: int) -> SelectiveStudent:
    file, student, arm = folder / f"{name}.json", folder / name, name[:-1]
    if file.is_file():
        return read_record(file, SelectiveStudent)
    config = configure_selective_arm(arm, train_reference(run, folder, rows) if arm == TOP else None)
    train, held_out = (read_rows(run.dataset / f"{side}.parquet") for side in ("train", "validation"))
    record = train_student(
        train[:rows], config, student, seed=int(name[-1]), progress=SESSION.print_unless_stopped, held_out=held_out,
        synthetic=True,
    )  # fmt: skip
    model, tokenizer = read_student(student)
    own = read_held_out_replay(PACKAGED_REPLAY, 10_000)[-OWN:]
    log = (student / TRAINING_LOG).read_text(encoding="utf-8").splitlines()
    measured = SelectiveStudent(
        learned=sum(json.loads(line)["tokens"] for line in log) // SETTINGS["epochs"],
        loss=record.loss_after,
        own=compute_held_out_loss(model, own, find_pad_id(tokenizer)),
        passed=asyncio.run(ask_student(build_plan(run.read_recipe(), PROJECT), student, run, requests)),
    )
    write_text(file, measured.model_dump_json() + "\n")
    SESSION.print_unless_stopped(
        f"{name}: {sum(measured.passed)} of {len(measured.passed)} pass, own {measured.own:.3f}"
    )
    return measured


def estimate_selective_gap(
    found: Mapping[str, SelectiveStudent], arm: str
) -> tuple[list[str], IntervalEstimate] | None:
    """The seeds that both have, and `arm` minus `all` in pass rate, each request with the mean of its seeds."""
    seeds = [name[-1] for name in found if name[:-1] == arm and f"{ALL}{name[-1]}" in found]
    pairs = [zip(found[arm + seed].passed, found[ALL + seed].passed, strict=True) for seed in seeds]
    gap = estimate_small_mean([sum(a - b for a, b in one) / len(one) for one in zip(*pairs, strict=True)])
    return (seeds, gap) if gap else None


def format_selective_students(found: Mapping[str, SelectiveStudent], rows: int) -> str:
    lines = [
        f"{describe_measurement()}. `python -m benchmarks.selective_tokens`",
        "",
        f"{rows} rows, {SETTINGS['epochs']} epochs, rate {SETTINGS['learning_rate']:g}, no replay; held-out requests as Q8_0. "
        "Own: loss on the teacher's own conversations. 95 % intervals are of requests, not of trainings.",
        "",
        "| tokens | seed | learned | loss on the recipe | own | pass |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, one in found.items():
        rate = estimate_share(sum(one.passed), len(one.passed))
        assert rate, "requests were asked"
        cells = (
            name[:-1],
            name[-1],
            str(one.learned),
            f"{one.loss:.3f}",
            f"{one.own:.3f}",
            rate.format(format_percent),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for arm in (TOP, CHANCE):
        if compared := estimate_selective_gap(found, arm):
            seeds, gap = compared
            own = ", ".join(f"{found[arm + seed].own - found[ALL + seed].own:+.3f}" for seed in seeds)
            within = "within" if gap.low > -MARGIN else "not shown to be within"
            points = gap.format(lambda value: f"{100 * value:+.1f}")
            lines.append(
                f"- {arm} minus all, {len(seeds)} seeds: {points} points: {within} {100 * MARGIN:.0f}; own {own} nats"
            )
    return "\n".join(lines)


def table(names: Sequence[str] = ARM_NAMES, requests: int = REQUESTS, rows: int = ROWS) -> str:
    with open_folder() as folder:
        run = find_run(folder)
        found = {name: measure_selective_student(name, run, folder, requests, rows) for name in names}
        return format_selective_students(found, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default=",".join(ARM_NAMES))
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--rows", type=int, default=ROWS)
    asked = parser.parse_args()
    sys.stdout.write(f"{table(asked.arms.split(','), asked.requests, asked.rows)}\n")


if __name__ == "__main__":
    main()

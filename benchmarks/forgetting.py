"""What a student gains on its recipe, and what it forgets of everything else, by method against forgetting.

One run of constrained-instructions makes the data, as in `retention`. Students learn from all of its training rows or from the
first of them; teacher, start and students answer the same held-out requests of the recipe and tasks of the general panel.
`STILLHOUSE_STUDENTS` names a folder for the run, the students and their answers, so that a stopped benchmark resumes.
"""

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from agents.planning.plan_building import build_plan
from agents.planning.run_plan import RunPlan
from agents.studies.general_panel import GeneralPanel, ask_general_panel, build_general_panel
from agents.studies.held_out_evaluation import evaluate_held_out, held_out_seeds
from benchmarks.gain_plot import GainPoint, draw_gain_plot
from benchmarks.machine import describe_measurement
from benchmarks.retention import generate_run, mark_passed, open_folder
from core.config.students import StudentConfig
from core.config.teachers import TeacherConfig
from core.intervals import IntervalEstimate
from core.project_files import PROJECT
from core.runs.run_dir import RunDir
from core.sample import Message, Seed
from core.storage.atomic_files import read_json, write_json, write_text
from flows.data.student_files import configure_student_as_teacher, export_student
from flows.rows.dataset_rows import read_all_rows
from flows.rows.row_forms import read_row_conversation
from flows.terminal.console import SESSION
from flows.terminal.text_format import format_percent
from plugins.forms.averaged_students import write_averaged_weights
from students.comparison import write_untrained_student
from students.training.student_training import train_student

KEEP, QUESTIONS, TASKS, SEEDS = 500, 400, 400, (7, 8, 9)
RESAMPLES = 2000
HIGH, LOW = 2e-4, 5e-5
FULL: dict[str, Any] = {"start": "layers", "layers": 30, "epochs": 3, "learning_rate": LOW}
FAST = {**FULL, "learning_rate": HIGH}
HALF: dict[str, Any] = {"start": "layers", "layers": 15, "epochs": 3, "learning_rate": HIGH}
REPLAY: dict[str, Any] = {"replay": {}}
LORA: dict[str, Any] = {"learning_rate": 2e-3, "lora": {"rank": 16, "alpha": 32}}


FEW = 45
"""Training rows of the demo."""


class Arm(NamedTuple):
    rows: int | None
    """Training rows of the run; None for all."""
    config: Mapping[str, Any]


ARMS = {
    "all rows, rate 2e-4": Arm(None, FAST),
    "all rows, rate 5e-5": Arm(None, FULL),
    "all rows, rate 5e-5, replay": Arm(None, {**FULL, **REPLAY}),
    "all rows once, replay": Arm(None, {**FULL, **REPLAY, "epochs": 1}),
    "all rows once, replay, average 0.75": Arm(None, {**FULL, **REPLAY, "epochs": 1, "average": 0.75}),
    "all rows once, replay, average 0.5": Arm(None, {**FULL, **REPLAY, "epochs": 1, "average": 0.5}),
    "all rows, half of the layers": Arm(None, HALF),
    "all rows, half of the layers, replay": Arm(None, {**HALF, **REPLAY}),
    "few rows, rate 2e-4": Arm(FEW, FAST),
    "few rows, rate 5e-5": Arm(FEW, FULL),
    "few rows, rate 2e-4, replay": Arm(FEW, {**FAST, **REPLAY}),
    "few rows, rate 5e-5, replay": Arm(FEW, {**FULL, **REPLAY}),
    "few rows, rate 5e-5, replay, three quarters of the way": Arm(FEW, {**FULL, **REPLAY, "average": 0.75}),
    "few rows, rate 5e-5, replay, five eighths of the way": Arm(FEW, {**FULL, **REPLAY, "average": 0.625}),
    "few rows, rate 5e-5, replay, half of the way": Arm(FEW, {**FULL, **REPLAY, "average": 0.5}),
    "few rows, rate 5e-5, replay of texts": Arm(FEW, {**FULL, "replay": {"loss": "sft"}}),
    "few rows, rate 5e-5, KL from the start": Arm(FEW, {**FULL, "steps": [{"type": "start_kl", "weight": 0.3}]}),
    "few rows, LoRA": Arm(FEW, {**FULL, **LORA}),
    "few rows, rate 2e-4, half of the way": Arm(FEW, {**FAST, "average": 0.5}),
}
PLOT = Path(__file__).with_name("forgetting.svg")


class Scores(NamedTuple):
    """A model's answers: 1 where one passed."""

    recipe: np.ndarray
    """Of shape (requests,)."""
    panel: np.ndarray
    """Of shape (tasks,)."""
    words: float
    """Median words of its answers to the open questions."""


class ArmScores(NamedTuple):
    """Students of one arm, a training seed each."""

    scores: list[Scores]
    seconds: float
    """Mean training time."""


class Exam(NamedTuple):
    plan: RunPlan
    seeds: Sequence[Seed]
    panel: GeneralPanel
    cache: Path


def table(keep: int = KEEP, questions: int = QUESTIONS, tasks: int = TASKS, names: Sequence[str] = ()) -> str:
    with open_folder() as folder:
        run = generate_run(folder, keep)
        plan = build_plan(run.read_recipe(), PROJECT)
        exam = Exam(plan, held_out_seeds(plan, questions), build_general_panel(plan, tasks), run.cache)
        arms = {
            name: measure_arm(name, arm, run, exam, folder) for name, arm in ARMS.items() if name in (names or ARMS)
        }
        teacher = ask_model(exam, plan.recipe.generator_teacher, folder / "teacher.json")
        starts = {ARMS[name].config["layers"]: measure_start(name, exam, folder) for name in arms}
    write_text(PLOT, draw_arms(arms, teacher, starts))
    return format_page(run, teacher, starts, arms)


def measure_arm(name: str, arm: Arm, run: RunDir, exam: Exam, folder: Path) -> ArmScores:
    scores, seconds = [], []
    for seed in SEEDS:
        student = folder / f"{name}, {seed}"
        trained = folder / f"{find_trained_arm(arm)}, {seed}"
        train, held_out = (read_rows(run.dataset / f"{side}.parquet") for side in ("train", "validation"))
        record = train_student(
            train[: arm.rows], StudentConfig.model_validate(leave_out_average(arm)), trained, seed=seed,
            progress=SESSION.print_unless_stopped, held_out=held_out, synthetic=True,
        )  # fmt: skip
        if student != trained and not student.exists():
            write_averaged_weights(trained, write_start(trained, arm, folder), arm.config["average"], student)
        model = configure_student_as_teacher(export_student(student, "q8_0").path, exam.plan.recipe.generator_teacher)
        scores.append(ask_model(exam, model, folder / f"{name}, {seed}.json"))
        seconds.append(record.seconds)
        found = scores[-1]
        SESSION.print_unless_stopped(
            f"{name}, seed {seed}: recipe {found.recipe.mean():.3f}, panel {found.panel.mean():.3f}, {found.words:.0f} words"
        )
    return ArmScores(scores, mean(seconds))


def find_trained_arm(arm: Arm) -> str:
    """The arm that has the weights before those of `arm` are averaged with the start's."""
    return next(name for name, other in ARMS.items() if other == (arm.rows, leave_out_average(arm)))


def leave_out_average(arm: Arm) -> dict[str, Any]:
    return {key: value for key, value in arm.config.items() if key != "average"}


def write_start(trained: Path, arm: Arm, folder: Path) -> Path:
    """The untrained form of the arm's students."""
    start = folder / f"start of {arm.config['layers']} layers"
    if not start.exists():
        write_untrained_student(trained, start)
    return start


def read_rows(file: Path) -> list[list[Message]]:
    return list(read_all_rows(file, read_row_conversation))


def measure_start(name: str, exam: Exam, folder: Path) -> Scores:
    arm = ARMS[name]
    start = write_start(folder / f"{find_trained_arm(arm)}, {SEEDS[0]}", arm, folder)
    model = configure_student_as_teacher(export_student(start, "q8_0").path, exam.plan.recipe.generator_teacher)
    return ask_model(exam, model, folder / f"{start.name}.json")


def ask_model(exam: Exam, model: TeacherConfig, file: Path) -> Scores:
    """The model's answers on the recipe and on the panel, asked unless `file` has them."""
    sizes = [len(exam.seeds), len(exam.panel.judged)]
    if not file.exists() or read_json(file)["sizes"] != sizes:
        recipe, panel = asyncio.run(_ask_both(exam, model))
        write_json(file, {
            "sizes": sizes, "recipe": mark_passed(recipe).tolist(), "panel": mark_passed(panel.judged).tolist(),
            "words": panel.words, "open": [[one.question, one.answer] for one in panel.open],
        })  # fmt: skip
    found = read_json(file)
    return Scores(np.array(found["recipe"]), np.array(found["panel"]), found["words"])


async def _ask_both(exam: Exam, model: TeacherConfig) -> tuple[Any, Any]:
    recipe = await evaluate_held_out(exam.plan, model, exam.seeds, SESSION.stop, lambda _done: None, cache=exam.cache)
    return recipe, await ask_general_panel(exam.panel, model, SESSION.stop, lambda _done: None, cache=exam.cache)


def estimate_change(students: np.ndarray, other: np.ndarray) -> IntervalEstimate:
    """The mean over training seeds of the students' pass rates minus the other model's, with a percentile bootstrap over
    questions, each with all its answers, and over training seeds. `students` has the shape (seeds, questions).
    """
    rng = np.random.default_rng(SEEDS[0])
    seeds, questions = students.shape
    values = []
    for _ in range(RESAMPLES):
        drawn, chosen = rng.integers(questions, size=questions), rng.integers(seeds, size=seeds)
        values.append(students[chosen][:, drawn].mean() - other[drawn].mean())
    low, high = np.percentile(values, (2.5, 97.5))
    return IntervalEstimate(value=float(students.mean() - other.mean()), low=float(low), high=float(high))


def compare_arm(arm: ArmScores, teacher: Scores, start: Scores) -> tuple[IntervalEstimate, IntervalEstimate]:
    """Gain on the recipe against the teacher, and change on the panel against the start."""
    return (
        estimate_change(np.stack([one.recipe for one in arm.scores]), teacher.recipe),
        estimate_change(np.stack([one.panel for one in arm.scores]), start.panel),
    )


def draw_arms(arms: Mapping[str, ArmScores], teacher: Scores, starts: Mapping[int, Scores]) -> str:
    points = []
    for name, arm in arms.items():
        gain, change = compare_arm(arm, teacher, starts[ARMS[name].config["layers"]])
        points.append(GainPoint(name, gain, change))
    return draw_gain_plot(points)


def format_page(run: RunDir, teacher: Scores, starts: Mapping[int, Scores], arms: Mapping[str, ArmScores]) -> str:
    counts = run.read_manifest().counts
    lines = [
        f"{describe_measurement()}. `python -m benchmarks forgetting`",
        "",
        f"Recipe `constrained-instructions`, {counts.kept} samples kept of {counts.candidates} candidates. {len(teacher.recipe)} "
        f"held-out requests of the recipe, one try without examples, and {len(teacher.panel)} tasks of the general panel, which "
        "the recipe does not train. Points: the mean over training seeds minus the teacher on the recipe, minus the start on the "
        "panel, with 95 % intervals of a bootstrap over questions and seeds. Words: median of the answers to open questions.",
        "",
        "| | recipe, by seed | points above the teacher | panel, by seed | points above the start | words | training s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    models = {"teacher": teacher, **{f"start, {layers} layers": start for layers, start in starts.items()}}
    for name, model in models.items():
        recipe, panel = format_percent(model.recipe.mean()), format_percent(model.panel.mean())
        lines.append(f"| {name} | {recipe} | | {panel} | | {model.words:.0f} | |")
    for name, arm in arms.items():
        gain, change = compare_arm(arm, teacher, starts[ARMS[name].config["layers"]])
        cells = (
            name,
            ", ".join(format_percent(one.recipe.mean()) for one in arm.scores),
            gain.format(lambda value: f"{100 * value:+.0f}"),
            ", ".join(format_percent(one.panel.mean()) for one in arm.scores),
            change.format(lambda value: f"{100 * value:+.1f}"),
            f"{mean(one.words for one in arm.scores):.0f}",
            f"{arm.seconds:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "![gain against loss](forgetting.svg)"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="*", help="names of arms; default: all")
    parser.add_argument("--keep", type=int, default=KEEP)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--tasks", type=int, default=TASKS)
    options = parser.parse_args()
    sys.stdout.write(f"{table(options.keep, options.questions, options.tasks, options.arms)}\n")


if __name__ == "__main__":
    main()

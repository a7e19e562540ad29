"""Four generations in which each student writes the samples of the next one, and three controls that leave out a guard.

Each arm is a lineage of constrained-instructions, made by the command that a user gives. All generators and students answer the
same held-out requests, judged by the whole recipe's checks, and the same tasks of the general panel. `STILLHOUSE_GENERATIONS`
names a folder for runs and answers, so that a stopped benchmark resumes.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from agents.studies.general_panel import build_general_panel
from agents.studies.held_out_evaluation import held_out_seeds
from benchmarks.forgetting import Exam, Scores, ask_model
from benchmarks.gain_plot import build_svg
from benchmarks.machine import describe_measurement
from benchmarks.retention import RECIPE, open_folder
from core.intervals import estimate_share
from core.project_files import PROJECT
from core.runs.lineage import Lineage
from core.runs.records import CollapseRecord, RunManifest
from core.runs.releases import Release, locate_releases
from core.storage.atomic_files import write_text
from flows.data.student_files import configure_student_as_teacher, export_student
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.report.pages import create_plot_area
from flows.terminal.text_format import format_percent

GENERATIONS, KEEP, QUESTIONS, TASKS = 4, 40, 100, 100
PLOT = Path(__file__).with_name("generations.svg")
FEW_REPLAYS = "student.replay={share=1}"
"""Half of the recipe's, to save time: a fourth generation learns from four times the rows."""
UNVERIFIED = ("verifiers=[]", "agents.critic=false", "filters=[]")


class Arm(NamedTuple):
    """What is left out of promotion with all its guards."""

    settings: tuple[str, ...] = ()
    always: bool = False
    """Every student becomes the next generator, whatever it passes."""
    forgets_first: bool = False
    """The lineage begins anew with the student of the first generation as generator, so no row of another one is kept."""


ARMS = {
    "promotion": Arm(),
    "no verification": Arm(UNVERIFIED, always=True),
    "replace": Arm(("lineage.policy='replace'",), always=True),
    "without the first rows": Arm(always=True, forgets_first=True),
}


class Generation(NamedTuple):
    number: int
    run: RunManifest
    student: Scores
    decision: str


def table(
    keep: int = KEEP,
    questions: int = QUESTIONS,
    tasks: int = TASKS,
    count: int = GENERATIONS,
    names: Sequence[str] = (),
) -> str:
    plan = load_recipe_plan(RECIPE)
    with open_folder("STILLHOUSE_GENERATIONS") as folder:
        exam = Exam(plan, held_out_seeds(plan, questions), build_general_panel(plan, tasks), folder / "replies")
        check_exam(exam, keep)
        teacher = ask_model(exam, plan.recipe.generator_teacher, folder / "teacher.json")
        arms = {
            name: measure_arm(arm, folder / name, keep, count, exam)
            for name, arm in ARMS.items()
            if name in (names or ARMS)
        }
    write_text(PLOT, draw_arms(arms, teacher))
    return format_page(arms, teacher, keep)


def check_exam(exam: Exam, keep: int) -> None:
    """Raises RuntimeError if a promotion would be decided on a request of the exam."""
    deciding = held_out_seeds(load_recipe_plan(RECIPE, [f"samples={10 * keep}"]), QUESTIONS)
    if shared := {seed.digest for seed in deciding} & {seed.digest for seed in exam.seeds}:
        raise RuntimeError(f"{len(shared)} requests of the exam decide on promotions; give other --questions or --keep")


def measure_arm(arm: Arm, folder: Path, keep: int, count: int, exam: Exam) -> list[Generation]:
    found: list[Generation] = []
    before: Path | None = None
    for number in range(count):
        # A lineage that forgets the first generation begins with the second one.
        begun, place = (folder / "later", number - 1) if arm.forgets_first and number else (folder, number)
        runs = begun / "runs"
        lineage = Lineage(locate_releases(runs) / RECIPE)
        if len(lineage.list_generations()) == place:
            make_generation(runs, list_settings(arm, keep, before))
        release = lineage.find_generation(place)
        run = release.manifest.run
        before = export_student(runs / run.run / "student", "q8_0").path
        model = configure_student_as_teacher(before, exam.plan.recipe.generator_teacher)
        scores = ask_model(exam, model, folder / f"{number}.json")
        found.append(Generation(number, run, scores, describe_decision(release, arm)))
    return found


def list_settings(arm: Arm, keep: int, student: Path | None) -> list[str]:
    """Of a generation; `student` is the one before."""
    settings = [f"keep={keep}", f"samples={10 * keep}", "collapse.gate=false", FEW_REPLAYS, *arm.settings]
    if not arm.always:
        return [*settings, "lineage.promote=true", f"student.evaluation.requests={QUESTIONS}"]
    # Nothing is decided by the run's own evaluation; the benchmark has its own questions.
    settings.append("student.evaluation={requests=1,panel=0}")
    return [*settings, *([f"teachers.main.model=local/{student}"] if student else [])]


def make_generation(runs: Path, settings: Sequence[str]) -> None:
    words = [word for setting in settings for word in ("--set", setting)]
    where = ["--runs-dir", str(runs), "--resume", "--release"]
    command = [sys.executable, "-m", "stillhouse", "run", RECIPE, *words, *where]
    subprocess.run(command, cwd=PROJECT, check=True, stdout=sys.stderr)


def describe_decision(release: Release, arm: Arm) -> str:
    if arm.always:
        return "always"
    promotion = release.lineage.promotion
    assert promotion is not None
    if promotion.promoted:
        return "promoted"
    return f"not promoted: {'; '.join(re.split('[:,]', reason)[0] for reason in promotion.reasons)}"


def draw_arms(arms: Mapping[str, Sequence[Generation]], teacher: Scores) -> str:
    """Pass rate of each generation's student on the recipe's requests (solid) and on the panel (dashed)."""
    width, height, margins = 620.0, 320.0, (16.0, 190.0, 44.0, 56.0)
    colours = ("#00798c", "#d1495b", "#edae49", "#30638e")
    longest = max(len(found) for found in arms.values())
    plot = create_plot_area((0, longest), [0.0, 1.0], (width, height), margins)
    bottom = height - margins[2]
    parts = [f'<line x1="{margins[3]}" x2="{width - margins[1]}" y1="{bottom}" y2="{bottom}"/>']
    for number in range(longest + 1):
        label = f"student {number - 1}" if number else "teacher"
        parts.append(f'<text x="{plot.x(number)}" y="{bottom + 18}" text-anchor="middle">{label}</text>')
    parts += [
        f'<text x="{margins[3] - 6}" y="{plot.y(share) + 4}" text-anchor="end">{format_percent(share)}</text>'
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    for place, ((name, found), colour) in enumerate(zip(arms.items(), colours, strict=False)):
        models = [teacher, *(one.student for one in found)]
        for values, dashes in (([m.recipe.mean() for m in models], ""), ([m.panel.mean() for m in models], "5 4")):
            points = " ".join(f"{plot.x(number)},{plot.y(value)}" for number, value in enumerate(values))
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>'
            )
        y = margins[0] + 14 + 20 * place
        parts.append(
            f'<circle cx="{width - margins[1] + 24}" cy="{y}" r="5" fill="{colour}"/>'
            f'<text x="{width - margins[1] + 36}" y="{y + 4}">{name}</text>'
        )
    y = margins[0] + 14 + 20 * len(arms)
    for row, (words, dashes) in enumerate((("the recipe's requests", ""), ("general panel", "5 4"))):
        left, top = width - margins[1] + 14, y + 20 * (row + 1)
        parts.append(
            f'<line x1="{left}" x2="{left + 20}" y1="{top}" y2="{top}" stroke-dasharray="{dashes}"/>'
            f'<text x="{left + 26}" y="{top + 4}">{words}</text>'
        )
    return build_svg(parts, (width, height), "pass rates by generation")


def format_page(arms: Mapping[str, Sequence[Generation]], teacher: Scores, keep: int) -> str:
    recipe, panel = (format_percent(rates.mean()) for rates in (teacher.recipe, teacher.panel))
    lines = [
        f"{describe_measurement()}. `python -m benchmarks generations`",
        "",
        f"Recipe `{RECIPE}` with `{FEW_REPLAYS}`, {keep} samples kept in each generation, one seed, every student from the "
        f"same start. {len(teacher.recipe)} held-out requests of the recipe, none of which decided on a promotion, judged by "
        f"all of its checks in every arm, and {len(teacher.panel)} tasks of the general panel; the embedded teacher passes "
        f"{recipe} and {panel}. *always*: every student becomes the next generator. Words: median of the answers to open "
        "questions.",
        "",
        "| | generation | kept of candidates | student passes | 95 % | panel | words | collapse | against earlier releases "
        "| next generator | minutes |",
        "|---|---:|---:|---:|---:|---:|---:|---|---|---|---:|",
    ]
    for name, found in arms.items():
        for one in found:
            counts = one.run.counts
            rate = estimate_share(int(one.student.recipe.sum()), len(one.student.recipe))
            assert rate
            cells = (
                name,
                str(one.number),
                f"{counts.kept} of {counts.candidates} ({format_percent(counts.kept / counts.candidates)})",
                format_percent(rate.value),
                f"{format_percent(rate.low)} to {format_percent(rate.high)}",
                format_percent(one.student.panel.mean()),
                f"{one.student.words:.0f}",
                describe_verdict(one.run.collapse),
                describe_verdict(one.run.collapse_parent),
                one.decision,
                f"{sum(one.run.seconds.values()) / 60:.0f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "![pass rates by generation](generations.svg)"])


def describe_verdict(record: CollapseRecord | None) -> str:
    return str(record.verdict) if record else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="*", help=f"default: all of {', '.join(ARMS)}")
    parser.add_argument("--keep", type=int, default=KEEP)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--generations", type=int, default=GENERATIONS)
    options = parser.parse_args()
    page = table(options.keep, options.questions, options.tasks, options.generations, options.arms)
    sys.stdout.write(f"{page}\n")


if __name__ == "__main__":
    main()

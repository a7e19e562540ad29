"""Calibration of a student-first cascade: student and teacher answer the same held-out seeds.

Collects answers and prints results; `plugins.serving.cascade.routing_result` computes them.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core.config.agents import reasoning_tokens
from core.config.teachers import TeacherConfig
from core.errors import UsageError
from core.installation import check_train_extra
from core.plugins import locate_data
from core.storage.atomic_files import hash_file, write_text
from flows.data.student_files import (
    configure_student_as_teacher,
    continue_lineage,
    export_student,
    find_student_folder,
    find_student_run,
    is_weights_file,
    load_student_plan,
)
from flows.evaluate.student_evaluation import collect_used_requests
from flows.evaluate.student_results import estimate_answer_cost
from flows.terminal.console import CommandSession
from flows.terminal.text_format import format_number, format_one_line, format_percent, format_table
from plugins.serving.cascade.routing_curves import QUALITY, SHARE
from plugins.serving.cascade.routing_result import (
    ROUTING_FILE,
    CalibrationSampling,
    PairedAnswers,
    RoutingResult,
    estimate_cascade_value,
    format_area,
    format_percentage_points,
)

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan
    from agents.studies.held_out_evaluation import HeldOutResult, ServedReplies

TOP_LOGPROBS = 10
"""Likeliest tokens returned at each position of a student's answer; the rest counts as one token."""
DRAW_TEMPERATURE = 0.7
"""Of further answers (Wang et al. 2022 draw at 0.5 to 0.7): at a recipe's own temperature all may be the same."""
FEWEST_SEEDS = 20
"""So that each half has ten."""


class CascadeCalibrationTask(NamedTuple):
    folder: Path
    """The folder of `routing.json`."""
    weights: Path
    kind: str | None
    plan: "RunPlan"
    number: int
    draws: int
    cache: Path
    teacher: TeacherConfig
    """Of the recipe, or another student."""
    teacher_weights: str | None
    """SHA-256 of the other student's GGUF file."""


def prepare_cascade_calibration(
    name: Path, plan: "RunPlan | None", number: int, kind: str, draws: int, cache: Path, runs: Path | None = None,
    teacher: Path | None = None,
) -> CascadeCalibrationTask:  # fmt: skip
    """The student in the folder, run or GGUF file `name`, on the seeds of `plan` or of its run. `teacher` is a larger student in
    the place of the recipe's teacher, likewise a folder, run or GGUF file.

    Raises:
        UsageError: if there is no student, no recipe, or a recipe whose seeds alone ask no question.
    """
    from agents.studies.held_out_evaluation import has_fixed_questions

    file = is_weights_file(name)
    folder = name.parent if file else find_student_folder(name)
    run = find_student_run(folder)
    plan = continue_lineage(plan, run) if plan else load_student_plan(name, run, runs)
    if not has_fixed_questions(plan):
        raise UsageError(
            f"{plan.recipe.name}: in {plan.family.name} the generator writes the questions, so seeds alone ask no question "
            "and no student can be routed on them; name another recipe"
        )
    weights = name if file else export_student(folder, kind).path
    better, better_weights = plan.recipe.generator_teacher.as_file(), None
    if teacher is not None:
        found = _find_weights(teacher, kind).resolve()
        better, better_weights = configure_student_as_teacher(found, better), hash_file(found)
        if hash_file(weights) == better_weights:
            raise UsageError(f"--teacher {teacher}: is the student itself; name a better one")
    check_train_extra()  # before answers are paid for
    return CascadeCalibrationTask(
        folder,
        weights,
        None if file else kind,
        plan,
        number,
        draws,
        run.cache if run else cache,
        better,
        better_weights,
    )


def _find_weights(name: Path, kind: str) -> Path:
    """The GGUF file `name`, or that of the student in a folder or run, exported."""
    return name if is_weights_file(name) else Path(export_student(name, kind).path)


async def calibrate_cascade(task: CascadeCalibrationTask, session: CommandSession) -> RoutingResult:
    """Ask both models, evaluate the signals, and write `routing.json` next to the student.

    Raises:
        RunStopped: on the stop signal; answers so far are kept and not paid for again.
        StillhouseError: if a model cannot be started, or the student returns no probabilities.
    """
    from agents.studies.held_out_evaluation import evaluate_held_out, held_out_seeds

    recipe, generator = task.plan.recipe, task.plan.recipe.agents.generator
    used = collect_used_requests(find_student_run(task.folder), task.plan, session.print_unless_stopped)
    seeds = held_out_seeds(task.plan, task.number, used)
    if len(seeds) < FEWEST_SEEDS:
        raise UsageError(f"{recipe.name}: has {len(seeds)} held-out seeds, and routing needs {FEWEST_SEEDS}")

    served: list[ServedReplies] = []

    async def ask(who: str, plan: "RunPlan", model: TeacherConfig, draw: int = 0) -> "list[HeldOutResult]":
        def show_progress(done: int) -> None:
            session.show_progress(lambda: f"{who}: {done:,} of {len(seeds):,} seeds")

        session.print_message(f"route: {who}, {len(seeds):,} seeds")
        how: Any = {"draw": draw, "cache": task.cache, "on_served": served.append}
        return await evaluate_held_out(plan, model, seeds, session.stop, show_progress, **how)

    teacher = task.teacher
    student = configure_student_as_teacher(task.weights, teacher)
    scored = student.model_copy(update={"extra": {"top_logprobs": TOP_LOGPROBS}})
    student_answers = await ask("student", task.plan, scored)

    # Further answers have a higher temperature, and no checks.
    warm = generator.model_copy(update={"temperature": max(DRAW_TEMPERATURE, generator.temperature)})
    agents = recipe.agents.model_copy(update={"generator": warm})
    draw_plan = replace(task.plan, recipe=recipe.model_copy(update={"agents": agents}), checks=())
    draws = [await ask(f"student, draw {n} of {task.draws}", draw_plan, student, n) for n in range(1, task.draws + 1)]
    answers = PairedAnswers(student_answers, await ask("teacher", task.plan, teacher), draws)

    session.print_unless_stopped("route: evaluating the signals")
    result = RoutingResult(
        student=str(task.folder if task.kind else task.weights),
        weights=hash_file(task.weights),
        type=task.kind,
        teacher=teacher,
        teacher_weights=task.teacher_weights,
        recipe=recipe.name,
        seed=recipe.seed,
        first_seed=task.plan.first_seed + answers.student[0].seed,
        sampling=CalibrationSampling(
            temperature=generator.temperature,
            top_p=generator.top_p,
            max_tokens=generator.max_tokens + reasoning_tokens(generator.reasoning),
        ),
        draws=task.draws,
        cost=estimate_answer_cost(recipe, served[0], student, answers.student, teacher, answers.teacher),
        **dict(estimate_cascade_value(answers, teacher, recipe.seed)),
    )  # fmt: skip
    write_text(task.folder / ROUTING_FILE, result.model_dump_json(indent=2) + "\n")
    if run := find_student_run(task.folder):
        locate_data(run.path, "serving").mkdir(parents=True, exist_ok=True)  # so that the run's report shows it
    return result


def format_routing_result(result: RoutingResult) -> str:
    """The output of `stillhouse route`."""
    oracle = result.oracle[-1]
    value, low, high = map(format_percentage_points, (result.gap.value, result.gap.low, result.gap.high))
    gap = f"{value} ({low} to {high})"
    if result.cost_unit == "tokens":
        cost = f"{result.teacher_cost:,.0f} tokens a query"
    else:
        cost = f"{format_number(result.teacher_cost)} for 1,000 queries"
    last = f"to number {result.first_seed + result.seeds - 1}"
    lines = [
        f"student {result.student}, teacher {format_one_line(result.teacher.model, 60)}",
        f"  {result.recipe}: {result.seeds} held-out seeds, from number {result.first_seed} {last}; thresholds chosen on "
        f"{result.chosen_on}, evaluated on the other {result.told_on}",
        f"  student  {result.student_rate.format(format_percent)} pass",
        f"  teacher  {result.teacher_rate.format(format_percent)} pass, {gap}; {cost}",
        f"  oracle   {oracle.format(format_percent)}, the upper bound of any router between the two",
    ]
    heads = (
        "signal", "area over random", "of oracle's", f"at {format_percent(SHARE)} calls", "gap closed",
        f"student takes, at {format_percent(QUALITY)}", "with",
    )  # fmt: skip
    table = [heads]
    for curve in result.curves:
        at = curve.at_quality
        table.append(
            (
                f"{curve.signal}{' *' if curve.signal == result.best else ''}",
                curve.area.format(format_area),
                "-" if curve.area_of_oracle is None else format_percent(curve.area_of_oracle),
                format_percent(curve.at_share.quality.value),
                "-" if curve.at_share.recovered is None else curve.at_share.recovered.format(format_percent),
                format_percent(1 - at.share.value),
                "-" if at.retention is None else at.retention.format(format_percent),
            )
        )
    lines += format_table(table)
    costs = [result.cost.describe()] if result.cost else []
    lines += [f"  {note}" for note in [result.answer, *costs, *result.notes]]
    return "\n".join(
        [*lines, f"  {Path(result.student).parent if result.type is None else result.student}/{ROUTING_FILE}"]
    )

"""A student-first cascade, calibrated: student and teacher answer the same held-out seeds, and what follows is told.

Asks and tells; what the answers say is `flows.cascade`.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from core.errors import UsageError
from core.recipe import TeacherConfig
from core.store import file_hash, write_text
from flows.cascade import Answers, Routing, Sampling, area_words, points, worth_of
from flows.report import ROUTING
from flows.session import Session
from flows.student_files import as_teacher, export_student, is_weights, plan_for, run_of, student_folder
from flows.words import number, one_line, percent
from students.routing import QUALITY, SHARE, Curve

if TYPE_CHECKING:
    from agents.exam import Result
    from agents.plan import Plan

TOP = 10
"""Likeliest tokens told at each place of a student's answer; the rest counts as one."""
DRAW_TEMPERATURE = 0.7
"""Of further answers (Wang et al. 2022 draw at 0.5 to 0.7): at a recipe's own they may be all the same."""
FEWEST = 20
"""Seeds, so that each half has ten."""


class Task(NamedTuple):
    """Which student is routed, beside whom, on what."""

    folder: Path
    """Where `routing.json` is written."""
    weights: Path
    kind: str | None
    plan: "Plan"
    number: int
    draws: int
    cache: Path


def task_of(name: Path, plan: "Plan | None", number: int, kind: str, draws: int, cache: Path) -> Task:
    """The student in the folder, run or GGUF file `name`, on the seeds of `plan` or of its run.

    Raises:
        UsageError: if there is no student, no recipe to hold it to, or a recipe whose seeds alone ask nothing.
    """
    from agents.exam import can_be_examined

    file = is_weights(name)
    folder = name.parent if file else student_folder(name)
    run = run_of(folder)
    plan = plan or plan_for(name, run)
    if not can_be_examined(plan):
        raise UsageError(
            f"{plan.recipe.name}: in {plan.family.name} the generator writes the questions, so seeds alone ask nothing and "
            "no student can be routed on them; name another recipe"
        )
    weights = name if file else export_student(folder, kind).path
    return Task(folder, weights, None if file else kind, plan, number, draws, run.cache if run else cache)


async def calibrate(task: Task, session: Session) -> Routing:
    """Ask both models, weigh the signals, and write `routing.json` beside the student.

    Raises:
        Stopped: if the user wishes to stop; answers so far are kept, and not asked for again.
        StillhouseError: if a model cannot be had, or the student tells no probabilities.
    """
    recipe, generator = task.plan.recipe, task.plan.recipe.agents.generator
    answers = await _answers(task, session)
    session.note("route: weighing the signals")
    found = Routing(
        student=str(task.folder if task.kind else task.weights),
        weights=file_hash(task.weights),
        type=task.kind,
        teacher=task.plan.recipe.writer,
        recipe=recipe.name,
        seed=recipe.seed,
        first_seed=answers.student[0].seed,
        sampling=Sampling(
            temperature=generator.temperature, top_p=generator.top_p, max_tokens=generator.max_tokens
        ),
        draws=task.draws,
        **dict(worth_of(answers, task.plan.recipe.writer, recipe.seed)),
    )  # fmt: skip
    write_text(task.folder / ROUTING, found.model_dump_json(indent=2) + "\n")
    return found


async def _answers(task: Task, session: Session) -> Answers:
    from agents.exam import examine, held_out_seeds

    seeds = held_out_seeds(task.plan, task.number)
    if len(seeds) < FEWEST:
        raise UsageError(f"{task.plan.recipe.name}: has {len(seeds)} held-out seeds, and routing needs {FEWEST}")

    async def ask(who: str, plan: "Plan", model: TeacherConfig, draw: int = 0) -> "list[Result]":
        def told(done: int) -> None:
            session.count(lambda: f"{who}: {done:,} of {len(seeds):,} seeds")

        session.tell(f"route: {who}, {len(seeds):,} seeds")
        return await examine(plan, model, seeds, session.stop, told, draw=draw, cache=task.cache)

    student, free = as_teacher(task.weights, task.plan.recipe.writer), _drawing(task.plan)
    answers = await ask("student", task.plan, student.model_copy(update={"sampling": {"top_logprobs": TOP}}))
    draws = [await ask(f"student, draw {n} of {task.draws}", free, student, n) for n in range(1, task.draws + 1)]
    return Answers(answers, await ask("teacher", task.plan, task.plan.recipe.writer), draws)


def _drawing(plan: "Plan") -> "Plan":
    """The plan under which further answers are drawn: warmer, and judged by nobody."""
    agents = plan.recipe.agents
    warm = {"temperature": max(DRAW_TEMPERATURE, agents.generator.temperature)}
    writer = agents.model_copy(update={"generator": agents.generator.model_copy(update=warm)})
    return replace(plan, recipe=plan.recipe.model_copy(update={"agents": writer}), checks=())


# In words


def routing_card(found: Routing) -> str:
    """What `stillhouse route` prints."""
    oracle = found.oracle[-1]
    last = f"to number {found.first_seed + found.seeds - 1}"
    lines = [
        f"student {found.student}, beside {one_line(found.teacher.model, 60)}",
        f"  {found.recipe}: {found.seeds} held-out seeds, from number {found.first_seed} {last}; thresholds chosen on "
        f"{found.chosen_on}, told on the other {found.told_on}",
        f"  student  {found.student_rate.told(percent)} pass",
        f"  teacher  {found.teacher_rate.told(percent)} pass, {points(found.gap.value)} ({points(found.gap.low)} to "
        f"{points(found.gap.high)}); {_cost(found, found.teacher_cost)}",
        f"  oracle   {oracle.told(percent)}, the most that any router of the two can reach",
    ]
    lines += _table(found)
    lines += [f"  {note}" for note in [found.answer, *found.notes]]
    return "\n".join([*lines, f"  {Path(found.student).parent if found.type is None else found.student}/{ROUTING}"])


def _table(found: Routing) -> list[str]:
    heads = (
        "signal", "area over random", "of oracle's", f"at {percent(SHARE)} calls", "gap closed",
        f"student takes, at {percent(QUALITY)}", "with",
    )  # fmt: skip
    rows = [heads, *(_cells(curve, best=curve.signal == found.best) for curve in found.curves)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _cells(curve: Curve, *, best: bool) -> tuple[str, ...]:
    at = curve.at_quality
    return (
        f"{curve.signal}{' *' if best else ''}",
        curve.area.told(area_words),
        "-" if curve.area_of_oracle is None else percent(curve.area_of_oracle),
        percent(curve.at_share.quality.value),
        "-" if curve.at_share.recovered is None else curve.at_share.recovered.told(percent),
        percent(1 - at.share.value),
        "-" if at.retention is None else at.retention.told(percent),
    )


def _cost(found: Routing, value: float) -> str:
    return f"{value:,.0f} tokens a query" if found.cost_unit == "tokens" else f"{number(value)} for 1,000 queries"

"""A student compared with its teacher and its start: pass rates on held-out seeds, losses and size.

Knows neither agents' graphs nor loss functions: it collects their results.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.config.recipe import BudgetConfig
from core.config.students import StudentConfig
from core.config.teachers import TeacherConfig
from core.errors import StoreError, UsageError
from core.intervals import Z_95, IntervalEstimate, estimate_ratio, estimate_share
from core.runs.run_dir import RunDir
from core.runs.student_records import VALIDATION_REQUESTS, GeneralPanelRecord
from core.sample import NOTHING_SPENT, Spending
from core.storage.atomic_files import read_json, write_text
from core.weights.packaged_weights import EMBEDDED_TEACHER
from flows.data.curated_run import extract_conversations, read_finished_samples
from flows.data.dataset_mixture import read_mixture_sources
from flows.data.student_files import (
    STUDENT_EVALUATION_FILE,
    configure_student_as_teacher,
    continue_lineage,
    find_student_folder,
    find_student_run,
    load_student_plan,
    read_run_rows,
)
from flows.evaluate.evaluation_options import EvaluationOptions
from flows.evaluate.panel_evaluation import PanelModels, evaluate_general_panel
from flows.evaluate.student_results import (
    AnswerCost,
    EvaluatedAnswer,
    EvaluationExample,
    HarnessTaskResult,
    ModelResult,
    StudentEvaluation,
    compare_paired_results,
    estimate_answer_cost,
)
from flows.terminal.console import CommandSession
from flows.terminal.text_format import format_count

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan
    from agents.studies.held_out_evaluation import HeldOutResult, ServedReplies
    from students.comparison import EvaluationHarness, TextLoss

MODEL_ROLES = ("teacher", "prompted teacher", "student", "start")
PROMPTED = MODEL_ROLES[1]
"""The teacher with the prompt and the examples of a run: a gain over the teacher alone may only be that no prompt is needed."""
MOST_EXAMPLES = 10
NO_LIMIT = BudgetConfig()
LONGEST_CONVERSATION = 256
"""Tokens of a held-out conversation that the loss covers, for a student without recorded settings."""


@dataclass(frozen=True)
class StudentEvaluationTask:
    student: Path
    plan: "RunPlan"
    run: RunDir | None
    """The student's run, if it has one."""
    number: int
    kind: str
    harness: "EvaluationHarness | None" = None
    rows: int | None = None
    """Of each task of the harness; None is all."""
    panel: int = 0
    """Tasks of the general panel; 0 is no panel."""
    pass_rates_only: bool = False
    """Whether losses are not measured."""
    cache: Path | None = None
    """The folder of the reply cache; None for no cache."""
    budget: BudgetConfig = NO_LIMIT
    """Limits on what the teacher, and the teachers of checks, may cost."""
    journal: Path | None = None
    """Where that spending is recorded."""
    elsewhere: Spending = NOTHING_SPENT
    """What the run spent before, which counts against the budget."""
    start_folder: Path | None = None
    """Where the untrained student is written, to be deleted afterwards; None for a temporary folder. Replies in the cache
    belong to a path, so only a fixed folder finds those of its start again."""


@dataclass(frozen=True)
class _HeldOutAnswers:
    """Each model's results on the same seeds by role, and what the replies cost."""

    results: "dict[str, list[HeldOutResult]]"
    spent: Spending
    cost: AnswerCost | None = None


@dataclass(frozen=True)
class _PanelAnswers:
    """The result of the general panel, None if it was not asked, and what the teacher's replies cost."""

    record: GeneralPanelRecord | None
    examples: list[EvaluationExample]
    spent: Spending


def prepare_student_evaluation(name: Path, options: EvaluationOptions) -> StudentEvaluationTask:
    """The student in the folder or run `name`, on the seeds of the named recipe or else of the student's run.

    Raises:
        UsageError: if the student, a recipe or a task of the harness does not exist.
    """
    student, runs, plan = find_student_folder(name), options.runs, options.load_plan()
    run = find_student_run(student)
    plan = continue_lineage(plan, run) if plan else load_student_plan(student, run, runs)
    tasks = [task.strip() for task in options.tasks.split(",") if task.strip()]
    harness = None
    if tasks:
        from students.comparison import EvaluationHarness

        harness = EvaluationHarness(tasks)
    cache = run.cache if run else RunDir(runs / student.name).cache
    return StudentEvaluationTask(
        student, plan, run, options.number, options.kind, harness, options.task_rows, options.panel, cache=cache
    )


async def evaluate_by_recipe(name: Path, options: EvaluationOptions, session: CommandSession) -> StudentEvaluation:
    """As `prepare_student_evaluation` and `evaluate_student`."""
    return await evaluate_student(prepare_student_evaluation(name, options), session)


@dataclass(frozen=True)
class _ModelMeasurements:
    """What is measured besides the pass rates, by role."""

    losses: "dict[str, TextLoss]" = field(default_factory=dict)
    tasks: list[HarnessTaskResult] = field(default_factory=list)


async def evaluate_student(task: StudentEvaluationTask, session: CommandSession) -> StudentEvaluation:
    """Collect answers, measure, and write `evaluation.json` next to the student.

    Raises:
        RunStopped: on the stop signal; BudgetExhausted where the budget ends.
        StillhouseError: if the student cannot be exported, or a model cannot be started.
    """
    from students.comparison import write_untrained_student
    from students.gguf_export import export_gguf
    from teachers.local_weights import fetch_local_weights

    session.print_unless_stopped(f"evaluate: {task.student} as GGUF, {task.kind}")
    with _open_start_folder(task) as start, tempfile.TemporaryDirectory() as scratch:
        folders = {"student": task.student}
        if write_untrained_student(task.student, start):
            folders["start"] = start
        files = {role: export_gguf(folder, task.kind).path for role, folder in folders.items()}
        teacher = task.plan.recipe.generator_teacher
        if teacher.model.startswith("local/"):
            files["teacher"] = await fetch_local_weights(teacher, session.print_unless_stopped)
        models = _list_asked_models(task, files)
        answers = await _examine_models(task, models, session)
        panel = await _ask_panel(task, models, folders, files, session)
        measured = _ModelMeasurements()
        if not task.pass_rates_only:
            measured = _ModelMeasurements(
                _measure_losses(task, folders, session),
                _run_harness_tasks(task, folders, Path(scratch) / "teacher", session),
            )
        evaluation = _build_student_evaluation(task, files, answers, panel, measured)
    write_text(task.student / STUDENT_EVALUATION_FILE, evaluation.model_dump_json(indent=2) + "\n")
    return evaluation


@contextmanager
def _open_start_folder(task: StudentEvaluationTask) -> Iterator[Path]:
    """The folder for the untrained student, deleted at the end of the block."""
    if task.start_folder is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name) / "start"
        return
    shutil.rmtree(task.start_folder, ignore_errors=True)
    try:
        yield task.start_folder
    finally:
        shutil.rmtree(task.start_folder, ignore_errors=True)


def _list_asked_models(task: StudentEvaluationTask, files: dict[str, Path]) -> dict[str, TeacherConfig]:
    """The models to ask, by role."""
    teacher = task.plan.recipe.generator_teacher
    own: dict[str, TeacherConfig] = {
        role: configure_student_as_teacher(files[role], teacher) for role in ("student", "start") if role in files
    }
    return {"teacher": teacher, **own}


async def _ask_panel(
    task: StudentEvaluationTask,
    models: dict[str, TeacherConfig],
    folders: dict[str, Path],
    files: dict[str, Path],
    session: CommandSession,
) -> _PanelAnswers:
    if not task.panel:
        return _PanelAnswers(None, [], Spending())
    from agents.studies.general_panel import build_general_panel

    panel = build_general_panel(task.plan, task.panel)
    asked = PanelModels(models, folders, files, task.cache, task.budget, task.journal, task.elsewhere)
    record, answers, spent = await evaluate_general_panel(panel, asked, session)
    by_role = {role: found.open for role, found in answers.items()}
    return _PanelAnswers(record, _list_examples(by_role["student"], by_role), spent)


async def _examine_models(
    task: StudentEvaluationTask, models: dict[str, TeacherConfig], session: CommandSession
) -> _HeldOutAnswers:
    from agents.studies.held_out_evaluation import (
        evaluate_held_out,
        evaluate_prompted,
        has_fixed_questions,
        require_held_out_seeds,
    )

    if not has_fixed_questions(task.plan):
        return _HeldOutAnswers({}, Spending())
    used = collect_used_requests(task.run, task.plan, session.print_unless_stopped)
    seeds = require_held_out_seeds(task.plan, task.number, used)
    checks_ask = any(bound.check.calls(bound.options) for bound in task.plan.checks)
    results, spent = {}, Spending()
    served: dict[str, ServedReplies] = {}
    asked = {"teacher": models["teacher"], PROMPTED: models["teacher"], **models}
    for role, model in asked.items():
        costs: list[Spending] = []

        def show_progress(done: int, role: str = role) -> None:
            session.show_progress(lambda: f"{role}: {done:,} of {len(seeds):,} requests")

        charged = role in ("teacher", PROMPTED) or checks_ask
        evaluate = (
            partial(evaluate_prompted, task.plan)
            if role == PROMPTED
            else partial(evaluate_held_out, task.plan, model, on_served=partial(served.__setitem__, role))
        )
        results[role] = await evaluate(
            seeds, session.stop, show_progress, cache=task.cache, budget=task.budget if charged else None,
            journal=task.journal if charged else None, elsewhere=task.elsewhere, on_spent=costs.append,
        )  # fmt: skip
        spent += sum(costs, Spending()) if charged else Spending()
        passed = sum(result.fault is None for result in results[role])
        session.print_unless_stopped(f"evaluate: {role}: {passed} of {len(seeds)} answers pass")
    pair = (models["student"], results["student"], models["teacher"], results["teacher"])
    return _HeldOutAnswers(results, spent, estimate_answer_cost(task.plan.recipe, served["student"], *pair))


def collect_used_requests(run: RunDir | None, plan: "RunPlan", on_note: Callable[[str], None]) -> set[str]:
    """The requests, in the form of `join_requests`, of the run's samples, of the releases that it builds on and of the recipe's
    real rows. A release or a file that is missing here is reported to `on_note`.
    """
    from agents.studies.held_out_evaluation import join_requests

    used = set(plan.seed_choice.requests if plan.seed_choice else ())
    if run is None:
        return used
    used.update(join_requests(sample.candidate.messages) for sample in read_finished_samples(run))
    validation = run.student / VALIDATION_REQUESTS
    if validation.is_file():  # a share of the training was chosen on them
        used.update(read_json(validation))
    parent = run.read_parent()
    if plan.recipe.lineage.real is None and parent is None:
        return used
    if parent and parent.release.rpartition("/")[0] != plan.recipe.name:
        return used  # another recipe was named, with other requests
    try:
        sources = read_mixture_sources(run, plan.recipe, plan.folder)
    except (StoreError, UsageError) as error:
        on_note(f"held-out requests: those of earlier releases or real rows, if drawn again, are not left out: {error}")
        return used
    for rows in (*(release.rows for release in sources.releases), sources.real_rows):
        used.update(map(join_requests, extract_conversations(rows)))
    return used


def _measure_losses(
    task: StudentEvaluationTask, folders: dict[str, Path], session: CommandSession
) -> "dict[str, TextLoss]":
    """Held-out losses of the student, its start and, if it is the embedded teacher, its teacher."""
    held_out = read_run_rows(task.run, "validation")
    if not held_out:
        return {}
    from students.comparison import measure_embedded_teacher_loss, measure_folder_loss

    session.print_unless_stopped(f"evaluate: losses on {len(held_out)} held-out conversations")
    longest = student_max_tokens(task.student)
    losses = {role: measure_folder_loss(folder, held_out, longest) for role, folder in folders.items()}
    if task.plan.recipe.generator_teacher.model == f"local/{EMBEDDED_TEACHER}":
        losses["teacher"] = measure_embedded_teacher_loss(held_out, longest)
    return losses


def student_max_tokens(student: Path) -> int:
    settings = student / "student.json"
    return int(read_json(settings)["config"]["max_tokens"]) if settings.is_file() else LONGEST_CONVERSATION


def read_core_hour_price(student: Path) -> float:
    """That of the recipe which it was trained by."""
    settings = student / "student.json"
    config = read_json(settings)["config"] if settings.is_file() else {}
    return float(config.get("core_hour_price", StudentConfig().core_hour_price))


def _run_harness_tasks(
    task: StudentEvaluationTask, folders: dict[str, Path], teacher: Path, session: CommandSession
) -> list[HarnessTaskResult]:
    """Scores of the student, its start and, if it is the embedded teacher, its teacher, which is written to `teacher`."""
    if task.harness is None:
        return []
    if task.plan.recipe.generator_teacher.model == f"local/{EMBEDDED_TEACHER}":
        from students.comparison import write_embedded_teacher

        write_embedded_teacher(teacher)
        folders = {"teacher": teacher, **folders}
    results: dict[tuple[str, str], HarnessTaskResult] = {}
    for role, folder in folders.items():
        session.print_unless_stopped(f"evaluate: {role}: {', '.join(task.harness.names)}")
        for score in task.harness.score_model(folder, task.rows):
            margin = Z_95 * (score.error or 0.0)
            estimate = IntervalEstimate(value=score.value, low=score.value - margin, high=score.value + margin)
            new = HarnessTaskResult(task=score.task, metric=score.metric, rows=score.rows, scores={})
            results.setdefault((score.task, score.metric), new).scores[role] = estimate
    return list(results.values())


def _build_model_result(
    role: str, model: str, results: "list[HeldOutResult] | None", loss: "TextLoss | None", file: Path | None
) -> ModelResult:
    passed = sum(result.fault is None for result in results) if results else None
    faults = Counter(result.fault for result in results or () if result.fault)
    return ModelResult(
        role=role,
        model=model,
        passed=passed,
        pass_rate=estimate_share(passed, len(results)) if results and passed is not None else None,
        faults=dict(faults.most_common()),
        nats_per_token=loss.nats_per_token if loss else None,
        bits_per_byte=loss.bits_per_byte if loss else None,
        bytes=file.stat().st_size if file else None,
    )


def _build_student_evaluation(
    task: StudentEvaluationTask,
    files: dict[str, Path],
    answers: _HeldOutAnswers,
    panel: _PanelAnswers,
    measured: _ModelMeasurements,
) -> StudentEvaluation:
    recipe, results, losses = task.plan.recipe, answers.results, measured.losses
    models = {
        "teacher": recipe.generator_teacher.model,
        PROMPTED: recipe.generator_teacher.model,
        "student": str(files["student"]),
        "start": "the student before training",
    }
    rows = [
        _build_model_result(role, models[role], results.get(role), losses.get(role), files.get(role))
        for role in MODEL_ROLES
        if role == "teacher" or role in files or role in results
    ]
    asked = results.get("student", [])
    passed = {row.role: row.passed for row in rows if row.passed is not None}
    retention = estimate_ratio(passed["student"], len(asked), passed["teacher"], len(asked)) if asked else None
    return StudentEvaluation(
        student=str(task.student),
        recipe=recipe.name,
        seed=recipe.seed,
        type=task.kind,
        seeds=len(asked),
        first_seed=task.plan.first_seed + asked[0].seed if asked else None,
        held_out=losses["student"].conversations if losses else 0,
        rows=rows,
        retention=retention,
        comparisons=[compare_paired_results(role, asked, results[role]) for role in results if role != "student"],
        tasks=measured.tasks,
        cost=answers.cost,
        panel=panel.record,
        notes=_collect_student_notes(task, results, losses, rows),
        examples=_list_examples(asked, results),
        panel_examples=panel.examples,
        spent=answers.spent + panel.spent,
    )


def _list_examples(
    asked: "Sequence[HeldOutResult]", results: "Mapping[str, Sequence[HeldOutResult]]"
) -> list[EvaluationExample]:
    """The first questions with each model's answer."""
    return [
        EvaluationExample(
            question=first.question,
            answers={role: EvaluatedAnswer(text=one[i].answer, fault=one[i].fault) for role, one in results.items()},
        )
        for i, first in enumerate(asked[:MOST_EXAMPLES])
    ]


def _collect_student_notes(
    task: StudentEvaluationTask, results: Any, losses: Any, rows: Sequence[ModelResult]
) -> list[str]:
    notes = []
    if results and task.run is None:
        notes.append(
            "The seeds are new to runs of the current recipe; an earlier version with more samples has used some of them."
        )
    if not results:
        notes.append(
            f"No pass rates: in {task.plan.recipe.family} the generator writes the questions, so seeds alone ask no question."
        )
    elif not any(row.role == "teacher" and row.passed for row in rows):
        notes.append("No retention: the teacher passed nothing.")
    if task.pass_rates_only:
        notes.append("Only pass rates were measured: stillhouse evaluate measures losses too.")
    elif not losses and task.run is None:
        notes.append("No held-out losses: the student is not in the folder of a run.")
    elif not losses:
        notes.append("No held-out losses: the run's dataset has no held-out conversations in the form `messages`.")
    else:
        notes += loss_notes(losses["student"], "held-out conversation", student_max_tokens(task.student))
    if "start" not in {row.role for row in rows}:
        notes.append("Nothing on the untrained student: its start is unknown or missing.")
    return notes


def loss_notes(loss: "TextLoss", noun: str, max_tokens: int) -> Iterator[str]:
    """The parts that the student's loss leaves out, and why."""
    if loss.truncated:
        yield (
            f"{format_count(loss.truncated, noun)} longer than the student's max_tokens = {max_tokens}, truncated as in "
            "training: the loss covers the tokens before it."
        )
    if count := sum(loss.left_out.values()):
        why = "; ".join(f"{reason}: {number:,}" for reason, number in loss.left_out.items())
        yield f"No loss of {count:,} of {format_count(count + loss.conversations, noun)} ({why})."

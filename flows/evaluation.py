"""A student beside its teacher and beside what it began as: pass rates on held-out seeds, losses, speed, size and memory.

Knows neither agents' graphs nor losses: it asks for both, counts and tells.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from core.embedded import EMBEDDED, embedded_weights
from core.errors import ProviderError
from core.run import RunDir
from core.sample import Message
from core.shares import Measure, Z, ratio, share
from core.store import read_columns, read_json, write_text
from flows.report import EVALUATION
from flows.session import Session
from flows.student_files import as_teacher, plan_for, run_of, student_folder, with_torch
from flows.words import one_line, percent

if TYPE_CHECKING:
    from agents.exam import Result
    from agents.plan import Plan
    from agents.teachers.speed import Speed
    from students.beside import TextLoss
    from students.harness import Harness

ROLES = ("teacher", "student", "start")
EXAMPLES = 10
LONGEST = 256
"""Tokens of a held-out conversation whose loss is computed, where the student does not say."""


class Answer(BaseModel):
    """One answer, and the check that did not pass."""

    model_config = ConfigDict(frozen=True)

    text: str
    fault: str | None


class Example(BaseModel):
    """One seed, and what each model answered, by role."""

    model_config = ConfigDict(frozen=True)

    question: str
    answers: dict[str, Answer]


class Row(BaseModel):
    """One model. What was not or could not be measured is None."""

    model_config = ConfigDict(frozen=True)

    role: str
    """`teacher`, `student`, or `start`: the student before training."""
    model: str
    passed: int | None
    """Seeds whose answer passed all checks at the first try."""
    pass_rate: Measure | None
    """With Wilson's score interval (1927), 95 %."""
    faults: dict[str, int]
    """The others, by the first check that did not pass; `cut off`, `no answer` and `contract` where none could look."""
    nats_per_token: float | None
    """Held-out loss on the assistant's tokens, of the weights in torch. Comparable where tokenizers are the same."""
    bits_per_byte: float | None
    """The same, comparable always."""
    bytes: int | None
    """Of the GGUF file."""
    tokens_per_second: float | None
    """Decoded by llama.cpp on this machine for one conversation alone."""
    read_per_second: float | None
    """Tokens of a prompt."""
    memory: int | None
    """Bytes that loading and answering took at their peak, beside the process itself."""


class TaskRow(BaseModel):
    """One metric of one task of lm-evaluation-harness, with what each model reached: float32 weights, no chat template."""

    model_config = ConfigDict(frozen=True)

    task: str
    metric: str
    rows: int
    """Of the task that were asked."""
    scores: dict[str, Measure]
    """By role; 1.96 standard errors to each side, where the harness tells one."""


class Evaluation(BaseModel):
    """What `stillhouse evaluate` found, as it is saved beside the student."""

    model_config = ConfigDict(frozen=True)

    student: str
    recipe: str
    seed: int
    type: str
    """How the student's weights are stored."""
    seeds: int
    first_seed: int | None
    """The place of the first one in the recipe's order; no run of the recipe gets so far."""
    held_out: int
    """Conversations of the run that the student did not train on."""
    rows: list[Row]
    retention: Measure | None
    """The student's pass rate over the teacher's, with the interval of Katz et al. (1978), 95 %."""
    tasks: list[TaskRow] = []
    """Those that were asked for."""
    notes: list[str]
    """What could not be measured, a sentence each."""
    examples: list[Example]

    def row(self, role: str) -> Row | None:
        return next((row for row in self.rows if row.role == role), None)


@dataclass(frozen=True)
class Task:
    """What is evaluated, on what."""

    student: Path
    plan: "Plan"
    run: RunDir | None
    """The run that the student is of."""
    number: int
    kind: str
    harness: "Harness | None"
    rows: int | None
    """Of each task of the harness; None is all."""


def task_of(
    name: Path, plan: "Plan | None", number: int, kind: str, tasks: Sequence[str] = (), rows: int | None = None
) -> Task:
    """The student in the folder or run `name` on the seeds of `plan`, or without one on those of its run.

    Raises:
        UsageError: if there is no student, no recipe to hold it to, or no such task of the harness.
    """
    student = student_folder(name)
    run = run_of(student)
    plan = plan or plan_for(student, run)
    harness = with_torch("students.harness").Harness(tasks) if tasks else None
    return Task(student, plan, run, number, kind, harness, rows)


async def evaluate(task: Task, session: Session) -> Evaluation:
    """Ask, measure, and write `evaluation.json` beside the student.

    Raises:
        Stopped: if the user wishes to stop.
        StillhouseError: if the student cannot be exported, or a model cannot be had.
    """
    session.note(f"evaluate: {task.student} as GGUF, {task.kind}")
    with tempfile.TemporaryDirectory() as name:
        folders = {"student": task.student}
        if with_torch("students.beside").write_untrained(task.student, Path(name) / "start"):
            folders["start"] = Path(name) / "start"
        files = _files(task, folders)
        models = {
            "teacher": task.plan.recipe.writer.model,
            "student": str(files["student"]),
            "start": "the student before training",
        }
        results = await _exams(task, files, session)
        losses = _losses(task, folders, session)
        tasks = _tasks(task, folders, Path(name) / "teacher", session)
        speeds, notes = _speeds(files, session)
        rows = [
            _row(role, models[role], results.get(role), losses.get(role), files.get(role), speeds.get(role))
            for role in ROLES
            if role == "teacher" or role in files
        ]
    found = _evaluation(task, rows, results, losses, tasks, notes)
    write_text(task.student / EVALUATION, found.model_dump_json(indent=2) + "\n")
    return found


def _files(task: Task, folders: dict[str, Path]) -> dict[str, Path]:
    """GGUF files by role, as far as there are any."""
    export = with_torch("students.export").export_gguf
    files: dict[str, Path] = {role: export(folder, task.kind).path for role, folder in folders.items()}
    provider, _, model = task.plan.recipe.writer.model.partition("/")
    if provider == "local" and (weights := embedded_weights() if model == EMBEDDED else Path(model)):
        files["teacher"] = weights
    return files


async def _exams(task: Task, files: dict[str, Path], session: Session) -> "dict[str, list[Result]]":
    from agents.exam import can_be_examined, examine, held_out_seeds

    if not can_be_examined(task.plan):
        return {}
    seeds = held_out_seeds(task.plan, task.number)
    results = {}
    for role in ROLES:
        if role != "teacher" and role not in files:
            continue
        model = task.plan.recipe.writer if role == "teacher" else as_teacher(files[role], task.plan.recipe.writer)

        def told(done: int, role: str = role) -> None:
            session.count(lambda: f"{role}: {done:,} of {len(seeds):,} seeds")

        results[role] = await examine(task.plan, model, seeds, session.stop, told)
        passed = sum(result.fault is None for result in results[role])
        session.note(f"evaluate: {role}: {passed} of {len(seeds)} answers pass")
    return results


def _losses(task: Task, folders: dict[str, Path], session: Session) -> "dict[str, TextLoss]":
    """On what the run held out: of the student, its start and, where it is the embedded one, its teacher."""
    held_out = list(_held_out(task.run))
    if not held_out:
        return {}
    session.note(f"evaluate: losses on {len(held_out)} held-out conversations")
    beside = with_torch("students.beside")
    settings = task.student / "student.json"
    longest = read_json(settings)["config"]["max_tokens"] if settings.is_file() else LONGEST
    found = {role: beside.folder_loss(folder, held_out, longest) for role, folder in folders.items()}
    if task.plan.recipe.writer.model == f"local/{EMBEDDED}":
        found["teacher"] = beside.embedded_teacher_loss(held_out, longest)
    return {role: loss for role, loss in found.items() if loss}


def _tasks(task: Task, folders: dict[str, Path], teacher: Path, session: Session) -> list[TaskRow]:
    """Of the student, its start and, where it is the embedded one, its teacher, which is written to `teacher` for it."""
    if task.harness is None:
        return []
    if task.plan.recipe.writer.model == f"local/{EMBEDDED}":
        with_torch("students.beside").write_embedded_teacher(teacher)
        folders = {"teacher": teacher, **folders}
    found: dict[tuple[str, str], TaskRow] = {}
    for role, folder in folders.items():
        session.note(f"evaluate: {role}: {', '.join(task.harness.names)}")
        for score in task.harness.scores(folder, task.rows):
            reach = Z * (score.error or 0.0)
            measure = Measure(value=score.value, low=score.value - reach, high=score.value + reach)
            new = TaskRow(task=score.task, metric=score.metric, rows=score.rows, scores={})
            found.setdefault((score.task, score.metric), new).scores[role] = measure
    return list(found.values())


def _held_out(run: RunDir | None) -> Iterator[Sequence[Message]]:
    """The conversations that the run's student did not train on."""
    if run is None:
        return
    from flows.curated import conversations_of

    for folder in (run.dataset, run.dataset / "messages"):
        file = folder / "validation.parquet"
        if file.is_file() and "messages" in (rows := read_columns(file)).columns:
            yield from conversations_of(rows)
            return


def _speeds(files: dict[str, Path], session: Session) -> "tuple[dict[str, Speed], list[str]]":
    """Of all files but the start's, which is as large and as fast as the student's; and what could not be measured."""
    from agents.teachers.speed import speed_of

    speeds, notes = {}, []
    for role, file in files.items():
        if role == "start":
            continue
        session.note(f"evaluate: speed of the {role}")
        try:
            speeds[role] = speed_of(file)
        except ProviderError as error:
            notes.append(f"{error}.")
    return speeds, notes


def _row(
    role: str,
    model: str,
    results: "list[Result] | None",
    loss: "TextLoss | None",
    file: Path | None,
    speed: "Speed | None",
) -> Row:
    passed = sum(result.fault is None for result in results) if results else None
    faults = Counter(result.fault for result in results or () if result.fault)
    return Row(
        role=role,
        model=model,
        passed=passed,
        pass_rate=share(passed, len(results)) if results and passed is not None else None,
        faults=dict(faults.most_common()),
        nats_per_token=loss.nats_per_token if loss else None,
        bits_per_byte=loss.bits_per_byte if loss else None,
        bytes=file.stat().st_size if file else None,
        tokens_per_second=speed.decoded if speed else None,
        read_per_second=speed.read if speed else None,
        memory=speed.memory if speed else None,
    )


def _evaluation(
    task: Task,
    rows: list[Row],
    results: "dict[str, list[Result]]",
    losses: "dict[str, TextLoss]",
    tasks: list[TaskRow],
    notes: list[str],
) -> Evaluation:
    recipe, asked = task.plan.recipe, results.get("student", [])
    passed = {row.role: row.passed for row in rows if row.passed is not None}
    retention = ratio(passed["student"], len(asked), passed["teacher"], len(asked)) if asked else None
    return Evaluation(
        student=str(task.student),
        recipe=recipe.name,
        seed=recipe.seed,
        type=task.kind,
        seeds=len(asked),
        first_seed=asked[0].seed if asked else None,
        held_out=losses["student"].conversations if losses else 0,
        rows=rows,
        retention=retention,
        tasks=tasks,
        notes=[*_notes(task, results, losses, rows), *notes],
        examples=list(_examples(results)),
    )


def _notes(task: Task, results: Any, losses: Any, rows: Sequence[Row]) -> list[str]:
    notes = []
    if results and task.run is None:
        notes.append(
            "The seeds are new to runs of this recipe as it stands; one with more samples has used some of them."
        )
    if not results:
        notes.append(
            f"No pass rates: in {task.plan.recipe.family} the generator writes the questions, so seeds alone ask nothing."
        )
    elif not any(row.role == "teacher" and row.passed for row in rows):
        notes.append("No retention: the teacher passed nothing.")
    if not losses:
        notes.append("No held-out losses: the student lies in no run whose dataset has `messages`.")
    if "start" not in {row.role for row in rows}:
        notes.append("Nothing on the untrained student: what it began as is not known or not there.")
    return notes


def _examples(results: "dict[str, list[Result]]") -> Iterator[Example]:
    for i, first in enumerate(results.get("student", [])[:EXAMPLES]):
        answers = {role: Answer(text=some[i].answer, fault=some[i].fault) for role, some in results.items()}
        yield Example(question=first.question, answers=answers)


# In words


def evaluation_card(found: Evaluation) -> str:
    """What `stillhouse evaluate` prints."""
    lines = [f"student {found.student}  {found.type}"]
    if found.seeds:
        lines.append(
            f"  {found.recipe}: {found.seeds} held-out seeds, from number {found.first_seed} on; one try each, no examples"
        )
    heads = ("", "passed", "95 %", "nats/token", "bits/byte", "tokens/s", "MB", "memory MB")
    table = [heads, *(_cells(row, found.seeds) for row in found.rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(heads))]
    lines += [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
    ]
    if found.retention:
        lines.append(f"  retention {found.retention.told(lambda value: f'{value:.2f}')} of the teacher's pass rate")
    for one in found.tasks:
        told = "   ".join(
            f"{role} {measure.value:.3f} ({measure.low:.3f} to {measure.high:.3f})"
            for role, measure in one.scores.items()
        )
        lines.append(f"  {one.task}, {one.metric}, {one.rows} rows: {told}")
    for row in found.rows:
        if row.faults:
            told = "   ".join(f"{one_line(name, 40)} {count}" for name, count in list(row.faults.items())[:6])
            lines.append(f"  {row.role} not passed: {told}")
    lines += [f"  {note}" for note in found.notes]
    return "\n".join([*lines, f"  {Path(found.student) / EVALUATION}"])


def _cells(row: Row, seeds: int) -> tuple[str, ...]:
    rate = row.pass_rate
    return (
        row.role,
        f"{row.passed} of {seeds}, {percent(rate.value)}" if rate else "-",
        f"{percent(rate.low)} to {percent(rate.high)}" if rate else "-",
        _told(row.nats_per_token, ".3f"),
        _told(row.bits_per_byte, ".3f"),
        _told(row.tokens_per_second, ",.0f"),
        _told(row.bytes and row.bytes / 1e6, ",.1f"),
        _told(row.memory and row.memory / 1e6, ",.0f"),
    )


def _told(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"

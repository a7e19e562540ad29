"""A student on held-out rows of any dataset, compared with itself before training: loss, and the pass rate of a check;
and which evaluation fits a student.

Knows neither recipes nor seeds; `flows.evaluate.student_evaluation` does.
"""

import json
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from core.config.agents import VerifierConfig
from core.config.teachers import TeacherConfig
from core.errors import RecipeError, RecipeProblem, UsageError
from core.intervals import IntervalEstimate, estimate_share
from core.plugins import load_part
from core.sample import Candidate, Message, Seed, text_digest
from core.storage.atomic_files import write_text
from flows.data.student_files import STUDENT_SLOTS, find_student_folder, find_student_run, read_run_rows, sees_images
from flows.evaluate.evaluation_options import Evaluation, EvaluationOptions
from flows.evaluate.student_evaluation import evaluate_by_recipe, loss_notes, read_core_hour_price, student_max_tokens
from flows.evaluate.student_results import AnswerCost, EvaluatedAnswer, EvaluationExample, format_student_evaluation
from flows.rows.column_names import CONVERSATION_COLUMNS, PAIR_COLUMNS
from flows.rows.dataset_rows import read_all_rows
from flows.rows.row_forms import read_row_conversation, read_row_pair
from flows.terminal.console import CommandSession
from flows.terminal.text_format import format_count, format_one_line, format_percent, format_table
from teachers.base import PROCESSOR_SECONDS

if TYPE_CHECKING:
    from agents.checks.registry import BoundCheck
    from students.comparison import TextLoss
    from teachers.base import Teacher


DATASET_EVALUATION_FILE = "evaluation-data.json"
EXACT_CHECK = "exact"
MODEL_ROLES = ("student", "start")
MOST_EXAMPLES = 10
SLOT_TOKENS = 1536
"""Of prompt and answer, at least; twice the student's `max_tokens` where that is more."""
ASKED_COLUMNS = frozenset({*CONVERSATION_COLUMNS, *PAIR_COLUMNS}) - {"question", "answer", "response"}


ReadConversation = Callable[[Mapping[str, Any]], list[Message]]


class _HeldOutDatasetRow(NamedTuple):
    """A row that the student was not trained on."""

    place: int
    """The row's number in the data, from 1."""
    conversation: Sequence[Message]
    columns: Mapping[str, Any]
    """The row's other columns, for a check."""

    @property
    def reference(self) -> str | None:
        """The answer to the last question; None where it is not a text of the assistant."""
        if len(self.conversation) < 2 or self.conversation[-2].role != "user":
            return None
        last = self.conversation[-1]
        return last.content if last.role == "assistant" and not last.tool_calls else None


class DatasetModelResult(BaseModel):
    """The result of one model. A missing measurement is None."""

    model_config = ConfigDict(frozen=True)

    role: str
    """`student`, or `start`: the student before training."""
    nats_per_token: float | None
    """Loss on the assistant's tokens."""
    bits_per_byte: float | None
    """The same per byte of the assistant's text."""
    passed: int | None
    """Rows whose answer passed the check."""
    pass_rate: IntervalEstimate | None
    """With Wilson's score interval (1927), 95 %."""


class DatasetEvaluation(BaseModel):
    """The result of `stillhouse evaluate STUDENT --data FILE`, as saved in the student's folder."""

    model_config = ConfigDict(frozen=True)

    student: str
    data: str
    type: str
    """How the student's weights were stored when it answered."""
    total: int
    """Rows in the data."""
    trained_on: int
    """Rows that the student or its start was trained on, or on their image. They are left out."""
    evaluated: int
    """Rows drawn from the others."""
    conversations: int
    """Evaluated rows with a loss."""
    tokens: int
    """The assistant's tokens in these conversations."""
    truncated: int = 0
    """Rows longer than `max_tokens`: the loss covers the tokens before that limit, as in training."""
    check: str | None
    asked: int
    """Rows that the check judged."""
    rows: list[DatasetModelResult]
    cost: AnswerCost | None = None
    """Of the student's answers to the check's rows; a dataset has no teacher."""
    notes: list[str]
    """Missing measurements, a sentence each."""
    examples: list[EvaluationExample]


def _bind_check(options: EvaluationOptions) -> "BoundCheck | None":
    """The named check; None for `exact`, and without a check.

    Raises:
        UsageError: if it does not exist, or asks a teacher.
    """
    check, settings = options.check, options.settings
    if settings and check in (None, EXACT_CHECK):
        raise UsageError(f"--set {settings[0]}: sets an option of a check; name a check with options: --check NAME")
    if not check or check == EXACT_CHECK:
        return None
    from agents.checks.registry import bind_checks
    from core.config.loading import parse_settings

    # A built-in check, a check of an installed package, or `FILE.py:NAME`, which is loaded here.
    path, colon, check_name = check.rpartition(":")
    config = parse_settings(VerifierConfig, [f"type={json.dumps(check_name)}", *settings])
    if colon:
        config = config.model_copy(update={"path": path})
    [*bound], problems = bind_checks([config], (), Path.cwd())
    if problems:
        renamed = [
            RecipeProblem(problem.where.replace("verifiers.0.type", "").replace("verifiers.0.", ""), problem.what)
            for problem in problems
        ]
        hint = [] if bound else [RecipeProblem("", f"`{EXACT_CHECK}` compares the answer with the row's own")]
        raise RecipeError(f"--check {check}", [*renamed, *hint])
    only: BoundCheck = bound[0]
    if only.check.calls(only.options):
        raise UsageError(f"--check {check}: asks a teacher, and there is none without a recipe; use --recipe")
    return only


async def _evaluate_on_dataset(name: Path, options: EvaluationOptions, session: CommandSession) -> DatasetEvaluation:
    """The student in the folder or run `name` on rows of `options.data`: measure losses, run the check on answers, and write
    `evaluation-data.json` in the student's folder.

    Raises:
        RunStopped: on the stop signal.
        UsageError: if the student or the check does not exist, the data cannot be read, or the student was trained on all of its
            rows.
        StillhouseError: if the student cannot be exported or started.
    """
    student, data, check = find_student_folder(name), options.data, _bind_check(options)
    assert data, "the caller looked"
    held_out = select_held_out_rows(student, data, options.number, read_row_conversation)
    session.print_unless_stopped(
        f"evaluate: {_format_row_counts(len(held_out.rows), held_out.total, held_out.trained_on)}"
    )
    rows, notes = held_out.rows, held_out.notes
    longest = student_max_tokens(student)
    from students.comparison import measure_folder_loss, write_untrained_student
    from students.gguf_export import export_gguf

    with tempfile.TemporaryDirectory() as scratch:
        folders = {"student": student}
        if write_untrained_student(student, Path(scratch) / "start"):
            folders["start"] = Path(scratch) / "start"
        else:
            notes.append("Nothing on the untrained student: its start is unknown or missing.")
        losses: dict[str, TextLoss] = {}
        for role, folder in folders.items():
            session.print_unless_stopped(f"evaluate: loss of the {role}")
            losses[role] = measure_folder_loss(folder, [row.conversation for row in rows], longest)
        answers, cost = {}, None
        asked = [row for row in rows if row.reference is not None] if options.check else []
        for role, folder in folders.items() if asked else ():
            weights = export_gguf(folder, options.kind).path
            before = PROCESSOR_SECONDS[f"local/{weights}"]
            answers[role] = await _collect_answers(check, role, weights, asked, longest, session)
            if role == "student":
                seconds = (PROCESSOR_SECONDS[f"local/{weights}"] - before) / len(asked)
                price = read_core_hour_price(student)
                cost = AnswerCost(core_seconds=seconds, streams=STUDENT_SLOTS, core_hour_price=price)
    notes += loss_notes(losses["student"], "row", longest)
    if options.check and (left_out := len(rows) - len(asked)):
        notes.append(f"{format_count(left_out, 'row')} not asked: they do not end with a question and a text answer.")
    if options.check is None:
        notes.append(f"No pass rates: name a check, as in --check {EXACT_CHECK}.")
    evaluation = _build_dataset_evaluation(student, options, held_out, asked, losses, answers, cost)
    write_text(student / DATASET_EVALUATION_FILE, evaluation.model_dump_json(indent=2) + "\n")
    return evaluation


class _HeldOutRows(NamedTuple):
    """Rows that the student was not trained on, drawn with a fixed seed, in the order of the data."""

    rows: list[_HeldOutDatasetRow]
    total: int
    trained_on: int
    notes: list[str]
    """Missing information and measurements."""


def select_held_out_rows(student: Path, data: Path, number: int, read: ReadConversation) -> _HeldOutRows:
    """`number` rows of `data` that the student was not trained on, nor on an image in them.

    Raises:
        UsageError: if the data cannot be read, or the student was trained on all of its rows.
    """
    from students import student_folder

    every = [
        _HeldOutDatasetRow(place, conversation, columns)
        for place, (conversation, columns) in enumerate(read_all_rows(data, partial(_read_row, read)), 1)
    ]
    if not every:
        raise UsageError(f"{data}: has no rows")

    # The digests of the student's training conversations: those recorded, or those of its run's dataset.
    trained, images = set(student_folder.read_trained_rows(student)), set(student_folder.read_trained_images(student))
    if not trained and (rows := read_run_rows(find_student_run(student), "train", read)):
        trained, images = set(map(student_folder.digest_trained_row, rows)), set(student_folder.digest_images(rows))

    others = [row for row in every if student_folder.digest_trained_row(row.conversation) not in trained]
    fresh = [row for row in others if images.isdisjoint(student_folder.digest_images([row.conversation]))]
    if not fresh:
        raise UsageError(
            f"{data}: the student was trained on each of its {format_count(len(every), 'row')}"
            f"{', or on its image' if others else ''}, so none is held out; give rows that it has not seen"
        )
    drawn = random.Random("evaluate").sample(range(len(fresh)), min(number, len(fresh)))
    notes = [] if trained else ["The student's training rows are not recorded, so some of them may be among these."]
    if seen := len(others) - len(fresh):
        notes.append(
            f"{format_count(seen, 'row')} left out: the student was trained on the image with another question."
        )
    return _HeldOutRows([fresh[i] for i in sorted(drawn)], len(every), len(every) - len(fresh), notes)


def _read_row(read: ReadConversation, row: Mapping[str, Any]) -> tuple[list[Message], dict[str, Any]]:
    """A row in any form that `distill` reads; of a pair, the chosen answer."""
    paired = row.keys() >= {"prompt", "chosen", "rejected"}
    conversation = read_row_pair(row).chosen if paired else read(row)
    return conversation, {key: value for key, value in row.items() if key not in ASKED_COLUMNS}


async def _collect_answers(
    check: "BoundCheck | None",
    role: str,
    weights: Path,
    rows: Sequence[_HeldOutDatasetRow],
    longest: int,
    session: CommandSession,
) -> list[EvaluatedAnswer]:
    """The model's greedy answer to each row, and whether it passes."""
    from agents.topologies.sample_production import run_concurrently
    from core.stop_signal import RunStopped
    from teachers.providers import open_teacher

    slots = max(SLOT_TOKENS, 2 * longest)
    model = TeacherConfig(model=f"local/{weights}", max_concurrent=STUDENT_SLOTS, slot_tokens=slots)
    answers: dict[int, EvaluatedAnswer] = {}
    pending = iter(enumerate(rows))
    async with open_teacher(model) as teacher:

        async def work() -> None:
            for place, row in pending:
                if session.stop.is_set():
                    return
                answers[place] = await _ask_row(check, teacher, row, longest)
                session.show_progress(lambda: f"{role}: {len(answers):,} of {format_count(len(rows), 'row')}")

        await run_concurrently(work() for _ in range(min(STUDENT_SLOTS, len(rows))))
    if len(answers) < len(rows):
        raise RunStopped
    passed = sum(answer.fault is None for answer in answers.values())
    session.print_unless_stopped(f"evaluate: {role}: {passed:,} of {len(rows):,} answers pass")
    return [answers[place] for place in range(len(rows))]


async def _ask_row(
    check: "BoundCheck | None", teacher: "Teacher", row: _HeldOutDatasetRow, longest: int
) -> EvaluatedAnswer:
    """The answer, and why it fails."""
    from agents.checks.base import CheckBroken, Subject
    from teachers.base import CallFailed, TeacherQuestion, UnlimitedAccount

    assert row.reference is not None, "rows without a reference are not asked"
    prompt = list(row.conversation[:-1])
    question = TeacherQuestion(
        messages=prompt, contract="Answer", json_schema=None, temperature=0.0, top_p=1.0, max_tokens=longest,
        seed=int(text_digest(f"data/{row.place}", length=7), 16),
    )  # fmt: skip
    try:
        reply = await teacher.reply(question, row.place, UnlimitedAccount())
    except CallFailed as error:
        return EvaluatedAnswer(text="", fault=f"no answer: {error}")
    text = reply.text.strip()
    if not reply.finished:
        return EvaluatedAnswer(text=text, fault=f"cut off after {longest} tokens")
    if check is None:
        equal = text.split() == row.reference.split()
        return EvaluatedAnswer(text=text, fault=None if equal else f"expected {format_one_line(row.reference)!r}")

    seed = Seed(id=f"row-{row.place:06d}", data={"expected": row.reference, **row.columns})
    values: Any = text
    with suppress(ValueError, RecursionError):  # checks of values read JSON
        values = json.loads(text)
    fields = {"answer": text, "question": prompt[-1].content, "values": values}
    candidate = Candidate(messages=[*prompt, Message(role="assistant", content=text)], fields=fields)
    try:
        findings = await check.check.findings(Subject(seed, candidate, _refuse_teacher_calls), check.options)
    except CheckBroken as error:  # as in a run, only this row fails
        return EvaluatedAnswer(text=text, fault=str(error))
    failed = next((finding for finding in findings if not finding.passed), None)
    return EvaluatedAnswer(text=text, fault=None if failed is None else f"{failed.check}: {failed.evidence}")


async def _refuse_teacher_calls(*_args: object, **_options: object) -> Any:
    raise UsageError("the check asks a teacher, and there is none without a recipe; use --recipe")


def _build_dataset_evaluation(
    student: Path, options: EvaluationOptions, held_out: _HeldOutRows, asked: Sequence[_HeldOutDatasetRow],
    losses: "Mapping[str, TextLoss]", answers: Mapping[str, Sequence[EvaluatedAnswer]],
    cost: AnswerCost | None,
) -> DatasetEvaluation:  # fmt: skip
    measured = losses["student"]
    passed = {role: sum(answer.fault is None for answer in given) for role, given in answers.items()}
    return DatasetEvaluation(
        student=str(student),
        data=str(options.data),
        type=options.kind,
        total=held_out.total,
        trained_on=held_out.trained_on,
        evaluated=len(held_out.rows),
        conversations=measured.conversations,
        tokens=measured.tokens,
        truncated=measured.truncated,
        check=options.check,
        asked=len(asked),
        rows=[
            DatasetModelResult(
                role=role,
                nats_per_token=loss.nats_per_token,
                bits_per_byte=loss.bits_per_byte,
                passed=passed.get(role),
                pass_rate=estimate_share(passed[role], len(asked)) if role in passed else None,
            )
            for role, loss in losses.items()
        ],
        cost=cost,
        notes=held_out.notes,
        examples=[
            EvaluationExample(
                question=row.conversation[-2].content, answers={role: given[i] for role, given in answers.items()}
            )
            for i, row in enumerate(asked[:MOST_EXAMPLES])
        ],
    )


def _format_dataset_evaluation(evaluation: DatasetEvaluation) -> str:
    """The output of `stillhouse evaluate STUDENT --data FILE`."""
    heads = ("", "nats/token", "bits/byte", "passed", "95 %")
    table = [heads]
    for row in evaluation.rows:
        rate = row.pass_rate
        table.append(
            (
                row.role,
                "-" if row.nats_per_token is None else f"{row.nats_per_token:.3f}",
                "-" if row.bits_per_byte is None else f"{row.bits_per_byte:.3f}",
                f"{row.passed} of {evaluation.asked}, {format_percent(rate.value)}" if rate else "-",
                f"{format_percent(rate.low)} to {format_percent(rate.high)}" if rate else "-",
            )
        )
    conversations = format_count(evaluation.conversations, "conversation")
    check = ""
    if evaluation.check:
        check = (
            f"; {evaluation.check} on {format_count(evaluation.asked, 'greedy answer')}, stored as {evaluation.type}"
        )
    lines = [
        f"student {evaluation.student}",
        f"  {evaluation.data}: {_format_row_counts(evaluation.evaluated, evaluation.total, evaluation.trained_on)}",
        f"  loss on {format_count(evaluation.tokens, 'token')} of the assistant in {conversations}{check}",
        *format_table(table),
        *([f"  {evaluation.cost.describe()}"] if evaluation.cost else []),
        *(f"  {note}" for note in evaluation.notes),
    ]
    return "\n".join([*lines, f"  {Path(evaluation.student) / DATASET_EVALUATION_FILE}"])


def _format_row_counts(evaluated: int, total: int, trained_on: int) -> str:
    return f"{evaluated:,} of {format_count(total, 'row')}, {trained_on:,} left out that it was trained on"


def choose_evaluation(student: Path, options: EvaluationOptions) -> Evaluation:
    """The evaluation of the student in this folder or run.

    Raises:
        UsageError: if there is no such student, or options exclude each other.
    """
    options.validate()
    if sees_images(find_student_folder(student)):
        found: Evaluation = load_part("evaluation", "sight")
        return found
    if options.data is not None:
        return Evaluation(_evaluate_on_dataset, _format_dataset_evaluation)
    return Evaluation(evaluate_by_recipe, format_student_evaluation)

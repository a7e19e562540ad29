"""A student that sees, asked about held-out pictures in three arms: with the picture, blind (a white image), and with another
question's picture. A pass rate means nothing without the second: what a student guesses from the words alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, model_validator

from core.config.teachers import TeacherConfig
from core.errors import ProviderError, UsageError
from core.intervals import IntervalEstimate, estimate_share
from core.runs.student_records import PairedComparison
from core.sample import text_digest
from core.storage.atomic_files import write_text
from core.storage.image_files import FittedImage, find_images_problem
from core.weights.gguf_files import ImageLimits, read_image_limits
from flows.data.student_files import (
    STUDENT_SLOTS,
    continue_lineage,
    find_student_folder,
    find_student_run,
    load_student_plan,
)
from flows.evaluate.evaluation_options import Evaluation, EvaluationOptions
from flows.evaluate.student_evaluation import student_max_tokens
from flows.evaluate.student_results import compare_outcomes
from flows.terminal.console import CommandSession
from flows.terminal.text_format import format_count, format_one_line, format_percent, format_table
from plugins.pictures.seeing.questions import (
    PictureQuestion,
    QuestionSet,
    draw_blanks,
    draw_picture_questions,
    read_held_out_pictures,
    shuffle_pictures,
)

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan
    from teachers.base import Teacher, TeacherReply

PICTURE_EVALUATION_FILE = "evaluation-pictures.json"
SEEING, BLIND, SHUFFLED = "picture", "blind", "shuffled"
ARMS = {SEEING: "its picture", BLIND: "a white image", SHUFFLED: "another question's picture"}
MOST_ANSWER_TOKENS = 64
MOST_EXAMPLES = 10


class ArmResult(BaseModel):
    """The right answers of one arm."""

    model_config = ConfigDict(frozen=True)

    passed: int
    pass_rate: IntervalEstimate
    """With Wilson's score interval (1927), 95 %."""


class PictureExample(BaseModel):
    """A question, its answer, and what the student answered by arm."""

    model_config = ConfigDict(frozen=True)

    question: str
    expected: str
    answers: dict[str, str]


class PictureEvaluation(BaseModel):
    """The result of `stillhouse evaluate` of a student that sees, as saved in its folder."""

    model_config = ConfigDict(frozen=True)

    student: str
    source: str
    """The recipe or the data of the questions."""
    type: str
    """How the student's weights are stored."""
    pictures: int
    questions: int
    arms: dict[str, ArmResult]
    """By name: `picture`, `blind` and `shuffled`; without the last two there is no result."""
    comparisons: list[PairedComparison]
    """The arm `picture` minus each of the others, on the same questions."""
    notes: list[str]
    examples: list[PictureExample]

    @model_validator(mode="after")
    def _has_every_arm(self) -> Self:
        if missing := [name for name in ARMS if name not in self.arms]:
            raise ValueError(
                f"the arm {missing[0]!r} is missing, and without it a pass rate may be guessed from the words; evaluate again"
            )
        return self


def _load_picture_plan(student: Path, options: EvaluationOptions) -> "RunPlan":
    """The plan whose seeds are asked: of the named recipe, or of the student's run.

    Raises:
        UsageError: if the student belongs to no run and no recipe is named.
    """
    run, named = find_student_run(student), options.load_plan()
    plan = continue_lineage(named, run) if named else load_student_plan(student, run, options.runs)
    if run is None:
        return plan
    # The run may have used more seeds than the named recipe would.
    seeds = max(-(-recipe.samples // recipe.answers_per_seed) for recipe in (run.read_recipe(), plan.recipe))
    return plan.with_recipe(samples=seeds * plan.recipe.answers_per_seed)


async def _evaluate_pictures(name: Path, options: EvaluationOptions, session: CommandSession) -> PictureEvaluation:
    """Ask the student in the folder or run `name` in all arms, and write `evaluation-pictures.json` in its folder.

    Raises:
        RunStopped: on the stop signal.
        UsageError: if there are no questions about at least two pictures, or an option measures nothing here.
        StillhouseError: if the student cannot be exported or started.
    """
    from students.gguf_export import export_gguf

    if problem := find_images_problem():
        raise UsageError(f"a student that sees {problem}")
    options.refuse(("tasks", "check"), "a student that sees is asked about pictures only; leave it out")
    student = find_student_folder(name)
    plan = None if options.data else _load_picture_plan(student, options)
    session.print_unless_stopped(f"evaluate: {student} as GGUF, {options.kind}")
    exported = export_gguf(student, options.kind)
    assert exported.projector, "a student that sees has one"
    limits = read_image_limits(exported.projector)
    if options.data:
        found, source = read_held_out_pictures(student, options.data, options.number, limits), str(options.data)
    else:
        assert plan
        found = await draw_picture_questions(student, plan, options.number, limits, session)
        source = plan.recipe.name
    evaluation = await measure_arms(student, options.kind, source, exported.path, limits, found, session)
    write_text(student / PICTURE_EVALUATION_FILE, evaluation.model_dump_json(indent=2) + "\n")
    return evaluation


async def measure_arms(
    student: Path,
    kind: str,
    source: str,
    weights: Path,
    limits: ImageLimits,
    found: QuestionSet,
    session: CommandSession,
) -> PictureEvaluation:
    """The result of all arms on the same questions.

    Raises:
        RunStopped: on the stop signal.
        UsageError: if there are no questions about at least two pictures.
        ProviderError: if the student cannot be started, or no question was answered in all arms.
    """
    questions = found.questions
    if not questions:
        raise UsageError(f"{source}: has no question about a picture. {' '.join(found.notes)}".rstrip())
    pictures = {
        SEEING: [question.picture for question in questions],
        BLIND: draw_blanks(questions, limits.patch),
        SHUFFLED: shuffle_pictures(questions, source),
    }
    slots = max(512, limits.max_tokens + student_max_tokens(student))
    model = TeacherConfig(model=f"local/{weights}", max_concurrent=STUDENT_SLOTS, slot_tokens=slots)
    replies = await ask_arms(model, questions, pictures, session)
    return build_picture_evaluation(student, kind, source, found, replies)


def build_picture_evaluation(
    student: Path, kind: str, source: str, found: QuestionSet, replies: "Mapping[str, Sequence[TeacherReply | None]]"
) -> PictureEvaluation:
    """The result of the replies by arm. A question without a reply in one arm is left out of all.

    Raises:
        ProviderError: if no question has a reply in all arms.
    """
    complete = [place for place, given in enumerate(zip(*replies.values(), strict=True)) if None not in given]
    questions = [found.questions[place] for place in complete]
    if not questions:
        asked = format_count(len(found.questions), "question")
        raise ProviderError(f"{student}: {asked} asked, and none received a reply in all arms; evaluate again")
    kept = {name: [reply for place in complete if (reply := given[place])] for name, given in replies.items()}
    answers = {name: [reply.text.strip() for reply in given] for name, given in kept.items()}
    right = {
        name: [_is_right(answer, question) for answer, question in zip(given, questions, strict=True)]
        for name, given in answers.items()
    }
    notes = [*found.notes]
    if failed := len(found.questions) - len(questions):
        notes.append(f"{format_count(failed, 'question')} left out of all arms: no reply was received in one of them.")
    if cut := sum(not reply.finished for given in kept.values() for reply in given):
        notes.append(f"{format_count(cut, 'answer')} cut off after {MOST_ANSWER_TOKENS} tokens.")
    return PictureEvaluation(
        student=str(student),
        source=source,
        type=kind,
        pictures=len({question.picture for question in questions}),
        questions=len(questions),
        arms={name: _count_arm(passed) for name, passed in right.items()},
        comparisons=[compare_outcomes(name, right[SEEING], right[name]) for name in (BLIND, SHUFFLED)],
        notes=notes,
        examples=[
            PictureExample(
                question=question.text,
                expected=question.answer,
                answers={name: given[place] for name, given in answers.items()},
            )
            for place, question in enumerate(questions[:MOST_EXAMPLES])
        ],
    )


async def ask_arms(
    model: TeacherConfig,
    questions: Sequence[PictureQuestion],
    pictures: Mapping[str, Sequence[FittedImage]],
    session: CommandSession,
) -> "dict[str, list[TeacherReply | None]]":
    """The greedy replies by arm; None where the call failed."""
    from agents.topologies.sample_production import run_concurrently
    from core.stop_signal import RunStopped
    from teachers.providers import open_teacher

    replies: dict[tuple[str, int], TeacherReply | None] = {}
    work = [(name, place) for name in pictures for place in range(len(questions))]
    pending = iter(work)
    async with open_teacher(model) as teacher:

        async def ask_all() -> None:
            for name, place in pending:
                if session.stop.is_set():
                    return
                replies[name, place] = await _ask(teacher, questions[place], pictures[name][place], place)
                session.show_progress(lambda: f"evaluate: {len(replies):,} of {format_count(len(work), 'answer')}")

        await run_concurrently(ask_all() for _ in range(min(STUDENT_SLOTS, len(work))))
    if len(replies) < len(work):
        raise RunStopped
    return {name: [replies[name, place] for place in range(len(questions))] for name in pictures}


async def _ask(teacher: "Teacher", asked: PictureQuestion, picture: FittedImage, place: int) -> "TeacherReply | None":
    """The reply; None if the call failed."""
    from teachers.base import CallFailed, TeacherQuestion, UnlimitedAccount

    question = TeacherQuestion(
        messages=asked.show(picture), contract="Answer", json_schema=None, temperature=0.0, top_p=1.0,
        max_tokens=MOST_ANSWER_TOKENS, seed=int(text_digest(f"picture/{place}", length=7), 16),
    )  # fmt: skip
    try:
        return await teacher.reply(question, place, UnlimitedAccount())
    except CallFailed:
        return None


def _is_right(answer: str, question: PictureQuestion) -> bool:
    """Whether it is the expected answer, in any case and with any spaces."""
    return answer.casefold().split() == question.answer.casefold().split()


def _count_arm(passed: Sequence[bool]) -> ArmResult:
    rate = estimate_share(sum(passed), len(passed))
    assert rate, "there is a question"
    return ArmResult(passed=sum(passed), pass_rate=rate)


def format_picture_evaluation(evaluation: PictureEvaluation) -> str:
    """The output of `stillhouse evaluate`. All arms, or none: `PictureEvaluation` has no result without the blind one."""
    table = [("", "right", "95 %")]
    for name, shown in ARMS.items():
        arm = evaluation.arms[name]
        table.append(
            (
                f"{name} ({shown})",
                f"{arm.passed:,} of {evaluation.questions:,}, {format_percent(arm.pass_rate.value)}",
                f"{format_percent(arm.pass_rate.low)} to {format_percent(arm.pass_rate.high)}",
            )
        )
    lines = [
        f"student {evaluation.student}  {evaluation.type}",
        f"  {evaluation.source}: {format_count(evaluation.questions, 'held-out question')} about "
        f"{format_count(evaluation.pictures, 'picture')}, greedy answers",
        *format_table(table),
    ]
    for comparison in evaluation.comparisons:
        value, low, high = (
            f"{100 * x:+.0f}"
            for x in (comparison.difference.value, comparison.difference.low, comparison.difference.high)
        )
        lines.append(f"  {SEEING} minus {comparison.role}: {value} points ({low} to {high})")
    if all(comparison.difference.low <= 0 for comparison in evaluation.comparisons):
        lines.append("  The student is not shown to use the picture: its answers may be guessed from the words.")
    for example in evaluation.examples[:3]:
        lines.append(
            f"  {format_one_line(example.question, 60)!r}: {format_one_line(example.expected, 30)!r}, answered "
            f"{format_one_line(example.answers[SEEING], 30)!r}, blind {format_one_line(example.answers[BLIND], 30)!r}"
        )
    lines += [f"  {note}" for note in evaluation.notes]
    return "\n".join([*lines, f"  {Path(evaluation.student) / PICTURE_EVALUATION_FILE}"])


PICTURE_EVALUATION = Evaluation(_evaluate_pictures, format_picture_evaluation)

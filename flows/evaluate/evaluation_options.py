"""The evaluations of `stillhouse evaluate`: on a recipe's held-out seeds, on rows of a dataset, or of a student that sees."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

from core.errors import UsageError
from core.shared_options import DEFAULT_DRAFT_TOKENS, MOST_DRAFT_TOKENS, CacheType
from core.storage.fitted_images import find_images_problem
from flows.data.run_storage import open_run_storage
from flows.data.student_files import find_student_folder, sees_images
from flows.evaluate.dataset_evaluation import (
    DatasetEvaluation,
    DatasetEvaluationTask,
    evaluate_on_dataset,
    format_dataset_evaluation,
    prepare_dataset_evaluation,
)
from flows.evaluate.evaluation_card import format_student_evaluation
from flows.evaluate.picture_evaluation import (
    PictureEvaluation,
    PictureEvaluationTask,
    evaluate_pictures,
    format_picture_evaluation,
    prepare_picture_evaluation,
)
from flows.evaluate.student_evaluation import (
    StudentEvaluationTask,
    evaluate_student,
    prepare_student_evaluation,
)
from flows.evaluate.student_results import StudentEvaluation
from flows.terminal.console import CommandSession

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan


AnyEvaluation = StudentEvaluation | DatasetEvaluation | PictureEvaluation
LONGEST_INPUT = 1_000_000


class EvaluationOptions(NamedTuple):
    """The options of `stillhouse evaluate`."""

    number: int
    kind: str
    recipe: str | None
    tasks: str
    """Names of lm-evaluation-harness, separated by commas."""
    task_rows: int | None
    data: Path | None
    """Rows in place of the recipe's seeds."""
    check: str | None
    settings: Sequence[str]
    runs_dir: str
    panel: int = 0
    """Tasks of the general panel, for an evaluation by a recipe."""
    cache_type: CacheType | None = None
    """The type of the student's KV cache."""
    inputs: Sequence[int] = ()
    """Lengths of inputs in tokens, by which the speed is measured too."""
    as_draft: bool = False
    """Whether to measure the student as the draft of its teacher."""
    draft_tokens: int | None = None
    """Tokens that it proposes at once; None for the default."""

    @property
    def proposed_tokens(self) -> int | None:
        """Tokens of a proposal; None if the student is not measured as a draft."""
        if not self.as_draft:
            return None
        return DEFAULT_DRAFT_TOKENS if self.draft_tokens is None else self.draft_tokens

    def check_for_pictures(self) -> None:
        """Raises UsageError for options that measure nothing of a student that sees, or without the extra `pictures`."""
        if problem := find_images_problem():
            raise UsageError(f"a student that sees {problem}")
        self._refuse(
            ("tasks", "check", "cache_type", "inputs", "as_draft"),
            "a student that sees is asked about pictures only; leave it out",
        )

    def validate(self) -> None:
        """Raises UsageError where options exclude each other, or the type of a cache is unknown."""
        if self.cache_type is not None and self.cache_type not in get_args(CacheType):
            raise UsageError(f"--cache-type {self.cache_type}: is not one of {', '.join(get_args(CacheType))}")
        if self.draft_tokens is not None and not self.as_draft:
            raise UsageError(
                f"--draft-tokens {self.draft_tokens}: is for the student as a draft; add --as-draft, or leave it out"
            )
        if self.draft_tokens is not None and not 1 <= self.draft_tokens <= MOST_DRAFT_TOKENS:
            raise UsageError(f"--draft-tokens {self.draft_tokens}: must be from 1 to {MOST_DRAFT_TOKENS}")
        if self.data is None:
            if self.check or self.settings:
                option = "--check" if self.check else "--set"
                raise UsageError(f"{option}: is for rows of --data; a recipe has its own checks")
            return
        self._refuse(
            ("recipe", "tasks", "task_rows", "cache_type", "inputs", "as_draft"),
            "cannot be combined with --data; leave one of them out",
        )

    def _refuse(self, names: Sequence[str], why: str) -> None:
        """Raises UsageError if one of these options is given."""
        if given := next((name for name in names if getattr(self, name)), None):
            raise UsageError(f"--{given.replace('_', '-')}: {why}")


def prepare_evaluation(
    student: Path, plan: "RunPlan | None", options: EvaluationOptions
) -> StudentEvaluationTask | DatasetEvaluationTask | PictureEvaluationTask:
    """Raises UsageError where the student, the check or the task does not exist."""
    number, kind = options.number, options.kind
    folder = find_student_folder(student)
    if sees_images(folder):
        options.check_for_pictures()
        runs = open_run_storage(options.runs_dir).runs
        return prepare_picture_evaluation(folder, plan, options.data, number, kind, runs)
    if options.data is not None:
        return prepare_dataset_evaluation(student, options.data, number, kind, options.check, options.settings)
    tasks = [name.strip() for name in options.tasks.split(",") if name.strip()]
    runs = open_run_storage(options.runs_dir).runs
    return prepare_student_evaluation(
        student, plan, number, kind, tasks, options.task_rows, runs, options.panel, options.cache_type, options.inputs,
        options.proposed_tokens,
    )  # fmt: skip


def parse_input_lengths(text: str) -> tuple[int, ...]:
    """The lengths in `--inputs 512,2048`, in order. Raises UsageError for anything but positive whole numbers."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if not name.isdecimal() or not 0 < int(name) <= LONGEST_INPUT:
            raise UsageError(
                f"--inputs {name}: is no number of tokens from 1 to {LONGEST_INPUT:,}, as in --inputs 512,2048"
            )
    return tuple(sorted({int(name) for name in names}))


async def run_evaluation(
    task: StudentEvaluationTask | DatasetEvaluationTask | PictureEvaluationTask, session: CommandSession
) -> AnyEvaluation:
    if isinstance(task, PictureEvaluationTask):
        return await evaluate_pictures(task, session)
    if isinstance(task, DatasetEvaluationTask):
        return await evaluate_on_dataset(task, session)
    return await evaluate_student(task, session)


def find_changed_replies(evaluation: AnyEvaluation) -> str | None:
    """A sentence if the student as a draft changed its teacher's replies, which it must not."""
    if not isinstance(evaluation, StudentEvaluation) or evaluation.draft is None or not evaluation.draft.different:
        return None
    found = evaluation.draft
    return (
        f"--as-draft: {found.different} of {found.requests} greedy replies differ with the draft, and none may; do not use this "
        "draft on this machine"
    )


def format_evaluation(evaluation: AnyEvaluation) -> str:
    if isinstance(evaluation, PictureEvaluation):
        return format_picture_evaluation(evaluation)
    if isinstance(evaluation, DatasetEvaluation):
        return format_dataset_evaluation(evaluation)
    return format_student_evaluation(evaluation)

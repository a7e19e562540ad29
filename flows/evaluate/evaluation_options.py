"""The two evaluations of `stillhouse evaluate`, chosen by its options: on a recipe's held-out seeds, or on rows of a dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

from core.config.teachers import CacheType
from core.errors import UsageError
from flows.data.run_storage import open_run_storage
from flows.evaluate.dataset_evaluation import (
    DatasetEvaluation,
    DatasetEvaluationTask,
    evaluate_on_dataset,
    format_dataset_evaluation,
    prepare_dataset_evaluation,
)
from flows.evaluate.student_evaluation import (
    StudentEvaluation,
    StudentEvaluationTask,
    evaluate_student,
    format_student_evaluation,
    prepare_student_evaluation,
)
from flows.terminal.console import CommandSession

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan


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
    draft_tokens: int | None = None
    """Tokens that the student proposes as the draft of its teacher; None if that is not measured."""

    def validate(self) -> None:
        """Raises UsageError where options exclude each other, or the type of a cache is unknown."""
        if self.cache_type is not None and self.cache_type not in get_args(CacheType):
            raise UsageError(f"--cache-type {self.cache_type}: is not one of {', '.join(get_args(CacheType))}")
        if self.data is None:
            if self.check or self.settings:
                option = "--check" if self.check else "--set"
                raise UsageError(f"{option}: is for rows of --data; a recipe has its own checks")
            return
        excluded = {
            "--recipe": self.recipe,
            "--tasks": self.tasks,
            "--task-rows": self.task_rows,
            "--cache-type": self.cache_type,
            "--inputs": self.inputs,
            "--as-draft": self.draft_tokens,
        }
        for option, value in excluded.items():
            if value:
                raise UsageError(f"{option}: cannot be combined with --data; leave one of them out")


def prepare_evaluation(
    student: Path, plan: "RunPlan | None", options: EvaluationOptions
) -> StudentEvaluationTask | DatasetEvaluationTask:
    """Raises UsageError where the student, the check or the task does not exist."""
    number, kind = options.number, options.kind
    if options.data is not None:
        return prepare_dataset_evaluation(student, options.data, number, kind, options.check, options.settings)
    tasks = [name.strip() for name in options.tasks.split(",") if name.strip()]
    runs = open_run_storage(options.runs_dir).runs
    return prepare_student_evaluation(
        student, plan, number, kind, tasks, options.task_rows, runs, options.panel, options.cache_type, options.inputs,
        options.draft_tokens,
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
    task: StudentEvaluationTask | DatasetEvaluationTask, session: CommandSession
) -> StudentEvaluation | DatasetEvaluation:
    if isinstance(task, DatasetEvaluationTask):
        return await evaluate_on_dataset(task, session)
    return await evaluate_student(task, session)


def find_changed_replies(evaluation: StudentEvaluation | DatasetEvaluation) -> str | None:
    """A sentence if the student as a draft changed its teacher's replies, which it must not."""
    if isinstance(evaluation, DatasetEvaluation) or evaluation.draft is None or not evaluation.draft.different:
        return None
    found = evaluation.draft
    return (
        f"--as-draft: {found.different} of {found.requests} greedy replies differ with the draft, and none may; do not use this "
        "draft on this machine"
    )


def format_evaluation(evaluation: StudentEvaluation | DatasetEvaluation) -> str:
    if isinstance(evaluation, DatasetEvaluation):
        return format_dataset_evaluation(evaluation)
    return format_student_evaluation(evaluation)

"""The evaluations of `stillhouse evaluate`: on a recipe's held-out seeds, on rows of a dataset, or of a student that sees."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from core.errors import UsageError
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

    def check_for_pictures(self) -> None:
        """Raises UsageError for options that measure nothing of a student that sees, or without the extra `pictures`."""
        if problem := find_images_problem():
            raise UsageError(f"a student that sees {problem}")
        self._refuse(
            ("tasks", "check"),
            "a student that sees is asked about pictures only; leave it out",
        )

    def validate(self) -> None:
        """Raises UsageError where options exclude each other."""
        if self.data is None:
            if self.check or self.settings:
                option = "--check" if self.check else "--set"
                raise UsageError(f"{option}: is for rows of --data; a recipe has its own checks")
            return
        self._refuse(
            ("recipe", "tasks", "task_rows"),
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
    return prepare_student_evaluation(student, plan, number, kind, tasks, options.task_rows, runs, options.panel)


async def run_evaluation(
    task: StudentEvaluationTask | DatasetEvaluationTask | PictureEvaluationTask, session: CommandSession
) -> AnyEvaluation:
    if isinstance(task, PictureEvaluationTask):
        return await evaluate_pictures(task, session)
    if isinstance(task, DatasetEvaluationTask):
        return await evaluate_on_dataset(task, session)
    return await evaluate_student(task, session)


def format_evaluation(evaluation: AnyEvaluation) -> str:
    if isinstance(evaluation, PictureEvaluation):
        return format_picture_evaluation(evaluation)
    if isinstance(evaluation, DatasetEvaluation):
        return format_dataset_evaluation(evaluation)
    return format_student_evaluation(evaluation)

"""The evaluation that fits a student: on a recipe's held-out seeds, on rows of a dataset, or the one that a plugin has for its
students.
"""

from pathlib import Path

from core.plugins import load_part
from flows.data.student_files import find_student_folder, sees_images
from flows.evaluate.dataset_evaluation import evaluate_on_dataset, format_dataset_evaluation
from flows.evaluate.evaluation_options import Evaluation, EvaluationOptions
from flows.evaluate.student_evaluation import evaluate_by_recipe
from flows.evaluate.student_results import format_student_evaluation


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
        return Evaluation(evaluate_on_dataset, format_dataset_evaluation)
    return Evaluation(evaluate_by_recipe, format_student_evaluation)

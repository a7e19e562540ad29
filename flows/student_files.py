"""What is done with a finished student: found by its folder or its run, exported, asked. Knows nothing of training."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import RecipeError, UsageError
from core.recipe import TeacherConfig
from core.run import RUNS, RunDir

if TYPE_CHECKING:
    from agents.plan import Plan
    from students.export import Exported

SLOTS = 8
"""Conversations of one student at once, where nobody says how many."""


def student_folder(name: Path) -> Path:
    """The student in `name`, or that of the run in `name` or called so. Raises UsageError where there is none."""
    for folder in (name, name / "student", Path(RUNS) / name / "student"):
        if (folder / "config.json").is_file():
            return folder
    raise UsageError(
        f"{name}: there is no student: neither it nor {name / 'student'} has a config.json; name its folder, or a run"
    )


def is_weights(name: Path) -> bool:
    """Whether it is a GGUF file, and not the folder of a student or a run. Raises UsageError where there is no such file."""
    if name.suffix == ".gguf" and not name.is_file():
        raise UsageError(f"{name}: there is no such file")
    return name.suffix == ".gguf"


def export_student(name: Path, kind: str) -> "Exported":
    exported: Exported = with_torch("students.export").export_gguf(student_folder(name), kind)
    return exported


def run_of(student: Path) -> RunDir | None:
    """The run whose student lies in this folder."""
    run = RunDir(student.resolve().parent)
    return run if run.recipe_file.is_file() else None


def plan_for(student: Path, run: RunDir | None) -> "Plan":
    """The plan of the student's run. Raises UsageError where it is of none, or what the recipe names is not there."""
    if run is None:
        raise UsageError(f"{student}: is not the student of a run, so name the recipe to hold it to: --recipe RECIPE")
    from agents.plan import plan_of

    try:
        return plan_of(run.read_recipe(), run.read_folder())
    except RecipeError as error:
        raise UsageError(
            f"{run.path}: its recipe cannot be held to from here; name it: --recipe RECIPE\n{error}"
        ) from None


def as_teacher(weights: Path, teacher: TeacherConfig) -> TeacherConfig:
    """The GGUF file as a model that answers, in slots as long as its teacher's."""
    slots = min(teacher.max_concurrent, SLOTS)
    return TeacherConfig(model=f"local/{weights}", max_concurrent=slots, slot_tokens=teacher.slot_tokens)


def with_torch(module: str) -> Any:
    """A module of `students`. Raises UsageError where the extra `train` is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(f"students need the extra `train` ({error.name} is missing): run `make install`") from None

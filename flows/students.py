"""What is done with a finished student: found by its folder or its run, and exported. Knows nothing of training."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UsageError

if TYPE_CHECKING:
    from students.export import Exported


def student_folder(name: Path) -> Path:
    """The student in `name`, or that of the run in `name`. Raises UsageError where there is none."""
    for folder in (name, name / "student"):
        if (folder / "config.json").is_file():
            return folder
    raise UsageError(f"{name}: there is no student: neither it nor {name / 'student'} has a config.json")


def export_student(name: Path, kind: str) -> "Exported":
    exported: Exported = with_torch("students.export").export_gguf(student_folder(name), kind)
    return exported


def with_torch(module: str) -> Any:
    """A module of `students`. Raises UsageError where the extra `train` is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(f"students need the extra `train` ({error.name} is missing): run `make install`") from None

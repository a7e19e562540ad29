"""The tables of `[[student.steps]]`: what a plugin changes of a student before, in and after its training.

Knows settings only. `students.training.steps` has the code that a step loads.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import PlainValidator, SerializeAsAny, ValidationError
from pydantic_core import PydanticCustomError

from core.config.base import RecipeTable, put_below, read_table_type
from core.config.student_architectures import ROW_MULTIPLE
from core.extensions import EXTENSION_ERROR, Extension, ExtensionPoint
from core.plugins import UnusablePlugin
from core.weights.gguf_files import ImageLimits


class StudentStep(RecipeTable):
    """The base class of a step's table. Its key `type` is a `Literal` of the step's name."""

    type: str
    needs_trained_start: ClassVar[bool] = False
    """Whether it makes no sense with random weights."""
    changes_start: ClassVar[bool] = False
    """Whether the student begins with other weights or another form than its start has."""
    changes_form: ClassVar[bool] = False
    """Whether it becomes another model than its start, which is loaded again where the two are compared."""
    row_multiple: ClassVar[int] = ROW_MULTIPLE
    """What the feed-forward width of a random start must be a multiple of."""

    @property
    def image_limits(self) -> ImageLimits | None:
        """How it lets the student read images; None if it does not."""
        return None

    def find_problem(self, student: Any) -> str | None:
        """Why a student (`core.config.students.StudentConfig`) cannot have it with its other settings; None if it can."""
        return None

    def find_start_fault(self, settings: Mapping[str, Any]) -> str | None:
        """Why a model with these settings (its config.json) cannot be the start, in words; None if it can."""
        return None

    def load(self) -> Any:
        """Import torch and return the step's code, a `students.training.steps.StepCode`."""
        raise NotImplementedError


STEP_EXTENSIONS: ExtensionPoint[type[StudentStep]] = ExtensionPoint("step", StudentStep, tuple, read_table_type)


def find_step_table(name: str) -> type[StudentStep]:
    """The table of a step. Raises UnusablePlugin if there is no usable step of this name."""
    return STEP_EXTENSIONS.require(name).value


def _parse_step(values: Any) -> StudentStep:
    """A table of `[[student.steps]]` as the table of its step.

    Raises:
        ValidationError: as pydantic, with the step's name before each key.
        PydanticCustomError: if there is no usable step of this name.
    """
    if isinstance(values, StudentStep):
        return values
    name = values.get("type") if isinstance(values, Mapping) else None
    if not isinstance(name, str):
        raise ValueError('a step is a table with its type, as in { type = "mtp" }')  # noqa: TRY004  pydantic's
    try:
        table = find_step_table(name)
    except UnusablePlugin as error:
        raise PydanticCustomError(EXTENSION_ERROR, "{sentence}", {"sentence": str(error)}) from None
    try:
        return table.model_validate(values)
    except ValidationError as error:
        raise put_below(error, name) from None


StepConfig = Annotated[SerializeAsAny[StudentStep], PlainValidator(_parse_step)]
"""The table of any step."""


def list_step_extensions(steps: Sequence[StudentStep]) -> list[Extension[type[StudentStep]]]:
    return [STEP_EXTENSIONS.require(name) for name in dict.fromkeys(step.type for step in steps)]

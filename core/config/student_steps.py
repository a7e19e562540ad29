"""What a student can be, known without torch: the architectures, and the tables of `[[student.steps]]`, which a plugin adds.

Knows settings only. `students.known_architectures` has what an architecture is, `students.training.steps` the code of steps.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import PlainValidator, SerializeAsAny, ValidationError
from pydantic_core import PydanticCustomError

from core.config.base import RecipeTable, put_below, read_table_type
from core.extensions import EXTENSION_ERROR, Extension, ExtensionPoint
from core.plugins import UnusablePlugin
from core.weights.gguf_files import ImageLimits

STUDENT_ARCHITECTURES = (
    "bitnet", "gemma3_text", "granite", "granite_swa", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "qwen3_5_text",
    "smollm3",
)  # fmt: skip
"""The `model_type` in a model's config.json."""

EMBEDDED_STARTS = ("layers", "random")
"""Names of starts that are no folder; all are Llamas."""


MEMORY_LAYER = "linear_attention"
"""Transformers' name of the layers of a hybrid that have a memory instead of attention."""

ROW_MULTIPLE = 32
"""Of the feed-forward width: rows of other lengths cannot be stored in 8 or 4 bits (GGUF)."""
TERNARY_BLOCK = 256
"""Weights of a row that share a scale in llama.cpp's `TQ2_0`."""


def describe_unknown_architecture(model_type: str | None) -> str:
    """Why a model of another architecture can be no student, in words."""
    *first, last = STUDENT_ARCHITECTURES
    return f"is a {model_type!r}; a student is a {', '.join(first)} or {last}"


class StudentStep(RecipeTable):
    """The base class of a step's table. Its key `type` is a `Literal` of the step's name."""

    type: str
    needs_trained_start: ClassVar[bool] = False
    """Whether it makes no sense with random weights."""
    changes_start: ClassVar[bool] = False
    """Whether the student begins with other weights or another form than its start has."""
    changes_form: ClassVar[bool] = False
    """Whether it becomes another model than its start, which is loaded again where the two are compared."""
    makes_start: ClassVar[bool] = False
    """Whether it builds the model of `start = "random"`."""
    reads_start: ClassVar[bool] = False
    """Whether its code needs the start's probabilities during the training."""
    chooses_weights: ClassVar[bool] = False
    """Whether its plugin makes a run's student of the trained one, by asking as many requests as the evaluation
    (`core.hooks.RunHooks.finish_student`)."""
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

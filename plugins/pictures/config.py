"""The `[images]` table of a recipe, and the step `sight` of a student. Knows no torch."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from core.config.base import FolderName, RecipeTable
from core.config.student_steps import StudentStep
from core.config.students import StudentConfig
from core.shared_options import MAX_PATCH, MAX_PATCHES_A_SIDE, MIN_PATCH
from core.weights.gguf_files import ImageLimits

SEEING_START = "llama"
"""The architecture of a start that can see."""
EXCLUDED = {
    "replay": "its start sees nothing, and writes no images",
    "start_kl": "its start sees nothing",
    "average_choice": "the embedder of images has no start to average with",
    "hybrid": "it needs a Llama, and a hybrid is none",
    "average": "the embedder of images has no start to average with",
    "lora": "low-rank adapters would not train the embedder of images",
    "sparsity": "weights are chosen by text alone",
    "attention": "a window would cut images off",
    "windows": "a window would cut images off",
    "width": "it chooses channels by text alone",
    "ternary": "a BitNet has no embedder of images",
    "evaluation": "its questions have no pictures; use `stillhouse evaluate` afterwards",
}
"""Keys of `[student]` and other steps that it rules out, and why."""


class SeedImagesConfig(RecipeTable):
    """The images of `seeds.source = "images"`."""

    folder: FolderName
    """Image files, or a dataset with images."""
    size: int = Field(1024, ge=16, le=4096)
    """Pixels of the longer side; larger ones are shrunk."""


class SightStep(StudentStep):
    """Let the student, a Llama, see images as patches among the words, without a vision encoder."""

    type: Literal["sight"]
    patch: int = Field(16, ge=MIN_PATCH, le=MAX_PATCH)
    """Pixels of its side. Each patch is a token."""
    size: int = Field(192, ge=16)
    """Pixels of the longer side. Letters of larger images may become illegible."""
    color_jitter: float = Field(0.0, ge=0, le=0.5)
    """Multiply colors by random factors from 1 - `color_jitter`."""

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        side = self.size // self.patch
        if self.size % self.patch:
            raise ValueError(
                f"size = {self.size}: is no multiple of patch = {self.patch}; use {side * self.patch or self.patch} or "
                f"{(side + 1) * self.patch}"
            )
        if side > MAX_PATCHES_A_SIDE:
            raise ValueError(
                f"size = {self.size}: {side} x {side} patches of {self.patch} are more than the 512 tokens that llama.cpp reads "
                f"at once; use at most {MAX_PATCHES_A_SIDE * self.patch}, or larger patches"
            )
        return self

    @property
    def image_limits(self) -> ImageLimits:
        return ImageLimits(self.patch, self.size)

    def find_problem(self, student: StudentConfig) -> str | None:
        if student.start == "width":
            return 'start = "width" chooses channels by text alone; use start = "layers" or "random"'
        others = {step.type for step in student.steps}
        for name, why in EXCLUDED.items():
            if name in others or getattr(student, name, None) not in (None, 0):
                return f"{name}: {why}; leave one of them out"
        if strange := sorted(student.objective_weights.keys() - student.text_losses):
            return f"objective {strange[0]}: its teacher or reference sees nothing; use sft, or leave the step out"
        if (tokens := self.image_limits.max_tokens) >= student.max_tokens:
            return (
                f"{tokens} patches of an image leave no room in max_tokens = {student.max_tokens}; raise it to {tokens + 128} or "
                "more"
            )
        return None

    def find_start_fault(self, settings: Mapping[str, Any]) -> str | None:
        if (kind := settings.get("model_type")) == SEEING_START:
            return None
        return f"is a {kind!r}; the step sight needs a {SEEING_START} as start, such as layers"

    def load(self) -> Any:
        from plugins.pictures.seeing.embedder import SightCode

        return SightCode(self.image_limits, self.color_jitter)

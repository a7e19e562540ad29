"""The `[features]` table of a recipe, and the settings of a feature dictionary: the model and layer that it reads, its size, and
its training. Knows no torch.
"""

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.config.base import FolderName, RecipeTable

EMBEDDED_MODEL = "embedded"
"""The name of the embedded teacher as a model to read."""
DICTIONARY_FILES = ("sae.safetensors", "reader.json")
"""The files of a feature dictionary that decide which features a text has."""


def list_dictionary_files(dictionary: str) -> Sequence[str]:
    """By their names in the recipe."""
    return [f"{dictionary}/{name}" for name in DICTIONARY_FILES]


class FeaturesConfig(RecipeTable):
    """Report which features of `collapse.reference` the kept samples lack."""

    dictionary: FolderName
    """What `stillhouse features` wrote."""

    def list_files(self) -> Sequence[str]:
        return list_dictionary_files(self.dictionary)


class DictionarySettings(BaseModel):
    """What `--set` of `stillhouse features` can set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = EMBEDDED_MODEL
    """The model whose activations are read: `embedded`, a folder, or a name on the Hugging Face Hub."""
    layer: int | None = Field(None, ge=0)
    """The layer whose output is read, from 0 on; by default the middle one."""
    latents: int | None = Field(None, ge=2)
    """Size of the dictionary; by default four times the width of the model."""
    k: int = Field(32, ge=1)
    """Latents that are active at a token (TopK: Gao et al. 2024, arXiv 2406.04093)."""
    tokens: int = Field(200_000, ge=2_000)
    """Tokens of the texts that are read; the texts are shuffled first."""
    context: int = Field(256, ge=8)
    """The most tokens that are read of one document."""
    epochs: int = Field(10, ge=1)
    """How often the training visits each token."""
    learning_rate: float = Field(1.5e-3, gt=0)
    """Of Adam; constant, and falling to zero over the last fifth of the steps."""
    batch: int = Field(1024, ge=16)
    """Tokens of a training step."""
    seed: int = 0
    """Random seed of the order of the texts, of the training and of the random dictionary."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.latents is not None and self.k >= self.latents:
            raise ValueError(f"k must be below latents ({self.latents}), not {self.k}")
        return self

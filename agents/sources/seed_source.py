"""Seeds that are neither a file of rows nor documents: what `seeds.source` names. Knows no source."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from core.config.recipe import Recipe
from core.extensions import Extension, ExtensionPoint
from core.sample import Seed


class SeedSource(ABC):
    """A source of seeds. Its options are the recipe's section of its plugin."""

    name: ClassVar[str]
    """As recipes write it after `seeds.source`."""
    shows_images: ClassVar[bool] = False
    """Whether the teachers that write and judge are shown images of each seed, as `find_images` gives them."""
    columns: ClassVar[Collection[str]] = ()
    """Columns that each of its seeds has, so that `seeds.draw` can have none of their names."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        """Nothing is read yet. Relative paths start from `folder`."""
        self.recipe, self.folder = recipe, folder

    @property
    @abstractmethod
    def file(self) -> str:
        """The file or folder that it reads, by its name in the recipe. Raises UsageError if the recipe names none."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Equal for equal seeds: part of the run's identity. Raises UsageError if they cannot be read."""

    @abstractmethod
    def read_rows(self) -> Mapping[int, Mapping[str, Any]]:
        """A row for each seed, by its number in the source. Raises UsageError as `digest`."""

    def list_notes(self) -> list[str]:
        """Sentences about what was read and what was left out."""
        return []

    def find_images(self, seed: Seed) -> tuple[str, ...]:
        """The images of a seed as `data:` URLs. Raises UnreadableImage."""
        return ()


SOURCE_EXTENSIONS: ExtensionPoint[type[SeedSource]] = ExtensionPoint("source", SeedSource, tuple)


def find_source_extension(recipe: Recipe) -> Extension[type[SeedSource]] | None:
    """What `seeds.source` names; None if the recipe has none. Raises UnusablePlugin if it cannot be used."""
    return SOURCE_EXTENSIONS.require(recipe.seeds.source) if recipe.seeds.source else None


def find_seed_source(recipe: Recipe, folder: Path) -> SeedSource | None:
    """As `find_source_extension`, ready to be read."""
    found = find_source_extension(recipe)
    return found.value(recipe, folder) if found else None

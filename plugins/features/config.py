"""The `[features]` table of a recipe."""

from collections.abc import Sequence

from core.config.base import FolderName, RecipeTable

DICTIONARY_FILES = ("sae.safetensors", "reader.json")
"""The files of a feature dictionary that decide which features a text has."""


def list_dictionary_files(dictionary: str) -> Sequence[str]:
    """By their names in the recipe."""
    return [f"{dictionary}/{name}" for name in DICTIONARY_FILES]


class FeaturesConfig(RecipeTable):
    """Which features of `collapse.reference` the kept samples lack, in the report. No run is refused for it."""

    dictionary: FolderName
    """The folder of a feature dictionary (`stillhouse features`): the report shows which features of the reference the kept
    samples lack, their coverage over the generations, and the same by a random dictionary; seeds for the lacking ones are
    written to `plugins/features/seeds.jsonl` in the run's folder."""

    def list_files(self) -> Sequence[str]:
        return list_dictionary_files(self.dictionary)

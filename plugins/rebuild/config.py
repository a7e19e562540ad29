"""The `[rebuild]` table of a recipe. Writes nothing."""

from typing import ClassVar

from core.config.base import RecipeTable

NAME = "rebuild"
"""Of the plugin, and of its record in a manifest."""


class RebuildConfig(RecipeTable):
    """Releases contain their recording, from which `stillhouse rebuild` makes them again. A finished run accepts it."""

    identifies_run: ClassVar[bool] = False

    documents: bool = False
    """Whether the recording contains folders of seeds too, such as `seeds.documents`, or only their hashes. Of a finished
    run: hashes."""

"""The `[images]` table of a recipe."""

from pydantic import Field

from core.config.base import FolderName, RecipeTable


class SeedImagesConfig(RecipeTable):
    """The user's images, of `seeds.source = "images"`, for families whose teachers are shown them."""

    folder: FolderName
    """A folder of image files, or a dataset whose rows have images; each file or row is a seed."""
    size: int = Field(1024, ge=16, le=4096)
    """Pixels of the longer side of an image; larger ones are made smaller before a teacher or the dataset gets them."""

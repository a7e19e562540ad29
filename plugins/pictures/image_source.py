"""The source of seeds `images`: the files and rows that `seed_images` reads, for a recipe."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from agents.sources.seed_source import SeedSource, list_skipped_files
from core.errors import UsageError
from core.project_files import find_referenced_file
from core.sample import Seed
from core.storage.image_files import UnreadableImage
from plugins.pictures.config import SeedImagesConfig
from plugins.pictures.seed_images import ImageReading, fit_seed_image, read_seed_images


class ImageSource(SeedSource):
    name = "images"
    shows_images = True
    columns = ("images", "source")

    @property
    def file(self) -> str:
        return self._config.folder

    @property
    def digest(self) -> str:
        return self._reading.digest

    def read_rows(self) -> Mapping[int, Mapping[str, Any]]:
        found = self._reading
        return dict(zip(found.lines, found.rows, strict=True))

    def list_notes(self) -> list[str]:
        found = self._reading
        seeds, different = len(found.rows), len(found.contents)
        notes = [f"images: {seeds:,} seed{'s' * (seeds != 1)} of {different:,} image{'s' * (different != 1)}"]
        if found.copies:
            notes.append(f"images: {found.copies:,} copies of earlier ones are left out")
        if found.skipped:
            notes.append(f"images: none of {list_skipped_files(found.skipped)}")
        return notes

    def find_images(self, seed: Seed) -> tuple[str, ...]:
        contents = self._reading.contents
        try:
            return tuple(fit_seed_image(contents[digest], digest, self._config.size) for digest in seed.data["images"])
        except KeyError:
            raise UnreadableImage("is no longer there") from None

    @property
    def _config(self) -> SeedImagesConfig:
        if config := self.recipe.section(SeedImagesConfig):
            return config
        raise UsageError('seeds.source = "images" needs the table [images] with its `folder`')

    @cached_property
    def _reading(self) -> ImageReading:
        return read_seed_images(find_referenced_file(self._config.folder, self.folder))

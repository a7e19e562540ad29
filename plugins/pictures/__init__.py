"""Conversations about pictures: drawn charts, tables and documents, and the user's own images; and students that see."""

from pathlib import Path
from typing import Any

from core.plugins import Part, Plugin


def _load_pictures() -> Any:
    from plugins.pictures.families.pictures import PicturesFamily

    return PicturesFamily


def _load_image_questions() -> Any:
    from plugins.pictures.families.image_questions import ImageQuestionsFamily

    return ImageQuestionsFamily


def _load_pictures_script() -> Any:
    from plugins.pictures.scripts.pictures import SCRIPT

    return SCRIPT


def _load_image_questions_script() -> Any:
    from plugins.pictures.scripts.image_questions import SCRIPT

    return SCRIPT


def _load_images() -> Any:
    from plugins.pictures.filters.image_quality import ImagesFilter

    return ImagesFilter


def _load_image_duplicates() -> Any:
    from plugins.pictures.filters.image_duplicates import ImageDuplicatesFilter

    return ImageDuplicatesFilter


def _load_seed_images_config() -> Any:
    from plugins.pictures.config import SeedImagesConfig

    return SeedImagesConfig


def _load_image_source() -> Any:
    from plugins.pictures.image_source import ImageSource

    return ImageSource


def _load_sight() -> Any:
    from plugins.pictures.config import SightStep

    return SightStep


def _load_reader() -> Any:
    from plugins.pictures.seeing.embedder import load_image_embedder

    return load_image_embedder


def _load_evaluation() -> Any:
    from plugins.pictures.seeing.evaluation import PICTURE_EVALUATION

    return PICTURE_EVALUATION


def _load_hooks() -> Any:
    from plugins.pictures.hooks import PictureHooks

    return PictureHooks()


PLUGIN = Plugin(
    name="pictures",
    about="Conversations about drawn charts, tables and documents, and about the user's images; students that see",
    extra="pictures",
    folder=Path(__file__).parent,
    parts=(
        Part("family", "pictures", _load_pictures),
        Part("family", "image_questions", _load_image_questions),
        Part("script", "pictures", _load_pictures_script),
        Part("script", "image_questions", _load_image_questions_script),
        Part("filter", "images", _load_images),
        Part("filter", "image_duplicates", _load_image_duplicates),
        Part("section", "images", _load_seed_images_config),
        Part("source", "images", _load_image_source),
        Part("step", "sight", _load_sight),
        Part("reader", "images.safetensors", _load_reader),
        Part("evaluation", "sight", _load_evaluation),
        Part("hooks", "pictures", _load_hooks),
    ),
)

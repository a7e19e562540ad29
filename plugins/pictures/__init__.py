"""Conversations about pictures: drawn charts, tables and documents, and the user's own images; and students that see."""

from pathlib import Path

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="pictures",
    about="Conversations about drawn charts, tables and documents, and about the user's images; students that see",
    extra="pictures",
    folder=Path(__file__).parent,
    parts=(
        Part("family", "pictures", part("families.pictures:PicturesFamily")),
        Part("family", "image_questions", part("families.image_questions:ImageQuestionsFamily")),
        Part("script", "pictures", part("scripts.pictures:SCRIPT")),
        Part("script", "image_questions", part("scripts.image_questions:SCRIPT")),
        Part("filter", "images", part("filters.image_quality:ImagesFilter")),
        Part("filter", "image_duplicates", part("filters.image_duplicates:ImageDuplicatesFilter")),
        Part("section", "images", part("config:SeedImagesConfig")),
        Part("source", "images", part("image_source:ImageSource")),
        Part("step", "sight", part("config:SightStep")),
        Part("reader", "images.safetensors", part("seeing.embedder:load_image_embedder")),
        Part("evaluation", "sight", part("seeing.evaluation:PICTURE_EVALUATION")),
        Part("hooks", "pictures", part("hooks:HOOKS")),
    ),
)

"""The step `sight`: an embedder of images, whose patches become tokens of the student, without a vision encoder.

It is Transformers' embedder of Gemma 4 (patches, their places, one projection), in front of a Llama.
"""

import io
import random
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from core.config.student_steps import EMBEDDED_STARTS
from core.errors import UsageError
from core.shared_options import EMBEDDER_FILE
from core.storage.atomic_files import read_json
from core.weights.gguf_files import ImageLimits
from students.chat_encoding import EncodedConversation, EncodedImage
from students.predictions import IMAGE_READER, ImageReader, TokenBatch
from students.start_model import StartModel
from students.student_folder import SETTINGS_FILE
from students.training.steps import StepCode, Training

CARD_TEMPLATE = Path(__file__).parents[1] / "templates" / "card_ask.md"
POSITION_SCALE = 0.02
"""Standard deviation of new places, as of a Llama's new weights."""
CHANNELS, LIGHTEST = 3, 255


class ImagePatches(NamedTuple):
    """The patches of all images of a batch of tokens."""

    values: torch.Tensor
    """Bytes, of shape (patches, 3 * patch * patch)."""
    places: torch.Tensor
    """Column and row of each in its image, of shape (patches, 2)."""
    rows: torch.Tensor
    """The row of each in the batch."""
    tokens: torch.Tensor
    """Its token there."""


class ImageEmbedder(ImageReader):
    """Embeds patches as wide as the model's tokens."""

    def __init__(self, limits: ImageLimits, width: int) -> None:
        """New weights, from torch's global generator."""
        from transformers.models.gemma4_unified.configuration_gemma4_unified import Gemma4UnifiedVisionConfig
        from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedVisionEmbedder

        super().__init__()
        self.limits = limits
        settings = Gemma4UnifiedVisionConfig(
            patch_size=limits.patch, pooling_kernel_size=1, mm_embed_dim=width, mm_posemb_size=limits.size // limits.patch,
            output_proj_dims=width,
        )  # fmt: skip
        assert settings.model_patch_size == limits.patch
        embedder: Any = Gemma4UnifiedVisionEmbedder(settings, _TextWidth(width))
        nn.init.normal_(embedder.pos_embedding, std=POSITION_SCALE)
        self.embedder = embedder

    def forward(self, patches: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Of shape (patches, width).

        Args:
            patches: values from 0 to 1, of shape (patches, 3 * patch * patch); all of a color before the next color.
            places: column and row of each in its image, of shape (patches, 2).
        """
        found: torch.Tensor = self.embedder(patches[None], places[None]).pooler_output[0]
        return found

    def build_inputs(self, model: PreTrainedModel, batch: TokenBatch) -> dict[str, torch.Tensor]:
        embedded = embed_images(model, batch.ids, collect_patches(batch.images))
        return {"inputs_embeds": embedded, "attention_mask": build_image_mask(batch)}

    def write(self, folder: Path) -> None:
        weights = {name: weight.detach().cpu().contiguous() for name, weight in self.state_dict().items()}
        save_file(weights, folder / EMBEDDER_FILE, metadata={name: str(x) for name, x in self.limits._asdict().items()})

    def export(self, folder: Path) -> Path:
        from plugins.pictures.seeing.projector import write_projector

        return write_projector(self.limits, self.embedder, folder)

    def describe_use(self) -> str:
        patch, size = self.limits
        values = {"image_tokens": self.limits.max_tokens, "image_size": size, "image_patch": patch}
        return Template(CARD_TEMPLATE.read_text(encoding="utf-8")).substitute(values).rstrip()


class _TextWidth:
    """The part of a text model's configuration that the embedder reads."""

    def __init__(self, width: int) -> None:
        self.hidden_size = width


def _cut_patches(png: bytes, columns: int) -> np.ndarray:
    """The patches of a fitted image row by row, as bytes of shape (patches, 3 * patch * patch)."""
    from PIL import Image

    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        pixels = np.asarray(image.convert("RGB"))
    patch = pixels.shape[1] // columns
    rows = pixels.shape[0] // patch
    blocks = pixels.reshape(rows, patch, columns, patch, CHANNELS).transpose(0, 2, 4, 1, 3)
    return blocks.reshape(rows * columns, -1)


def _scale_colors(patches: torch.Tensor, factors: tuple[float, float, float]) -> torch.Tensor:
    """Patches of bytes with red, green and blue multiplied by factors from 0 to 1, rounded to bytes as in an image."""
    colors = patches.reshape(len(patches), CHANNELS, -1) * torch.tensor(factors)[:, None]
    return colors.round().to(patches.dtype).reshape(patches.shape)


def _list_patch_places(columns: int, rows: int) -> torch.Tensor:
    """Column and row of each patch, row by row, of shape (patches, 2)."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([column.flatten(), row.flatten()], 1)


def add_image_embedder(model: Any, limits: ImageLimits, start: Path | None = None) -> None:
    """Give `model` an embedder, as `model.images`: trained and counted with the model. If the folder `start` has one, it is
    continued, else it is new.

    Raises:
        UsageError: if that of the folder has other settings, or is damaged.
    """
    embedder = ImageEmbedder(limits, model.config.hidden_size)
    if start and (stored := _read_image_settings(start)):
        if stored != limits:
            raise UsageError(
                f"student.steps: {str(start)!r} sees patches of {stored.patch} in images of {stored.size} pixels; use "
                f'{{ type = "sight", patch = {stored.patch}, size = {stored.size} }}'
            )
        _load_weights(embedder, start)
    setattr(model, IMAGE_READER, embedder.to(model.device))


def _read_image_settings(folder: Path) -> ImageLimits | None:
    """The settings of the embedder in a student's folder; None if the student sees nothing.

    Raises:
        UsageError: if the file is damaged.
    """
    file = folder / EMBEDDER_FILE
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as stored:
            values = {name: int(value) for name, value in (stored.metadata() or {}).items() if name != "format"}
            limits = ImageLimits(**values)
            if not limits.is_possible or limits.size % limits.patch:
                raise ValueError(f"no student has {limits}")
            return limits
    except Exception as error:
        raise _describe_damage(file, error) from None


def load_image_embedder(model: Any, folder: Path) -> None:
    """Give `model`, which was loaded from `folder`, the embedder that is stored there."""
    limits = _read_image_settings(folder)
    assert limits, "the caller looked"
    add_image_embedder(model, limits, folder)


def _load_weights(embedder: ImageEmbedder, folder: Path) -> None:
    file = folder / EMBEDDER_FILE
    try:
        with safe_open(file, framework="pt") as stored:
            embedder.load_state_dict({name: stored.get_tensor(name).float() for name in stored.keys()})  # noqa: SIM118  not a mapping
    except Exception as error:  # tensors that are missing, or of other shapes
        raise _describe_damage(file, error) from None


def _describe_damage(file: Path, error: Exception) -> UsageError:
    return UsageError(f"{file}: is no embedder of images: {type(error).__name__}; train the student again")


def embed_images(model: Any, ids: torch.Tensor, patches: ImagePatches) -> torch.Tensor:
    """The embeddings of all tokens, of shape (rows, tokens, width); those of images are the embeddings of their patches."""
    words: torch.Tensor = model.get_input_embeddings()(ids)
    patches = ImagePatches(*(tensor.to(words.device) for tensor in patches))
    seen = getattr(model, IMAGE_READER)(patches.values.to(words.dtype) / LIGHTEST, patches.places)
    return words.index_put((patches.rows, patches.tokens), seen.to(words.dtype))


def build_image_mask(batch: TokenBatch) -> torch.Tensor:
    """Which tokens each one attends to, of shape (rows, 1, longest, longest): those before it, itself, and its whole image."""
    longest = batch.ids.shape[1]
    image = torch.full_like(batch.ids, -1)
    for number, (row, placed) in enumerate(batch.images):
        image[row, placed.begin : placed.end] = number
    same = (image[:, :, None] == image[:, None, :]) & (image[:, :, None] >= 0)
    before = torch.ones(longest, longest, dtype=torch.bool, device=image.device).tril()
    return (same | before)[:, None]


def collect_patches(parts: Sequence[tuple[int, EncodedImage]]) -> ImagePatches:
    """Those of the images of a batch, each with its row."""
    return ImagePatches(
        torch.cat([_read_patches(placed) for _, placed in parts]),
        torch.cat([_list_patch_places(placed.image.columns, placed.image.rows) for _, placed in parts]),
        torch.cat([torch.full((placed.image.tokens,), row) for row, placed in parts]),
        torch.cat([torch.arange(placed.begin, placed.end) for _, placed in parts]),
    )


def _read_patches(placed: EncodedImage) -> torch.Tensor:
    patches = torch.from_numpy(_cut_patches(placed.image.png, placed.image.columns))
    return _scale_colors(patches, placed.color_factors) if placed.color_factors else patches


def _jitter_colors(
    conversations: Sequence[EncodedConversation], strength: float, seed: int, step: int
) -> list[EncodedConversation]:
    """The conversations of a step, with random color factors from 1 - `strength` to 1 for each image.

    The factors depend on the arguments only, so a resumed training has the same, however a step is divided into batches.
    """
    rng = random.Random(f"color jitter {step} of {seed}")

    def draw_factor() -> float:
        return rng.uniform(1 - strength, 1)

    return [
        conversation._replace(
            images=tuple(
                placed._replace(color_factors=(draw_factor(), draw_factor(), draw_factor()))
                for placed in conversation.images
            )
        )
        for conversation in conversations
    ]


class SightCode(StepCode):
    """The step `sight`: an embedder is added to the start, and images get other tints in each step of the training."""

    def __init__(self, limits: ImageLimits, color_jitter: float) -> None:
        self._limits, self._color_jitter = limits, color_jitter

    def prepare(self, start: StartModel, training: Training) -> StartModel:
        return self._add_embedder(start, training.config.start)

    def rebuild(self, start: StartModel, student: Path) -> StartModel:
        return self._add_embedder(start, read_json(student / SETTINGS_FILE)["config"]["start"])

    def _add_embedder(self, start: StartModel, name: str) -> StartModel:
        patch, size = self._limits
        add_image_embedder(start.model, self._limits, None if name in EMBEDDED_STARTS else Path(name))
        sight = f"images of up to {size} pixels a side in patches of {patch}"
        return start._replace(made_from=f"{start.made_from}, with {sight}")

    def alter_examples(self, examples: list[EncodedConversation], seed: int, step: int) -> list[EncodedConversation]:
        return _jitter_colors(examples, self._color_jitter, seed, step) if self._color_jitter else examples

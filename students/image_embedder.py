"""The embedder of images: each patch becomes one token of the student, without a vision encoder.

It is Transformers' embedder of Gemma 4 (patches, their places, one projection), in front of a Llama. Knows patches and weights;
knows no conversation. Imported by each training: loads what images need only for a student that sees.
"""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from core.config.students import ImagesConfig
from core.errors import UsageError
from core.shared_options import EMBEDDER_FILE

EMBEDDER = "images"
"""The name of the embedder in a model."""
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


class ImageEmbedder(nn.Module):
    """Embeds patches as wide as the model's tokens."""

    def __init__(self, config: ImagesConfig, width: int) -> None:
        """New weights, from torch's global generator."""
        from transformers.models.gemma4_unified.configuration_gemma4_unified import Gemma4UnifiedVisionConfig
        from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedVisionEmbedder

        super().__init__()
        self.config = config
        side = config.size // config.patch
        settings = Gemma4UnifiedVisionConfig(
            patch_size=config.patch, pooling_kernel_size=1, mm_embed_dim=width, mm_posemb_size=side, output_proj_dims=width
        )  # fmt: skip
        assert settings.model_patch_size == config.patch
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


class _TextWidth:
    """The part of a text model's configuration that the embedder reads."""

    def __init__(self, width: int) -> None:
        self.hidden_size = width


def cut_patches(png: bytes, columns: int) -> np.ndarray:
    """The patches of a fitted image row by row, as bytes of shape (patches, 3 * patch * patch)."""
    from PIL import Image

    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        pixels = np.asarray(image.convert("RGB"))
    patch = pixels.shape[1] // columns
    rows = pixels.shape[0] // patch
    blocks = pixels.reshape(rows, patch, columns, patch, CHANNELS).transpose(0, 2, 4, 1, 3)
    return blocks.reshape(rows * columns, -1)


def scale_colors(patches: torch.Tensor, factors: tuple[float, float, float]) -> torch.Tensor:
    """Patches of bytes with red, green and blue multiplied by factors from 0 to 1, rounded to bytes as in an image."""
    colors = patches.reshape(len(patches), CHANNELS, -1) * torch.tensor(factors)[:, None]
    return colors.round().to(patches.dtype).reshape(patches.shape)


def list_patch_places(columns: int, rows: int) -> torch.Tensor:
    """Column and row of each patch, row by row, of shape (patches, 2)."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([column.flatten(), row.flatten()], 1)


def add_image_embedder(model: Any, config: ImagesConfig, start: Path | None = None) -> None:
    """Give `model` an embedder, as `model.images`: trained and counted with the model. If the folder `start` has one, it is
    continued, else it is new.

    Raises:
        UsageError: if that of the folder has other settings, or is damaged.
    """
    embedder = ImageEmbedder(config, model.config.hidden_size)
    if start and (stored := read_image_settings(start)):
        if (stored.patch, stored.size) != (config.patch, config.size):
            raise UsageError(
                f"student.images: {str(start)!r} sees patches of {stored.patch} in images of {stored.size} pixels; use "
                f"images = {{ patch = {stored.patch}, size = {stored.size} }}"
            )
        _load_weights(embedder, start)
    setattr(model, EMBEDDER, embedder.to(model.device))


def find_image_embedder(model: nn.Module) -> ImageEmbedder | None:
    return getattr(model, EMBEDDER, None)


def read_image_settings(folder: Path) -> ImagesConfig | None:
    """The settings of the embedder in a student's folder; None if the student sees nothing.

    Raises:
        UsageError: if the file is damaged.
    """
    file = folder / EMBEDDER_FILE
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as stored:
            return ImagesConfig.model_validate(
                {name: int(value) for name, value in (stored.metadata() or {}).items() if name != "format"}
            )
    except Exception as error:
        raise _describe_damage(file, error) from None


def load_image_embedder(model: Any, folder: Path) -> None:
    """Give `model`, which was loaded from `folder`, the embedder that is stored there; nothing if there is none."""
    if config := read_image_settings(folder):
        add_image_embedder(model, config, folder)


def _load_weights(embedder: ImageEmbedder, folder: Path) -> None:
    file = folder / EMBEDDER_FILE
    try:
        with safe_open(file, framework="pt") as stored:
            embedder.load_state_dict({name: stored.get_tensor(name).float() for name in stored.keys()})  # noqa: SIM118  not a mapping
    except Exception as error:  # tensors that are missing, or of other shapes
        raise _describe_damage(file, error) from None


def _describe_damage(file: Path, error: Exception) -> UsageError:
    return UsageError(f"{file}: is no embedder of images: {type(error).__name__}; train the student again")


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write the text model as transformers loads it, and its embedder of images, if it has one, to a file of its own."""
    embedder = find_image_embedder(model)
    if embedder is None:
        model.save_pretrained(folder)
        return
    delattr(model, EMBEDDER)
    try:
        model.save_pretrained(folder)
    finally:
        setattr(model, EMBEDDER, embedder)
    weights = {name: weight.detach().cpu().contiguous() for name, weight in embedder.state_dict().items()}
    settings = {name: str(value) for name, value in embedder.config.model_dump(include={"patch", "size"}).items()}
    save_file(weights, folder / EMBEDDER_FILE, metadata=settings)


def embed_images(model: Any, ids: torch.Tensor, patches: ImagePatches) -> torch.Tensor:
    """The embeddings of all tokens, of shape (rows, tokens, width); those of images are the embeddings of their patches."""
    words: torch.Tensor = model.get_input_embeddings()(ids)
    seen = getattr(model, EMBEDDER)(patches.values.to(words.dtype) / LIGHTEST, patches.places)
    return words.index_put((patches.rows, patches.tokens), seen.to(words.dtype))

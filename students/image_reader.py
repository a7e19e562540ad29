"""What reads images in a model: a module of a plugin, as `model.images`. Knows neither patches nor weights."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from core.plugins import load_part
from core.shared_options import EMBEDDER_FILE
from core.weights.gguf_files import ImageLimits
from students.token_batches import TokenBatch

IMAGE_READER = "images"
"""The name of the module in a model."""


class ImageReader(nn.Module):
    """Reads images as some of a model's tokens. It is trained and counted with the model, and stored in a file of its own. The
    plugin has a function that gives a model the reader of a folder, as a part of kind `reader` with the file's name.
    """

    limits: ImageLimits

    def build_inputs(self, model: PreTrainedModel, batch: TokenBatch) -> dict[str, torch.Tensor]:
        """The model's inputs for a batch with images: embeddings, and which token attends to which."""
        raise NotImplementedError

    def write(self, folder: Path) -> None:
        """Store it as `EMBEDDER_FILE`."""
        raise NotImplementedError

    def export(self, folder: Path) -> Path:
        """Write `PROJECTOR_FILE`, whole or not at all, which llama.cpp loads next to the model."""
        raise NotImplementedError

    def describe_use(self) -> str:
        """How to ask a student with it, in Markdown, for its card."""
        raise NotImplementedError


def find_image_reader(model: nn.Module) -> ImageReader | None:
    return getattr(model, IMAGE_READER, None)


def load_image_reader(model: PreTrainedModel, folder: Path) -> None:
    """Give `model`, which was loaded from `folder`, the reader that is stored there; nothing if there is none.

    Raises:
        UsageError: if no plugin has such readers, or the file is damaged.
    """
    if (folder / EMBEDDER_FILE).is_file():
        load_part("reader", EMBEDDER_FILE)(model, folder)


def save_model(model: Any, folder: Path) -> None:
    """Write the text model as transformers loads it, and its reader of images, if it has one, to a file of its own."""
    reader = find_image_reader(model)
    if reader is None:
        model.save_pretrained(folder)
        return
    delattr(model, IMAGE_READER)
    try:
        model.save_pretrained(folder)
    finally:
        setattr(model, IMAGE_READER, reader)
    reader.write(folder)

"""A feature dictionary on disk: `cfg.json` and `sae.safetensors` in the layout of EleutherAI's sparsify, so that sparsify and
delphi load it; `reader.json`, the activations that it reads; `training.json`; and in `random/` the random dictionary.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from core.errors import StoreError, UsageError
from core.storage.atomic_files import hash_file, read_json, write_atomically, write_json
from core.storage.hub_files import find_cached_model
from plugins.features.config import DICTIONARY_FILES, EMBEDDED_MODEL
from plugins.features.dictionaries.topk_autoencoder import TopKAutoencoder

if TYPE_CHECKING:
    from plugins.features.dictionaries.activation_reader import ActivationReader

WEIGHTS_FILE, READER_FILE = DICTIONARY_FILES
CONFIG_FILE, TRAINING_FILE, RANDOM_FOLDER = "cfg.json", "training.json", "random"


class ReaderRecord(BaseModel):
    """Which activations a dictionary reads."""

    model_config = ConfigDict(frozen=True)

    model: str
    digest: str
    """Of the model's files."""
    layer: int = Field(ge=0)
    context: int = Field(ge=1)
    """The most tokens that are read of one document."""
    norm_limit: float = Field(gt=0, allow_inf_nan=False)
    """A token whose activation has a larger norm is left out: it is one of the massive ones, which carry no content."""

    @property
    def hookpoint(self) -> str:
        """As sparsify names it."""
        return f"layers.{self.layer}"


class TrainingRecord(BaseModel):
    """How a dictionary was made, and how good it is."""

    model_config = ConfigDict(frozen=True)

    explained_variance: float
    """On held-out tokens."""
    random_explained_variance: float
    """That of the random dictionary of the same shape, on the same tokens."""
    dead_share: float
    """Share of the latents that are active at none of the tokens."""
    documents: int
    tokens: int
    """Read for training, or for measuring a published dictionary."""
    held_out_tokens: int
    left_out_tokens: int
    """Over the norm limit."""
    latents: int
    k: int
    made_from: str
    """`trained`, or the published dictionary."""
    settings: dict[str, Any]


class FeatureDictionary(NamedTuple):
    """A dictionary, its control, and what is known of it."""

    autoencoder: TopKAutoencoder
    random: TopKAutoencoder
    reader: ReaderRecord
    training: TrainingRecord
    digest: str
    """Of both dictionaries' weights and of the reader."""

    def open_reader(self) -> "ActivationReader":
        """Nothing is fetched, and nothing is loaded before its digest is compared: the dictionary may be a stranger's.

        Raises:
            UsageError: if the model is not on this machine, or is not the one that the dictionary was made for.
        """
        from plugins.features.dictionaries.activation_reader import (  # imports transformers
            ActivationReader,
            find_model_digest,
        )

        name = self.reader.model
        local = name == EMBEDDED_MODEL or Path(name).is_dir()
        snapshot = None if local else find_cached_model(name, READER_FILE)
        if find_model_digest(name, snapshot) != self.reader.digest:
            raise UsageError(
                f"features: the dictionary reads {self.reader.model} as it was when the dictionary was made, and its files have "
                "changed since; make the dictionary again (stillhouse features)"
            )
        return ActivationReader(name, self.reader.layer, snapshot)


def write_dictionary(
    folder: Path, autoencoder: TopKAutoencoder, random: TopKAutoencoder, reader: ReaderRecord, training: TrainingRecord
) -> None:
    """Write the folder, whole or not at all.

    Raises:
        StoreError: if it cannot be written.
    """
    with write_atomically(folder) as partial:
        write_autoencoder(partial, autoencoder)
        write_autoencoder(partial / RANDOM_FOLDER, random)
        write_json(partial / READER_FILE, {**reader.model_dump(), "hookpoint": reader.hookpoint})
        write_json(partial / TRAINING_FILE, training.model_dump())


def write_autoencoder(folder: Path, autoencoder: TopKAutoencoder) -> None:
    """Two files in the layout of sparsify 1.3."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        "encoder.weight": autoencoder.encoder, "encoder.bias": autoencoder.bias,
        "W_dec": autoencoder.decoder, "b_dec": autoencoder.centre,
    }  # fmt: skip
    save_file({name: part.detach().float().cpu().contiguous() for name, part in tensors.items()}, folder / WEIGHTS_FILE)
    config = {
        "activation": "topk", "expansion_factor": max(1, autoencoder.latents // autoencoder.width), "normalize_decoder": True,
        "num_latents": autoencoder.latents, "k": autoencoder.k, "multi_topk": False, "skip_connection": False,
        "transcode": False, "d_in": autoencoder.width,
    }  # fmt: skip
    write_json(folder / CONFIG_FILE, config)


def load_dictionary(folder: Path) -> FeatureDictionary:
    """The dictionary that `stillhouse features` wrote to `folder`.

    Raises:
        UsageError: if there is none, or a file is damaged.
    """
    missing = [
        name for name in (CONFIG_FILE, WEIGHTS_FILE, READER_FILE, TRAINING_FILE) if not (folder / name).is_file()
    ]
    if missing:
        raise UsageError(
            f"{folder}: is no feature dictionary ({missing[0]} is missing); make one: stillhouse features TEXT --out {folder}"
        )
    try:
        reader = ReaderRecord.model_validate(read_json(folder / READER_FILE))
        training = TrainingRecord.model_validate(read_json(folder / TRAINING_FILE))
        autoencoder, random = read_autoencoder(folder), read_autoencoder(folder / RANDOM_FOLDER)
        if random.width != autoencoder.width:
            raise ValueError(f"{RANDOM_FOLDER} has the width {random.width}, not {autoencoder.width}")
    except (ValidationError, StoreError, ValueError, SafetensorError, OSError) as error:
        reason = str(error).split("\n", 1)[0]
        raise UsageError(
            f"{folder}: is a damaged feature dictionary: {reason}; make it again (stillhouse features)"
        ) from None
    files = [folder / WEIGHTS_FILE, folder / RANDOM_FOLDER / WEIGHTS_FILE, folder / READER_FILE]
    return FeatureDictionary(autoencoder, random, reader, training, "-".join(hash_file(file)[:16] for file in files))


def read_autoencoder(folder: Path, k: int | None = None) -> TopKAutoencoder:
    """An autoencoder in the layout of sparsify; `k` replaces its own.

    Raises:
        ValueError: if it is none that can be read here.
        StoreError, SafetensorError, OSError: if a file is missing or damaged.
    """
    config = read_config(folder)
    for key, wanted in (("activation", "topk"), ("transcode", False), ("skip_connection", False), ("signed", False)):
        if config.get(key, wanted) != wanted:
            raise ValueError(f"{folder / CONFIG_FILE}: {key} is {config[key]!r}; only TopK autoencoders are read")
    return build_autoencoder(load_file(folder / WEIGHTS_FILE), k or config.get("k"), folder)


def read_config(folder: Path) -> dict[str, Any]:
    """The settings of an autoencoder. Raises ValueError if they are no object, and StoreError for a file that cannot be read."""
    config = read_json(folder / CONFIG_FILE)
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG_FILE}: is no JSON object")  # noqa: TRY004
    return config


def build_autoencoder(tensors: dict[str, torch.Tensor], k: Any, where: Path) -> TopKAutoencoder:
    """From tensors under sparsify's names. Raises ValueError if one is missing, has another shape, or is not finite."""
    names = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
    if missing := [name for name in names if name not in tensors]:
        raise ValueError(f"{where}: has no tensor {missing[0]!r}; it has {', '.join(sorted(tensors)[:6])}")
    encoder, bias, decoder, centre = (tensors[name].float() for name in names)
    if encoder.ndim != 2:
        raise ValueError(f"{where}: encoder.weight has {encoder.ndim} dimensions, not 2")
    shapes = {"encoder.bias": (bias.shape, encoder.shape[:1]), "W_dec": (decoder.shape, encoder.shape)}
    shapes["b_dec"] = (centre.shape, encoder.shape[1:])
    for name, (shape, wanted) in shapes.items():
        if shape != wanted:
            raise ValueError(f"{where}: {name} has the shape {tuple(shape)}, not {tuple(wanted)}")
    if not all(bool(part.isfinite().all()) for part in (encoder, bias, decoder, centre)):
        raise ValueError(f"{where}: has values that are no numbers")
    if not isinstance(k, int) or not 0 < k < len(encoder):
        raise ValueError(f"{where}: k must be a number from 1 to {len(encoder) - 1}, not {k!r}; give it by --set k=N")
    return TopKAutoencoder(encoder, bias, decoder, centre, k)

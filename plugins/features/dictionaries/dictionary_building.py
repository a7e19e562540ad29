"""Makes a feature dictionary from texts: reads activations, trains or takes a published autoencoder, measures it next to the
random dictionary, and writes the folder. Knows no dataset and no command.

What is read and learned so far is kept in a hidden folder next to the result: the same call resumes after an interruption.
"""

import random
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from math import isnan
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from core.errors import RunFailed, UsageError
from core.sample import json_digest
from core.storage.atomic_files import check_writable, write_atomically
from plugins.features.config import EMBEDDED_MODEL, DictionarySettings
from plugins.features.dictionaries.activation_reader import ActivationReader, EncodedText
from plugins.features.dictionaries.autoencoder_training import TrainingStatus, train_autoencoder
from plugins.features.dictionaries.dictionary_files import ReaderRecord, TrainingRecord, write_dictionary
from plugins.features.dictionaries.published_dictionaries import PublishedDictionary, read_published_dictionary
from plugins.features.dictionaries.topk_autoencoder import TopKAutoencoder, build_random_dictionary, measure_quality

DEFAULT_EXPANSION = 4
"""Latents per dimension of the model."""
NORM_PERCENTILE = 0.995
"""Activations with a larger norm are left out: at the middle layer of the embedded teacher the largest has a norm of 8,557 and
the median 159, and a dictionary that sees them learns nothing else."""
HELD_OUT_EVERY = 20
"""One of this number of documents is held out."""
MIN_DOCUMENTS = 40
MEASURED_TOKENS = 50_000
"""Training tokens, evenly spaced, to which the random dictionary is fitted. A feature that is active at none of them, nor at a
held-out one, is dead."""
SHARD_TOKENS = 20_000
"""Tokens that an interruption loses at most."""


def build_dictionary(
    texts: Sequence[str],
    out: Path,
    settings: DictionarySettings,
    published: str | None = None,
    progress: Callable[[str], None] = lambda _message: None,
) -> TrainingRecord:
    """Write the dictionary to `out`; `progress` may raise to stop, and the same call resumes.

    Raises:
        UsageError: if `out` exists, the texts are too few, or model or published dictionary cannot be used.
        RunFailed: if the activations or the loss are no numbers.
        StoreError: if `out` cannot be written.
    """
    if out.exists():
        raise UsageError(f"{out}: exists already; name another folder, or remove it")
    check_writable(out)
    different = _list_different_texts(texts)
    taken = _read_published(published, settings) if published else None
    reader = _open_reader(settings, published, taken)
    latents = _choose_latents(settings, taken, reader)

    chosen = _choose_texts(reader, different, settings)
    identity = _digest_call(settings, published, reader, chosen)
    work = locate_work_folder(out)
    _open_work_folder(work, identity)
    tokens = _leave_out_massive(_capture(reader, chosen, work, progress), reader.device)
    if taken:
        autoencoder = taken.autoencoder.to(reader.device)
    else:
        show = partial(_show_training, progress)
        autoencoder = train_autoencoder(tokens.training, latents, settings, work / "training.pt", identity, show)
    progress("features: measuring the dictionary and the random one")
    control, measured = _measure_with_control(autoencoder, tokens, settings.seed + 1)

    record = TrainingRecord(
        **measured._asdict(), documents=len(chosen), tokens=tokens.training_read, held_out_tokens=tokens.held_out_read,
        left_out_tokens=tokens.left_out, latents=latents, k=autoencoder.k, made_from=published or "trained",
        settings=settings.model_dump(),
    )  # fmt: skip
    described = ReaderRecord(
        model=reader.name, digest=reader.digest, layer=reader.layer, context=settings.context, norm_limit=tokens.norm_limit
    )  # fmt: skip
    write_dictionary(out, autoencoder, control, described, record)
    shutil.rmtree(work, ignore_errors=True)
    return record


def locate_work_folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.checkpoint")


def _list_different_texts(texts: Sequence[str]) -> list[str]:
    different = list(dict.fromkeys(text for text in texts if text.strip()))
    if len(different) < MIN_DOCUMENTS:
        raise UsageError(f"features: {len(different)} different texts are too few; give {MIN_DOCUMENTS} at least")
    return different


def _read_published(published: str, settings: DictionarySettings) -> PublishedDictionary:
    return read_published_dictionary(published, settings.k if "k" in settings.model_fields_set else None)


def _open_reader(
    settings: DictionarySettings, published: str | None, taken: PublishedDictionary | None
) -> ActivationReader:
    """The model, whose activations must have the width that a published dictionary reads."""
    reader = ActivationReader(*_choose_model(settings, taken))
    if taken and taken.autoencoder.width != reader.width:
        raise UsageError(
            f"--from {published}: reads activations of {taken.autoencoder.width} dimensions, and those of {reader.name} have "
            f"{reader.width}; name its own model (--set model=NAME)"
        )
    return reader


def _choose_model(settings: DictionarySettings, taken: PublishedDictionary | None) -> tuple[str, int | None]:
    """Model and layer: as set, else as the published dictionary says."""
    if taken is None:
        return settings.model, settings.layer
    model = settings.model if "model" in settings.model_fields_set else taken.model
    layer = settings.layer if settings.layer is not None else taken.layer
    if model is None:
        raise UsageError(
            f"--from: its files do not name its model; add --set model=NAME, or --set model={EMBEDDED_MODEL}"
        )
    if layer is None:
        raise UsageError("--from: its files do not name its layer; add --set layer=N, from 0 on")
    return model, layer


def _choose_latents(settings: DictionarySettings, taken: PublishedDictionary | None, reader: ActivationReader) -> int:
    if taken:
        return taken.autoencoder.latents
    latents = settings.latents or DEFAULT_EXPANSION * reader.width
    if settings.k >= latents:
        raise UsageError(f"--set k={settings.k}: must be below the number of latents, {latents:,}")
    return latents


def _choose_texts(reader: ActivationReader, texts: list[str], settings: DictionarySettings) -> list[EncodedText]:
    """As many shuffled texts as have the wanted number of tokens."""
    random.Random(settings.seed).shuffle(texts)
    chosen: list[EncodedText] = []
    total = 0
    for start in range(0, len(texts), 256):
        for encoded in reader.encode(texts[start : start + 256], settings.context):
            if encoded.ids:
                chosen.append(encoded)
                total += len(encoded.ids)
            if total >= settings.tokens:
                break
        if total >= settings.tokens:
            break
    if len(chosen) < MIN_DOCUMENTS:
        raise UsageError(
            f"--set tokens={settings.tokens}: these are only {len(chosen)} documents of up to {settings.context:,} tokens; "
            f"at least {MIN_DOCUMENTS} are needed: raise tokens, or lower context"
        )
    return chosen


def _digest_call(
    settings: DictionarySettings, published: str | None, reader: ActivationReader, texts: Sequence[EncodedText]
) -> str:
    """The identity of a call: all on which its result depends."""
    return json_digest([
        settings.model_dump(), published or "", reader.digest, reader.layer, [text.ids for text in texts],
        version("torch"), version("transformers"),
    ])  # fmt: skip


def _open_work_folder(work: Path, identity: str) -> None:
    """Empty unless it has the work of the same call."""
    marker = work / "identity"
    if not (marker.is_file() and marker.read_text(encoding="ascii") == identity):
        shutil.rmtree(work, ignore_errors=True)
        with write_atomically(marker) as partial:
            partial.write_text(identity, encoding="ascii")


def _capture(
    reader: ActivationReader, texts: Sequence[EncodedText], work: Path, progress: Callable[[str], None]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The activations of all texts, and of the held-out ones, each of shape (tokens, width)."""
    shards: list[list[int]] = [[]]
    room = SHARD_TOKENS
    for place, text in enumerate(texts):
        if room <= 0:
            shards.append([])
            room = SHARD_TOKENS
        shards[-1].append(place)
        room -= len(text.ids)
    total = sum(len(text.ids) for text in texts)
    read = 0
    sides: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for number, places in enumerate(shards):
        file = work / f"activations-{number:05d}.safetensors"
        stored = _read_shard(file)
        if stored is None:
            before = read
            stored = _read_activations(
                reader, [texts[place] for place in places], places,
                lambda done, before=before: progress(f"features: {before + done:,} of {total:,} tokens read"),  # type: ignore[misc]
            )  # fmt: skip
            with write_atomically(file) as partial:
                save_file(stored, partial)
        read += sum(len(texts[place].ids) for place in places)
        held = stored["owners"] % HELD_OUT_EVERY == 0
        for side, mask in zip(sides, (~held, held), strict=True):
            side.append(stored["activations"][mask])
    return torch.cat(sides[0]), torch.cat(sides[1])


def _read_shard(file: Path) -> dict[str, torch.Tensor] | None:
    if not file.is_file():
        return None
    try:
        return load_file(file)
    except (SafetensorError, OSError):
        return None


def _read_activations(
    reader: ActivationReader, texts: Sequence[EncodedText], places: Sequence[int], progress: Callable[[int], None]
) -> dict[str, torch.Tensor]:
    parts, owners = [], []
    for batch in reader.read(texts, progress):
        parts.append(batch.activations.cpu())
        owners.append(torch.tensor([places[place] for place in batch.places])[batch.owners])
    return {"activations": torch.cat(parts), "owners": torch.cat(owners)}


class _ReadTokens(NamedTuple):
    """Activations without the massive ones, each side of shape (tokens, width)."""

    training: torch.Tensor
    held_out: torch.Tensor
    norm_limit: float
    training_read: int
    """Tokens with the massive ones."""
    held_out_read: int

    @property
    def left_out(self) -> int:
        return self.training_read + self.held_out_read - len(self.training) - len(self.held_out)


def _leave_out_massive(sides: tuple[torch.Tensor, torch.Tensor], device: torch.device) -> _ReadTokens:
    """The activations for training and the held-out ones on `device`, up to a norm that both together decide."""
    norms = torch.cat(sides).float().norm(dim=1)
    limit = float(norms.kthvalue(max(1, int(NORM_PERCENTILE * len(norms)))).values)
    training, held_out = (part[part.float().norm(dim=1) <= limit].to(device) for part in sides)
    return _ReadTokens(training, held_out, limit, *map(len, sides))


def _show_training(progress: Callable[[str], None], status: TrainingStatus) -> None:
    progress(
        f"features: training step {status.step:,} of {status.steps:,}, explained variance {status.explained_variance:.3f}"
    )


class _MeasuredDictionary(NamedTuple):
    """The fields of a `TrainingRecord` that are measured."""

    explained_variance: float
    random_explained_variance: float
    dead_share: float


def _measure_with_control(
    autoencoder: TopKAutoencoder, tokens: _ReadTokens, seed: int
) -> tuple[TopKAutoencoder, _MeasuredDictionary]:
    """The random dictionary, and the quality of both on held-out tokens."""
    spaced = tokens.training[:: -(-len(tokens.training) // MEASURED_TOKENS)]
    control = build_random_dictionary(autoencoder.to(torch.device("cpu")), spaced.cpu(), seed)
    control = control.to(spaced.device)
    quality, seen = measure_quality(autoencoder, tokens.held_out), measure_quality(autoencoder, spaced)
    if isnan(quality.explained_variance):
        raise RunFailed(
            "features: the dictionary computes values that are no numbers; train it again with a lower learning_rate"
        )
    dead_share = 1 - float((quality.active | seen.active).float().mean())
    random_variance = measure_quality(control, tokens.held_out).explained_variance
    return control, _MeasuredDictionary(quality.explained_variance, random_variance, dead_share)

"""Trains a TopK autoencoder on stored activations, with checkpoints. Knows no text and no model.

The order of the tokens depends on seed and step only, so an interrupted training resumes to the same weights.
"""

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch.nn.functional import linear

from core.errors import RunFailed
from core.storage.atomic_files import write_atomically
from plugins.features.config import DictionarySettings
from plugins.features.dictionaries.topk_autoencoder import ActiveLatents, TopKAutoencoder, decode_latents

DEAD_TOKENS = 30_000
"""A latent that was active at none of this number of consecutive tokens gets the auxiliary loss."""
AUXILIARY_WEIGHT = 1 / 32
"""Weight of the auxiliary loss (AuxK; Gao et al. 2024, appendix A.2)."""
DECAY_SHARE = 0.2
"""Share of the steps, at the end, over which the learning rate falls to zero."""
CHECKPOINT_STEPS = 250
PROGRESS_STEPS = 20


class TrainingStatus(NamedTuple):
    step: int
    steps: int
    explained_variance: float
    """Of the last batch."""


class _Weights(NamedTuple):
    """What is learned, in units of the normalized activations."""

    encoder: torch.Tensor
    bias: torch.Tensor
    decoder: torch.Tensor
    centre: torch.Tensor


def train_autoencoder(
    activations: torch.Tensor,
    latents: int,
    settings: DictionarySettings,
    checkpoint: Path,
    identity: str,
    progress: Callable[[TrainingStatus], None],
) -> TopKAutoencoder:
    """Train on `activations`, of shape (tokens, width), and keep the state in `checkpoint`, which is read only if it has this
    `identity`. `progress` may raise to stop; the state is saved first.

    Raises:
        RunFailed: if the loss becomes no number, or all activations are equal.
    """
    mean = activations.float().mean(0)
    scale = float((activations.float() - mean).square().mean().sqrt())
    if not scale > 0:
        raise RunFailed(
            "features: all activations are equal, so there is nothing to learn; read more and different texts"
        )
    weights = _initialize(latents, activations.shape[1], settings.seed, activations.device)
    optimizer = torch.optim.Adam(list(weights), lr=settings.learning_rate)
    silent = torch.zeros(latents, device=activations.device)
    batch = min(settings.batch, len(activations))
    steps = max(1, settings.epochs * len(activations) // batch)
    first = _load(checkpoint, identity, weights, optimizer, silent)

    def save(step: int) -> None:
        state = {
            "identity": identity, "step": step, "weights": [part.detach() for part in weights],
            "optimizer": optimizer.state_dict(), "silent": silent,
        }  # fmt: skip
        with write_atomically(checkpoint) as partial:
            torch.save(state, partial)

    order = _TokenOrder(len(activations), batch, settings.seed)
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (steps - step) / max(1.0, DECAY_SHARE * steps))
        places = order.choose(step).to(activations.device)
        explained = _take_step((activations[places].float() - mean) / scale, weights, optimizer, silent, settings.k)
        if explained != explained:
            raise RunFailed("features: the loss is no number; set a lower learning_rate")
        if (step + 1) % CHECKPOINT_STEPS == 0:
            save(step + 1)
        if (step + 1) % PROGRESS_STEPS == 0 or step + 1 == steps:
            try:
                progress(TrainingStatus(step + 1, steps, explained))
            except BaseException:
                save(step + 1)
                raise
    learned = [part.detach() for part in weights]
    # In units of the activations: encoder and decoder have no unit, so only the biases change.
    return TopKAutoencoder(learned[0], learned[1] * scale, learned[2], mean + scale * learned[3], settings.k)


def _initialize(latents: int, width: int, seed: int, device: torch.device) -> _Weights:
    """The decoder starts as the transposed encoder, with rows of norm 1 (Gao et al. 2024, appendix A.1)."""
    rows = torch.randn(latents, width, generator=torch.Generator().manual_seed(seed))
    rows /= rows.norm(dim=1, keepdim=True)
    parts = (rows, torch.zeros(latents), rows.clone(), torch.zeros(width))
    return _Weights(*(part.to(device).requires_grad_() for part in parts))


def _take_step(
    batch: torch.Tensor, weights: _Weights, optimizer: torch.optim.Optimizer, silent: torch.Tensor, k: int
) -> float:
    """One step; the explained variance of the batch before it."""
    width = batch.shape[1]
    with torch.autocast(batch.device.type, dtype=torch.bfloat16):
        latents = linear(batch - weights.centre, weights.encoder, weights.bias).relu()
    latents = latents.float()
    active = ActiveLatents(*latents.topk(k, dim=-1, sorted=False))
    error = batch - decode_latents(active, weights.decoder) - weights.centre
    loss = error.square().sum(1).mean() / width
    silent += len(batch)
    silent[active.indices[active.values > 0]] = 0
    dead = silent > DEAD_TOKENS
    if count := int(dead.sum()):
        revived = ActiveLatents(*latents.where(dead, 0).topk(min(max(k, width // 2), count), dim=-1, sorted=False))
        missed = (error.detach() - decode_latents(revived, weights.decoder)).square().sum(1).mean() / width
        loss = loss + AUXILIARY_WEIGHT * missed
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    with torch.no_grad():
        weights.decoder.div_(weights.decoder.norm(dim=1, keepdim=True).clamp_min(1e-8))
        return 1 - float(error.square().sum() / (batch - batch.mean(0)).square().sum().clamp_min(1e-12))


class _TokenOrder:
    """A new order of all tokens in each epoch; the same for the same step."""

    def __init__(self, tokens: int, batch: int, seed: int) -> None:
        self._tokens, self._batch, self._seed = tokens, batch, seed
        self._epoch = -1
        self._order = torch.zeros(0, dtype=torch.long)

    def choose(self, step: int) -> torch.Tensor:
        per_epoch = max(1, self._tokens // self._batch)
        epoch, place = divmod(step, per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed((self._seed << 20) + epoch)
            self._epoch, self._order = epoch, torch.randperm(self._tokens, generator=generator)
        return self._order[place * self._batch : (place + 1) * self._batch]


def _load(
    checkpoint: Path, identity: str, weights: _Weights, optimizer: torch.optim.Optimizer, silent: torch.Tensor
) -> int:
    """Restore the state of this training; the number of steps done."""
    if not checkpoint.exists():
        return 0
    try:
        state: dict[str, Any] = torch.load(checkpoint, map_location=silent.device, weights_only=True)
    except (OSError, RuntimeError, UnpicklingError, EOFError):
        return 0
    if state.get("identity") != identity:
        return 0
    with torch.no_grad():
        for part, stored in zip(weights, state["weights"], strict=True):
            part.copy_(stored)
        silent.copy_(state["silent"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])

"""A TopK sparse autoencoder (Gao et al. 2024, arXiv 2406.04093), and the random dictionary of the same shape, its control.

Knows activations only; files, training and texts are in other modules.
"""

from typing import NamedTuple, Self

import torch
from torch.nn.functional import embedding_bag, linear


class ActiveLatents(NamedTuple):
    """The k largest latents of each token; a value may be zero, which is not active."""

    values: torch.Tensor
    """Of shape (tokens, k)."""
    indices: torch.Tensor
    """Of shape (tokens, k)."""


class TopKAutoencoder(NamedTuple):
    """Encoder and decoder, in the units of the model's activations.

    A token is encoded as `topk(relu(encoder @ (x - centre) + bias))`, as sparsify does.
    """

    encoder: torch.Tensor
    """Of shape (latents, width)."""
    bias: torch.Tensor
    """Of shape (latents,)."""
    decoder: torch.Tensor
    """Of shape (latents, width)."""
    centre: torch.Tensor
    """Subtracted before the encoder and added after the decoder; of shape (width,)."""
    k: int

    @property
    def latents(self) -> int:
        return int(self.encoder.shape[0])

    @property
    def width(self) -> int:
        return int(self.encoder.shape[1])

    def to(self, device: torch.device) -> Self:
        return self._replace(**{name: getattr(self, name).to(device) for name in self._fields if name != "k"})

    def encode(self, activations: torch.Tensor) -> ActiveLatents:
        """`activations`: of shape (tokens, width)."""
        latents = linear(activations.float() - self.centre, self.encoder, self.bias).relu_()
        return ActiveLatents(*latents.topk(self.k, dim=-1, sorted=False))

    def decode(self, active: ActiveLatents) -> torch.Tensor:
        return decode_latents(active, self.decoder) + self.centre


def decode_latents(active: ActiveLatents, decoder: torch.Tensor) -> torch.Tensor:
    """The weighted sum of the decoder's rows, of shape (tokens, width)."""
    return embedding_bag(active.indices, decoder, per_sample_weights=active.values, mode="sum")


class DictionaryQuality(NamedTuple):
    """How well an autoencoder rebuilds activations."""

    explained_variance: float
    """1 - (squared error) / (squared distance to the mean), over all tokens and dimensions."""
    active: torch.Tensor
    """By latent: whether it was active at a token."""


def measure_quality(autoencoder: TopKAutoencoder, activations: torch.Tensor, batch: int = 2_048) -> DictionaryQuality:
    """`activations`: of shape (tokens, width)."""
    centre = activations.float().mean(0)
    error = total = 0.0
    active = torch.zeros(autoencoder.latents, dtype=torch.bool)
    for part in activations.split(batch):  # type: ignore[no-untyped-call]
        found = autoencoder.encode(part)
        error += float((part.float() - autoencoder.decode(found)).square().sum())
        total += float((part.float() - centre).square().sum())
        active[found.indices[found.values > 0].cpu()] = True
    return DictionaryQuality(1 - error / max(total, 1e-12), active)


def build_random_dictionary(like: TopKAutoencoder, activations: torch.Tensor, seed: int) -> TopKAutoencoder:
    """A dictionary of as many random directions and the same k, whose scale is fitted to `activations` by least squares.

    What it finds as well, an autoencoder did not learn (Korznikov et al. 2026, arXiv 2602.14111).
    """
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(like.latents, like.width, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    centre = activations.float().mean(0)
    random = TopKAutoencoder(directions, torch.zeros(like.latents), directions, centre, like.k)
    product = square = 0.0
    for part in activations.split(2_048):  # type: ignore[no-untyped-call]
        rebuilt = random.decode(random.encode(part)) - centre
        product += float((rebuilt * (part.float() - centre)).sum())
        square += float(rebuilt.square().sum())
    return random._replace(decoder=directions * (product / max(square, 1e-12)))

"""Features of documents by a dictionary and by its control, from one reading of the model; where in a text a feature is active.

Knows no dataset. A token over the norm limit of the dictionary has no feature.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
import torch

from plugins.features.dictionaries.activation_reader import ActivationReader, EncodedText
from plugins.features.dictionaries.dictionary_files import FeatureDictionary
from plugins.features.dictionaries.topk_autoencoder import ActiveLatents, TopKAutoencoder
from plugins.features.lacking_features import PooledFeatures


class BothFeatures(NamedTuple):
    """The features of the same documents by both dictionaries."""

    learned: PooledFeatures
    random: PooledFeatures


_Row = tuple[np.ndarray, np.ndarray]
_NO_ROW: _Row = (np.zeros(0, np.int64), np.zeros(0, np.float32))


class TokenFeatures(NamedTuple):
    """The active latents of tokens, one entry for each token and latent."""

    owners: np.ndarray
    """The text of each entry."""
    positions: np.ndarray
    """The token of each entry in its text."""
    latents: np.ndarray
    values: np.ndarray

    @classmethod
    def from_active(cls, active: ActiveLatents, owners: np.ndarray, positions: np.ndarray) -> Self:
        """`owners` and `positions` are those of the tokens."""
        values, latents = active.values.cpu().numpy(), active.indices.cpu().numpy()
        tokens, columns = np.nonzero(values > 0)
        return cls(owners[tokens], positions[tokens], latents[tokens, columns], values[tokens, columns])

    def pool_rows(self, texts: int) -> list[_Row]:
        """The largest activation of each active latent by text."""
        order = np.lexsort((self.values, self.latents, self.owners))
        owners, latents, values = self.owners[order], self.latents[order], self.values[order]
        last = np.ones(len(owners), bool)  # of equal owner and latent, the largest value is the last
        last[:-1] = (owners[1:] != owners[:-1]) | (latents[1:] != latents[:-1])
        owners, latents, values = owners[last], latents[last].astype(np.int64), values[last].astype(np.float32)
        edges = np.searchsorted(owners, np.arange(texts + 1))
        return [(latents[a:b], values[a:b]) for a, b in pairwise(edges)]


class FeatureReader:
    """A dictionary together with the model that it reads."""

    def __init__(self, dictionary: FeatureDictionary) -> None:
        """Raises UsageError if the model is missing or has changed."""
        self.dictionary = dictionary
        self._reader: ActivationReader = dictionary.open_reader()
        self._learned, self._random = (
            part.to(self._reader.device) for part in (dictionary.autoencoder, dictionary.random)
        )

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Texts as tokens, at most as many of each as the dictionary's context."""
        return self._reader.encode(texts, self.dictionary.reader.context)

    def pool(
        self, texts: Sequence[EncodedText], progress: Callable[[int], None] = lambda _tokens: None
    ) -> BothFeatures:
        """The features of each text, max-pooled over its tokens. A text without tokens has none."""
        pooled: tuple[list[_Row], list[_Row]] = ([_NO_ROW] * len(texts), [_NO_ROW] * len(texts))
        for places, *sides in self.read_tokens(texts, progress):
            for rows, side in zip(pooled, sides, strict=True):
                for place, row in zip(places, side.pool_rows(len(places)), strict=True):
                    rows[place] = row
        return BothFeatures(
            *(PooledFeatures.from_documents(rows, size) for rows, size in zip(pooled, self.sizes, strict=True))
        )

    @property
    def sizes(self) -> tuple[int, int]:
        """The latents of both dictionaries."""
        return self._learned.latents, self._random.latents

    def read_tokens(
        self, texts: Sequence[EncodedText], progress: Callable[[int], None] = lambda _tokens: None
    ) -> Iterator[tuple[list[int], TokenFeatures, TokenFeatures]]:
        """Batches of texts: their places, and the active latents of their tokens by both dictionaries."""
        for batch in self._reader.read(texts, progress):
            kept = batch.activations.float().norm(dim=1) <= self.dictionary.reader.norm_limit
            owners, positions = (part[kept.cpu()].numpy() for part in (batch.owners, batch.positions))
            activations = batch.activations[kept]
            learned, random = (
                TokenFeatures.from_active(_encode_in_parts(part, activations), owners, positions)
                for part in (self._learned, self._random)
            )
            yield batch.places, learned, random

    def locate(self, texts: Sequence[EncodedText], latents: Sequence[int]) -> list[np.ndarray]:
        """The activations of one learned latent per text, token by token: for each text, an array of shape (tokens,)."""
        found = [np.zeros(len(text.ids), np.float32) for text in texts]
        for places, tokens, _ in self.read_tokens(texts):
            wanted = np.array([latents[place] for place in places])[tokens.owners]
            mine = np.flatnonzero(tokens.latents == wanted)
            for entry in mine:
                found[places[tokens.owners[entry]]][tokens.positions[entry]] = tokens.values[entry]
        return found


@torch.inference_mode()
def _encode_in_parts(autoencoder: TopKAutoencoder, activations: torch.Tensor) -> ActiveLatents:
    parts = [autoencoder.encode(part) for part in activations.split(2_048)]  # type: ignore[no-untyped-call]
    return ActiveLatents(*(torch.cat([part[index] for part in parts]) for index in (0, 1)))

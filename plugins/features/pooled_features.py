"""Features of documents: which latents of a dictionary are active in each, and how strongly. Knows no model and no dictionary."""

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class PooledFeatures(NamedTuple):
    """Documents as sparse rows: the largest activation of each latent over the tokens of a document (max-pooling)."""

    latents: Ints
    """The active latents of all documents end to end, in ascending order within a document."""
    values: npt.NDArray[np.float32]
    """Their largest activations."""
    starts: Ints
    """The start of each document, and the end of the last."""
    size: int
    """Latents of the dictionary."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def from_documents(cls, documents: list[tuple[Ints, npt.NDArray[np.float32]]], size: int) -> Self:
        """From the latents and the activations of each document."""
        starts = np.cumsum([0, *(len(latents) for latents, _ in documents)])
        latents = np.concatenate([np.zeros(0, np.int64), *(latents for latents, _ in documents)])
        values = np.concatenate([np.zeros(0, np.float32), *(values for _, values in documents)])
        return cls(latents, values, starts, size)

    @property
    def owners(self) -> Ints:
        """The document of each entry."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def take(self, places: Ints) -> Self:
        """The documents at `places`, in that order."""
        spans = [slice(self.starts[place], self.starts[place + 1]) for place in places]
        return self.from_documents([(self.latents[span], self.values[span]) for span in spans], self.size)

    def keep_present(self, thresholds: npt.NDArray[np.float64]) -> Self:
        """Only the entries that reach the threshold of their latent: the features that are present in a document."""
        kept = self.values >= thresholds[self.latents]
        counts = np.bincount(self.owners[kept], minlength=len(self))
        return type(self)(self.latents[kept], self.values[kept], np.concatenate(([0], np.cumsum(counts))), self.size)

    def count_documents(self) -> Ints:
        """Number of documents by latent."""
        return np.bincount(self.latents, minlength=self.size)

    def find_latents(self, place: int) -> Ints:
        return self.latents[self.starts[place] : self.starts[place + 1]]

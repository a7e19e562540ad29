"""The features of documents, and feature gaps: latents of a dictionary that are active in real text and not in a dataset.
Decides no verdict.

A feature is present in a document if its largest activation there reaches its threshold, which comes from the reference
alone. The test is that of `plugins.features.coverage_gaps`. Documents must be truncated to matched lengths before: a longer
document has more features, in any dictionary (r = 0.93 between tokens and active latents, of a random dictionary too).
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from plugins.features.coverage_gaps import ItemsByDocument, LackingItems, SeedChooser, find_lacking_items

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


Floats = npt.NDArray[np.float64]

THRESHOLD_DOCUMENTS = 200
"""One of this number of documents of the reference reaches a latent's percentile, the 99.5th of its largest activations. A latent
that is active in fewer is not tested."""
THRESHOLD_SHARE = 0.3
"""A feature is present from this share of that percentile on: weaker activations of a TopK autoencoder are mostly noise."""
EVERYWHERE_SHARE = 0.5
"""A feature in more documents of both sides together distinguishes no documents and is not tested."""
FEW_DOCUMENTS = 200
"""With fewer documents on a side, only large gaps of common features can be significant."""


class FeatureGapsFound(NamedTuple):
    lacking: LackingItems
    """Latents, largest gaps first."""
    tested: int
    known_share: float
    """Share of the features of the reference that are present anywhere in the dataset."""


def compute_thresholds(reference: PooledFeatures) -> Floats:
    """By latent; infinite for a latent that is active in too few documents."""
    documents = len(reference)
    rank = -(-documents // THRESHOLD_DOCUMENTS)  # the number of documents that reach the percentile
    order = np.lexsort((-reference.values, reference.latents))
    latents, values = reference.latents[order], reference.values[order]
    starts = np.searchsorted(latents, np.arange(reference.size))
    counts = reference.count_documents()
    thresholds = np.full(reference.size, np.inf)
    enough = counts >= max(1, rank)
    thresholds[enough] = THRESHOLD_SHARE * values[starts[enough] + max(1, rank) - 1]
    return thresholds


def compute_matched_thresholds(reference: PooledFeatures, present: PooledFeatures) -> Floats:
    """For a control: thresholds from which its latents are present in as many documents of the reference as those of `present`,
    the most active latent in as many as the most frequent one. By the rule above, most latents of a random dictionary would be
    present in over half of all documents, and a control that is not tested finds nothing.
    """
    wanted = np.sort(present.count_documents())[::-1]
    counts = reference.count_documents()
    most_active = np.argsort(-counts, kind="stable")[: wanted.size]
    wanted = np.minimum(wanted[: most_active.size], counts[most_active])
    order = np.lexsort((-reference.values, reference.latents))
    starts = np.searchsorted(reference.latents[order], most_active)
    used = wanted > 0
    thresholds = np.full(reference.size, np.inf)
    thresholds[most_active[used]] = reference.values[order][starts[used] + wanted[used] - 1]
    return thresholds


def find_feature_gaps(own: PooledFeatures, reference: PooledFeatures, thresholds: Floats) -> FeatureGapsFound:
    """Gaps of the first side; both contain only the features that are present (`PooledFeatures.keep_present`)."""
    here, real = own.count_documents(), reference.count_documents()
    sizes = (len(own), len(reference))
    # The totals of both sides are fixed in Fisher's test, so choosing features by them keeps its error.
    tested = np.isfinite(thresholds) & (here + real > 0) & (here + real <= EVERYWHERE_SHARE * sum(sizes))
    lacking = find_lacking_items(np.where(tested, here, 0), np.where(tested, real, 0), sizes=sizes)
    in_real = real > 0
    known = float((here[in_real] > 0).mean()) if in_real.any() else 0.0
    return FeatureGapsFound(lacking, int(np.count_nonzero(tested)), known)


def choose_gap_documents(reference: PooledFeatures, lacking: LackingItems, most: int) -> list[tuple[int, Ints]]:
    """At most `most` documents of the reference that cover the lacking features, each with those that it has."""
    wanted = np.zeros(reference.size, dtype=bool)
    wanted[lacking.places] = True
    used = wanted[reference.latents]
    counts = np.bincount(reference.owners[used], minlength=len(reference))
    items = ItemsByDocument(reference.latents[used], np.concatenate(([0], np.cumsum(counts))))
    none = LackingItems(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    chooser = SeedChooser(items, np.zeros(len(reference), np.int64), none, lacking, wanted)
    return chooser.choose(most)


def choose_examples(reference: PooledFeatures, latent: int, place: int, most: int) -> list[int]:
    """At most `most` other documents with a latent that the document at `place` has, evenly spaced from it on, so that the seeds
    of a feature get different ones.
    """
    having = np.unique(reference.owners[reference.latents == latent])
    others = np.roll(having, -int(np.searchsorted(having, place, side="right")))
    others = others[others != place]
    count = min(most, others.size)
    return [int(others[number * others.size // count]) for number in range(count)]


def find_strongest_documents(reference: PooledFeatures, latent: int, most: int) -> Sequence[int]:
    """The documents in which a latent is most active, strongest first."""
    entries = np.flatnonzero(reference.latents == latent)
    entries = entries[np.argsort(-reference.values[entries], kind="stable")[:most]]
    return [int(np.searchsorted(reference.starts, entry, side="right")) - 1 for entry in entries]
